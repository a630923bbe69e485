"""The run folder and everything that is written there."""
