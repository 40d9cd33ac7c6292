"""Every figure of a record, computed again from its verdicts and compared exactly."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import BaseModel

from hierbench.evaluation import scores, trust
from hierbench.evaluation.cell import Effort
from hierbench.evaluation.records import Record
from hierbench.evaluation.replay.file import StoredImages
from hierbench.evaluation.verdicts import Bools, Ints, Verdicts
from hierbench.hierarchy.tree import Hierarchy

FROM_OUTSIDE = ("transfer:", "external:")
"""Attacks whose images were not searched here."""


@dataclass(frozen=True)
class Cell:
    """One record with what lies beside it, read and sound."""

    path: Path
    record: Record
    verdicts: Verdicts
    hierarchy: Hierarchy
    images: StoredImages | None = None

    @property
    def shown(self) -> bool:
        """True if the images came from elsewhere."""
        return self.record.identity.attack.name.startswith(FROM_OUTSIDE)

    @cached_property
    def verdicts_path(self) -> Path:
        """The Parquet file."""
        return self.path.with_name(self.record.verdicts.file)


def figures(cell: Cell) -> Iterator[tuple[Path, str]]:
    """Yield (file, reason) for each figure that does not follow from the verdicts."""
    yield from ((cell.verdicts_path, reason) for reason in _verdicts_of_predictions(cell))
    yield from ((cell.path, reason) for reason in _recomputed(cell))


def _verdicts_of_predictions(cell: Cell) -> Iterator[str]:
    """Under roll-up the verdict is the predicted leaf's; it cannot be anything else."""
    verdicts, tree = cell.verdicts, cell.hierarchy.leaf_to_node
    rows = [("clean_", verdicts.clean.predicted, verdicts.clean.broken_rollup)]
    rows += [(f"attack_d{d}_", a.predicted, a.broken_rollup) for d, a in verdicts.attacked.items()]
    for prefix, predicted, broken in rows:
        wrong = (broken != rollup_broken(predicted, verdicts.labels, tree)).any(axis=1)
        if wrong.any():
            sample = verdicts.sample_ids[int(np.flatnonzero(wrong)[0])]
            yield f"{prefix}broken_rollup: not what {prefix}prediction says of {int(wrong.sum())} samples ({sample!r})"
    pairs = [("clean_", verdicts.clean.broken_rollup, verdicts.clean.broken_direct)]
    pairs += [(f"attack_d{d}_", a.broken_rollup, a.broken_direct) for d, a in verdicts.attacked.items()]
    for prefix, broken, direct in pairs:
        if direct is not None and (direct[:, -1] != broken[:, -1]).any():
            yield f"{prefix}broken_direct: at the leaves it is the verdict of roll-up"
    if _is_text(cell.record.identity.attack.name):
        return  # other prompts are other prompts for every image
    for depth, attack in verdicts.attacked.items():
        still = ~attack.moved if cell.shown else ~attack.searched
        changed = still & (attack.predicted != verdicts.clean.predicted)
        if changed.any():
            sample = verdicts.sample_ids[int(np.flatnonzero(changed)[0])]
            yield f"attack_d{depth}_prediction: sample {sample!r} was not attacked, and is not its clean prediction"


def rollup_broken(predicted: Ints, labels: Ints, leaf_to_node: Any) -> Bools:
    """Return [n, D]: whether leaf and label lie under different nodes; ``leaf_to_node`` is [D, leaves]."""
    tree = np.asarray(leaf_to_node)
    broken = tree[:, np.maximum(predicted, 0)] != tree[:, labels]
    return np.asarray((broken | (predicted < 0)).T)


