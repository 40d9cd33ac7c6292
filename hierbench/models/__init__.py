"""Models: a backbone after a defence, and the heads and geometry it answers with."""
