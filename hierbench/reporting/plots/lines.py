"""Robust accuracy over depth, and over eps: a line a model, with its Wilson band."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hierbench.board.ledger import Placed
from hierbench.errors import InputError
from hierbench.evaluation.records import Proportion
from hierbench.reporting.along import EPS, Along, along
from hierbench.reporting.comparable import ADVICE, SAME_GROUND, check_comparable
from hierbench.reporting.grid import key_of, records_of
from hierbench.reporting.plots.style import COLUMN, Look, figure, kind_of, plain, save
from hierbench.reporting.standings import Shown, figures, names_of, standings_of, trusted

if TYPE_CHECKING:
    from matplotlib.axes import Axes


@dataclass(frozen=True)
class Line:
    """One model's points, by rising x."""

    name: str
    x: tuple[float, ...]
    robust: tuple[Proportion, ...]
    clean: tuple[Proportion, ...] = ()
    """Beside each point, for the thin line; empty: none is drawn."""


def depth_lines(placed: Sequence[Placed], shown: Shown) -> list[Line]:
    """Return each model's robust and clean accuracy over the depths it was attacked at; one ground."""
    kept, _ = trusted(placed)
    standings = standings_of(kept)
    check_comparable(records_of(standings), SAME_GROUND, share="share a picture")
    names, lines = names_of(standings), []
    for standing in standings:
        found = [(f, f.robust) for f in figures(standing, shown) if f.robust is not None]
        if found:
            x = tuple(float(f.depth) for f, _ in found)
            lines.append(Line(names[key_of(standing)], x, tuple(r for _, r in found), tuple(f.clean for f, _ in found)))
    return _some(lines, shown)


def eps_lines(found: Along, shown: Shown) -> list[Line]:
    """Return each model's accuracy over eps in units of 1/255; 0 is the clean one."""
    names, lines = names_of(found.standings), []
    for key, by_eps in found.figures.items():
        points = {0.0: next(iter(by_eps.values())).clean}
        points |= {float(Fraction(eps) * 255): at.robust for eps, at in by_eps.items() if at.robust is not None}
        lines.append(Line(names[key], tuple(points), tuple(points.values())))
    return _some(lines, shown)


def at_one_place(placed: Sequence[Placed], shown: Shown, *, depth: int | None = None) -> Along:
    """Return what one picture over eps shows; records of several data sets, trees or norms raise ``InputError``.

    Attacks and images are those that all records share, see ``along``.
    """
    places = along(placed, shown, EPS, depth=depth, share="share a picture")
    if len(places) > 1:
        said = " and ".join(f"{g.dataset}, {g.tree}, {g.norm}" for g in (found.standings[0].ground for found in places))
        raise InputError(f"these records cannot share a picture: they are of {said}; {ADVICE}")
    return places[0]


def _some(lines: list[Line], shown: Shown) -> list[Line]:
    if not lines:
        raise InputError(f"nothing to draw: no record was attacked there and scored by {shown.scoring}")
    return lines


def draw_depths(placed: Sequence[Placed], shown: Shown, path: Path, *, width: float = COLUMN) -> Path:
    """Write accuracy over depth: robust with its Wilson band, clean thin and dashed, chance dotted."""
    kind_of(path)
    lines = depth_lines(placed, shown)
    first = placed[0].record
    with figure(width, 0.78 * width + _legend_height(lines, width)) as drawn:
        axes = drawn.subplots()
        for number, line in enumerate(lines):
            _draw(axes, line, Look.of(number))
        scores = [entry.rollup if shown.scoring == "rollup" else entry.direct for entry in first.depths]
        chance = [100 * s.chance for s in scores if s is not None]
        axes.plot(range(1, len(chance) + 1), chance, color="0.45", linestyle=":", linewidth=1.0, zorder=1)
        ticks = [f"{entry.depth}\n{entry.nodes}" for entry in first.depths]
        axes.set_xticks(range(1, len(ticks) + 1), ticks)
        axes.set(xlabel="depth, and its number of nodes", ylabel="accuracy (%)", ylim=(-2, 102))
        kinds = [("robust", "-", 1.2), ("clean", "--", 0.8), ("chance", ":", 1.0)]
        _finish(
            axes, [axes.plot([], [], color="0.3", linestyle=s, linewidth=w, label=n)[0] for n, s, w in kinds], width
        )
        return save(drawn, path)


def draw_eps(found: Along, shown: Shown, path: Path, *, width: float = COLUMN) -> Path:
    """Write robust accuracy over eps at one depth, from clean at 0, with Wilson bands."""
    kind_of(path)
    lines = eps_lines(found, shown)
    first = found.standings[0].placed[0].record
    at = next(figures for by_eps in found.figures.values() for figures in by_eps.values())
    radii = sorted({x for line in lines for x in line.x})
    with figure(width, 0.72 * width + _legend_height(lines, width)) as drawn:
        axes = drawn.subplots()
        for number, line in enumerate(lines):
            _draw(axes, line, Look.of(number))
        axes.axhline(100 * at.chance, color="0.45", linestyle=":", linewidth=1.0, zorder=1, label="chance")
        axes.set_xticks(radii, [f"{x:g}" for x in radii])
        where = "the leaves" if at.depth == len(first.depths) else f"depth {at.depth}"
        norm = {"linf": r"$\ell_\infty$", "l2": r"$\ell_2$"}[first.identity.attack.norm]
        axes.set(xlabel=f"{norm} radius (1/255), 0: clean", ylabel=f"accuracy at {where} (%)", ylim=(-2, 102))
        _finish(axes, [], width)
        return save(drawn, path)


def _draw(axes: Axes, line: Line, look: Look) -> None:
    robust = [100 * p.value for p in line.robust]
    low, high = [100 * p.low for p in line.robust], [100 * p.high for p in line.robust]
    axes.fill_between(line.x, low, high, color=look.colour, alpha=0.16, linewidth=0, zorder=2)
    style: dict[str, Any] = {"color": look.colour, "marker": look.marker}
    axes.plot(line.x, robust, linestyle=look.dash, label=plain(line.name), zorder=4, **style)
    if line.clean:
        clean = [100 * p.value for p in line.clean]
        axes.plot(
            line.x, clean, linestyle="--", linewidth=0.8, markersize=2.6, markerfacecolor="white", zorder=3, **style
        )


def _finish(axes: Axes, kinds: list[object], width: float) -> None:
    """Add the grid, and a legend above the picture: it never lies on a line."""
    axes.grid(True, color="0.9", linewidth=0.5)
    axes.set_axisbelow(True)
    handles, labels = axes.get_legend_handles_labels()
    longest = max(map(len, labels))
    columns = max(1, min(len(labels), int(width / (0.35 + 0.062 * longest))))
    axes.legend(
        handles, labels, loc="lower left", bbox_to_anchor=(0, 1.01), ncols=columns, frameon=False,
        borderaxespad=0, columnspacing=1.0, handlelength=1.8, handletextpad=0.5,
    )  # fmt: skip


def _legend_height(lines: Sequence[Line], width: float) -> float:
    """Return the inches that a legend of some lines and three kinds takes."""
    longest = max(len(line.name) for line in lines)
    columns = max(1, int(width / (0.35 + 0.062 * longest)))
    return 0.14 * -(-(len(lines) + 3) // columns)
