"""What is left of each model as one thing changes, eps or the prompt template: same attacks, same images."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction

import numpy as np

from hierbench.board.ledger import Ground, Placed, Standing
from hierbench.evaluation.scores import proportion
from hierbench.reporting.grid import GREY, Key, key_of
from hierbench.reporting.standings import (
    DepthFigures,
    Shown,
    attack_names,
    on_common_attacks,
    standings_of,
    trusted,
)
from hierbench.reporting.subsets import SharedSamples, figures_over, right_over, shared_samples

Place = tuple[str, ...]


@dataclass(frozen=True)
class Axis:
    """What changes."""

    name: str
    value: Callable[[Ground], str]
    order: Callable[[str], Fraction | str]
    place: Callable[[Ground], Place]
    """What is kept, by which figures stand in one table."""
    may_differ: tuple[str, ...] = ()
    """Which of the fields that figures must agree in is the axis itself."""


EPS = Axis("eps", lambda g: g.eps, Fraction, lambda g: (g.dataset, g.tree, g.norm))
TEMPLATE = Axis(
    "template", lambda g: g.template, str, lambda g: (g.dataset, g.tree, g.norm, g.eps), may_differ=("prompt template",)
)


@dataclass(frozen=True)
class Along:
    """Models along an axis, at one place."""

    axis: Axis
    standings: tuple[Standing, ...]
    """What the figures rest on; those of one model and value may have other lists and attacks."""
    shared: SharedSamples
    figures: dict[Key, dict[str, DepthFigures]]
    """By model and the axis' value, at one depth; models without any are not there."""
    left_out: tuple[str, ...]

    @property
    def values(self) -> list[str]:
        """The axis' values, in order."""
        return sorted({self.axis.value(s.ground) for s in self.standings}, key=self.axis.order)

    def standing(self, key: Key, value: str) -> Standing:
        """Return one on which a figure rests."""
        return next(s for s in self.standings if key_of(s) == key and self.axis.value(s.ground) == value)

    def notes(self, shown: Shown) -> list[str]:
        """Return what stands below the figures: what they are, under which attacks, on which images."""
        among = [placed for s in self.standings for placed in s.placed]
        grey = any(f.grey for figures in self.figures.values() for f in figures.values())
        return [
            f"robust: {shown.words()}",
            f"attacks, the same at every {self.axis.name}: {', '.join(attack_names(among, among))}",
            *([self.shared.words()] if self.shared.narrowed else []),
            *([GREY] if grey else []),
            *self.left_out,
        ]


def along(placed: Sequence[Placed], shown: Shown, axis: Axis, *, depth: int | None, share: str) -> list[Along]:
    """Return what is left along an axis at a depth (None: the leaves), one for each place.

    Only the attacks that every model met at every value count, and only the images that all of these records scored:
    neither one attack more nor a longer list at one value may bend a curve. Records that differ in more than these,
    that have nothing in common, or whose verdicts are not beside them, raise ``InputError``; ``share`` is what they
    could not share.
    """
    kept, left_out = trusted(placed)
    places: dict[Place, list[Standing]] = {}
    for standing in standings_of(kept):
        places.setdefault(axis.place(standing.ground), []).append(standing)
    return [_at_one_place(members, shown, axis, depth, left_out, share) for members in places.values()]


def _at_one_place(
    standings: Sequence[Standing], shown: Shown, axis: Axis, depth: int | None, left_out: Sequence[str], share: str
) -> Along:
    cells: dict[tuple[Key, str], Standing] = {}
    for standing in standings:
        where = key_of(standing), axis.value(standing.ground)
        so_far = cells[where].placed if where in cells else ()
        cells[where] = replace(standing, placed=(*so_far, *standing.placed))
    common, notes = on_common_attacks(tuple(cells.values()), everywhere=f" at every {axis.name}")
    wanted = {found.path for cell in common for found in cell.placed}
    met = [replace(s, placed=tuple(p for p in s.placed if p.path in wanted)) for s in standings]
    met = [standing for standing in met if standing.placed]
    shared = shared_samples(met, share=share, may_differ=axis.may_differ)
    figures: dict[Key, dict[str, DepthFigures]] = {key: {} for key in dict.fromkeys(map(key_of, met))}
    for key, value in sorted(cells, key=lambda where: axis.order(where[1])):
        parts = [s for s in met if key_of(s) == key and axis.value(s.ground) == value]
        at = _figures(parts, shown, depth, shared)
        if at is not None:
            figures[key][value] = at
    return Along(axis, tuple(met), shared, {key: at for key, at in figures.items() if at}, (*notes, *left_out))


def _figures(parts: Sequence[Standing], shown: Shown, depth: int | None, shared: SharedSamples) -> DepthFigures | None:
    """Return what one model keeps at one value: the worst over its sample lists, on the images they share."""
    scored = len(parts[0].placed[0].record.depths)
    wanted = scored if depth is None else depth
    if wanted > scored:
        return None
    found = figures_over(parts[0], shown, wanted, shared.rows(parts[0]))
    right = [right_over(s, shown, "robust", wanted, shared.rows(s)) for s in parts]
    known = [part for part in right if part is not None]
    return replace(found, robust=proportion(np.logical_and.reduce(known))) if found is not None and known else None
