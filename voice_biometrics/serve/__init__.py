"""A local web page that enrols and verifies voices with a microphone: ``python verify.py serve``."""
