"""The inner attack of adversarial training: PGD on the images, and optionally on the text features, of one batch."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from hierbench.attacks.optimisers.pgd import ascend, uniform_start

if TYPE_CHECKING:
    from hierbench.attacks.threat import ThreatModel


@dataclass(frozen=True)
class InnerAttack:
    """Budget of the inner attack."""

    steps: int
    alpha: float
    text_eps: float = 0.0
    text_alpha: float = 0.0


@dataclass(frozen=True)
class Cost:
    """Images sent forward and backward through the visual tower."""

    forwards: int = 0
    backwards: int = 0

    def __add__(self, other: Cost) -> Cost:
        return Cost(self.forwards + other.forwards, self.backwards + other.backwards)


@dataclass(frozen=True)
class Found:
    """What one inner attack found: images [B, c, h, w] and a text perturbation [P, E], if there is one."""

    pixels: Tensor
    text: Tensor | None
    gain: Tensor
    """How far the objective rose, per image, from the start to the last gradient; 0 for one step."""
    cost: Cost


Objective = Callable[[Tensor, Tensor | None], Tensor]
"""Maps images [B, c, h, w] and a text perturbation (or None) to the scalar to maximise."""


def maximise(
    objective: Objective,
    images: Tensor,
    *,
    attack: InnerAttack,
    threat: ThreatModel,
    generator: torch.Generator,
    text_shape: tuple[int, int] | None = None,
) -> Found:
    """Ascend ``objective`` from a uniform start and return where it ended.

    One gradient serves both: the images step in the threat model's ball, the text perturbation, which starts at 0 and
    is shared by the batch, by ``text_alpha`` in the Linf ball of ``text_eps``. METHODS.md 5 and 5.8 (Perturbation).
    """
    adversarial = uniform_start(images, threat, generator=generator)
    text: Tensor | None = None
    if text_shape is not None and attack.text_eps > 0:
        text = images.new_zeros(text_shape)
    values = []
    for _ in range(attack.steps):
        adversarial = adversarial.detach().requires_grad_(True)
        inputs = [adversarial]
        if text is not None:
            text = text.detach().requires_grad_(True)
            inputs.append(text)
        value = objective(adversarial, text)
        gradients = torch.autograd.grad(value, inputs)
        values.append(value.detach())
        adversarial = ascend(adversarial.detach(), images, gradients[0], threat, attack.alpha)
        if text is not None:
            stepped = text.detach() + attack.text_alpha * gradients[1].sign()
            text = stepped.clamp(-attack.text_eps, attack.text_eps)
    spent = attack.steps * len(images)
    return Found(pixels=adversarial, text=text, gain=(values[-1] - values[0]) / len(images), cost=Cost(spent, spent))


@contextmanager
def weights_frozen(model: nn.Module, trained: Iterable[nn.Parameter]) -> Iterator[None]:
    """Hold a model in eval mode with no gradients on the trained weights, then put both back."""
    trained = list(trained)
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    for parameter in trained:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in trained:
            parameter.requires_grad_(True)
        for module, mode in modes:
            module.training = mode
