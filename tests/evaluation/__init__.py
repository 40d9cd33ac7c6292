"""Tests of hierbench.evaluation."""
