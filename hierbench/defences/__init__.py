"""Training methods: one file a method, and the trainer they share."""
