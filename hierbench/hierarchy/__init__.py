"""Class trees: reading, checking, building and drawing them; numpy only, no torch."""
