"""Verification: what the final images really are, by a separate float32 forward in one fixed layout."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from hierbench.attacks.engine.batching import Cost, Forward, forward_rows
from hierbench.attacks.threat import BALL_TOLERANCE, ThreatModel, distances
from hierbench.attacks.verdict import NO_NODE, Scoring, predicted_nodes, scorings_of, true_nodes
from hierbench.errors import HierbenchError
from hierbench.models.layout import NodeLayout


@dataclass(frozen=True, eq=False)
class Judgement:
    """Logits of some images and the verdicts that follow from them.

    Attributes:
        logits: [n, N].
        predictions: long [n, D] for each scoring the layout allows; -1 where logits are not finite.
        broken: bool [n, D] for each scoring.
    """

    logits: Tensor
    predictions: Mapping[Scoring, Tensor]
    broken: Mapping[Scoring, Tensor]

    @property
    def nonfinite(self) -> Tensor:
        """Bool [n]: whether some verdict found logits that are not finite."""
        return torch.stack([(nodes == NO_NODE).any(dim=1) for nodes in self.predictions.values()]).any(dim=0)


def judge(logits: Tensor, labels: Tensor, layout: NodeLayout) -> Judgement:
    """Return the verdicts of logits [n, N] under every scoring and depth, for labels [n]."""
    truth = true_nodes(labels, layout)
    predictions = {scoring: predicted_nodes(logits, layout, scoring) for scoring in scorings_of(layout)}
    return Judgement(
        logits=logits,
        predictions=predictions,
        broken={scoring: nodes != truth for scoring, nodes in predictions.items()},
    )


@dataclass(frozen=True, eq=False)
class Verification:
    """The final images, inside ball and box, and what the model says of them.

    Attributes:
        images: [n, c, h, w], after a last projection.
        judgement: verdicts by the separate forward.
        linf, l2: float64 [n], the distance of each image from its clean one.
    """

    images: Tensor
    judgement: Judgement
    linf: Tensor
    l2: Tensor


def verify(
    forward: Forward,
    images: Tensor,
    adversarial: Tensor,
    labels: Tensor,
    *,
    layout: NodeLayout,
    threat: ThreatModel,
    batch_size: int,
    clean_logits: Tensor,
    cost: Cost | None = None,
) -> Verification:
    """Judge adversarial images [n, c, h, w] against the clean ``images``, on the device of ``labels``.

    An image outside ball or box is projected into them; one inside is judged bit for bit as the search left it.
    Every batch holds consecutive images, so the result is that of the same images read from disk. An image that
    equals its clean one keeps its clean logits [n, N], and a batch of such images is not run. An image that is still
    outside, or not finite, is a ``HierbenchError``: the attack is wrong, and its result must not be kept.
    METHODS.md 2, 7.1.
    """
    cost = cost if cost is not None else Cost()
    final, logits = torch.empty_like(images), clean_logits.clone()
    linf, l2 = torch.zeros(len(images), dtype=torch.float64), torch.zeros(len(images), dtype=torch.float64)
    for start in range(0, len(images), batch_size):
        rows = slice(start, start + batch_size)
        final[rows] = _inside(adversarial[rows], images[rows], threat)
        linf[rows] = distances(final[rows], images[rows], norm="linf").cpu()
        l2[rows] = distances(final[rows], images[rows], norm="l2").cpu()
        _check_inside(final[rows], linf[rows] if threat.norm == "linf" else l2[rows], threat)
        moved = (final[rows] != images[rows]).flatten(1).any(dim=1)
        if bool(moved.any()):
            seen = forward_rows(forward, final[rows], batch_size=batch_size, device=labels.device, cost=cost)
            logits[rows] = torch.where(moved.to(seen.device)[:, None], seen, logits[rows])
    return Verification(images=final, judgement=judge(logits, labels, layout), linf=linf, l2=l2)


def _inside(adversarial: Tensor, images: Tensor, threat: ThreatModel) -> Tensor:
    """Return the images brought into ball and box; radius 0 gives the clean ones, exactly."""
    if not threat.eps:
        return images
    near = threat.distances(adversarial, images) <= threat.radius + BALL_TOLERANCE
    boxed = ((adversarial >= 0) & (adversarial <= 1)).flatten(1).all(dim=1)
    keep = (near & boxed).view(-1, 1, 1, 1)
    return torch.where(keep, adversarial, threat.project(adversarial, images))


def _check_inside(images: Tensor, distance: Tensor, threat: ThreatModel) -> None:
    if not bool(torch.isfinite(images).all()):
        raise HierbenchError("the attack made an image that is not finite")
    if bool(((images < 0) | (images > 1)).any()):
        raise HierbenchError("the attack left the box [0, 1]")
    if bool((distance > threat.radius + BALL_TOLERANCE).any()):
        raise HierbenchError(f"the attack left its {threat.norm} ball of {threat.eps}: {float(distance.max()):.6f}")
