"""The defences, one file or folder each."""
