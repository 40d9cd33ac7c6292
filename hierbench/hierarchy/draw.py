"""Draws a class tree in a terminal, and sums up its levels."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from hierbench.hierarchy.shape import child_lists
from hierbench.hierarchy.tree import Hierarchy

if TYPE_CHECKING:
    from rich.table import Table
    from rich.tree import Tree


def render(hierarchy: Hierarchy, max_depth: int | None = None) -> Tree:
    """Return the tree as rich draws it: names, the depths each node stands in, and how many leaves it holds.

    ``max_depth`` folds everything below the nodes of that level; a depth outside 1..D raises ``InputError``.
    """
    from rich.markup import escape
    from rich.tree import Tree

    cut = hierarchy.level(hierarchy.num_depths if max_depth is None else max_depth)
    children = child_lists(hierarchy.shape.parent.tolist())
    leaf_counts = hierarchy.shape.num_leaves.tolist()
    depths = _depths(hierarchy)
    folded = set(cut.positions.tolist())
    root = hierarchy.shape.root
    top = Tree(f"[bold]{escape(hierarchy.nodes[root].name)}[/] [dim]{leaf_counts[root]} leaves[/]")
    waiting = [(root, top)]
    while waiting:
        position, branch = waiting.pop()
        if position in folded:
            continue
        for child in children[position]:
            label = escape(hierarchy.nodes[child].name)
            if depths[child]:
                label += f" [cyan]depth {depths[child]}[/]"
            if children[child]:
                label += f" [dim]{leaf_counts[child]} leaves[/]"
            waiting.append((child, branch.add(label)))
    return top


def summary(hierarchy: Hierarchy) -> Table:
    """Return a table of the levels, one row a depth, titled with the tree's name and hash.

    Chance is in percent, for a guess that is uniform over the level's nodes (direct) or over the leaves (roll-up),
    with as many samples of every class; majority is the share of the leaves in the largest node.
    """
    from rich.markup import escape
    from rich.table import Table

    table = Table(
        title=f"{hierarchy.dataset}/{hierarchy.tree}: {escape(hierarchy.title)}",
        caption=f"{escape(hierarchy.licence)}; {hierarchy.content_hash}",
    )
    for column in ("depth", "nodes", "leaves a node", "chance direct %", "chance roll-up %", "majority %"):
        table.add_column(column, justify="right")
    for level in hierarchy.levels:
        counts = level.leaf_counts
        shares = counts / counts.sum()
        table.add_row(
            str(level.depth),
            str(len(level)),
            str(counts.min()) if counts.min() == counts.max() else f"{counts.min()} to {counts.max()}",
            f"{100 / len(level):.1f}",
            f"{100 * float(np.sum(shares**2)):.1f}",
            f"{100 * float(shares.max()):.1f}",
        )
    return table


def _depths(hierarchy: Hierarchy) -> list[str]:
    """Return, for each node, the depths of the levels it stands in: "", "2", or "2 to 4" for a ragged leaf."""
    first, last = [0] * len(hierarchy.nodes), [0] * len(hierarchy.nodes)
    for level in hierarchy.levels:
        for position in level.positions.tolist():
            first[position] = first[position] or level.depth
            last[position] = level.depth
    return ["" if not a else str(a) if a == b else f"{a} to {b}" for a, b in zip(first, last, strict=True)]