def _recomputed(cell: Cell) -> Iterator[str]:
    record, verdicts = cell.record, cell.verdicts
    attack = record.identity.attack
    depths = scores.depth_scores(verdicts, cell.hierarchy, pooled=attack.pooled)
    transfer = () if attack.pooled else scores.transfer_cells(verdicts)
    yield from differing("depths", record.depths, depths)
    yield from differing("transfer", record.transfer, transfer)
    yield from differing("mistakes", record.mistakes, scores.tree_mistakes(verdicts, cell.hierarchy))
    yield from differing("hca_direct", record.hca_direct, scores.hca_direct(verdicts))
    yield from differing("counts", record.counts, scores.counts(verdicts, declared=len(verdicts.sample_ids)))
    yield from _checks(cell, depths, transfer)
    for entry in record.cost.per_depth:
        searched = verdicts.attacked[entry.depth].searched if entry.depth in verdicts.attacked else np.zeros(0, bool)
        steps = float(verdicts.attacked[entry.depth].steps[searched].mean()) if searched.any() else None
        yield from differing(f"cost.per_depth.{entry.depth}.mean_steps", entry.mean_steps, steps)
    clean, attacked = scores.calibration_errors(verdicts)
    yield from differing("calibration_error_clean", record.calibration_error_clean, clean)
    yield from differing("calibration_error_attacked", record.calibration_error_attacked, attacked)
    yield from differing("rank_preservation", record.rank_preservation, scores.rank_preservation(verdicts))


def _checks(cell: Cell, depths: Any, transfer: Any) -> Iterator[str]:
    """Compare the checks that follow from verdicts; gradients and logits are gone, and taken at their word."""
    record, said, attack = cell.record, cell.record.checks, cell.record.identity.attack
    found = trust.run_checks(
        cell.verdicts,
        {depth: Effort() for depth in cell.verdicts.attacked},
        clean_effort=Effort(nonfinite=said.nonfinite),
        declared=record.counts.declared,
        norm=attack.norm,
        eps=attack.eps_value,
        scoring=attack.scoring,
        depths=depths,
        transfer=transfer,
        replayed=cell.shown,
        pooled=attack.pooled,
        # other libraries and attacks on text may leave an image as it is; ours may not
        unmoved=None if attack.engine == "hierbench" and not _is_text(attack.name) else "not of our own search",
    )
    for name in ("max_linf", "max_l2", "moved_share", "raised_share", "unverified", "ids_unique", "counts_equal"):
        yield from differing(f"checks.{name}", getattr(said, name), getattr(found, name))
    unknown = {"zero_gradient_share": None}
    theirs, ours = ([check.model_copy(update=unknown) for check in c.per_depth] for c in (said, found))
    yield from differing("checks.per_depth", theirs, ours)
    for flag in found.flags:
        if flag.level == "failed":
            yield f"checks.flags: {flag.code}: {flag.message}"


def _is_text(name: str) -> bool:
    from hierbench.attacks.text.specs import is_text_attack

    return is_text_attack(name)


def differing(where: str, said: Any, found: Any) -> Iterator[str]:
    """Yield the first place where two values of the same shape differ; nothing if they are equal."""
    place = _first_difference(where, _plain(said), _plain(found))
    if place is not None:
        yield place


def _plain(value: Any) -> Any:
    if isinstance(value, BaseModel):
        return value.model_dump()
    return [_plain(v) for v in value] if isinstance(value, (list, tuple)) else value


def _first_difference(where: str, said: Any, found: Any) -> str | None:
    if isinstance(said, dict) and isinstance(found, dict):
        for key in [*found, *(k for k in said if k not in found)]:
            place = _first_difference(f"{where}.{key}", said.get(key), found.get(key))
            if place is not None:
                return place
        return None
    if isinstance(said, (list, tuple)) and isinstance(found, (list, tuple)):
        if len(said) != len(found):
            return f"{where}: {len(said)} entries, and the verdicts give {len(found)}"
        places = (_first_difference(f"{where}.{i}", s, f) for i, (s, f) in enumerate(zip(said, found, strict=True)))
        return next((place for place in places if place is not None), None)
    return None if said == found else f"{where}: {said!r}, and the verdicts give {found!r}"
