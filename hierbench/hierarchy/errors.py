"""The error every bad class tree ends in, and safe quoting of what a stranger's file holds."""

from __future__ import annotations

import json

from hierbench.errors import InputError

SHOWN_CHARACTERS = 60


class HierarchyError(InputError):
    """A class tree that cannot be used: one line naming the file, and the node or field at fault.

    ``where`` is the file (or file and line), ``problem`` the rest of the line, ``node`` the id of the node at fault,
    if there is one: a builder uses it to name its own line instead.
    """

    def __init__(self, where: str, problem: str, *, node: str | None = None) -> None:
        self.where = where
        self.problem = problem
        self.node = node
        super().__init__(f"{one_line(where)}: {problem}")


def one_line(text: str) -> str:
    """Return the text as it is if a terminal shows it on one line, else quoted with its escapes."""
    return text if text.isprintable() else ascii(text)


def shown(value: object) -> str:
    r"""Quote a value from a file so that it stays short, printable and on one line.

    >>> print(shown("a\nb"))
    'a\nb'
    """
    if isinstance(value, dict | list | tuple):
        return f"a JSON {'object' if isinstance(value, dict) else 'array'}"
    if value is None or isinstance(value, bool):
        return json.dumps(value)
    if isinstance(value, str) and len(value) > SHOWN_CHARACTERS:
        value = value[:SHOWN_CHARACTERS] + "..."
    text = repr(value)
    return text if text.isprintable() else ascii(value)
