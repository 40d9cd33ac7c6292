"""What a defence is: the parameters it trains, what its inner attack maximises, and its loss.

A new method is one file with a subclass of ``Defence`` that writes ``inner_objective`` and ``loss``, and one entry in
the catalogue. The trainer owns data, optimiser, schedule, checkpoints, resume and logging.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar

import torch
from torch import Tensor

from hierbench.defences.nodes import TrainingNodes
from hierbench.defences.perturb import Cost, InnerAttack, maximise
from hierbench.defences.settings import DefenceSettings

if TYPE_CHECKING:
    from hierbench.attacks.threat import ThreatModel
    from hierbench.datasets.spec import DatasetSpec
    from hierbench.hierarchy.tree import Forest
    from hierbench.models.zeroshot import ZeroShotModel

SettingsT = TypeVar("SettingsT", bound=DefenceSettings)

SCOPES = ("visual", "text", "text_projection", "head")
"""Groups of a model's parameters that a defence can train; ``text`` is the tower behind the projection, ``head`` the
logit scale of a cosine head and the scalars of a hyperbolic one."""


@dataclass(frozen=True)
class TrainingTask:
    """What a defence is trained for: the trained classes and nodes, their text features, and the threat model."""

    nodes: TrainingNodes
    hidden: Tensor
    """float [P, H]: the backbone's text features of ``nodes.prompts`` before the projection, encoded once."""
    threat: ThreatModel
    forest: Forest
    """The whole trees; ``nodes.classes`` says which of their leaves are trained."""
    template: str
    """Prompt of a node, with ``{noun}`` or ``{}``."""
    images_of: DatasetSpec
    """The data set the images come from: its name, classes and pixel grid."""
    text_moves: bool = False
    """Whether the text tower trains, so that prompts are encoded anew in every step."""

    def encode(self, model: ZeroShotModel, prompts: Sequence[str]) -> Tensor:
        """Return text features of prompts before the projection [N, H], on the graph if the text tower trains."""
        return model.encode_text(prompts) if self.text_moves else model.text_hidden(prompts)

    def text_features(self, model: ZeroShotModel) -> Tensor:
        """Return the projected features of ``nodes.prompts`` [P, E], not normalised, on the graph of what trains."""
        hidden = model.encode_text(self.nodes.prompts) if self.text_moves else self.hidden
        return hidden @ model.text_projection


@dataclass(frozen=True)
class Batch:
    """Clean training images [B, c, h, w] in [0, 1], their classes [B] (positions among the trained ones)."""

    pixels: Tensor
    labels: Tensor
    generator: torch.Generator
    """Random numbers of this step, for the attack's start."""
    step: int = 0
    """Weights' steps taken so far."""
    whole: int | None = None
    """Images of the whole step, where this is one part of several; None where it is all of them."""


@dataclass(frozen=True)
class Perturbed:
    """What the inner attack found."""

    pixels: Tensor
    """Adversarial images [B, c, h, w]."""
    text: Tensor | None = None
    """Perturbation of the normalised text features [P, E], if the defence attacks them."""
    others: tuple[tuple[Tensor, Tensor | None], ...] = ()
    """Further pairs of images and text perturbation, for a defence that uses several."""
    target: Tensor | None = None
    """What the attack moved away from and the loss moves back to, where that is the same constant."""
    gain: Tensor | None = None
    """How far the inner objective rose, per image."""
    cost: Cost = field(default_factory=Cost)


LogValues = dict[str, Tensor]


class Defence(ABC, Generic[SettingsT]):
    """One training method, bound to its settings and to a task."""

    name: ClassVar[str]
    adversarial: bool = True
    """Whether the loss must depend on adversarial images; the trainer refuses one that then ignores them."""
    passes: tuple[int, int] = (1, 1)
    """Images sent forward and backward through an image tower for each image of the batch, f0's included, beside the
    steps of the inner attack."""
    couples_images: ClassVar[bool] = False
    """Whether the loss compares the images of a batch, so that working through it in parts changes it."""

    def __init__(self, settings: SettingsT, task: TrainingTask) -> None:
        self.settings = settings
        self.task = task

    @property
    @abstractmethod
    def trains(self) -> tuple[str, ...]:
        """Which of ``SCOPES`` move."""

    def attach(self, model: ZeroShotModel) -> None:
        """Look at the untouched backbone, before anything is trained or resumed (a frozen copy is taken here)."""

    def prepare(self, model: ZeroShotModel, sample: Batch) -> None:
        """Set what is frozen from here on, from clean training images; not called again on resume."""

    def state(self) -> dict[str, Any]:
        """Return as JSON what ``prepare`` or a step set that is not in the model; for checkpoint and record."""
        return {}

    def load_state(self, state: dict[str, Any]) -> None:
        """Restore what ``state`` returned."""

    @property
    def inner_attack(self) -> InnerAttack:
        """Steps and step size at the task's eps."""
        return InnerAttack(steps=self.settings.attack_steps, alpha=self.settings.alpha(self.task.threat.eps))

    def class_logits(self, model: ZeroShotModel, pixels: Tensor, text: Tensor) -> Tensor:
        """Return logits [B, K] of images over the trained classes' prompts."""
        return model.logits(model.embed(pixels), model.head.points(text[: self.task.nodes.num_classes], 0))

    def inner_objective(self, model: ZeroShotModel, adversarial: Tensor, batch: Batch, text: Tensor) -> Tensor:
        """Return the scalar the inner attack maximises, summed over the batch; ``text`` as in ``perturb``."""
        raise NotImplementedError(f"defence {self.name!r} defines neither inner_objective nor perturb")

    def perturb(self, model: ZeroShotModel, batch: Batch, text: Tensor) -> Perturbed:
        """Run the inner attack; the weights are frozen and the model is in eval mode and fp32 around it.

        ``text`` [P, E] are the projected features of the nodes' prompts, detached.
        """

        def objective(pixels: Tensor, _: Tensor | None) -> Tensor:
            return self.inner_objective(model, pixels, batch, text)

        found = maximise(
            objective, batch.pixels, attack=self.inner_attack, threat=self.task.threat, generator=batch.generator
        )
        return Perturbed(pixels=found.pixels, gain=found.gain, cost=found.cost)

    @abstractmethod
    def loss(self, model: ZeroShotModel, batch: Batch, perturbed: Perturbed, text: Tensor) -> tuple[Tensor, LogValues]:
        """Return the scalar the weights minimise, and detached scalars to log.

        ``text`` [P, E] are the projected features of the nodes' prompts, on the graph of what trains.
        """

    def guards(self, model: ZeroShotModel, recent: dict[str, float]) -> dict[str, Any]:
        """Return collapse guards for the record; ``recent`` is the mean of the log over the last points."""
        return {}
