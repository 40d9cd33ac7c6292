"""Checks of what is on the board or wants to be: nothing in a package is believed, run or followed as a path."""
