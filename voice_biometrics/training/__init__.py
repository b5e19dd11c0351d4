"""SpeakerBrain, dataset, losses, optimisation, transfer."""
