"""Pictures for papers, from the same figures as the tables."""
