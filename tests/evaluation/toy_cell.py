"""A toy cell: 4 classes in a 2 / 4 tree, 8 x 8 one-channel images, a linear model, a small attack of its own."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hierbench.attacks.verdict import broken, predicted_nodes
from hierbench.evaluation.cell import Cell, Chunk, Effort, StepReport, cell_name
from hierbench.evaluation.identity import (
    Arguments,
    AttackIdentity,
    DatasetIdentity,
    Environment,
    HierarchyIdentity,
    Identity,
    ModelIdentity,
    ProtocolIdentity,
)
from hierbench.evaluation.storage import digest_json
from hierbench.evaluation.verdicts import AttackVerdicts, CleanVerdicts
from hierbench.models.layout import NodeLayout

LEVELS = [[0, 0, 1, 1], [0, 1, 2, 3]]
CLASSES = ("cat", "dog", "car", "bus")
ZERO = "sha256:" + "0" * 64


@dataclass(frozen=True)
class ToyLevel:
    size: int

    def __len__(self) -> int:
        return self.size


class ToyTree:
    """The parts of a ``Hierarchy`` that scores read."""

    num_depths, num_leaves = 2, 4
    depths = range(1, 3)
    leaf_to_node = np.array(LEVELS)
    lca_height = np.array([[0, 1, 2, 2], [1, 0, 2, 2], [2, 2, 0, 1], [2, 2, 1, 0]])
    lca_depth = np.array([[2, 1, 0, 0], [1, 2, 0, 0], [0, 0, 2, 1], [0, 0, 1, 2]])
    path_length = np.array([[0, 2, 4, 4], [2, 0, 4, 4], [4, 4, 0, 2], [4, 4, 2, 0]])
    leaf_depth = np.array([2, 2, 2, 2])

    def level(self, depth: int) -> ToyLevel:
        return ToyLevel(int(self.leaf_to_node[depth - 1].max()) + 1)


@dataclass
class ToyImages:
    ids: tuple[str, ...]
    labels: np.ndarray
    array: np.ndarray

    def pixels(self, indices: Any) -> Tensor:
        return torch.from_numpy(self.array[np.asarray(indices)])


def toy_images(n: int = 40, seed: int = 0) -> ToyImages:
    rng = np.random.default_rng(seed)
    labels = np.arange(n) % 4
    array = rng.integers(0, 256, size=(n, 1, 8, 8)).astype(np.uint8)
    for i, label in enumerate(labels):  # a bright quadrant says the class, faintly
        top, left = divmod(int(label), 2)
        patch = array[i, 0, 4 * top : 4 * top + 4, 4 * left : 4 * left + 4].astype(int)
        array[i, 0, 4 * top : 4 * top + 4, 4 * left : 4 * left + 4] = np.minimum(255, patch + 60)
    return ToyImages(tuple(f"toy-{i}" for i in range(n)), labels.astype(np.int64), array)


class ToyVictim:
    """Quadrant means as leaf logits, their pair sums as direct logits; sign steps along the known gradient."""

    def __init__(self, eps: float, *, depths: Sequence[int] = (1, 2), direct: bool = True) -> None:
        self.layout = NodeLayout.from_levels(LEVELS, direct=direct)
        self.eps = eps
        self.calls: list[tuple[str, int, int]] = []
        self.stop_at: int | None = None
        self.fault: str | None = None

    def logits(self, pixels: Tensor) -> Tensor:
        quadrants = pixels.unfold(2, 4, 4).unfold(3, 4, 4).mean(dim=(1, 4, 5)).flatten(1) * 20
        return torch.cat([quadrants, quadrants[:, :2].sum(1, True), quadrants[:, 2:].sum(1, True)], 1)

    def _called(self, phase: str, depth: int, n: int) -> None:
        if self.stop_at is not None and len(self.calls) >= self.stop_at:
            raise KeyboardInterrupt
        self.calls.append((phase, depth, n))

    def clean(self, chunk: Chunk) -> tuple[CleanVerdicts, Effort]:
        self._called("clean", 0, len(chunk.ids))
        logits, labels = self.logits(chunk.pixels.float() / 255), torch.from_numpy(chunk.labels)
        verdicts = CleanVerdicts(
            predicted=predicted_nodes(logits, self.layout, "rollup")[:, -1].numpy(),
            broken_rollup=broken(logits, labels, self.layout, "rollup").numpy(),
            broken_direct=broken(logits, labels, self.layout, "direct").numpy() if self.layout.has_direct else None,
        )
        return verdicts, Effort(forwards=len(chunk.ids), seconds=0.01)

    def attack(
        self, chunk: Chunk, clean: CleanVerdicts, depth: int, report: StepReport
    ) -> tuple[AttackVerdicts, Effort]:
        self._called("attack", depth, len(chunk.ids))
        n, labels = len(chunk.ids), torch.from_numpy(chunk.labels)
        images = chunk.pixels.float() / 255
        moved = images.clone()
        own = self.layout.node_of_leaf(depth)[labels]
        for i in range(n):  # down on the quadrants of the true node, up on the others
            for leaf in range(4):
                top, left = divmod(leaf, 2)
                sign = -1.0 if int(self.layout.node_of_leaf(depth)[leaf]) == int(own[i]) else 1.0
                moved[i, 0, 4 * top : 4 * top + 4, 4 * left : 4 * left + 4] += sign * self.eps
        moved = moved.clamp(0, 1)
        searched = torch.from_numpy(~clean.broken_rollup[:, depth - 1])
        if self.fault == "returns the clean images":
            moved = images.clone()
        moved = torch.where(searched[:, None, None, None], moved, images)
        logits = self.logits(moved)
        predicted = predicted_nodes(logits, self.layout, "rollup")[:, -1].numpy()
        delta = (moved - images).double().flatten(1)
        nan = np.full(n, np.nan)
        chosen = searched.numpy() & chunk.full_budget
        clean_loss = np.where(searched, 0.5, nan)
        final_loss = np.where(searched, 0.5 if self.fault == "does not raise its loss" else 1.5, nan)
        verdicts = AttackVerdicts(
            predicted=predicted,
            broken_rollup=broken(logits, labels, self.layout, "rollup").numpy(),
            broken_direct=broken(logits, labels, self.layout, "direct").numpy() if self.layout.has_direct else None,
            searched=searched.numpy(),
            moved=(delta.abs().amax(1) > 0).numpy(),
            unverified=np.zeros(n, dtype=bool),
            linf=delta.abs().amax(1).numpy(),
            l2=delta.norm(dim=1).numpy(),
            steps=np.where(searched, 3, 0).astype(np.int64),
            clean_loss=clean_loss,
            final_loss=final_loss,
            full_budget=chunk.full_budget,
            severity_predicted=np.where(chosen, predicted, -1),
        )
        report(n, int((~verdicts.broken_rollup[:, depth - 1]).sum()), 4 * n)
        count = int(searched.sum())
        return verdicts, Effort(forwards=4 * n, backwards=3 * n, gradients=3 * count, seconds=0.1)


def toy_cell(
    folder: Path,
    *,
    n: int = 40,
    eps: str = "30/255",
    depths: tuple[int, ...] = (1, 2),
    batch_size: int = 4,
    scoring: str = "rollup",
    model: str = "toy",
    seed: int = 0,
    protocol: str = "toy-v1",
    severity_samples: int = 10,
    direct: bool = True,
    dataset: str = "toyset",
) -> Cell:
    images = toy_images(n, seed)
    identity = Identity(
        cell="pending",
        protocol=ProtocolIdentity(name=protocol, version=1, hash=ZERO, custom=False, deviations=()),
        model=ModelIdentity(name=model, weights_hash=ZERO, backbone="toy", defence="none"),
        dataset=DatasetIdentity(
            name=dataset,
            split="test",
            revision="file:toy",
            sample_list_hash=digest_json(list(images.ids)),
            sampling_rule="stratified-v1",
            grid=(8, 8, 1),
            template="{}",
        ),
        hierarchy=HierarchyIdentity(name="pairs", hash=ZERO, leaves=4, nodes_per_depth=(2, 4)),
        attack=AttackIdentity(
            name="toy_attack",
            parameters={"steps": 3},
            components=("toy",),
            engine="hierbench",
            norm="linf",
            eps=eps,
            eps_value=float(Fraction(eps)),
            depths=depths,
            scoring=scoring,  # type: ignore[arg-type]
            severity_samples=severity_samples,
        ),
    )
    name = cell_name(identity, seed=seed, batch_size=batch_size)
    environment = Environment(
        hierbench="0", code_hash=ZERO, packages={}, python="3", platform="toy", git_commit=None, git_dirty=None,
        device="cpu", dtype="float32", threads=1, seed=seed, batch_size=batch_size,
    )  # fmt: skip
    return Cell(
        identity=identity.model_copy(update={"cell": name}),
        arguments=Arguments(given={}, resolved={}),
        environment=environment,
        images=images,
        hierarchy=ToyTree(),  # type: ignore[arg-type]
        class_ids=CLASSES,
        victim=ToyVictim(float(Fraction(eps)), direct=direct),
        folder=folder,
    )


def with_victim(cell: Cell, **changes: Any) -> Cell:
    """Return the cell with a fresh victim that has these attributes."""
    victim = ToyVictim(cell.identity.attack.eps_value)
    for name, value in changes.items():
        setattr(victim, name, value)
    return dataclasses.replace(cell, victim=victim)
