"""Attacked depth x scored depth as a heat map with its numbers, a panel a record."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from textwrap import wrap
from typing import TYPE_CHECKING

from hierbench.board.ledger import Placed
from hierbench.errors import InputError
from hierbench.evaluation.records import Record
from hierbench.reporting.comparable import SAME_GROUND, check_comparable
from hierbench.reporting.layouts import BOUNDED
from hierbench.reporting.plots.style import COLUMN, figure, kind_of, plain, save
from hierbench.reporting.standings import Scoring, attack_names, names_of, standings_of, trusted

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MAP = "cividis"
"""Rises in lightness from dark to light, in grey print and for colour-blind readers too."""
MAX_PANELS = 12


def draw_transfer(placed: Sequence[Placed], scoring: Scoring, path: Path, *, width: float = COLUMN) -> Path:
    """Write robust accuracy by attacked depth (rows; clean on top) and scored depth (columns) of each record."""
    from matplotlib.colors import Normalize

    kind_of(path)
    kept, _ = trusted(placed)
    records = [p.record for p in kept]
    check_comparable(records, SAME_GROUND, share="share a picture")
    standings = standings_of(kept)
    ordered = [p for s in standings for p in s.placed if any(c.scoring == scoring for c in p.record.transfer)]
    if not ordered:
        raise InputError(f"--scoring: no record was scored by {scoring}")
    if len(ordered) > MAX_PANELS:
        raise InputError(f"{len(ordered)} records are too many for one picture; --model and --attack choose some")
    names = names_of(standings)
    attacks = [attack_names([p], ordered)[0] for p in ordered]
    columns = min(len(ordered), 1 if width < 2.5 else max(2, int(width / 1.7)))
    rows = -(-len(ordered) // columns)
    depths, aims = len(records[0].depths), max(len(r.identity.attack.depths) for r in records)
    side = (width - 0.45 - 0.4 * (columns - 1)) / columns / depths
    with figure(width, rows * (max(0.17, 0.7 * side) * (aims + 1) + 0.42) + 0.25) as drawn:
        panels = drawn.subplots(rows, columns, squeeze=False)
        for number, axes in enumerate(panels.flat):
            if number >= len(ordered):
                axes.set_axis_off()
                continue
            record = ordered[number].record
            identity = record.identity.model
            title = plain(names[identity.name, identity.weights_hash], 26)
            if len(set(attacks)) > 1:
                title += "".join(f"\n{plain(line)}" for line in wrap(attacks[number], 17)[:2])
            _panel(axes, record, scoring, Normalize(0, 100), 72 * side)
            axes.set_title(title, pad=3)
        drawn.supxlabel(f"scored depth ({scoring})", fontsize=8)
        drawn.supylabel("attacked depth", fontsize=8)
        return save(drawn, path)


def matrix(record: Record, scoring: Scoring) -> tuple[list[str], list[list[tuple[float, str]]]]:
    """Return the names of the rows, and for each its entries: a share in [0, 1] and its mark; clean first."""
    clean = [(entry.rollup if scoring == "rollup" else entry.direct) for entry in record.depths]
    rows = [[(scores.clean.value, "") for scores in clean if scores is not None]]
    names = ["clean"]
    for aimed in record.identity.attack.depths:
        cells = sorted(
            (c for c in record.transfer if c.scoring == scoring and c.attack_depth == aimed),
            key=lambda c: c.score_depth,
        )
        rows.append([(cell.robust.value, BOUNDED if cell.implied else "") for cell in cells])
        names.append("all" if record.identity.attack.pooled else str(aimed))
    return names, rows


def _panel(axes: Axes, record: Record, scoring: Scoring, scale: object, points: float) -> None:
    import matplotlib as mpl

    names, rows = matrix(record, scoring)
    shares = [[100 * value for value, _ in row] for row in rows]
    colours = mpl.colormaps[MAP]
    axes.imshow(shares, cmap=colours, vmin=0, vmax=100, aspect="auto")
    fine = points >= 30.0
    size = min(7.0, 0.95 * points / (0.64 * (6 if fine else 3.4)))
    for y, row in enumerate(rows):
        for x, (value, mark) in enumerate(row):
            dark = luminance(colours(value)) < 0.18
            number = f"{mark}{100 * value:.1f}" if fine else f"{mark}{100 * value:.0f}"
            axes.text(x, y, number, ha="center", va="center", fontsize=size, color="white" if dark else "black")
    axes.axhline(0.5, color="white", linewidth=2)
    axes.set_xticks(range(len(rows[0])), [str(entry.depth) for entry in record.depths])
    axes.set_yticks(range(len(names)), names)
    axes.tick_params(length=0, pad=2)
    for spine in axes.spines.values():
        spine.set_visible(False)


def luminance(colour: Sequence[float]) -> float:
    """Return the relative luminance of an sRGB colour in [0, 1] (WCAG 2): white 1, black 0.

    >>> round(luminance((1.0, 1.0, 1.0)), 3), luminance((0.0, 0.0, 0.0))
    (1.0, 0.0)
    """
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in colour[:3]]
    return sum(weight * part for weight, part in zip((0.2126, 0.7152, 0.0722), linear, strict=True))
