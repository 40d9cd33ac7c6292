"""AutoAttack by its authors' code (PyPI ``pyautoattack``), at one depth, with guards.

The library raises ``IndexError`` for losses that need more candidates than there are, moves the global generators,
remembers a dynamic model in every later one, and its ``custom`` version makes five runs where the standard one makes
one. METHODS.md 7.6.
"""

from __future__ import annotations

import importlib.metadata
import logging
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hierbench.attacks.engine.batching import Forward
from hierbench.attacks.engine.chunk import Progress, ProgressCallback
from hierbench.attacks.engine.precision import exact_float32
from hierbench.attacks.external.components import listed, runnable
from hierbench.attacks.external.global_rng import preserved_rng, seed_everything
from hierbench.attacks.external.node_model import Calls, NodeModel, frozen
from hierbench.attacks.external.outcome import Case, ExternalResult, Found, Loss, close_case, open_case
from hierbench.attacks.external.watch import Watch
from hierbench.attacks.objectives.base import Pooling, check_pooling
from hierbench.attacks.spec import Value
from hierbench.attacks.threat import Norm, ThreatModel
from hierbench.attacks.verdict import Scoring
from hierbench.errors import HierbenchError, InputError
from hierbench.models.layout import NodeLayout

_NORMS: dict[Norm, str] = {"linf": "Linf", "l2": "L2"}
_LOSSES: dict[str, Loss] = {"apgd-ce": "ce"}


