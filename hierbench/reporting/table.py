"""A table before it has a format: values with their meaning, so that every format shows the same numbers."""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass
from typing import Literal

Kind = Literal["text", "integer", "number", "share", "points", "p"]
"""``points``: a difference of two shares, with its sign; ``p``: a p value."""
Intervals = Literal["none", "differences", "wilson", "pm"]
"""Which intervals people see: none; those of differences; all; all as +- half their width."""
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
    rank: Literal[0, 1, 2] = 0
    """1: best of its column and block (bold); 2: second (underlined)."""


@dataclass(frozen=True, slots=True)
class Table:
    """A titled table for people; ``columns`` are headings, ``notes`` stand under it."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Value, ...], ...]
    notes: tuple[str, ...] = ()
    spare: tuple[str, ...] = ()
    """Columns that follow from the others, left out where there is no room."""
    groups: tuple[str, ...] = ()
    """A heading above each column, shared by neighbours; empty where there is none."""
    rules: tuple[int, ...] = ()
    """Rows that begin a block: a line is drawn above each."""
    label: str = ""
    """What a paper refers to it by."""
    intervals: Intervals = "wilson"


Row = dict[str, Scalar]
"""One line of the long form for machines: plain numbers by column name."""


@dataclass(frozen=True)
class Report:
    """One layout of some records: the tables for people, and the same figures in long form."""

    tables: tuple[Table, ...]
    rows: tuple[Row, ...]


def is_heading(row: tuple[Value, ...]) -> bool:
    """Return whether a row only names the rows below it: nothing stands behind its first entry."""
    return len(row) > 1 and row[0].content != "" and all(value.content == "" for value in row[1:])


EMPTY = "–"


def format_value(value: Value, *, intervals: bool | Intervals = True, stacked: bool = False) -> str:
    """Return an entry as plain text: shares in percent with one decimal, ``[low, high]`` behind or (stacked) under it.

    >>> format_value(Value(0.4312, "share", low=0.38, high=0.4834))
    '43.1 [38.0, 48.3]'
    >>> format_value(Value(0.4312, "share", low=0.38, high=0.4834), intervals="pm")
    '43.1 ± 5.2'
    >>> format_value(Value(-0.004, "points"))
    '−0.4'
    >>> format_value(Value(None, "share"))
    '–'
    """
    content = value.content
    if content is None:
        return EMPTY
    if isinstance(content, str) or value.kind in ("text", "integer"):
        return str(content)
    if value.kind == "number":
        return f"{content:.2f}"
    if value.kind == "p":
        return "<0.001" if content < 0.001 else f"{content:.3f}"
    interval = format_interval(value, intervals=intervals, stacked=stacked)
    gap = "" if not interval else "\n" if stacked else " "
    return f"{_percent(content, value.kind)}{gap}{interval}"


def format_interval(value: Value, *, intervals: bool | Intervals = True, stacked: bool = False) -> str:
    """Return the interval of an entry alone, or nothing where there is none or none is wanted."""
    wanted = (
        intervals is True or intervals in ("wilson", "pm") or (intervals == "differences" and value.kind == "points")
    )
    if not wanted or value.content is None or value.low is None or value.high is None:
        return ""
    if intervals == "pm":
        return f"± {50 * (value.high - value.low):.1f}"
    low, high = _percent(value.low, value.kind), _percent(value.high, value.kind)
    return f"{low}–{high}" if stacked and value.kind == "share" else f"[{low}, {high}]"


def _percent(share: float, kind: Kind) -> str:
    if kind != "points":
        return f"{100 * share:.1f}"
    text = f"{100 * share:+.1f}"
    return "0.0" if text in ("+0.0", "-0.0") else text.replace("-", "−")


def printable(text: str) -> str:
    r"""Return a text on one line without control, formatting and private characters, which hide or reorder text.

    >>> printable("a\x1b[31m b") == "a\N{REPLACEMENT CHARACTER}[31m b"
    True
    """
    return "".join(
        "\N{REPLACEMENT CHARACTER}" if unicodedata.category(c)[0] == "C" else c for c in " ".join(text.split())
    )
