"""Watching a run on images it does not train on: accuracy at every depth, clean and under attack, while it trains."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from hierbench.defences.perturb import Cost, InnerAttack, maximise
from hierbench.defences.training.order import torch_stream

if TYPE_CHECKING:
    from hierbench.defences.base import TrainingTask
    from hierbench.models.zeroshot import ZeroShotModel

BATCH = 128

OVERFITTING_DROP = 0.5
"""Robust accuracy at the leaves below this share of its best so far is catastrophic overfitting (arXiv 2001.03994)."""

OVERFITTING_FLOOR = 0.1
"""A best below this says nothing yet."""


@dataclass(frozen=True, eq=False)
class Watch:
    """Validation images of the trained classes, and the attack on them: PGD on the leaf cross-entropy, alpha = eps/4.

    Args:
        pixels: float [n, c, h, w] in [0, 1].
        labels: long [n], positions among the trained classes.
        task: what is trained.
        steps: of the attack.
        seed: of its starts, the same at every point.
        data: content hash of the images, for the record.
    """

    pixels: Tensor
    labels: Tensor
    task: TrainingTask
    steps: int
    seed: int
    data: str = ""

    def measure(self, model: ZeroShotModel) -> tuple[dict[str, float], Cost]:
        """Return shares of right answers: ``clean/leaf``, ``robust/leaf``, ``clean/<tree>/<steps above the leaf>``, ...

        Superclasses are scored by roll-up, under the one attack on the leaves.
        """
        right: dict[str, float] = {}
        cost = Cost()
        with torch.no_grad():
            text = self.task.text_features(model)
            points = model.head.points(text[: self.task.nodes.num_classes], 0)
        threat = self.task.threat
        attack = InnerAttack(steps=self.steps, alpha=float(threat.eps) / 4)
        found: dict[str, list[Tensor]] = {"clean": [], "robust": []}
        parts = zip(torch.split(self.pixels, BATCH), torch.split(self.labels, BATCH), strict=True)
        for number, (pixels, labels) in enumerate(parts):

            def objective(images: Tensor, _: Tensor | None, labels: Tensor = labels) -> Tensor:
                return nn.functional.cross_entropy(model.logits(model.embed(images), points), labels, reduction="sum")

            generator = torch_stream(self.seed, "validation", number, device=pixels.device)
            attacked = maximise(objective, pixels, attack=attack, threat=threat, generator=generator)
            with torch.no_grad():
                found["clean"].append(model.logits(model.embed(pixels), points).argmax(-1))
                found["robust"].append(model.logits(model.embed(attacked.pixels), points).argmax(-1))
            cost += attacked.cost + Cost(2 * len(pixels), 0)
        for kind, classes in found.items():
            predicted = torch.cat(classes)
            right[f"{kind}/leaf"] = float((predicted == self.labels).double().mean())
            for tree in self.task.nodes.trees:
                here, truth = predicted, self.labels
                for level in tree.levels:
                    here, truth = level.parent[here], level.parent[truth]
                    right[f"{kind}/{tree.name}/{level.steps}"] = float((here == truth).double().mean())
        return right, cost


def overfits(points: Sequence[dict[str, Any]]) -> bool:
    """Whether robust accuracy at the leaves has collapsed at some point, for good or not.

    >>> overfits([{"robust/leaf": 0.3}, {"robust/leaf": 0.2}]), overfits([{"robust/leaf": 0.3}, {"robust/leaf": 0.1}])
    (False, True)
    """
    best = 0.0
    for point in points:
        robust = float(point["robust/leaf"])
        if best >= OVERFITTING_FLOOR and robust < OVERFITTING_DROP * best:
            return True
        best = max(best, robust)
    return False
