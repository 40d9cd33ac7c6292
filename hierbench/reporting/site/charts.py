"""Curves as plain geometry, which a template draws as inline SVG: themed by the style sheet, legible in print."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from hierbench.reporting.site.figures import Figure

WIDTH, HEIGHT = 420.0, 270.0
LEFT, RIGHT, TOP, BOTTOM = 36.0, 84.0, 12.0, 40.0
STYLES = 6
"""Colours, dashes and marks in the style sheet; after these they begin again."""
_LABEL_GAP = 13.0


@dataclass(frozen=True)
class Point:
    """A measured point: its place, and the ends of its interval."""

    x: float
    y: float
    low: float
    high: float
    title: str


@dataclass(frozen=True)
class Line:
    """One curve with its label behind the last point."""

    name: str
    style: int
    points: tuple[Point, ...]
    label_y: float

    @property
    def path(self) -> str:
        """The points as SVG path data."""
        return "M" + " L".join(f"{p.x:.1f} {p.y:.1f}" for p in self.points)


@dataclass(frozen=True)
class Tick:
    """A mark on an axis."""

    at: float
    text: str


@dataclass(frozen=True)
class Chart:
    """A drawing of accuracies in percent over something."""

    title: str
    summary: str
    x_label: str
    lines: tuple[Line, ...]
    x_ticks: tuple[Tick, ...]
    y_ticks: tuple[Tick, ...]
    baseline: str
    """Path of the chance level; empty without one."""

    width, height = WIDTH, HEIGHT
    left, right, top, bottom = LEFT, WIDTH - RIGHT, TOP, HEIGHT - BOTTOM


@dataclass(frozen=True)
class Series:
    """What a curve shows: a figure for some of the places on the x axis."""

    name: str
    values: tuple[tuple[float, Figure], ...]
    """(x, figure), x ascending."""


def make_chart(
    title: str,
    x_label: str,
    series: Sequence[Series],
    ticks: Sequence[tuple[float, str]],
    chance: Sequence[tuple[float, float]] = (),
) -> Chart:
    """Lay a chart out: y from 0 to 100 %, x over the ticks (value, text); ``chance`` are (x, level) of a thin line."""
    places = [value for value, _ in ticks]
    low, high = min(places), max(places)
    span = (high - low) or 1.0

    def across(value: float) -> float:
        return LEFT + (WIDTH - RIGHT - LEFT) * ((value - low) / span if high > low else 0.5)

    def up(share: float) -> float:
        return TOP + (HEIGHT - BOTTOM - TOP) * (1.0 - share)

    shown = [s for s in series if s.values]
    points = [
        tuple(
            Point(across(x), up(f.value), up(f.low), up(f.high), f"{s.name}, {_tick(ticks, x)}: {f.text} % ({f.title})")
            for x, f in s.values
        )
        for s in shown
    ]
    heights = _apart([row[-1].y for row in points])
    lines = tuple(
        Line(s.name, number % STYLES, row, height)
        for number, (s, row, height) in enumerate(zip(shown, points, heights, strict=True))
    )
    level = "M" + " L".join(f"{across(x):.1f} {up(share):.1f}" for x, share in chance) if len(chance) > 1 else ""
    return Chart(
        title=title,
        summary="; ".join(
            f"{s.name}: " + ", ".join(f"{_tick(ticks, x)} {f.text} %" for x, f in s.values) for s in shown
        ),
        x_label=x_label,
        lines=lines,
        x_ticks=_thinned([Tick(across(value), text) for value, text in ticks]),
        y_ticks=tuple(Tick(up(share), f"{100 * share:.0f}") for share in (0.0, 0.25, 0.5, 0.75, 1.0)),
        baseline=level,
    )


def _tick(ticks: Sequence[tuple[float, str]], x: float) -> str:
    return next((text for value, text in ticks if value == x), f"{x:g}")


def _thinned(ticks: Sequence[Tick]) -> tuple[Tick, ...]:
    """Drop the texts that would run into the one before; a mark stays at each place."""
    kept: list[Tick] = []
    edge = -1e9
    for tick in ticks:
        half = 3.4 * len(tick.text)
        fits = tick.at - half > edge
        kept.append(tick if fits else Tick(tick.at, ""))
        edge = tick.at + half + 2 if fits else edge
    return tuple(kept)


def _apart(heights: Sequence[float]) -> list[float]:
    """Return label heights in the order given, moved as little as keeps them from running into each other."""
    order = sorted(range(len(heights)), key=lambda i: (heights[i], i))
    placed = list(heights)
    for above, below in pairwise(order):
        placed[below] = max(placed[below], placed[above] + _LABEL_GAP)
    floor = HEIGHT - BOTTOM
    for index in reversed(order):  # what was pushed below the axis pushes back
        placed[index] = min(placed[index], floor)
        floor = placed[index] - _LABEL_GAP
    return placed
