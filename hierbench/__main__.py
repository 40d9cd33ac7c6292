"""``python -m hierbench``."""

from hierbench.cli import main

main()
