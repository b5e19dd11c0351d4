"""One module a corpus: its files, speakers, metadata and trial list."""
