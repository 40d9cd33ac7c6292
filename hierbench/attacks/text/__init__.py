"""Attacks on the prompts: synonyms, characters, a masked language model, and perturbed text features. METHODS.md 3."""
