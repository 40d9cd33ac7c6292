"""Draws the levels of a class tree as a picture: in columns, or in rings where there are many classes."""

from __future__ import annotations

import colorsys
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from hierbench.errors import InputError
from hierbench.hierarchy.tree import Hierarchy

if TYPE_CHECKING:
    from matplotlib.axes import Axes

FORMATS = ("png", "svg", "pdf")
LAYOUTS = ("layered", "radial")
LAYERED_UP_TO = 60
"""Classes up to which a tree is drawn in columns unless told otherwise."""
NAMED_UP_TO = 250
"""Classes up to which every class is named; above, superclasses only."""
_SIZES = (9.0, 8.0, 7.0, 6.0, 5.5)
_LINE = 1.2
_PADDING = 3.0


@dataclass(frozen=True)
class Cell:
    """One node in the picture: the leaves it spans, counted in drawing order, and the depths, both half open."""

    name: str
    first: int
    last: int
    top: int
    bottom: int
    branch: int
    """Which node of depth 1 it lies in."""
    leaf: bool


@dataclass(frozen=True)
class Label:
    """A text that fits its cell: lines, size in points, and whether it runs across the cell's lines of sight."""

    text: str
    size: float
    turned: bool


def cells_of(hierarchy: Hierarchy) -> list[Cell]:
    """Return one cell a node and depth; a ragged leaf, and a node in several depths, is one cell over all of them."""
    shape = hierarchy.shape
    coarsest = hierarchy.level(1)
    found: dict[int, Cell] = {}
    for level in hierarchy.levels:
        for position, node in zip(level.positions.tolist(), level.nodes, strict=True):
            first, last = int(shape.first_leaf[position]), int(shape.last_leaf[position])
            top = found[position].top if position in found else level.depth - 1
            branch = int(coarsest.leaf_to_node[shape.leaf_order[first]])
            found[position] = Cell(
                node.name, first, last, top, level.depth, branch, level.depth == len(hierarchy.levels)
            )
    return list(found.values())


def draw(hierarchy: Hierarchy, path: Path, *, layout: str | None = None) -> Path:
    """Write a picture of the tree's levels to a ``.png``, ``.svg`` or ``.pdf`` file and return its path.

    Every superclass is a cell as wide as its classes are many, named where the name fits; the classes are named up to
    ``NAMED_UP_TO`` of them. ``layout`` is ``layered`` (columns) or ``radial`` (rings), by default by the number of
    classes. Another ending, an unknown layout or a file that cannot be written raises ``InputError``.
    """
    kind = path.suffix.removeprefix(".").lower()
    if kind not in FORMATS:
        raise InputError(f"--picture: {path} should end in {' or '.join('.' + name for name in FORMATS)}")
    if layout is None:
        layout = "layered" if hierarchy.num_leaves <= LAYERED_UP_TO else "radial"
    if layout not in LAYOUTS:
        raise InputError(f"--layout: {layout!r} is none of {', '.join(LAYOUTS)}")
    import matplotlib
    from matplotlib.figure import Figure

    cells = cells_of(hierarchy)
    named = hierarchy.num_leaves <= NAMED_UP_TO
    # nothing in the file may depend on when and where it was drawn
    with matplotlib.rc_context({"svg.hashsalt": "hierbench", "svg.fonttype": "none"}):
        figure = Figure()
        axes = figure.add_axes((0.0, 0.0, 1.0, 1.0))
        axes.set_axis_off()
        paint = _layered if layout == "layered" else _radial
        width, height = paint(axes, hierarchy, cells, named)
        figure.set_size_inches(width / 72, height / 72)
        out = BytesIO()
        metadata: dict[str, Any] = {"svg": {"Date": None}, "pdf": {"CreationDate": None}}.get(kind, {})
        figure.savefig(out, format=kind, dpi=150 if max(width, height) < 72 * 14 else 110, metadata=metadata)
    try:
        path.write_bytes(out.getvalue())
    except OSError as error:
        raise InputError(f"--picture: cannot write {path} ({error.strerror or error})") from None
    return path


def text_width(text: str, size: float) -> float:
    """Return how wide one line is, in points."""
    from matplotlib.font_manager import FontProperties
    from matplotlib.textpath import TextToPath

    width, _, _ = TextToPath().get_text_width_height_descent(text, FontProperties(size=size), ismath=False)
    return float(width)


def fit(name: str, width: float, height: float, *, sizes: tuple[float, ...] = _SIZES) -> Label | None:
    """Return the name broken into lines that fit a box of points, as large as may be, or None if it cannot be."""
    words = name.split(" ")
    for size in sizes:
        widths = [text_width(word, size) for word in words]
        space = text_width("n n", size) - 2 * text_width("n", size)
        for turned, (across, along) in ((False, (width, height)), (True, (height, width))):
            room = across - _PADDING
            if max(widths) > room:
                continue
            lines: list[list[str]] = [[]]
            used = 0.0
            for word, wide in zip(words, widths, strict=True):
                if lines[-1] and used + space + wide > room:
                    lines.append([])
                    used = 0.0
                used += wide + (space if lines[-1] else 0.0)
                lines[-1].append(word)
            if len(lines) * size * _LINE <= along - 1.0:
                return Label("\n".join(" ".join(line) for line in lines), size, turned)
    return None


