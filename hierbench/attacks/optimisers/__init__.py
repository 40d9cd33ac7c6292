"""How an attack moves an image, given gradients or answers."""
