"""A running mean of the weights, kept beside them (EMA; Izmailov et al. 2018 for why it helps robust training)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn


class WeightAverage:
    """``mean = decay mean + (1 - decay) weights`` after every step, from the first step's weights on."""

    def __init__(self, decay: float, weights: Mapping[str, nn.Parameter]) -> None:
        self.decay = decay
        self.weights = weights
        self.mean: dict[str, Tensor] = {}

    @torch.no_grad()
    def update(self) -> None:
        """Take one step's weights in."""
        for name, weight in self.weights.items():
            if name in self.mean:
                self.mean[name].lerp_(weight.detach(), 1.0 - self.decay)
            else:
                self.mean[name] = weight.detach().clone()

    @torch.no_grad()
    def adopt(self) -> None:
        """Make the mean the weights."""
        for name, value in self.mean.items():
            self.weights[name].copy_(value)

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Have the mean stand for the weights inside the block."""
        kept = {name: weight.detach().clone() for name, weight in self.weights.items()}
        self.adopt()
        try:
            yield
        finally:
            with torch.no_grad():
                for name, value in kept.items():
                    self.weights[name].copy_(value)

    def tensors(self) -> dict[str, Tensor]:
        """Return what a checkpoint keeps."""
        return {f"ema/{name}": value for name, value in self.mean.items()}

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Put back what ``tensors`` returned."""
        for key, value in tensors.items():
            if key.startswith("ema/"):
                name = key.removeprefix("ema/")
                self.mean[name] = torch.empty_like(self.weights[name]).copy_(value)
