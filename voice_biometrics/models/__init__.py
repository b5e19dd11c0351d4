"""Networks and front ends that SpeechBrain does not have."""
