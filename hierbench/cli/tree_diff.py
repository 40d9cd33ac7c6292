"""Prints what differs between two class trees."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from hierbench.cli.common import console

if TYPE_CHECKING:
    from hierbench.hierarchy.diff import DepthDiff, TreeDiff
    from hierbench.hierarchy.tree import Hierarchy, Node

NODES_SHOWN = 12


def print_diff(found: TreeDiff, *, shown: int | None) -> None:
    """Print a comparison: a table of the depths, the nodes of one tree alone, and up to ``shown`` moved classes."""
    from rich.table import Table

    out = console()
    first, second = _name(found.before), _name(found.after)
    if found.before == found.after:
        out.print(f"{first} and {second} are the same tree, {found.before.content_hash}", soft_wrap=True)
        return
    table = Table(caption="agreement: adjusted Rand index, 1 for the same groups, 0 for groups by chance")
    for column in ("depth", "nodes", "nodes there", "agreement", "best there", "classes moved"):
        table.add_column(column, justify="right")
    for row in found.depths:
        table.add_row(
            str(row.depth),
            str(row.before),
            "none" if row.after is None else str(row.after),
            "none" if row.agreement is None else f"{row.agreement:.3f}",
            f"depth {row.best_depth}: {row.best_agreement:.3f}",
            str(len(row.moved)),
        )
    shapes = " against ".join(
        "/".join(str(len(level)) for level in tree.levels) for tree in (found.before, found.after)
    )
    out.print(f"{first} against {second}: nodes {shapes}", soft_wrap=True)
    out.print(table)
    for name, nodes in ((first, found.only_before), (second, found.only_after)):
        if nodes:
            out.print(f"only in {name}, {len(nodes)}: {_names(nodes)}", soft_wrap=True)
    for row in found.depths:
        for line in _moved(found.before, row, shown):
            out.print(line, soft_wrap=True)


def _name(tree: Hierarchy) -> str:
    return f"{tree.dataset}/{tree.tree}"


def _names(nodes: Sequence[Node]) -> str:
    more = f" and {len(nodes) - NODES_SHOWN} more" if len(nodes) > NODES_SHOWN else ""
    return ", ".join(f"{node.name} ({node.id})" for node in nodes[:NODES_SHOWN]) + more


def _moved(tree: Hierarchy, row: DepthDiff, shown: int | None) -> list[str]:
    lines = [
        f"depth {row.depth}: {tree.leaves[one.label].name} moved from {one.before.name} to {one.after.name}"
        for one in row.moved[:shown]
    ]
    if len(lines) < len(row.moved):
        lines.append(f"depth {row.depth}: and {len(row.moved) - len(lines)} more; --moved lists them all")
    return lines
