"""Demo voices made with eSpeak NG."""
