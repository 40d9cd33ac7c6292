"""Orders of figures that cannot be: robust above clean, worst above a member, right at a depth and wrong above it."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from hierbench.board.ledger import Ground
from hierbench.board.verify.figures import Cell
from hierbench.evaluation import trust
from hierbench.evaluation.statistics import mcnemar

GAP = 0.03
"""How far the headline attack may stay behind another one (METHODS.md 7.3) before chance is asked."""
CHANCE = 0.01


def orderings(cell: Cell) -> Iterator[tuple[Path, str]]:
    """Yield (file, reason) for each impossible ordering inside a record, over all samples and sample by sample."""
    for flag in trust.recheck(cell.record):
        yield cell.path, f"impossible: {flag.message}"
    verdicts = cell.verdicts
    rows = [("clean_", verdicts.clean.broken_rollup)]
    rows += [(f"attack_d{depth}_", attack.broken_rollup) for depth, attack in verdicts.attacked.items()]
    for prefix, broken in rows:
        for depth in range(1, verdicts.num_depths):
            wrong = broken[:, depth - 1] & ~broken[:, depth]
            if wrong.any():
                sample = verdicts.sample_ids[int(np.flatnonzero(wrong)[0])]
                reason = f"sample {sample!r} is broken at depth {depth} and right at depth {depth + 1}, below it"
                yield cell.verdicts_path, f"{prefix}broken_rollup: {reason}"
                break


def behind_others(cells: Sequence[Cell], headline: str) -> Iterator[tuple[Path, str]]:
    """Yield where the protocol's headline attack, pooled over depths, leaves clearly more right than another attack.

    Both stand on one ground. Two searches may differ by chance, so a gap counts above 3 points and with an exact
    McNemar p below 0.01.
    """
    for strong, other in itertools.permutations(cells, 2):
        attack = strong.record.identity.attack
        if attack.name != headline or other.record.identity.attack.name == headline or strong.shown:
            continue
        if Ground.of(strong.record) != Ground.of(other.record) or not attack.pooled:
            continue
        if strong.verdicts.sample_ids != other.verdicts.sample_ids:
            continue  # refused for that already
        ours, theirs = _broken(strong), _broken(other)
        for depth in range(ours.shape[1]):
            test = mcnemar(~ours[:, depth], ~theirs[:, depth])
            gap = (test.only_first - test.only_second) / len(ours)
            if gap > GAP and test.p_value < CHANCE:
                name = other.record.identity.attack.name
                reason = f"{headline} leaves {gap:.1%} more samples right than {name}, which is the weaker attack"
                yield strong.path, f"depths.{depth}: {reason}: gradients are masked, or it did not run in full"
                break


def _broken(cell: Cell) -> np.ndarray:
    found = [cell.verdicts.attack_broken(depth, "rollup") for depth in cell.verdicts.attacked]
    return np.asarray(np.logical_or.reduce([part for part in found if part is not None]))
