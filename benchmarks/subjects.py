"""Models on their test images, and one run of ours or of a library's on them: what the benchmarks share."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

import hierbench
from hierbench.attacks.catalogue import ATTACKS
from hierbench.attacks.engine.attack import run_attack
from hierbench.attacks.engine.result import AttackResult
from hierbench.attacks.external.pyautoattack import Budget, run_pyautoattack
from hierbench.attacks.external.torchattacks import run_torchattacks
from hierbench.attacks.threat import ThreatModel
from hierbench.datasets.images import ImageSet
from hierbench.datasets.load import load_images
from hierbench.hierarchy.catalogue import load_hierarchy
from hierbench.hierarchy.tree import Hierarchy
from hierbench.models.binding import bind
from hierbench.models.layout import NodeLayout

BATCH = 128


@dataclass(frozen=True)
class Subject:
    """A model bound to a data set's default tree, its images, and where they are computed."""

    model: str
    dataset: str
    forward: Callable[[Tensor], Tensor]
    layout: NodeLayout
    images: Tensor
    labels: NDArray[np.int64]
    ids: tuple[str, ...]
    device: torch.device
    identity: Mapping[str, str]

    def clean_right(self) -> list[int]:
        """Return how many images are right at each depth, coarsest first."""
        labels = torch.from_numpy(self.labels).to(self.device)
        with torch.no_grad():
            parts = [self.forward(part.to(self.device)).argmax(dim=1) for part in torch.split(self.images, BATCH)]
        found = torch.cat(parts)
        nodes = self.layout.leaf_to_node
        return [int((row[found] == row[labels]).sum()) for row in nodes]

    def milliseconds(self) -> tuple[float, float]:
        """Return the time of a forward, and of a forward with its backward, for one image of a full batch."""
        images = self.images[torch.arange(BATCH) % len(self.images)].to(self.device)
        times: list[tuple[float, float]] = []
        for _ in range(3):
            began = time.perf_counter()
            with torch.no_grad():
                float(self.forward(images).sum())
            middle = time.perf_counter()
            query = images.clone().requires_grad_()
            torch.autograd.grad(self.forward(query).sum(), query)
            times.append((middle - began, time.perf_counter() - middle))
        forward, both = np.median(times, axis=0) * 1000 / BATCH
        return float(forward), float(both)


def load_subject(model: str, dataset: str, *, limit: int, device: str = "cpu") -> Subject:
    """Load a model and the first ``limit`` images of the committed order; node logits are made from the leaves'."""
    return bound_subject(model, load_images(dataset, limit=limit), load_hierarchy(dataset), device=device)


def bound_subject(
    model: str, images: ImageSet, tree: Hierarchy, *, classes: Sequence[str] | None = None, device: str = "cpu"
) -> Subject:
    """Load a model for images and a tree; ``classes``, where given, are those of the tree, images of others absent."""
    loaded = hierbench.load_model(model, device=device)
    bound = bind(loaded, tree, template=images.spec.template, direct=False).eval()
    labels = images.labels
    if classes is not None:
        place = {images.spec.class_ids.index(class_id): index for index, class_id in enumerate(classes)}
        labels = np.array([place[label] for label in labels.tolist()], dtype=np.int64)
    return Subject(
        model=model,
        dataset=images.spec.name,
        forward=bound,
        layout=bound.layout,
        images=images.pixels(np.arange(len(images))).float() / 255,
        labels=labels,
        ids=tuple(images.ids),
        device=torch.device(device),
        identity={
            "weights_hash": loaded.weights_hash,
            "sample_hash": images.sample_hash,
            "tree": tree.tree,
            "tree_hash": tree.content_hash,
        },
    )


def ours(
    subject: Subject,
    attack: str,
    *,
    eps: Fraction,
    depth: int,
    seed: int,
    settings: Mapping[str, object],
    forward: Callable[[Tensor], Tensor] | None = None,
    in_full: bool = False,
) -> AttackResult:
    """Run one of our named attacks under roll-up, ``in_full`` past the first success of each sample."""
    spec = ATTACKS.get(attack)
    return run_attack(
        forward or subject.forward,
        subject.images,
        subject.labels,
        subject.ids,
        plan=spec.plan(depth=depth, layout=subject.layout, scoring="rollup", settings=settings),
        pooled=spec.pools("rollup"),
        layout=subject.layout,
        threat=ThreatModel("linf", eps),
        depth=depth,
        scoring="rollup",
        batch_size=BATCH,
        seed=seed,
        dataset=subject.dataset,
        attack_name=attack,
        full_budget=np.full(len(subject.ids), in_full),
        device=subject.device,
    )


def autoattack(
    subject: Subject, attacks: Sequence[str], *, eps: Fraction, depth: int, seed: int, budget: Budget
) -> AttackResult:
    """Run the AutoAttack authors' code on the largest leaf logit of each node, whose arg-max is the verdict."""
    return run_pyautoattack(
        subject.forward,
        subject.images,
        subject.labels,
        subject.ids,
        layout=subject.layout,
        threat=ThreatModel("linf", eps),
        depth=depth,
        scoring="rollup",
        batch_size=BATCH,
        seed=seed,
        version="custom",
        attacks=attacks,
        budget=budget,
        device=subject.device,
    )


def foreign(
    subject: Subject, attack: str, *, eps: Fraction, depth: int, seed: int, settings: Mapping[str, object]
) -> AttackResult:
    """Run an attack of torchattacks."""
    return run_torchattacks(
        attack,
        subject.forward,
        subject.images,
        subject.labels,
        subject.ids,
        layout=subject.layout,
        threat=ThreatModel("linf", eps),
        depth=depth,
        scoring="rollup",
        batch_size=BATCH,
        seed=seed,
        dataset=subject.dataset,
        settings=settings,
        device=subject.device,
    )
