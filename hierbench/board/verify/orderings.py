"""Orders of figures that cannot be: robust above clean, worst above a member, right at a depth and wrong above it."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from fractions import Fraction
from pathlib import Path

import numpy as np

from hierbench.board.ledger import Ground
from hierbench.board.verify.figures import Cell
from hierbench.evaluation import trust
from hierbench.evaluation.statistics import mcnemar
from hierbench.evaluation.storage import digest_json
from hierbench.evaluation.verdicts import Bools

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


def rising_with_eps(cells: Sequence[Cell]) -> Iterator[tuple[Path, str]]:
    """Yield where an attack leaves clearly more right at a larger radius than at a smaller one, on shared samples.

    The larger ball holds the smaller one, so that this is a search that failed. By the same bounds as above.
    """
    alike: dict[str, list[Cell]] = {}
    for cell in cells:
        if not cell.shown:
            alike.setdefault(_but_eps(cell), []).append(cell)
    for members in alike.values():
        by_size = sorted(members, key=lambda cell: Fraction(cell.record.identity.attack.eps))
        for small, large in itertools.combinations(by_size, 2):
            found = _rise(small, large)
            if found is not None:
                yield large.path, found


def _rise(small: Cell, large: Cell) -> str | None:
    """Return what is wrong with two cells of one attack at two radii, the smaller first, or None."""
    one, other = small.record.identity.attack, large.record.identity.attack
    places = {sample: row for row, sample in enumerate(large.verdicts.sample_ids)}
    rows = [(row, places[s]) for row, s in enumerate(small.verdicts.sample_ids) if s in places]
    if not rows or Fraction(one.eps) == Fraction(other.eps):
        return None
    near, far = (np.array(part) for part in zip(*rows, strict=True))
    less, more = _aimed(small), _aimed(large)
    for depth in sorted(less.keys() & more.keys()):
        test = mcnemar(~more[depth][far], ~less[depth][near])
        gap = (test.only_first - test.only_second) / len(rows)
        if gap > GAP and test.p_value < CHANCE:
            reason = f"{other.name} leaves {gap:.1%} more samples right at eps {other.eps} than at {one.eps}"
            return f"depths.{depth - 1}: {reason}: its search failed there"
    return None


def _but_eps(cell: Cell) -> str:
    """Return what records of one attack at several radii share: all that they are but radius and sample list."""
    identity = cell.record.identity
    attack = identity.attack
    images = identity.dataset.model_dump(exclude={"sample_list_hash"})
    # What a search computed in is no other attack: its verdicts are float32's.
    settings = {name: value for name, value in attack.parameters.items() if name != "search_precision"}
    searched = (attack.name, attack.engine, attack.norm, attack.scoring, attack.depths, attack.pooled, settings)
    return digest_json([identity.model.weights_hash, identity.hierarchy.hash, images, searched])


def _aimed(cell: Cell) -> dict[int, Bools]:
    """Return [n] by depth: broken where the attack aimed; elsewhere a search that stops early is chance."""
    attack, verdicts = cell.record.identity.attack, cell.verdicts
    found: dict[int, Bools] = {}
    for aimed in verdicts.attacked:
        broken = verdicts.attack_broken(aimed, attack.scoring)
        depths = range(1, verdicts.num_depths + 1) if attack.pooled else [aimed]
        found |= {depth: broken[:, depth - 1] for depth in depths if broken is not None}
    return found


def _broken(cell: Cell) -> np.ndarray:
    found = [cell.verdicts.attack_broken(depth, "rollup") for depth in cell.verdicts.attacked]
    return np.asarray(np.logical_or.reduce([part for part in found if part is not None]))
