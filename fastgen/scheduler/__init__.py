"""The loop that keeps the workers busy and commits each result exactly once."""