def _colour(cell: Cell, branches: int, depths: int) -> tuple[float, float, float]:
    """Each branch of depth 1 has a hue, and fades toward the leaves."""
    hue = (cell.branch * 0.61803) % 1.0 if branches > 6 else cell.branch / branches
    fade = (cell.bottom - 1) / max(depths - 1, 1)
    return colorsys.hls_to_rgb(hue, 0.72 + 0.2 * fade, 0.62 - 0.22 * fade)


def _columns(cells: list[Cell], depths: int, row: float, named: bool) -> list[float]:
    """Return where each depth begins and the last one ends, in points: as wide as its names need, within reason."""
    wide = [34.0] * depths
    for cell in cells:
        if cell.leaf and not named:
            continue
        # a name in a tall cell can break into lines; one that spans several depths has room
        lines = max(1, int((cell.last - cell.first) * row / (_SIZES[1] * _LINE)))
        words = cell.name.split(" ")
        need = max(
            max(text_width(word, _SIZES[1]) for word in words),
            text_width(cell.name, _SIZES[1]) / min(lines, len(words)),
        )
        each = min((need + 2 * _PADDING) / (cell.bottom - cell.top), 190.0)
        for depth in range(cell.top, cell.bottom):
            wide[depth] = max(wide[depth], each)
    if not named:
        wide[-1] = 14.0
    return [0.0, *np.cumsum(wide).tolist()]


def _layered(axes: Axes, hierarchy: Hierarchy, cells: list[Cell], named: bool) -> tuple[float, float]:
    from matplotlib.patches import Rectangle

    row = 12.0 if named else 2.0
    edges = _columns(cells, hierarchy.num_depths, row, named)
    width, height = edges[-1], row * hierarchy.num_leaves
    for cell in cells:
        x, y = edges[cell.top], cell.first * row
        across, along = edges[cell.bottom] - x, (cell.last - cell.first) * row
        face = _colour(cell, len(hierarchy.level(1)), hierarchy.num_depths)
        axes.add_patch(Rectangle((x, y), across, along, facecolor=face, edgecolor="white", linewidth=0.8))
        label = None if cell.leaf and not named else fit(cell.name, across, along)
        if label is not None:
            _write(axes, x + across / 2, y + along / 2, label, 90.0 if label.turned else 0.0)
    axes.set_xlim(0, width)
    axes.set_ylim(height, 0)
    return width, height


def _radial(axes: Axes, hierarchy: Hierarchy, cells: list[Cell], named: bool) -> tuple[float, float]:
    from matplotlib.patches import Wedge

    count = hierarchy.num_leaves
    # the rings begin where a single class that stands there still has room for one line of text
    row = 7.4 if named else 0.9
    inner = 40.0
    edges = [inner + x for x in _columns(cells, hierarchy.num_depths, row, named)]
    singles = [edges[cell.top] for cell in cells if cell.last - cell.first == 1 and (named or not cell.leaf)]
    shift = max(0.0, row * count / (2 * np.pi) - min(singles, default=edges[-1])) if named else 60.0
    edges = [edge + shift for edge in edges]
    for cell in cells:
        start, end = (90.0 - 360.0 * at / count for at in (cell.last, cell.first))
        near, far = edges[cell.top], edges[cell.bottom]
        face = _colour(cell, len(hierarchy.level(1)), hierarchy.num_depths)
        axes.add_patch(
            Wedge((0, 0), far, start, end, width=far - near, facecolor=face, edgecolor="white", linewidth=0.5)
        )
        if cell.leaf and not named:
            continue
        share = (cell.last - cell.first) / count
        middle = (start + end) / 2
        # a box inside the wedge: as tall as its chord at the near end, where the wedge is narrowest
        label = fit(cell.name, far - near, _chord(near, share))
        if label is None:
            # else at the far end, on one line, as long as the name is
            near = max(near, far - text_width(cell.name, _SIZES[1]) - 2 * _PADDING)
            label = fit(cell.name, far - near, _chord(near, share), sizes=_SIZES[1:])
        if label is None:
            continue
        radius = (near + far) / 2
        x, y = radius * np.cos(np.radians(middle)), radius * np.sin(np.radians(middle))
        _write(axes, float(x), float(y), label, _upright(middle + (90.0 if label.turned else 0.0)))
    limit = edges[-1] + 4
    axes.set_xlim(-limit, limit)
    axes.set_ylim(-limit, limit)
    axes.set_aspect("equal")
    return 2 * limit, 2 * limit


def _chord(radius: float, share: float) -> float:
    return float(2 * radius * np.sin(np.pi * min(share, 0.5)))


def _upright(angle: float) -> float:
    """Turn a text that would stand on its head."""
    angle = (angle + 180.0) % 360.0 - 180.0
    return angle - 180.0 if angle > 90.0 else angle + 180.0 if angle < -90.0 else angle


def _write(axes: Axes, x: float, y: float, label: Label, angle: float) -> None:
    axes.text(
        x,
        y,
        label.text,
        size=label.size,
        rotation=angle,
        rotation_mode="anchor",
        ha="center",
        va="center",
        color="#222222",
        linespacing=_LINE,
        parse_math=False,
    )
