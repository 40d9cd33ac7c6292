"""Clean against robust accuracy, a point a model, each with a name that lies on nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import cos, pi, sin
from pathlib import Path
from typing import TYPE_CHECKING

from hierbench.board.ledger import Placed
from hierbench.errors import InputError
from hierbench.evaluation.records import Proportion
from hierbench.reporting.comparable import SAME_GROUND, check_comparable
from hierbench.reporting.grid import key_of, records_of
from hierbench.reporting.plots.style import COLUMN, Look, figure, kind_of, plain, save
from hierbench.reporting.standings import Shown, figures, names_of, standings_of, trusted

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.transforms import Bbox

DIRECTIONS = 16
DISTANCES = (5.0, 9.0, 14.0, 20.0, 28.0, 38.0, 50.0, 64.0, 80.0)
"""Points between a mark and its name: the nearest free place is taken."""


@dataclass(frozen=True)
class Point:
    """One model."""

    name: str
    clean: Proportion
    robust: Proportion


def plane_points(placed: Sequence[Placed], shown: Shown, *, depth: int | None = None) -> list[Point]:
    """Return each model's clean and robust accuracy at one depth (None: the leaves); one ground."""
    kept, _ = trusted(placed)
    standings = standings_of(kept)
    check_comparable(records_of(standings), SAME_GROUND, share="share a picture")
    names, points = names_of(standings), []
    for standing in standings:
        found = [f for f in figures(standing, shown) if depth is None or f.depth == depth]
        if found and found[-1].robust is not None:
            points.append(Point(names[key_of(standing)], found[-1].clean, found[-1].robust))
    if not points:
        raise InputError(f"nothing to draw: no record was attacked there and scored by {shown.scoring}")
    return points


def draw_plane(
    placed: Sequence[Placed], shown: Shown, path: Path, *, depth: int | None = None, width: float = COLUMN
) -> Path:
    """Write clean against robust accuracy with Wilson 95 % bars; the grey line is robust = clean."""
    kind_of(path)
    points = plane_points(placed, shown, depth=depth)
    leaf = placed[0].record.depths[-1].depth
    where = "the leaves" if depth in (None, leaf) else f"depth {depth}"
    with figure(width, 0.85 * width) as drawn:
        axes = drawn.subplots()
        marks = []
        for number, point in enumerate(points):
            look, x, y = Look.of(number), 100 * point.clean.value, 100 * point.robust.value
            bars = axes.errorbar(
                x, y, xerr=_reach(point.clean), yerr=_reach(point.robust), color=look.colour, marker=look.marker,
                markersize=4.5, elinewidth=0.8, capsize=0, linestyle="none", zorder=3,
            )  # fmt: skip
            marks.append(bars)
        axes.set(xlabel=f"clean accuracy at {where} (%)", ylabel=f"robust accuracy at {where} (%)")
        _limits(axes, points)
        axes.grid(True, color="0.9", linewidth=0.5)
        axes.set_axisbelow(True)
        place_names(drawn, axes, points)
        return save(drawn, path)


def _reach(share: Proportion) -> list[list[float]]:
    return [[100 * (share.value - share.low)], [100 * (share.high - share.value)]]


def _limits(axes: Axes, points: Sequence[Point]) -> None:
    """Show the points and their bars with room for names, and the line robust = clean where it crosses the picture."""
    for set_limits, shares in ((axes.set_xlim, [p.clean for p in points]), (axes.set_ylim, [p.robust for p in points])):
        low, high = 100 * min(s.low for s in shares), 100 * max(s.high for s in shares)
        room = max(4.0, 0.15 * (high - low))
        set_limits(max(-2.0, low - room), min(102.0, high + room))
    axes.plot([-5, 105], [-5, 105], color="0.75", linewidth=0.8, zorder=1, scalex=False, scaley=False)


def place_names(drawn: Figure, axes: Axes, points: Sequence[Point]) -> list[Bbox]:
    """Write each point's name at the nearest place where it touches no name, mark or bar, and return the boxes.

    A name further away has a thin line to its mark. The order is that of the points, so places never change.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.transforms import Bbox

    renderer = FigureCanvasAgg(drawn).get_renderer()  # type: ignore[no-untyped-call]
    drawn.draw_without_rendering()
    drawn.set_layout_engine("none")  # places are found in the final frame
    unit = drawn.dpi / 72
    frame = axes.get_window_extent(renderer)
    taken: list[Bbox] = []
    centres = []
    for point in points:
        at = axes.transData.transform((100 * point.clean.value, 100 * point.robust.value))
        left, down = axes.transData.transform((100 * point.clean.low, 100 * point.robust.low))
        right, up = axes.transData.transform((100 * point.clean.high, 100 * point.robust.high))
        centres.append(at)
        taken.append(Bbox.from_extents(at[0] - 3 * unit, at[1] - 3 * unit, at[0] + 3 * unit, at[1] + 3 * unit))
        taken.append(Bbox.from_extents(left, at[1] - unit, right, at[1] + unit))
        taken.append(Bbox.from_extents(at[0] - unit, down, at[0] + unit, up))
    boxes = []
    for number, (point, (x, y)) in enumerate(zip(points, centres, strict=True)):
        look = Look.of(number)
        text = axes.annotate(
            plain(point.name, 28), (100 * point.clean.value, 100 * point.robust.value), xytext=(0, 0),
            textcoords="offset points", fontsize=7, color="black", annotation_clip=False, zorder=5,
            arrowprops={"arrowstyle": "-", "linewidth": 0.5, "color": look.colour, "shrinkA": 0, "shrinkB": 2},
        )  # fmt: skip
        size = text.get_window_extent(renderer)
        place = _free(x, y, size.width, size.height, taken, frame, unit)
        text.set_position(((place.x0 - x) / unit, (place.y0 - y) / unit))
        near = max(place.x0 - x, x - place.x1, place.y0 - y, y - place.y1) < 8 * unit
        if near and text.arrow_patch is not None:
            text.arrow_patch.set_visible(False)
        taken.append(place)
        boxes.append(place)
    return boxes


def _free(x: float, y: float, width: float, height: float, taken: Sequence[Bbox], frame: Bbox, unit: float) -> Bbox:
    """Return the nearest place for a box beside (x, y); where all is taken, the one that covers least."""
    from matplotlib.transforms import Bbox

    best: tuple[float, Bbox] | None = None
    for distance in DISTANCES:
        for step in range(DIRECTIONS):
            angle = 2 * pi * step / DIRECTIONS
            reach = distance * unit
            across = x + reach * cos(angle) + width * (cos(angle) - 1) / 2
            up = y + reach * sin(angle) + height * (sin(angle) - 1) / 2
            box = Bbox.from_bounds(across, up, width, height)
            inside = frame.x0 <= box.x0 and box.x1 <= frame.x1 and frame.y0 <= box.y0 and box.y1 <= frame.y1
            covered = sum(_shared(box.padded(unit), other) for other in taken)
            if inside and not covered:
                return box
            cost = covered + (0.0 if inside else width * height)
            if best is None or cost < best[0]:
                best = (cost, box)
    assert best is not None
    return best[1]


def _shared(one: Bbox, other: Bbox) -> float:
    """Return the area that two boxes share."""
    across = min(one.x1, other.x1) - max(one.x0, other.x0)
    up = min(one.y1, other.y1) - max(one.y0, other.y0)
    return max(0.0, float(across)) * max(0.0, float(up))
