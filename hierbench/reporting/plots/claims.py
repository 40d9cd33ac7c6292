"""Every measured contrast of a claims file as a row: the difference by seed, its mean and interval, and the verdict."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from hierbench.errors import InputError
from hierbench.reporting.claims.file import LEAF
from hierbench.reporting.claims.judge import Finding, Judged
from hierbench.reporting.plots.style import figure, kind_of, plain, save

if TYPE_CHECKING:
    from matplotlib.axes import Axes

WIDTH = 6.8
ROW = 0.17
"""Height of a row in inches."""
LOOKS = {
    "held": ("#009E73", "o", "#009E73"),
    "did not hold": ("#D55E00", "X", "#D55E00"),
    "not shown": ("#555555", "o", "white"),
}
"""Colour, mark and filling of the mean, by verdict: nothing is told by colour alone."""


def draw_claims(judged: Sequence[Judged], path: Path, *, width: float = WIDTH) -> Path:
    """Write the measured contrasts of every claim, the first claim at the top; none raises ``InputError``."""
    kind_of(path)
    rows: list[tuple[str, Finding | None]] = []
    for entry in judged:
        measured = [finding for finding in entry.findings if finding.seeds]
        rows += [(entry.claim.statement, None)] if measured else []
        rows += [(_words(finding), finding) for finding in measured]
    if not rows:
        raise InputError("nothing to draw: no contrast of the claims was measured")
    with figure(width, 0.6 + ROW * len(rows)) as drawn:
        axes = drawn.subplots()
        axes.axvline(0, color="#999999", linewidth=0.8, zorder=0)
        seen: dict[str, None] = {}
        for place, (words, finding) in enumerate(rows):
            if finding is None:  # a claim's words are long, and its row is empty: they stand in it
                across = axes.get_yaxis_transform()
                # From the right edge over its row's empty label: a long sentence has room on that side only.
                said = plain(words, 120)
                paper = {"facecolor": "white", "edgecolor": "none", "pad": 1.0}  # no axis runs through a sentence
                axes.text(1.0, place, said, fontsize=6, fontweight="bold", ha="right", va="center", transform=across,
                          bbox=paper)  # fmt: skip
                continue
            _draw(axes, place, finding, "" if finding.verdict in seen else finding.verdict)
            seen[finding.verdict] = None
        axes.set_ylim(len(rows) - 0.5, -0.5)
        named = [(place, plain(words, 110)) for place, (words, finding) in enumerate(rows) if finding is not None]
        axes.set_yticks([place for place, _ in named], [words for _, words in named], fontsize=6)
        axes.tick_params(axis="y", length=0)
        axes.set_xlabel("difference in points (claimed: above 0)")
        if axes.get_legend_handles_labels()[0]:
            drawn.legend(loc="outside lower right", ncols=len(seen), frameon=False)
        return save(drawn, path)


def _draw(axes: Axes, place: int, finding: Finding, label: str) -> None:
    colour, mark, filling = LOOKS[finding.verdict]
    points = [100 * difference for difference in finding.differences]
    if len(points) > 1:
        axes.plot(points, [place] * len(points), linestyle="", marker="|", color=colour, markersize=5)
    if finding.low is not None and finding.high is not None:
        axes.plot([100 * finding.low, 100 * finding.high], [place, place], color=colour, linewidth=1.0)
    mean = sum(points) / len(points)
    axes.plot(
        [mean],
        [place],
        linestyle="",
        marker=mark,
        color=colour,
        markerfacecolor=filling,
        markersize=4,
        label=label or None,
    )


def _words(finding: Finding) -> str:
    contrast = finding.contrast
    depth = "leaf" if contrast.depth == LEAF else f"depth {contrast.depth}"
    groups = "" if contrast.classes == "all" else f", {contrast.classes}"
    return f"{contrast.words()} ({contrast.dataset}, {depth}{groups})"
