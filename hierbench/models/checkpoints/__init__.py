"""Other people's checkpoint files: opened without running anything, told apart by their keys, fitted strictly."""
