"""Rooms, noise, microphones and telephone lines for training crops and evaluation conditions."""
