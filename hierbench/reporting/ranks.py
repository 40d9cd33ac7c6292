"""Best and second of a column, among figures that may be compared."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from hierbench.reporting.table import Value

Line = tuple[Value, ...]


def ranked(rows: Sequence[Line]) -> list[Line]:
    """Return the rows of one comparable block with the best share of each column ranked 1 and the second 2.

    Equal figures share a rank, missing ones have none, and a column with one figure or with equal ones alone is not
    ranked: nothing was compared there. Rows must be of one length.

    >>> rows = ranked([(Value(0.5, "share"),), (Value(0.7, "share"),), (Value(None, "share"),), (Value(0.7, "share"),)])
    >>> [row[0].rank for row in rows]
    [2, 1, 0, 1]
    """
    best: list[list[float]] = []
    for column in zip(*rows, strict=True):
        measured = [v.content for v in column if v.kind == "share" and isinstance(v.content, float)]
        distinct = sorted(set(measured), reverse=True)
        best.append(distinct[:2] if len(distinct) > 1 else [])
    return [tuple(_with_rank(value, top) for value, top in zip(row, best, strict=True)) for row in rows]


def _with_rank(value: Value, top: Sequence[float]) -> Value:
    if value.kind != "share" or value.content not in top:
        return value
    return replace(value, rank=1 if value.content == top[0] else 2)
