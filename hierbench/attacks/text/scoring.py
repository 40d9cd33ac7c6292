"""From attacked prompts to logits and verdicts: which columns of which samples the attack reaches."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hierbench.attacks.engine.batching import Cost
from hierbench.attacks.engine.ledger import NOT_FOUND
from hierbench.attacks.engine.result import AttackResult, Severity
from hierbench.attacks.engine.verify import Judgement, judge
from hierbench.attacks.text.outcome import AttackedLevel
from hierbench.attacks.text.settings import Scope
from hierbench.attacks.verdict import Criterion, Scoring
from hierbench.models.layout import NodeLayout


def prompt_depth(layout: NodeLayout, depth: int, scoring: Scoring) -> int:
    """Return whose prompts decide a verdict: the leaves' under roll-up, the depth's own under direct. METHODS.md 3."""
    layout.check_depth(depth)
    return depth if scoring == "direct" else layout.num_depths


def true_prompts(labels: Tensor, layout: NodeLayout, depth: int) -> Tensor:
    """Return long [n]: the node of each label at the depth whose prompts are attacked."""
    return layout.node_of_leaf(depth)[labels]


def merged_logits(
    clean: Tensor, attacked: Tensor, *, changed: Tensor, truth: Tensor, scope: Scope, columns: slice
) -> Tensor:
    """Return logits [n, N] with the attacked prompts' columns in place of the clean ones.

    Args:
        clean: [n, N] with the clean prompts.
        attacked: [n, N_d] with the attacked prompts of one depth.
        changed: bool [N_d]; the column of an unchanged prompt stays, bit for bit.
        truth: long [n], each sample's node at that depth.
        scope: ``true`` puts in only each sample's own column.
        columns: where the depth's columns are.
    """
    use = changed.expand_as(attacked)
    if scope == "true":
        use = use & (torch.arange(attacked.shape[1], device=truth.device) == truth[:, None])
    merged = clean.clone()
    merged[:, columns] = torch.where(use, attacked, clean[:, columns])
    return merged


def reached(level: AttackedLevel, truth: NDArray[np.int64], scope: Scope) -> NDArray[np.bool_]:
    """Return bool [n]: whether a prompt that the sample's verdict reads was changed."""
    changed = level.changed
    return changed[truth] if scope == "true" else np.full(len(truth), bool(changed.any()))


def moved_by(level: AttackedLevel, truth: NDArray[np.int64], scope: Scope) -> NDArray[np.float32]:
    """Return [n]: how far the text moved that the sample's verdict reads; scope ``all``: the mean over the nodes."""
    scores = level.scores
    found = scores[truth] if scope == "true" else np.full(len(truth), scores.mean())
    return found.astype(np.float32)


def text_result(
    *,
    attack: str,
    component: str,
    criterion: Criterion,
    images: Tensor,
    labels: Tensor,
    clean_logits: Tensor,
    logits: Tensor,
    moved: NDArray[np.bool_],
    clean_loss: NDArray[np.float32],
    final_loss: NDArray[np.float32],
    cost: Cost,
    began: float,
    backwards: int = 0,
    steps: NDArray[np.int64] | None = None,
    unverified: NDArray[np.bool_] | None = None,
    gradients: tuple[int, int, int] = (0, 0, 0),
    full_budget: NDArray[np.bool_] | None = None,
) -> AttackResult:
    """Return the verdicts of an attack that left the pixels alone, in the form of all attacks.

    It has no early stop, so its predictions are those of a full search: ``full_budget`` says for which samples
    they count for severity.
    """
    layout, depth, scoring = criterion.layout, criterion.depth, criterion.scoring
    clean, final = judge(clean_logits, labels, layout), judge(logits, labels, layout)
    right = ~_at(clean, scoring, depth)
    breaks = _at(final, scoring, depth)
    n = len(images)
    zeros, no = np.zeros(n), np.zeros(n, dtype=np.bool_)
    blank = np.float32(np.nan)
    severity = None
    if full_budget is not None and (full_budget & right).any():
        severity = Severity(mask=full_budget & right, images=images, predictions=_host(final.predictions))
    return AttackResult(
        attack=attack,
        components=(component,),
        depth=depth,
        scoring=scoring,
        adversarial=images,
        clean_logits=clean_logits,
        logits=logits,
        clean_predictions=_host(clean.predictions),
        predictions=_host(final.predictions),
        clean_broken=_host(clean.broken),
        broken=_host(final.broken),
        searched=right,
        broken_by=np.where(right & breaks, 0, NOT_FOUND),
        steps_used=np.zeros(n, dtype=np.int64) if steps is None else steps,
        clean_loss=np.where(right, clean_loss, blank),
        final_loss=np.where(right, final_loss, blank),
        moved=moved,
        raised=right & ((final_loss > clean_loss) | breaks),
        linf=zeros,
        l2=zeros.copy(),
        nonfinite=(clean.nonfinite | final.nonfinite).cpu().numpy(),
        unverified=no if unverified is None else unverified,
        severity=severity,
        gradients=gradients[0],
        zero_gradients=gradients[1],
        nonfinite_gradients=gradients[2],
        forwards=cost.forwards,
        backwards=backwards,
        padding=cost.padding,
        seconds=time.perf_counter() - began,
    )


def _at(judgement: Judgement, scoring: Scoring, depth: int) -> NDArray[np.bool_]:
    found: NDArray[np.bool_] = judgement.broken[scoring][:, depth - 1].cpu().numpy()
    return found


def _host(values: Mapping[Scoring, Tensor]) -> dict[Scoring, NDArray[Any]]:
    return {scoring: value.cpu().numpy() for scoring, value in values.items()}


def check_samples(images: Tensor, labels: Tensor, sample_ids: Sequence[str], layout: NodeLayout) -> None:
    """Raise ``ValueError`` where images, labels and ids do not fit together."""
    n = len(images)
    if images.ndim != 4 or images.dtype != torch.float32 or n == 0:
        raise ValueError(f"images must be float32 [n, c, h, w] with n > 0, not {images.dtype} {tuple(images.shape)}")
    if labels.shape != (n,) or bool(((labels < 0) | (labels >= layout.num_leaves)).any()):
        raise ValueError(f"labels must be {n} leaf indices below {layout.num_leaves}")
    if len(sample_ids) != n or len(set(sample_ids)) != n:
        raise ValueError(f"sample_ids must be {n} unique ids")
