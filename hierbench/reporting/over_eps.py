"""What is left of each model as eps grows: the same attacks at every radius, on the same images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction

import numpy as np

from hierbench.board.ledger import Placed, Standing
from hierbench.evaluation.records import Record
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

AttackAt = tuple[str, str, str, tuple[int, ...], bool]


@dataclass(frozen=True)
class OverEps:
    """Models over radii on one data set, tree and norm."""

    standings: tuple[Standing, ...]
    """What the figures rest on; those of one model and radius may have other lists and attacks."""
    shared: SharedSamples
    figures: dict[Key, dict[Fraction, DepthFigures]]
    """By model and radius, at one depth; models without any are not there."""
    left_out: tuple[str, ...]

    @property
    def radii(self) -> dict[Fraction, str]:
        """Each radius as it is written, by size."""
        found = {Fraction(s.ground.eps): s.ground.eps for s in self.standings}
        return {radius: found[radius] for radius in sorted(found)}

    def notes(self, shown: Shown) -> list[str]:
        """Return what stands below the figures: what they are, under which attacks, on which images."""
        among = [placed for s in self.standings for placed in s.placed]
        grey = any(f.grey for figures in self.figures.values() for f in figures.values())
        return [
            f"robust: {shown.words()}",
            f"attacks, the same at every eps: {', '.join(attack_names(among, among))}",
            *([self.shared.words()] if self.shared.narrowed else []),
            *([GREY] if grey else []),
            *self.left_out,
        ]


def over_eps(placed: Sequence[Placed], shown: Shown, *, depth: int | None, share: str) -> list[OverEps]:
    """Return what is left over eps at a depth (None: the leaves), one for each data set, tree and norm.

    Only the attacks that every model met at every radius count, and only the images that all of these records scored:
    neither one attack more nor a longer list at one radius may bend a curve. Records that differ in more than these,
    that have nothing in common, or whose verdicts are not beside them, raise ``InputError``; ``share`` is what they
    could not share.
    """
    kept, left_out = trusted(placed)
    places: dict[tuple[str, str, str], list[Standing]] = {}
    for standing in standings_of(kept):
        ground = standing.ground
        places.setdefault((ground.dataset, ground.tree, ground.norm), []).append(standing)
    return [_at_one_place(members, shown, depth, left_out, share) for members in places.values()]


def _at_one_place(
    standings: Sequence[Standing], shown: Shown, depth: int | None, left_out: Sequence[str], share: str
) -> OverEps:
    merged: dict[tuple[Key, Fraction], list[Standing]] = {}
    for standing in standings:
        merged.setdefault((key_of(standing), Fraction(standing.ground.eps)), []).append(standing)
    cells = [replace(parts[0], placed=tuple(p for s in parts for p in s.placed)) for parts in merged.values()]
    common, notes = on_common_attacks(cells, key=attack_at, everywhere=" at every eps")
    wanted = {found.path for cell in common for found in cell.placed}
    met = [replace(s, placed=tuple(p for p in s.placed if p.path in wanted)) for s in standings]
    met = [standing for standing in met if standing.placed]
    shared = shared_samples(met, share=share)
    figures: dict[Key, dict[Fraction, DepthFigures]] = {}
    for key, radius in sorted(merged, key=lambda place: place[1]):
        parts = [s for s in met if key_of(s) == key and Fraction(s.ground.eps) == radius]
        at = _figures(parts, shown, depth, shared)
        if at is not None:
            figures.setdefault(key, {})[radius] = at
    ordered = {key: figures[key] for key in dict.fromkeys(map(key_of, met)) if key in figures}
    return OverEps(tuple(met), shared, ordered, (*notes, *left_out))


def _figures(parts: Sequence[Standing], shown: Shown, depth: int | None, shared: SharedSamples) -> DepthFigures | None:
    """Return what one model keeps at one radius: the worst over its sample lists, on the images they share."""
    scored = len(parts[0].placed[0].record.depths)
    wanted = scored if depth is None else depth
    if wanted > scored:
        return None
    found = [figures_over(s, shown, wanted, shared.rows(s)) for s in parts]
    right = [right_over(s, shown, "robust", wanted, shared.rows(s)) for s in parts]
    known = [part for part in right if part is not None]
    if found[0] is None or not known:
        return None
    return replace(found[0], robust=proportion(np.logical_and.reduce(known)))


def attack_at(record: Record) -> AttackAt:
    """Return what makes two attacks at different radii the same: all but the settings, which may grow with eps."""
    attack = record.identity.attack
    return attack.name, attack.engine, attack.scoring, attack.depths, attack.pooled
