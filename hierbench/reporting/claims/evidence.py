"""What the records say to a contrast: two vectors of verdicts over the same samples, for each seed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction

import numpy as np

from hierbench.board.ledger import Placed
from hierbench.evaluation.records import Record
from hierbench.evaluation.verdicts import Bools, Floats
from hierbench.reporting.claims.file import CLEAN, LEAF, MARGIN, RANKS, SUCCESS, Contrast, Depth, Side
from hierbench.reporting.classes import known_images

ASKED = ("attack:", "eps:", "scoring:", "limit:")
"""In what a record may differ from its protocol: a side names the first three, and samples are matched one by one."""


@dataclass(frozen=True)
class Pair:
    """One seed's evidence over the samples that both sides scored: who was right, or a value of each sample."""

    first: Bools | Floats
    second: Bools | Floats


class Evidence:
    """Records of one protocol, looked up by what a side of a contrast asks for."""

    def __init__(self, placed: Sequence[Placed], margins: Mapping[tuple[str, str], Pair] | None = None) -> None:
        self._margins = {} if margins is None else margins
        self._by_model: dict[tuple[str, str], list[Placed]] = {}
        for found in placed:
            identity = found.record.identity
            self._by_model.setdefault((identity.model.name, identity.dataset.name), []).append(found)

    def pairs(self, contrast: Contrast, seeds: Sequence[str]) -> list[Pair | None]:
        """Return one pair a seed, None where a record is missing; models without a variant have no seeds."""
        seeded = [side for side in (contrast.first, contrast.second) if _seeded(side)]
        return [self.pair(contrast, seed) for seed in (seeds if seeded else seeds[:1])]

    def pair(self, contrast: Contrast, seed: str) -> Pair | None:
        """Return the verdicts of both sides over the samples they share, or None."""
        if contrast.measure == MARGIN:
            name = contrast.first.model + seed if _seeded(contrast.first) else contrast.first.model
            return self._margins.get((name, contrast.dataset))
        firsts = self._measured(contrast, contrast.first, seed)
        seconds = self._measured(contrast, contrast.second, seed)
        best: Pair | None = None
        for one in firsts:
            for other in seconds:
                shared = [sample for sample in one if sample in other]
                if shared and (best is None or len(shared) > len(best.first)):
                    best = Pair(*(np.array([side[sample] for sample in shared]) for side in (one, other)))
        return best

    def _measured(self, contrast: Contrast, side: Side, seed: str) -> list[dict[str, bool | float]]:
        """Return for every record that the side may mean what it says of each sample, by sample id."""
        name = side.model + seed if _seeded(side) else side.model
        found = []
        for placed in self._by_model.get((name, contrast.dataset), []):
            if not _means(placed.record, side):
                continue
            values, kept = _values(placed, side, contrast), _of_classes(placed, contrast.classes)
            if values is None or kept is None:
                continue
            if contrast.measure == RANKS:
                kept = kept & np.isfinite(values)
            if contrast.measure == SUCCESS:
                clean = _right_at(placed, replace(side, attack=CLEAN), contrast)
                kept = kept & np.asarray(clean, dtype=np.bool_)
            ids = placed.verdicts.sample_ids
            found.append({ids[i]: values[i].item() for i in np.flatnonzero(kept).tolist()})
        return found


def _values(placed: Placed, side: Side, contrast: Contrast) -> Bools | Floats | None:
    if contrast.measure == RANKS:
        return _ranks(placed)
    right = _right_at(placed, side, contrast)
    return ~right if right is not None and contrast.measure == SUCCESS else right


def _seeded(side: Side) -> bool:
    """Whether a model was fine-tuned, and so has seeds: ``tecoa.tiny`` does, ``clip`` does not."""
    return "." in side.model


def _means(record: Record, side: Side) -> bool:
    identity = record.identity
    named = {"template:": side.template, "tree:": side.tree}
    said = (*ASKED, *(key for key, value in named.items() if value is not None))
    if any(not deviation.startswith(said) for deviation in identity.protocol.deviations):
        return False
    if side.template is not None and identity.dataset.template != side.template:
        return False
    if side.tree is not None and identity.hierarchy.name != side.tree:
        return False
    if side.attack == CLEAN:
        return True
    attack = identity.attack
    same = attack.name == side.attack and Fraction(attack.eps) == Fraction(side.eps)
    return same and (attack.scoring == side.stopped_by)


def _right_at(placed: Placed, side: Side, contrast: Contrast) -> Bools | None:
    verdicts, record = placed.verdicts, placed.record
    column = _depth(contrast.scored_at(side), record)
    if column is None:
        return None
    if side.attack == CLEAN:
        broken = verdicts.clean_broken(contrast.scored_by)
        return None if broken is None else ~broken[:, column - 1]
    aims = list(verdicts.attacked)
    if side.aimed is not None:
        wanted = _depth(side.aimed, record)
        aims = [depth for depth in aims if depth == wanted]
    parts = [verdicts.attack_broken(depth, contrast.scored_by) for depth in aims]
    known = [part[:, column - 1] for part in parts if part is not None]
    return ~np.logical_or.reduce(known) if known else None


def _ranks(placed: Placed) -> Floats | None:
    attack = placed.verdicts.attacked.get(len(placed.record.depths))
    return None if attack is None else attack.severity_overlap


def _depth(depth: Depth, record: Record) -> int | None:
    deepest = len(record.depths)
    wanted = deepest if depth == LEAF else depth
    return wanted if wanted <= deepest else None


def _of_classes(placed: Placed, classes: str) -> Bools | None:
    if classes == "all":
        return np.ones(len(placed.verdicts.labels), dtype=np.bool_)
    known = known_images(placed)
    return None if known is None else known == (classes == "seen")
