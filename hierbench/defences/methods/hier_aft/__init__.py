"""Hier-AFT: its losses, its node points, its negatives, its guards."""
