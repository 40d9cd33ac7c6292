"""The attacks by name: each a plan of objectives and optimisers."""
