"""The board: folders of checked records, what was submitted with them, and the standings that follow."""
