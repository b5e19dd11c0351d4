"""One module per corpus: its files, speakers, metadata and trial list."""
