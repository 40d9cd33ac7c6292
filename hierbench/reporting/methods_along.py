"""Models as rows, and as columns the radii or the prompt templates that they met the same attacks at."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from hierbench.board.ledger import Placed
from hierbench.errors import InputError
from hierbench.reporting.along import EPS, TEMPLATE, Along, along
from hierbench.reporting.grid import (
    BLANK,
    RANKS,
    Column,
    column_of,
    grid,
    reference_lines,
    remarks,
    stacked,
)
from hierbench.reporting.labels import ball
from hierbench.reporting.layouts import proportion_value
from hierbench.reporting.methods import standing_row
from hierbench.reporting.ranks import Line, ranked
from hierbench.reporting.standings import Shown, names_of
from hierbench.reporting.table import Report, Row, Table, Value


def methods_along_report(
    placed: Sequence[Placed], shown: Shown, what: Literal["eps", "template"], *, depth: int | None = None
) -> Report:
    """Return models x radii, or models x prompt templates, at one depth (None: the leaves).

    A table for each data set, tree and norm (and radius, where templates differ). Attacks and images are those that all
    records of a table share, see ``along``. Clean accuracy stands once beside radii, and beside each template.
    """
    axis = {"eps": EPS, "template": TEMPLATE}[what]
    found = [one for one in along(placed, shown, axis, depth=depth, share="share a table") if one.figures]
    if not found:
        raise InputError(f"--depth: no record was scored by {shown.scoring} at depth {depth or 'leaf'}")
    made = _eps_table if axis is EPS else _template_table
    return Report(
        tuple(made(one, shown, depth) for one in found), tuple(row for one in found for row in _rows(one, shown))
    )


def _eps_table(found: Along, shown: Shown, depth: int | None) -> Table:
    names, lines = names_of(found.standings), []
    for key, figures in found.figures.items():
        first = next(iter(figures.values()))
        robust = (
            proportion_value(figures[eps].robust, grey=first.grey) if eps in figures else Value(None, "share")
            for eps in found.values
        )
        lines.append((Value(names[key]), proportion_value(first.clean), *robust))
    chance = next(at.chance for figures in found.figures.values() for at in figures.values())
    above: Line = (Value("chance"), Value(chance, "share"), *[BLANK] * len(found.values))
    title = f"{_where(found, depth)} by eps, tree {found.standings[0].ground.tree}, {found.standings[0].ground.norm}"
    return Table(
        f"{title}, n = {len(found.shared.ids)}",
        ("model", "clean", *found.values),
        (above, *ranked(lines)),
        _notes(found, shown),
        label=_label(found),
        intervals="none",
    )


def _template_table(found: Along, shown: Shown, depth: int | None) -> Table:
    columns: list[Column] = []
    for template in found.values:
        cells = {key: figures[template] for key, figures in found.figures.items() if template in figures}
        columns.append(column_of(template, cells))
    threat = ball(found.standings[0].placed[0].record, word=" eps")
    title = f"{_where(found, depth)} by prompt template, tree {found.standings[0].ground.tree}, {threat}"
    table = grid(f"{title}, n = {len(found.shared.ids)}", columns, found.standings)
    return stacked([table], reference_lines(columns)[:1], _notes(found, shown), _label(found))


def _where(found: Along, depth: int | None) -> str:
    where = "the leaves" if depth is None else f"depth {depth}"
    return f"Accuracy (%) on {found.standings[0].ground.dataset} at {where}"


def _notes(found: Along, shown: Shown) -> tuple[str, ...]:
    ground = found.standings[0].ground
    return (
        *([RANKS] if len(found.figures) > 1 else []),
        *found.notes(shown),
        f"protocol {ground.protocol}, {ground.dataset} {ground.split}",
        *remarks([placed for s in found.standings for placed in s.placed], names_of(found.standings)),
    )


def _label(found: Along) -> str:
    ground = found.standings[0].ground
    return f"methods-{found.axis.name}-{ground.protocol}-{ground.dataset}"


def _rows(found: Along, shown: Shown) -> list[Row]:
    rows: list[Row] = []
    for key, figures in found.figures.items():
        for value, at in figures.items():
            standing = found.standing(key, value)
            over: Row = {"samples": len(found.shared.ids), "sample_list_hash": found.shared.hash(standing)}
            rows.append({**standing_row(standing, shown, at), **over})
    return rows
