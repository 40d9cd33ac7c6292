"""The ``hierbench`` command: it parses, calls and prints, and imports what is heavy only when it is used."""

from hierbench.cli.app import main

__all__ = ["main"]
