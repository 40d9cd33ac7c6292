"""Where the notes on a plan's jobs lie."""

NOTES_FOLDER = ".sweep"
"""Below the results folder."""
