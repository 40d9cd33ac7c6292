"""Tables and progress displays made from records."""
