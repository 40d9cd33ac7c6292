"""The continuous text attack: PGD on the projected text features, per image."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn.functional import normalize

from hierbench.attacks.objectives.base import Objective
from hierbench.attacks.text.settings import Scope
from hierbench.attacks.verdict import Criterion

if TYPE_CHECKING:
    from hierbench.models.binding import BoundModel

VALUES_AT_ONCE = 2**24
"""Numbers of perturbed text features held at once: a batch is made smaller where classes and dimensions are many."""


@dataclass(frozen=True, eq=False)
class FeatureSearch:
    """What the search on some samples found, one row a sample.

    Attributes:
        logits: [n, N] under the perturbed features, by a forward of its own.
        clean_loss, final_loss: [n] the objective at the clean features and at those found.
        linf: float64 [n], the largest change of a normalised feature.
        steps: long [n], gradient steps up to the first success, or all of them.
        saw_success: bool [n], whether the search saw the verdict break.
        gradients, zero_gradients, nonfinite_gradients: one a sample and step; of these, 0 everywhere, or not finite.
    """

    logits: Tensor
    clean_loss: Tensor
    final_loss: Tensor
    linf: Tensor
    steps: Tensor
    saw_success: Tensor
    gradients: int
    zero_gradients: int
    nonfinite_gradients: int


@dataclass(frozen=True, eq=False)
class FeatureAttack:
    """PGD on delta, ||delta||_inf <= eps, added to the normalised text features W h / ||W h|| of one depth.

    Each image has its own delta. It starts at 0, steps along the gradient's sign by eps / 4, and the feature keeps
    its length, so that a head that reads lengths sees no other one; the head maps it to its point. METHODS.md 3, 5.8.

    Args:
        bound: the model with its prompts.
        depth: whose prompts are moved.
        scope: all of them, or each sample's own.
        eps, steps: radius and gradient steps.
        objective: what is maximised, on the logits [B, N].
        criterion: the verdict that ends a sample's search.
    """

    bound: BoundModel
    depth: int
    scope: Scope
    eps: float
    steps: int
    objective: Objective
    criterion: Criterion

    @torch.no_grad()
    def features(self) -> tuple[Tensor, Tensor]:
        """Return the normalised text features [N_d, E] and their lengths [N_d, 1]."""
        model = self.bound.model
        projected = model.text_hidden(self.bound.prompts[self.depth - 1]) @ model.text_projection
        return normalize(projected, dim=-1), projected.norm(dim=-1, keepdim=True)

    def search(self, embeddings: Tensor, labels: Tensor, clean_logits: Tensor, *, batch_size: int) -> FeatureSearch:
        """Attack samples given their image embeddings [n, E], not normalised, and clean logits [n, N]."""
        unit, length = self.features()
        size = max(1, min(batch_size, VALUES_AT_ONCE // unit.numel()))
        aims = self.objective.aims(clean_logits, labels, self.criterion.layout)
        parts = [
            self._batch(
                embeddings[start : start + size],
                labels[start : start + size],
                clean_logits[start : start + size],
                aims[start : start + size],
                unit,
                length,
            )
            for start in range(0, len(labels), size)
        ]
        return FeatureSearch(
            **{
                name: torch.cat([getattr(part, name) for part in parts])
                for name in ("logits", "clean_loss", "final_loss", "linf", "steps", "saw_success")
            },
            gradients=sum(part.gradients for part in parts),
            zero_gradients=sum(part.zero_gradients for part in parts),
            nonfinite_gradients=sum(part.nonfinite_gradients for part in parts),
        )

    def _batch(
        self, embeddings: Tensor, labels: Tensor, clean_logits: Tensor, aims: Tensor, unit: Tensor, length: Tensor
    ) -> FeatureSearch:
        layout, criterion = self.criterion.layout, self.criterion
        truth = layout.node_of_leaf(self.depth)[labels]
        node = criterion.true_node(labels)
        rows = torch.arange(len(labels), device=labels.device)
        shape = (len(labels), len(unit) if self.scope == "all" else 1, unit.shape[1])
        best = unit.new_zeros(shape)
        best_margin = unit.new_full((len(labels),), -math.inf)
        best_run = torch.zeros_like(labels)
        broke = torch.zeros_like(labels, dtype=torch.bool)
        steps = torch.zeros_like(labels)
        gradients = zero = odd = 0
        for run in range(aims.shape[1]):
            live = rows[~broke]
            delta = best.new_zeros((len(live), *shape[1:]))
            for step in range(self.steps + 1):
                if not len(live):
                    break
                moved = delta.detach().requires_grad_(step < self.steps)
                logits = self._logits(moved, embeddings[live], truth[live], clean_logits[live], unit, length)
                breaks, _ = criterion.broken(logits.detach(), node[live])
                margin = criterion.margin(logits.detach(), node[live])
                better = breaks | (margin > best_margin[live])
                best[live[better]], best_margin[live[better]] = moved.detach()[better], margin[better]
                best_run[live[better]] = run
                broke[live[breaks]] = True
                if step == self.steps:
                    break
                loss = self.objective.loss(logits, aims[live, run], layout)
                (gradient,) = torch.autograd.grad(loss.sum(), moved)
                stay = ~breaks
                live, gradient, delta = live[stay], gradient[stay], delta[stay]
                flat = gradient.flatten(1)
                gradients += len(live)
                zero += int((flat == 0).all(dim=1).sum())
                odd += int((~torch.isfinite(flat)).any(dim=1).sum())
                gradient = gradient.nan_to_num(nan=0.0, posinf=0.0, neginf=0.0)
                delta = (delta + gradient.sign() * (self.eps / 4)).clamp(-self.eps, self.eps)
                steps[live] += 1
        with torch.no_grad():
            final = self._logits(best, embeddings, truth, clean_logits, unit, length)
            own = aims[rows, best_run]
            losses = [self.objective.loss(given, own, layout).float() for given in (clean_logits, final)]
        return FeatureSearch(
            logits=final,
            clean_loss=losses[0],
            final_loss=losses[1],
            linf=best.double().abs().flatten(1).amax(dim=1),
            steps=steps,
            saw_success=broke,
            gradients=gradients,
            zero_gradients=zero,
            nonfinite_gradients=odd,
        )

    def _logits(
        self, delta: Tensor, embeddings: Tensor, truth: Tensor, clean_logits: Tensor, unit: Tensor, length: Tensor
    ) -> Tensor:
        """Return logits [B, N] with the perturbed features' columns in their places."""
        head = self.bound.model.head
        steps_above = self.bound.hierarchy.num_depths - self.depth
        start, stop = self.criterion.layout.columns[self.depth - 1]
        if self.scope == "all":
            points = head.points(length * (unit + delta), steps_above)
        else:
            points = head.points(length[truth][:, None] * (unit[truth][:, None] + delta), steps_above)
        images = head.image_points(embeddings)
        found = torch.func.vmap(lambda u, v: head.point_logits(u[None], v)[0])(images, points)
        if self.scope == "true":
            return clean_logits.scatter(1, start + truth[:, None], found)
        return torch.cat([clean_logits[:, :start], found, clean_logits[:, stop:]], dim=1)
