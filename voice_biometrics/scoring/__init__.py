"""Utterances to embeddings to trial scores; score files."""
