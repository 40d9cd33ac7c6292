"""Small things that several commands share."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

from hierbench.errors import InputError

if TYPE_CHECKING:
    from rich.console import Console

FILE_WIDTH = 160
"""Columns of what is written to a file or a pipe."""


def console(*, stderr: bool = False, markup: bool = False) -> Console:
    """Return a console that prints text as it is: no emoji codes, no guessing of numbers, no markup unless asked."""
    from rich.console import Console

    out = Console(stderr=stderr, markup=markup, emoji=False, highlight=False)
    if not out.is_terminal and "COLUMNS" not in os.environ:
        out.width = FILE_WIDTH
    return out


def read_settings(pairs: Sequence[str]) -> dict[str, object]:
    """Return ``name=value`` pairs as a mapping.

    >>> read_settings(["steps=50", "pooling=max"])
    {'steps': '50', 'pooling': 'max'}
    """
    settings: dict[str, object] = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals or not name.strip():
            raise InputError(f"--set: {pair!r} should be name=value, such as steps=50")
        if name.strip() in settings:
            raise InputError(f"--set: {name.strip()} is given twice")
        settings[name.strip()] = value.strip()
    return settings


def read_numbers(flag: str, values: Sequence[str]) -> tuple[int, ...] | None:
    """Return whole numbers given one by one or with commas, None if there are none.

    >>> read_numbers("--depth", ["1,2", "4"])
    (1, 2, 4)
    """
    words = [word.strip() for value in values for word in value.split(",")]
    for word in words:
        if not (word.isascii() and word.isdigit()):
            raise InputError(f"{flag}: {word!r} is not a whole number; give such as 1 or 1,2,3")
    return tuple(int(word) for word in words) or None
