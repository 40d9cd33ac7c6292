"""What the options of tables, comparisons and pictures mean."""

from __future__ import annotations

from typing import cast

from hierbench.errors import InputError
from hierbench.reporting.standings import Scoring


def read_scoring(name: str | None) -> Scoring:
    """Return a scoring by name, rollup for None."""
    if name not in (None, "rollup", "direct"):
        raise InputError(f"--scoring: {name!r} should be rollup or direct")
    return cast(Scoring, name or "rollup")


def read_depths(words: str | None, leaf: int) -> tuple[int, ...]:
    """Return the depths that were named: numbers with commas, ``leaf``, ``all``; none for None.

    >>> read_depths("1,leaf", 5), read_depths("all", 3), read_depths(None, 3)
    ((1, 5), (1, 2, 3), ())
    """
    found: set[int] = set()
    for word in [] if words is None else [word.strip() for word in words.split(",")]:
        if word == "all":
            found |= set(range(1, leaf + 1))
        elif word == "leaf":
            found.add(leaf)
        elif word.isascii() and word.isdigit() and 1 <= int(word) <= leaf:
            found.add(int(word))
        else:
            raise InputError(
                f"--depth: {word!r} should be leaf, all, or a number from 1 to {leaf}; several with commas"
            )
    return tuple(sorted(found))


def read_depth(word: str | None) -> int | None:
    """Return one depth for trees of several heights: a number, or None for the leaves of each."""
    if word in (None, "leaf"):
        return None
    if word is None or not (word.isascii() and word.isdigit() and int(word) > 0):
        raise InputError(f"--depth: {word!r} should be one depth here, such as 1 or leaf")
    return int(word)
