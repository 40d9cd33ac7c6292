"""Models as rows, radii as columns: what is left at one depth as eps grows, on the same images."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction

from hierbench.board.ledger import Placed
from hierbench.errors import InputError
from hierbench.reporting.grid import BLANK, RANKS, key_of, remarks
from hierbench.reporting.layouts import proportion_value
from hierbench.reporting.methods import standing_row
from hierbench.reporting.over_eps import OverEps, over_eps
from hierbench.reporting.ranks import Line, ranked
from hierbench.reporting.standings import Shown, names_of
from hierbench.reporting.table import Report, Row, Table, Value


def methods_eps_report(placed: Sequence[Placed], shown: Shown, *, depth: int | None = None) -> Report:
    """Return models x radii at one depth (None: the leaves), clean first; a table for each data set, tree and norm.

    Attacks and images are those that all records of a table share, see ``over_eps``.
    """
    found = [one for one in over_eps(placed, shown, depth=depth, share="share a table") if one.figures]
    if not found:
        raise InputError(f"--depth: no record was scored by {shown.scoring} at depth {depth or 'leaf'}")
    tables = tuple(_table(one, shown, depth) for one in found)
    return Report(tables, tuple(row for one in found for row in _rows(one, shown)))


def _table(found: OverEps, shown: Shown, depth: int | None) -> Table:
    names, radii, ground = names_of(found.standings), found.radii, found.standings[0].ground
    lines: list[Line] = []
    chance = next(at.chance for figures in found.figures.values() for at in figures.values())
    for key, figures in found.figures.items():
        first = next(iter(figures.values()))
        robust = (
            proportion_value(figures[r].robust, grey=first.grey) if r in figures else Value(None, "share")
            for r in radii
        )
        lines.append((Value(names[key]), proportion_value(first.clean), *robust))
    above = (Value("chance"), Value(chance, "share"), *[BLANK] * len(radii))
    where = "the leaves" if depth is None else f"depth {depth}"
    images = len(found.shared.ids)
    title = f"Accuracy (%) on {ground.dataset} at {where} by eps, tree {ground.tree}, {ground.norm}, n = {images}"
    notes = [
        *([RANKS] if len(lines) > 1 else []),
        *found.notes(shown),
        f"protocol {ground.protocol}, {ground.dataset} {ground.split}",
        *remarks([placed for s in found.standings for placed in s.placed], names),
    ]
    label = f"methods-eps-{ground.protocol}-{ground.dataset}"
    return Table(
        title,
        ("model", "clean", *radii.values()),
        (above, *ranked(lines)),
        tuple(notes),
        label=label,
        intervals="none",
    )


def _rows(found: OverEps, shown: Shown) -> list[Row]:
    rows: list[Row] = []
    for key, figures in found.figures.items():
        for radius, at in figures.items():
            standing = next(s for s in found.standings if key_of(s) == key and Fraction(s.ground.eps) == radius)
            over: Row = {"samples": len(found.shared.ids), "sample_list_hash": found.shared.hash(standing)}
            rows.append({**standing_row(standing, shown, at), **over})
    return rows
