"""The trainer all defences share."""
