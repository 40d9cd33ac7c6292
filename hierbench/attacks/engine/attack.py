"""The attack engine: one entry, ``run_attack``, for any objective with any optimiser on one chunk of samples."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hierbench.attacks.engine.batching import Cost, Forward, forward_rows
from hierbench.attacks.engine.chunk import Chunk, GradientCount, Progress, ProgressCallback
from hierbench.attacks.engine.ledger import NOT_FOUND, Ledger
from hierbench.attacks.engine.passes import Passes
from hierbench.attacks.engine.precision import exact_float32
from hierbench.attacks.engine.result import AttackResult, Severity
from hierbench.attacks.engine.search import StageSearch
from hierbench.attacks.engine.verify import Judgement, Verification, judge, verify
from hierbench.attacks.optimisers.base import Stage
from hierbench.attacks.optimisers.noise import NoiseSource
from hierbench.attacks.precision_names import SearchPrecision
from hierbench.attacks.threat import ThreatModel
from hierbench.attacks.verdict import Criterion, DepthsBroken, Scoring, coarsest_broken
from hierbench.errors import HierbenchError
from hierbench.models.layout import NodeLayout

__all__ = ["AttackResult", "Progress", "Severity", "Stage", "run_attack"]


def run_attack(
    forward: Forward,
    images: Tensor,
    labels: Tensor | NDArray[np.int64],
    sample_ids: Sequence[str],
    *,
    plan: Sequence[Stage],
    layout: NodeLayout,
    threat: ThreatModel,
    depth: int,
    scoring: Scoring,
    batch_size: int,
    seed: int,
    dataset: str,
    attack_name: str,
    pooled: bool = False,
    full_budget: NDArray[np.bool_] | Tensor | None = None,
    clean_logits: Tensor | None = None,
    device: torch.device | str | None = None,
    progress: ProgressCallback | None = None,
    search_precision: SearchPrecision = "fp32",
    search_forward: Forward | None = None,
) -> AttackResult:
    """Attack n samples at one depth and give back verified verdicts.

    A sample that the clean image already gets wrong at ``depth`` counts as broken and keeps its clean image. The
    others run through the plan's stages, and leave at their first success. The result is a function of the samples
    (not of their neighbours in other chunks), the batch size, the threads and the device.

    Args:
        forward: maps pixels [B, c, h, w] in [0, 1] to float32 logits [B, N]. It must be in evaluation mode; pixels
            alone get a gradient, so weights should not require one.
        images: float32 [n, c, h, w] in [0, 1].
        labels: [n], leaf indices.
        sample_ids: n unique, stable ids: with ``seed``, ``dataset`` and ``attack_name`` they fix every draw.
        plan: the stages, in order; the weaker and cheaper first saves most.
        layout: which logit belongs to which node.
        threat: norm and radius; radius 0 gives the clean images back.
        depth, scoring: where the verdict is taken.
        pooled: score every image at every depth and keep, for each sample, the image that breaks the coarsest one. A
            sample leaves a stage when the stage's own depth broke. Roll-up only, where the cuts are nested, and at
            the leaves' depth: the worst case over all depths in one search (METHODS.md 1, 2).
        batch_size: the largest batch.
        seed, dataset, attack_name: key of the draws.
        full_budget: bool [n]: samples searched to the end even after their first success, for severity.
        clean_logits: [n, N] of an earlier result on these images; None computes them.
        device: where to compute; None is where the images are.
        progress: called at every step.
        search_precision: of the search's passes. Whatever it is, a row that would change a verdict is looked at again
            in float32 before its sample leaves, and verification is in float32.
        search_forward: a quicker form of ``forward`` for the search's passes, such as one with folded batch norms
            or a compiled one; all that counts is then looked at again by ``forward``.

    Raises ``InputError`` where robustness is undefined (see ``Criterion``), ``HierbenchError`` on a model whose
    logits cannot be used, ``ValueError`` on arguments that do not fit together. METHODS.md 2, 7.
    """
    began = time.perf_counter()
    device = torch.device(device) if device is not None else images.device
    layout = layout.to(device)
    labels = torch.as_tensor(labels, dtype=torch.long).to(device)
    if pooled and (scoring != "rollup" or depth != layout.num_depths):
        raise ValueError("a pooled search needs roll-up scoring and the leaves' depth")
    in_full = np.zeros(len(images), dtype=np.bool_) if full_budget is None else np.asarray(full_budget, dtype=np.bool_)
    _check(images, labels, sample_ids, plan, layout, batch_size, in_full)
    criterion = Criterion(layout, depth, scoring)
    cost = Cost()
    with exact_float32(device):
        if clean_logits is None:
            clean_logits = forward_rows(forward, images, batch_size=batch_size, device=device, cost=cost)
        if clean_logits.shape[1] < layout.width:
            raise HierbenchError(f"the model gave {clean_logits.shape[1]} logits: the tree wants {layout.width}")
        chunk = Chunk(
            forward=forward,
            images=images,
            labels=labels,
            clean_logits=clean_logits.to(device),
            threat=threat,
            criterion=criterion,
            every_depth=DepthsBroken.of(layout) if pooled else None,
            batch_size=batch_size,
            device=device,
            progress=progress,
            cost=cost,
            gradients=GradientCount(),
        )
        clean = judge(chunk.clean_logits, labels, layout)
        level = _levels(clean, chunk)
        right = level > (1 if pooled else depth)
        searched = right if threat.eps else np.zeros_like(right)
        ledger = Ledger(images, searched=searched, full_budget=in_full, clean_level=level)
        passes = Passes(
            forward=forward,
            layout=layout,
            cost=cost,
            part=batch_size,
            precision=search_precision,
            search_forward=search_forward,
        )
        for index, stage in enumerate(plan):
            attack = f"{attack_name}/{stage.component}"
            noise = NoiseSource(seed=seed, dataset=dataset, attack=attack, sample_ids=tuple(sample_ids))
            StageSearch(chunk=chunk, ledger=ledger, stage=stage, index=index, noise=noise, passes=passes).run()
        return _conclude(attack_name, plan, chunk, ledger, clean, began)


def _conclude(
    attack_name: str, plan: Sequence[Stage], chunk: Chunk, ledger: Ledger, clean: Judgement, began: float
) -> AttackResult:
    """Verify what the ledger holds, and put the result together."""
    final = _verified(chunk, ledger.adversarial)
    severity = None
    if ledger.severity_images is not None:
        severe = _verified(chunk, ledger.severity_images)
        severity = Severity(
            mask=ledger.full_budget,
            images=severe.images,
            predictions=_host(severe.judgement.predictions),
            logits=severe.judgement.logits,
        )
    clean_loss, final_loss = _own_losses(plan, ledger, chunk, final.judgement.logits)
    depth, scoring = chunk.criterion.depth, chunk.criterion.scoring
    level = _levels(final.judgement, chunk)
    breaks = ledger.searched & (level < ledger.clean_level)
    return AttackResult(
        attack=attack_name,
        components=tuple(stage.component for stage in plan),
        depth=depth,
        scoring=scoring,
        adversarial=final.images,
        clean_logits=chunk.clean_logits,
        logits=final.judgement.logits,
        clean_predictions=_host(clean.predictions),
        predictions=_host(final.judgement.predictions),
        clean_broken=_host(clean.broken),
        broken=_host(final.judgement.broken),
        searched=ledger.searched,
        broken_by=np.where(breaks, ledger.stage, NOT_FOUND),
        steps_used=ledger.steps_used,
        clean_loss=clean_loss,
        final_loss=final_loss,
        moved=final.linf.numpy() > 0,
        raised=ledger.searched & ((final_loss > clean_loss) | breaks),
        linf=final.linf.numpy(),
        l2=final.l2.numpy(),
        nonfinite=ledger.nonfinite | (clean.nonfinite | final.judgement.nonfinite).cpu().numpy(),
        unverified=ledger.success & (level > ledger.level),
        severity=severity,
        gradients=chunk.gradients.total,
        zero_gradients=chunk.gradients.zero,
        nonfinite_gradients=chunk.gradients.nonfinite,
        forwards=chunk.cost.forwards,
        backwards=chunk.cost.backwards,
        padding=chunk.cost.padding,
        seconds=time.perf_counter() - began,
    )


def _levels(judgement: Judgement, chunk: Chunk) -> NDArray[np.int64]:
    """Return long [n]: the coarsest of the depths in question that is broken, D + 1 where none is."""
    broken, depth = judgement.broken[chunk.criterion.scoring], chunk.criterion.depth
    if chunk.every_depth is not None:
        return np.asarray(coarsest_broken(broken).cpu().numpy())
    return np.where(broken[:, depth - 1].cpu().numpy(), depth, chunk.criterion.layout.num_depths + 1)


def _verified(chunk: Chunk, candidates: Tensor) -> Verification:
    return verify(
        chunk.forward,
        chunk.images,
        candidates,
        chunk.labels,
        layout=chunk.criterion.layout,
        threat=chunk.threat,
        batch_size=chunk.batch_size,
        clean_logits=chunk.clean_logits,
        cost=chunk.cost,
    )


def _check(
    images: Tensor,
    labels: Tensor,
    sample_ids: Sequence[str],
    plan: Sequence[Stage],
    layout: NodeLayout,
    batch_size: int,
    full_budget: NDArray[np.bool_],
) -> None:
    n = len(images)
    if images.ndim != 4 or images.dtype != torch.float32 or n == 0:
        raise ValueError(f"images must be float32 [n, c, h, w] with n > 0, not {images.dtype} {tuple(images.shape)}")
    if not bool(((images >= 0) & (images <= 1)).all()):
        raise ValueError("images must lie in [0, 1]")
    if labels.shape != (n,) or bool(((labels < 0) | (labels >= layout.num_leaves)).any()):
        raise ValueError(f"labels must be {n} leaf indices below {layout.num_leaves}")
    if len(sample_ids) != n or len(set(sample_ids)) != n:
        raise ValueError(
            f"sample_ids must be {n} unique ids: they are {len(sample_ids)}, {len(set(sample_ids))} unique"
        )
    if full_budget.shape != (n,):
        raise ValueError(f"full_budget must be one flag a sample, not {full_budget.shape}")
    if not plan:
        raise ValueError("the plan has no stage: an attack that does nothing must not be run")
    if len({stage.component for stage in plan}) != len(plan):
        raise ValueError("two stages of the plan have one component name, and would share their draws")
    if batch_size < 1:
        raise ValueError(f"batch_size must be at least 1, not {batch_size}")


def _own_losses(
    plan: Sequence[Stage], ledger: Ledger, chunk: Chunk, logits: Tensor
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return the loss that made each returned image, at the clean image and at that image; NaN where there is none."""
    losses = np.full((2, len(chunk.images)), np.nan, dtype=np.float32)
    layout = chunk.criterion.layout
    for index, stage in enumerate(plan):
        rows = np.flatnonzero(ledger.stage == index)
        if not len(rows):
            continue
        at = torch.from_numpy(rows).to(chunk.device)
        aims = stage.objective.aims(chunk.clean_logits, chunk.labels, layout)
        run = torch.from_numpy(ledger.run[rows] % aims.shape[1]).to(chunk.device)
        own = aims[at, run]
        given = (chunk.clean_logits[at], logits[at])
        if stage.forward is not None:  # its own columns were never verified, so they are computed here
            given = (_seen(stage, chunk, chunk.images[rows]), _seen(stage, chunk, ledger.adversarial[rows]))
        for row, columns in enumerate(given):
            with torch.no_grad():
                losses[row, rows] = stage.objective.loss(columns, own, layout).float().cpu().numpy()
    # A model that answers NaN has not answered: for the attack that is the highest loss there is.
    losses[1, ledger.searched & ~np.isfinite(losses[1])] = np.inf
    return losses[0], losses[1]


def _seen(stage: Stage, chunk: Chunk, images: Tensor) -> Tensor:
    """Return what a stage's own forward gives for some images."""
    assert stage.forward is not None
    return forward_rows(stage.forward, images, batch_size=chunk.batch_size, device=chunk.device, cost=chunk.cost)


def _host(values: Mapping[Scoring, Tensor]) -> dict[Scoring, NDArray[Any]]:
    return {scoring: value.cpu().numpy() for scoring, value in values.items()}
