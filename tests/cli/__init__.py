"""Tests of hierbench.cli."""
