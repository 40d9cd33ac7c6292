"""Running an attack on a model over a dataset, and keeping what came out."""
