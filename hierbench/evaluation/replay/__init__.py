"""Adversarial images on disk: kept from a run, judged again, and shown to other models."""
