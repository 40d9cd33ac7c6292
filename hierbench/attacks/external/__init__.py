"""Other people's attacks on our models: wrapped, kept from touching anything global, and re-verified."""
