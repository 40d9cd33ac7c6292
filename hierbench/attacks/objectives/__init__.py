"""What an attack maximises, given logits."""
