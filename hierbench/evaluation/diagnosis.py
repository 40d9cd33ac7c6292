"""Trust checks on a model: whether attacks can be believed here at all, before any figure is printed (METHODS.md 7)."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from hierbench.attacks.external.global_rng import preserved_rng, seed_everything
from hierbench.errors import InputError
from hierbench.evaluation.diagnosis_attacks import attack_checks
from hierbench.evaluation.diagnosis_probes import probe_checks
from hierbench.evaluation.diagnosis_state import State, state_checks
from hierbench.evaluation.diagnosis_types import Budget, Check, Diagnosis, Level, Subject

if TYPE_CHECKING:
    from hierbench.models.zeroshot import ZeroShotModel

__all__ = ["Budget", "Check", "Diagnosis", "Level", "Subject", "diagnose", "examine"]

SAMPLES = 64
FEW = 10
_SEED = 0x5EED_0F_D0C7  # unlike any seed a model would set, so that a model that sets one is noticed


def diagnose(
    model: str | ZeroShotModel = "clip",
    *,
    backbone: str | None = None,
    weights_layout: str | None = None,
    dataset: str | None = None,
    tree: str | None = None,
    depth: int | None = None,
    scoring: str | None = None,
    eps: str | float | Fraction | None = None,
    norm: str | None = None,
    limit: int = SAMPLES,
    split: str | None = None,
    protocol: str | None = None,
    batch_size: int | None = None,
    seed: int | None = None,
    device: str | None = None,
    data_root: str | Path | None = None,
    budget: Budget | None = None,
    report: Callable[[str], None] | None = None,
) -> Diagnosis:
    """Run the trust checks on a model by name, or a loaded one, over the first ``limit`` samples of a data set.

    ``backbone`` and ``weights_layout`` are those of a checkpoint file: see ``evaluate``.
    ``depth`` is the depth attacked (the leaves by default), ``eps`` in pixel units of [0, 1]; what is not said is the
    protocol's. ``report`` hears what is being done. Everything is deterministic. Raises ``InputError`` naming what is
    wrong with the arguments. METHODS.md 7.
    """
    from hierbench.evaluation.prepare import prepare_cell
    from hierbench.evaluation.request import Request
    from hierbench.evaluation.victim import EngineVictim

    request = Request(
        model=model if isinstance(model, str) else model.name,
        backbone=backbone,
        weights_layout=weights_layout,
        dataset=dataset,
        tree=tree,
        scoring=scoring,
        depths=None if depth is None else (depth,),
        eps=eps,
        norm=norm,
        limit=limit,
        split=split,
        protocol=protocol,
        batch_size=batch_size,
        seed=seed,
        device=device,
        data_root=data_root,
    )
    cell = prepare_cell(request, model=None if isinstance(model, str) else model)
    victim = cell.victim
    if not isinstance(victim, EngineVictim):
        raise InputError(f"--model: {request.model} cannot be examined")
    count = len(cell.images.ids)
    subject = Subject(
        name=cell.identity.model.name,
        forward=victim.forward,
        layout=victim.layout.to(victim.device),
        images=cell.images.pixels(np.arange(count)).to(torch.float32) / 255.0,
        labels=torch.from_numpy(np.asarray(cell.images.labels, dtype=np.int64)),
        ids=tuple(cell.images.ids),
        dataset=cell.identity.dataset.name,
        threat=victim.threat,
        depth=victim.layout.num_depths if depth is None else depth,
        scoring=victim.scoring,
        batch_size=victim.batch_size,
        seed=victim.seed,
        device=victim.device,
        module=getattr(victim.forward, "model", None),  # the binding around it has no mode of its own
    )
    return examine(subject, budget=budget, report=report)


def examine(
    subject: Subject, *, budget: Budget | None = None, report: Callable[[str], None] | None = None
) -> Diagnosis:
    """Run the trust checks on any forward; those on weights, buffers and modes need it to be a ``torch`` module.

    The caller's global random generators come back as they were, also from a model that moves them. Raises
    ``InputError`` for a radius of 0.
    """
    budget, tell = budget or Budget(), report or _silent
    if not subject.threat.eps:
        raise InputError("--eps: 0 allows no change, so there is nothing to check")
    module = subject.module
    if module is None and isinstance(subject.forward, nn.Module):
        module = subject.forward
    with preserved_rng():
        seed_everything(_SEED)
        before = State.of(module)
        tell("forwards")
        probes, points = probe_checks(subject, budget)
        attacks = attack_checks(subject, budget, points, tell)
        after = State.of(module)
    checks = (_enough(subject, points.right), *probes, *attacks, *state_checks(before, after))
    return Diagnosis(
        model=subject.name,
        dataset=subject.dataset,
        samples=len(subject.ids),
        depth=subject.depth,
        scoring=subject.scoring,
        threat=subject.threat,
        checks=checks,
    )


def _enough(subject: Subject, right: NDArray[np.bool_]) -> Check:
    count, of = int(right.sum()), len(subject.ids)
    level: Level = "pass" if count >= FEW else "warn" if count else "fail"
    said = {
        "pass": "enough samples are right when clean for the checks below to mean something",
        "warn": f"fewer than {FEW} samples are right when clean, so the checks below can hardly fail: raise --limit",
        "fail": "no sample is right when clean, so there is nothing to attack and nothing was checked",
    }
    return Check("attackable", level, f"{count} of {of}", said[level])


def _silent(stage: str) -> None:
    pass
