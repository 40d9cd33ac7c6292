"""Data sets: a catalogue of specifications and one loader."""
