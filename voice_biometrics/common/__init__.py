"""Errors, whole files, audio, manifests and trial lists: imports nothing of ours."""
