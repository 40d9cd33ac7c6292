"""Any attack of torchattacks that fits, at one depth, as ``torchattacks:<Name>``."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hierbench.attacks.engine.batching import Forward
from hierbench.attacks.engine.chunk import Progress, ProgressCallback
from hierbench.attacks.engine.precision import exact_float32
from hierbench.attacks.external.global_rng import batch_seed, preserved_rng, seed_everything
from hierbench.attacks.external.node_model import NodeModel, frozen
from hierbench.attacks.external.outcome import Case, ExternalResult, Found, close_case, open_case
from hierbench.attacks.external.torchattacks_catalogue import ForeignAttack, foreign_attack
from hierbench.attacks.objectives.base import Pooling, check_pooling
from hierbench.attacks.objectives.margins import DLR_CANDIDATES, TARGETED_DLR_CANDIDATES
from hierbench.attacks.spec import Value
from hierbench.attacks.threat import ThreatModel
from hierbench.attacks.verdict import Scoring
from hierbench.errors import InputError
from hierbench.models.layout import NodeLayout

_MARGIN = frozenset({"CW", "DeepFool", "EADEN", "FAB", "SPSA", "Square", "APGDT"})
"""Their own loss is a difference of logits; the others' is the cross-entropy or near it."""
_TARGETED_DLR = frozenset({"APGDT", "AutoAttack"})


def run_torchattacks(
    name: str,
    forward: Forward,
    images: Tensor,
    labels: Tensor | NDArray[np.int64],
    sample_ids: Sequence[str],
    *,
    layout: NodeLayout,
    threat: ThreatModel,
    depth: int,
    scoring: Scoring,
    batch_size: int,
    seed: int,
    dataset: str,
    settings: Mapping[str, object] | None = None,
    pooling: Pooling = "max",
    clean_logits: Tensor | None = None,
    device: torch.device | str | None = None,
    progress: ProgressCallback | None = None,
) -> ExternalResult:
    """Attack n samples at one depth with one attack of torchattacks and give back verified verdicts.

    Arguments and errors are those of ``run_attack``, and beside them:

    Args:
        name: the library's class name, with or without ``torchattacks:``.
        settings: the attack's own, under the library's names; ``steps``, ``alpha`` and ``restarts`` are understood by
            every attack that has the like. What is not given is the library's default, ``alpha`` as a share of eps.
        pooling: how roll-up makes a node's logit.

    Samples that are right on the clean image are attacked in batches, in their order; each batch is seeded by the run's
    seed and its samples' ids. Some attacks leave the ball by design (DeepFool, CW, GN, EADEN): their images are
    projected into it and judged there, for outside the ball nothing counts. An attack that does not fit, or cannot run
    on these candidates, is an ``InputError``. METHODS.md 2.
    """
    check_pooling(pooling)
    attack = foreign_attack(name, norm=threat.norm)
    case = open_case(
        forward,
        images,
        labels,
        sample_ids,
        layout=layout,
        threat=threat,
        depth=depth,
        scoring=scoring,
        pooling=pooling,
        batch_size=batch_size,
        clean_logits=clean_logits,
        device=device,
    )
    candidates = case.layout.nodes_at(depth)
    arguments = attack.arguments(settings or {}, threat=threat, candidates=candidates, seed=seed)
    _check_candidates(attack, arguments, candidates)
    model = NodeModel(forward, case.layout, depth=depth, scoring=scoring, pooling=pooling, device=case.device)
    found = _search(attack, arguments, model, case, seed, dataset, progress)
    return close_case(
        case,
        found,
        model.calls,
        attack=attack.full_name,
        engine=f"torchattacks {importlib.metadata.version('torchattacks')}",
        components=(attack.full_name,),
        losses=("margin" if attack.name in _MARGIN else "ce",),
        settings={**arguments, "pooling": pooling, "batch_size": batch_size, "seed": seed},
        substitutions=(),
        notes=(),
    )


def _search(
    attack: ForeignAttack,
    arguments: Mapping[str, Value],
    model: NodeModel,
    case: Case,
    seed: int,
    dataset: str,
    progress: ProgressCallback | None,
) -> Found:
    found = Found.nothing(case.images)
    todo = case.attacked()
    for start in range(0, len(todo), case.batch_size):
        rows = todo[start : start + case.batch_size]
        at = torch.from_numpy(rows)
        drawn = batch_seed(seed, dataset=dataset, attack=attack.name, sample_ids=[case.sample_ids[row] for row in rows])
        before = model.calls.forwards, model.calls.backwards
        images = case.images[at.to(case.images.device)].to(case.device)
        moved = _attacked(attack, {**arguments, **_seeds(arguments, drawn)}, model, case, images, at, drawn)
        found.images[at.to(found.images.device)] = moved.to(found.images)
        found.component[rows] = 0
        passes = model.calls.backwards - before[1] or model.calls.forwards - before[0]
        found.steps[rows] = round(passes / len(rows))
        if progress is not None:
            done = len(case.images) - len(todo) + start + len(rows)
            progress(Progress(len(case.images), done, len(todo), case.cost.forwards + model.calls.forwards))
    return found


def _attacked(
    attack: ForeignAttack,
    arguments: Mapping[str, Value],
    model: NodeModel,
    case: Case,
    images: Tensor,
    at: Tensor,
    drawn: int,
) -> Tensor:
    """Return what the library makes of one batch; its own errors become one line."""
    with preserved_rng(), exact_float32(case.device), frozen(case.forward):
        seed_everything(drawn)
        try:
            moved: Tensor = attack.maker(model, **arguments)(images, case.targets[at.to(case.device)])
        except torch.OutOfMemoryError:
            raise
        except (ArithmeticError, AssertionError, LookupError, RuntimeError, TypeError, ValueError) as error:
            shape = "x".join(str(size) for size in images.shape[1:])
            reason = f"{type(error).__name__}: {(str(error).splitlines() or [''])[0][:120]}"
            raise InputError(
                f"{attack.full_name} cannot run on {shape} images and {model.candidates} candidates: {reason}"
            ) from error
    if moved.shape != images.shape:
        raise InputError(f"{attack.full_name} gave {tuple(moved.shape)} images back for {tuple(images.shape)}")
    return moved.detach().to(images.dtype)


def _seeds(arguments: Mapping[str, Value], drawn: int) -> dict[str, Value]:
    """Return the seed argument of an attack that has one: it seeds the global generators itself."""
    return {"seed": drawn} if "seed" in arguments else {}


def _check_candidates(attack: ForeignAttack, arguments: Mapping[str, Value], candidates: int) -> None:
    wanted = 2
    if attack.name in _TARGETED_DLR:
        wanted = TARGETED_DLR_CANDIDATES
    elif arguments.get("loss") == "dlr":
        wanted = DLR_CANDIDATES
    if candidates < wanted:
        raise InputError(
            f"{attack.full_name}: its loss needs {wanted} candidates and there are {candidates}: take a deeper depth"
        )
