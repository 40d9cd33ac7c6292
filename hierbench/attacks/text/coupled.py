"""The image half of the coupled attack: pixels are moved away from the clean image and from the attacked prompt."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import normalize

from hierbench.attacks.engine.result import AttackResult, Severity
from hierbench.models.layout import NodeLayout
from hierbench.models.zeroshot import ZeroShotModel


@dataclass(frozen=True, eq=False)
class EmbeddingForward:
    """A forward whose columns carry the normalised image embedding behind the logits.

    The engine hands whole rows to the objective, and verdicts read the layout's columns only: so an objective on the
    embedding needs nothing else. Maps pixels [B, c, h, w] in [0, 1] to [B, N + E].
    """

    model: ZeroShotModel
    points: Tensor

    def __call__(self, pixels: Tensor) -> Tensor:
        """Return logits over the points [N, E], then the embedding."""
        embedding = self.model.embed(pixels)
        return torch.cat([self.model.logits(embedding, self.points), normalize(embedding, dim=-1)], dim=1)


@dataclass(frozen=True, eq=False)
class CoupledObjective:
    """KL(softmax(e_x) || softmax(e_x')) + w KL(softmax(g(t')) || softmax(e_x')), embeddings normalised.

    Args:
        width: the logit columns before the embedding's.
        images: e_x of the chunk's samples, [n, E], normalised.
        texts: g(t') of each sample's own attacked prompt, [n, E], normalised.
        weight: w, 3 in the released code.

    METHODS.md 3, arXiv 2404.19287 [C]. Its mean over the batch only scales the gradient, so the losses are per sample.
    """

    width: int
    images: Tensor
    texts: Tensor
    weight: float = 3.0

    def aims(self, clean_logits: Tensor, labels: Tensor, layout: NodeLayout) -> Tensor:
        """Return each sample's row in the tables, [n, 1, 1]."""
        if len(labels) != len(self.images):
            raise ValueError(f"{len(labels)} samples, and embeddings of {len(self.images)}")
        return torch.arange(len(labels), device=labels.device)[:, None, None]

    def loss(self, logits: Tensor, aims: Tensor, layout: NodeLayout) -> Tensor:
        """Return [B] from logits and embeddings [B, N + E]."""
        log_q = logits[:, self.width :].log_softmax(dim=-1)
        rows = aims[:, 0]
        return _divergence(self.images[rows], log_q) + self.weight * _divergence(self.texts[rows], log_q)


def _divergence(point: Tensor, log_q: Tensor) -> Tensor:
    log_p = point.log_softmax(dim=-1)
    return (log_p.exp() * (log_p - log_q)).sum(dim=-1)


_SUMMED = {"gradients", "zero_gradients", "nonfinite_gradients", "forwards", "backwards", "padding", "seconds"}


def joined(parts: Sequence[AttackResult], rows: Sequence[NDArray[np.int64]]) -> AttackResult:
    """Return the results of disjoint groups of samples as one; ``rows`` says which samples each group holds."""
    if len(parts) == 1:
        return parts[0]
    order = np.argsort(np.concatenate(rows), kind="stable")
    values: dict[str, Any] = {}
    for entry in fields(AttackResult):
        own = [getattr(part, entry.name) for part in parts]
        if entry.name == "severity":
            values["severity"] = _joined_severity(parts, order)
        else:
            values[entry.name] = sum(own) if entry.name in _SUMMED else _joined(own, order)
    return AttackResult(**values)


def _joined(own: list[Any], order: NDArray[np.int64]) -> Any:
    first = own[0]
    if isinstance(first, Tensor):
        return torch.cat(own)[torch.from_numpy(order).to(first.device)]
    if isinstance(first, np.ndarray):
        return np.concatenate(own)[order]
    if isinstance(first, Mapping):
        return {key: _joined([value[key] for value in own], order) for key in first}
    return first


def _joined_severity(parts: Sequence[AttackResult], order: NDArray[np.int64]) -> Severity | None:
    if all(part.severity is None for part in parts):
        return None
    own = [
        part.severity or Severity(np.zeros_like(part.searched), part.adversarial, part.predictions) for part in parts
    ]
    return Severity(
        mask=_joined([one.mask for one in own], order),
        images=_joined([one.images for one in own], order),
        predictions=_joined([one.predictions for one in own], order),
    )
