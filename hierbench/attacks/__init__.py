"""Attacks: objectives know depths and nodes, optimisers know gradients and budgets, one engine runs any pair."""
