"""Tests of hierbench.reporting."""
