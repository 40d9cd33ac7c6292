"""Small models, trees and optimisers whose right answers are known."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from hierbench.attacks.catalogue import ATTACKS
from hierbench.attacks.optimisers.base import Rows, Visit
from hierbench.attacks.optimisers.noise import RowNoise
from hierbench.attacks.threat import ThreatModel
from hierbench.models.layout import NodeLayout

LEVELS = [[0, 0, 0, 1, 1, 1, 1, 1], [0, 0, 1, 2, 2, 3, 3, 4], [0, 1, 2, 3, 4, 5, 6, 7]]
"""Three depths over eight leaves; leaf 2 and leaf 7 are ragged: they stand for themselves at depth 2 already."""

TREE = NodeLayout.from_levels(LEVELS, direct=True)
PAIR = NodeLayout.from_levels([[0, 1]], direct=True)


class Linear(nn.Module):
    """Logits that are affine in the pixels: every optimum is known in closed form."""

    def __init__(self, width: int, *, shape: tuple[int, int, int] = (1, 4, 4), seed: int = 0) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        size = shape[0] * shape[1] * shape[2]
        self.weight = nn.Parameter(torch.randn(width, size, generator=generator), requires_grad=False)
        self.bias = nn.Parameter(torch.randn(width, generator=generator) * 0.1, requires_grad=False)

    def forward(self, pixels: Tensor) -> Tensor:
        return (pixels - 0.5).flatten(1) @ self.weight.T + self.bias


class Centred(nn.Module):
    """Takes 0.5 off every pixel: without it, random networks give nearly every image one answer."""

    def forward(self, pixels: Tensor) -> Tensor:
        return pixels - 0.5


def conv_net(width: int, *, channels: int = 3, seed: int = 0) -> nn.Module:
    """A small convolutional network of frozen random weights for 8 x 8 images; it answers all over the place."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        net = nn.Sequential(
            Centred(),
            nn.Conv2d(channels, 8, 3, padding=1, bias=False),
            nn.LeakyReLU(0.3),
            nn.Conv2d(8, 8, 3, padding=1, stride=2, bias=False),
            nn.LeakyReLU(0.3),
            nn.Flatten(),
            nn.Linear(128, width, bias=False),
        )
    return net.eval().requires_grad_(False)


def images_of(count: int, shape: tuple[int, int, int] = (3, 8, 8), *, seed: int = 0) -> Tensor:
    return torch.rand(count, *shape, generator=torch.Generator().manual_seed(seed))


def ids_of(count: int) -> list[str]:
    return [f"sample-{index}" for index in range(count)]


@dataclass(frozen=True)
class Walk:
    """Moves every pixel by ``stride`` a step, whatever the gradient says; run r walks in the direction (-1)**r."""

    steps: int
    stride: float
    alternate: bool = False
    uses_gradient: bool = True

    def start(self, clean: Tensor, threat: ThreatModel, noise: RowNoise) -> tuple[Tensor, Rows]:
        signs = [-1.0 if self.alternate and run % 2 == 0 else 1.0 for run in noise.restarts]
        return clean.clone(), {"sign": torch.tensor(signs)}

    def advance(self, visit: Visit, state: Rows) -> tuple[Tensor, Rows]:
        distance = (visit.step + 1).to(visit.query) * self.stride * state["sign"]
        return visit.threat.project(visit.clean + distance.view(-1, 1, 1, 1), visit.clean), state


@dataclass(frozen=True)
class Watched:
    """Another optimiser, with every first point it gave written down by (sample, run)."""

    inner: object
    starts: dict[tuple[int, int], Tensor] = field(default_factory=dict)

    @property
    def steps(self) -> int:
        return self.inner.steps

    @property
    def uses_gradient(self) -> bool:
        return self.inner.uses_gradient

    def start(self, clean: Tensor, threat: ThreatModel, noise: RowNoise) -> tuple[Tensor, Rows]:
        query, state = self.inner.start(clean, threat, noise)
        for row, key in enumerate(zip(noise.samples, noise.restarts, strict=True)):
            self.starts[key] = query[row].clone()
        return query, state

    def advance(self, visit: Visit, state: Rows) -> tuple[Tensor, Rows]:
        return self.inner.advance(visit, state)


OURS = [
    name
    for name, spec in ATTACKS.items()
    if spec.runner is None
    and spec.prepare is None
    and not spec.universal
    and name not in ("angular_pgd", "universal_hier")  # they read the model's embedding
]
"""The named attacks that run in our own loop and need nothing but logits."""
