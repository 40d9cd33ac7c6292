"""Pre-training of the small open_clip backbone: nouns first, then images."""
