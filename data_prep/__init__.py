"""A corpus on disk becomes manifests and trial lists; one module a corpus."""
