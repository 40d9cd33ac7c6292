"""A class tree as two drawings: its levels side by side, and its branches to open."""

from __future__ import annotations

from dataclasses import dataclass

from hierbench.hierarchy.shape import child_lists
from hierbench.hierarchy.tree import Hierarchy

MOST_ROWS = 130
"""Nodes of the deepest level that is drawn: a taller drawing is no overview any more."""
ROW = 17.0
COLUMN = 210.0
TINTS = 6
_LONGEST = 30
"""Letters that fit a column."""


@dataclass(frozen=True)
class Box:
    """One node in the drawing of the levels."""

    x: float
    y: float
    width: float
    height: float
    text: str
    title: str
    tint: int


@dataclass(frozen=True)
class LevelDrawing:
    """The levels from the coarsest to the deepest that can be read, one column each."""

    boxes: tuple[Box, ...]
    depths: tuple[int, ...]
    width: float
    height: float
    left_out: int
    """Deeper levels that are not drawn."""


@dataclass(frozen=True)
class Branch:
    """A node of the whole tree with what lies under it."""

    name: str
    id: str
    classes: int
    branches: tuple[Branch, ...]
    leaves: tuple[tuple[str, str], ...]
    """(name, id) of the classes right under it."""


def draw_levels(hierarchy: Hierarchy) -> LevelDrawing:
    """Lay the levels out: every row is a node of the deepest drawn level, every box as tall as the rows it holds."""
    order = hierarchy.shape.leaf_order
    drawn = [level for level in hierarchy.levels if len(level) <= MOST_ROWS] or [hierarchy.level(1)]
    rows = drawn[-1].leaf_to_node[order]
    # rows are numbered as the walk over the tree meets them
    row_of: dict[int, int] = {}
    for node in rows.tolist():
        row_of.setdefault(node, len(row_of))
    tint = hierarchy.level(1).leaf_to_node[order]
    boxes: dict[int, Box] = {}
    for column, level in enumerate(drawn):
        nodes = level.leaf_to_node[order].tolist()
        spans: dict[int, tuple[int, int, int]] = {}
        for place, node in enumerate(nodes):
            row = row_of[int(rows[place])]
            first, _, branch = spans.get(node, (row, row, int(tint[place])))
            spans[node] = (first, row, branch)
        for node, (first, last, branch) in spans.items():
            position = int(level.positions[node])
            held = int(level.leaf_counts[node])
            name = level.nodes[node].name
            x = boxes[position].x if position in boxes else column * COLUMN  # a ragged leaf stands in several levels
            boxes[position] = Box(
                x=x,
                y=first * ROW,
                width=(column + 1) * COLUMN - x,
                height=(last - first + 1) * ROW,
                text=name if len(name) <= _LONGEST else f"{name[: _LONGEST - 1]}…",
                title=f"{name}: 1 class" if held == 1 else f"{name}: {held} classes",
                tint=branch % TINTS,
            )
    return LevelDrawing(
        boxes=tuple(boxes.values()),
        depths=tuple(level.depth for level in drawn),
        width=len(drawn) * COLUMN,
        height=len(row_of) * ROW,
        left_out=len(hierarchy.levels) - len(drawn),
    )


def branches_of(hierarchy: Hierarchy) -> Branch:
    """Return the whole tree, nodes between the levels included, children in the file's order."""
    shape = hierarchy.shape
    below = child_lists(shape.parent.tolist())

    def branch(node: int) -> Branch:
        inner = tuple(branch(child) for child in below[node] if below[child])
        outer = tuple((hierarchy.nodes[c].name, hierarchy.nodes[c].id) for c in below[node] if not below[c])
        own = hierarchy.nodes[node]
        return Branch(own.name, own.id, int(shape.num_leaves[node]), inner, outer)

    return branch(shape.root)
