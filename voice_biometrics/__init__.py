"""What the scripts of the voice-biometrics recipe share; each module has one job."""