@dataclass(frozen=True)
class Budget:
    """How long the attacks search; None is what the version says.

    Args:
        steps: iterations of APGD and FAB; 100 in all versions.
        restarts: runs of ``apgd-ce``, ``apgd-dlr`` and ``fab``; 1, in ``plus`` 5.
        targets: wrong candidates that ``apgd-t`` and ``fab-t`` aim at; 9, and never more than there are.
        queries: of Square; 5,000. Its first point comes on top.
        eot: gradients averaged at each point by APGD; 1, in ``rand`` 20.
    """

    steps: int | None = None
    restarts: int | None = None
    targets: int | None = None
    queries: int | None = None
    eot: int | None = None

    def __post_init__(self) -> None:
        for name in ("steps", "restarts", "targets", "queries", "eot"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise InputError(f"pyautoattack: {name} {value} is too few: at least 1")


def run_pyautoattack(
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
    version: str = "standard",
    attacks: Sequence[str] | None = None,
    budget: Budget | None = None,
    pooling: Pooling = "max",
    clean_logits: Tensor | None = None,
    device: torch.device | str | None = None,
    progress: ProgressCallback | None = None,
) -> ExternalResult:
    """Attack n samples at one depth with the AutoAttack authors' code and give back verified verdicts.

    Arguments and errors are those of ``run_attack``, and beside them:

    Args:
        version: ``standard``, ``plus``, ``rand``, or ``custom`` with a list of one's own.
        attacks: for ``custom``, in order: some of apgd-ce, apgd-dlr, apgd-t, fab, fab-t, square.
        budget: what differs from the version's own budget; ``custom`` starts from that of ``standard``.
        pooling: how roll-up makes a node's logit. Under ``max`` the library stops where the verdict breaks.

    The library draws for a whole batch at once, so verdicts depend on ``batch_size`` and on the samples' order. Samples
    it does not fool come back as the point of highest loss of their first run; FAB alone has none, and gives back the
    clean image. Every generator it draws from is put back. METHODS.md 2, 7.6; arXiv 2003.01690.
    """
    check_pooling(pooling)
    budget = budget or Budget()
    wanted = listed(version, attacks)
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
    components = runnable(wanted, candidates=candidates, norm=threat.norm, height=images.shape[2])
    adversary, settings = _adversary(components.names, case, budget, version, candidates, seed)
    calls, found = Calls(), Found.nothing(images)
    warned: list[str] = []
    if case.searched.any():
        calls, found, warned = _run(adversary, components.names, case, seed, progress)
    return close_case(
        case,
        found,
        calls,
        attack=f"pyautoattack:{version if version != 'custom' else '+'.join(wanted)}",
        engine=f"pyautoattack {importlib.metadata.version('pyautoattack')}",
        components=components.names,
        losses=[_LOSSES.get(name, "margin") for name in components.names],
        settings=settings,
        substitutions=components.substitutions,
        notes=tuple(warned),
    )


def _library() -> Any:
    try:
        import pyautoattack
        import pyautoattack.checks
    except ImportError:
        raise InputError("engine pyautoattack: the package is missing: pip install pyautoattack") from None
    return pyautoattack


def _adversary(
    names: tuple[str, ...], case: Case, budget: Budget, version: str, candidates: int, seed: int
) -> tuple[Any, dict[str, Value]]:
    """Return the library's own object with the budget set, and what that budget is."""
    base = "standard" if version == "custom" else version
    adversary = _library().AutoAttack(
        None, norm=_NORMS[case.threat.norm], eps=case.threat.radius, seed=seed, version=base, device=case.device
    )
    adversary.attacks_to_run = list(names)
    apgd, targeted, fab, square = adversary.apgd, adversary.apgd_targeted, adversary.fab, adversary.square
    if budget.steps is not None:
        fab.n_iter = budget.steps
        for part in (apgd, targeted):
            part.n_iter = part.n_iter_orig = budget.steps
            # The library takes its windows from the number of steps once, when it is built.
            part.n_iter_2 = max(int(0.22 * budget.steps), 1)
            part.n_iter_min = max(int(0.06 * budget.steps), 1)
            part.size_decr = max(int(0.03 * budget.steps), 1)
    if budget.restarts is not None:
        apgd.n_restarts = fab.n_restarts = budget.restarts
    if budget.queries is not None:
        square.n_queries = budget.queries
    if budget.eot is not None:
        apgd.eot_iter = targeted.eot_iter = budget.eot
    targets = min(budget.targets or targeted.n_target_classes, candidates - 1)
    targeted.n_target_classes = fab.n_target_classes = targets
    settings: dict[str, Value] = {
        "version": version,
        "attacks": "+".join(names),
        "pooling": case.pooling,
        "steps": apgd.n_iter,
        "restarts": apgd.n_restarts,
        "targets": targets,
        "queries": square.n_queries,
        "eot": apgd.eot_iter,
        "batch_size": case.batch_size,
        "seed": seed,
    }
    return adversary, settings


def _run(
    adversary: Any, names: tuple[str, ...], case: Case, seed: int, progress: ProgressCallback | None
) -> tuple[Calls, Found, list[str]]:
    at = torch.from_numpy(case.attacked())
    x = case.images[at.to(case.images.device)].to(case.device)
    y = case.targets[at.to(case.device)]
    watch = Watch(x, names)

    def report() -> None:
        if progress is not None:
            n, alive = len(case.images), watch.survivors
            progress(Progress(n, n - alive, alive, case.cost.forwards + model.calls.forwards))

    model = NodeModel(
        case.forward,
        case.layout,
        depth=case.criterion.depth,
        scoring=case.criterion.scoring,
        pooling=case.pooling,
        device=case.device,
        on_forward=report,
    )
    heard = _listen(adversary)
    adversary.model = adversary.apgd.model = adversary.apgd_targeted.model = model
    adversary.fab.predict = adversary.square.predict = model
    watch.on(adversary.apgd, lambda: f"apgd-{adversary.apgd.loss}")
    watch.on(adversary.apgd_targeted, lambda: "apgd-t")
    watch.on(adversary.fab, lambda: "fab-t" if adversary.fab.targeted else "fab")
    watch.on(adversary.square, lambda: "square")
    with preserved_rng(), _preserved_globals(), exact_float32(case.device), frozen(case.forward):
        seed_everything(seed)
        try:
            moved, _ = adversary.run_standard_evaluation(x, y, batch_size=case.batch_size)
        except torch.OutOfMemoryError:
            raise
        except (ArithmeticError, AssertionError, LookupError, RuntimeError, TypeError, ValueError) as error:
            reason = f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"
            raise HierbenchError(f"pyautoattack failed on {model.candidates} candidates: {reason}") from error
    claimed = (moved != x).flatten(1).any(dim=1)
    best = torch.where(claimed.view(-1, 1, 1, 1), moved, watch.best).detach()
    found = Found.nothing(case.images)
    rows = case.attacked()
    found.images[at.to(found.images.device)] = best.to(found.images)
    found.claimed[rows] = claimed.cpu().numpy()
    found.component[rows] = np.where(found.claimed[rows], watch.touched, watch.best_by)
    found.steps[rows] = watch.steps
    missed = int((watch.touched < 0).sum())
    if missed:
        heard.append(f"{missed} samples were wrong for the library on the clean image, and it did not attack them")
    return model.calls, found, heard


@contextmanager
def _preserved_globals() -> Iterator[None]:
    """Put back what the library's check for dynamic models leaves behind: its counters, and no trace function."""
    funcs = _library().checks.funcs
    counted, tracer = dict(funcs), sys.gettrace()
    funcs.update(dict.fromkeys(funcs, 0))
    try:
        yield
    finally:
        funcs.update(counted)
        sys.settrace(tracer)


def _listen(adversary: Any) -> list[str]:
    """Return a list that the library's warnings go to from now on, each once, in place of the terminal."""
    heard: list[str] = []

    class _Keep(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            message = f"pyautoattack: {record.getMessage()}"
            if message not in heard:
                heard.append(message)

    logger = logging.Logger("pyautoattack")
    logger.addHandler(_Keep(logging.WARNING))
    for part in (adversary, adversary.apgd, adversary.apgd_targeted):
        part.logger = logger
    return heard
