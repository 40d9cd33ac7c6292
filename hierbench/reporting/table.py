"""A table before it has a format: values with their meaning, so that every format shows the same numbers."""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass
from typing import Literal

Kind = Literal["text", "integer", "number", "share"]
Scalar = str | int | float | bool | None


@dataclass(frozen=True, slots=True)
class Value:
    """One entry; ``None`` was not measured. Shares are fractions in [0, 1], with their interval where there is one."""

    content: str | int | float | None
    kind: Kind = "text"
    low: float | None = None
    high: float | None = None
    grey: bool = False
    """Shown pale: not to be relied on."""
    mark: str = ""
    """Sign of a footnote behind the entry."""


@dataclass(frozen=True, slots=True)
class Table:
    """A titled table for people; ``columns`` are headings, ``notes`` stand under it."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Value, ...], ...]
    notes: tuple[str, ...] = ()
    spare: tuple[str, ...] = ()
    """Columns that follow from the others, left out where there is no room."""


Row = dict[str, Scalar]
"""One line of the long form for machines: plain numbers by column name."""


@dataclass(frozen=True)
class Report:
    """One layout of some records: the tables for people, and the same figures in long form."""

    tables: tuple[Table, ...]
    rows: tuple[Row, ...]


EMPTY = "–"


def format_value(value: Value, *, intervals: bool = True, stacked: bool = False) -> str:
    """Return an entry as plain text: shares in percent with one decimal, ``[low, high]`` behind or (stacked) under it.

    >>> format_value(Value(0.4312, "share", low=0.38, high=0.4834))
    '43.1 [38.0, 48.3]'
    >>> format_value(Value(None, "share"))
    '–'
    """
    content = value.content
    if content is None:
        return EMPTY
    if value.kind == "share" and isinstance(content, (int, float)):
        text = f"{100 * content:.1f}"
        if intervals and value.low is not None and value.high is not None:
            low, high = f"{100 * value.low:.1f}", f"{100 * value.high:.1f}"
            text += f"\n{low}–{high}" if stacked else f" [{low}, {high}]"
        return text
    if value.kind == "number" and isinstance(content, (int, float)):
        return f"{content:.2f}"
    return str(content)


def printable(text: str) -> str:
    r"""Return a text on one line without control, formatting and private characters, which hide or reorder text.

    >>> printable("a\x1b[31m b") == "a\N{REPLACEMENT CHARACTER}[31m b"
    True
    """
    return "".join(
        "\N{REPLACEMENT CHARACTER}" if unicodedata.category(c)[0] == "C" else c for c in " ".join(text.split())
    )
