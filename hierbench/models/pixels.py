"""From a data set's pixel grid to what the image tower takes: inside the model, so that attacks act on the grid."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class PixelInput(nn.Module):
    """Channel repeat, resize and normalisation.

    Maps float pixels [B, 1 or 3, h, w] in [0, 1] to normalised [B, 3, size, size]. Resizing is bicubic,
    with an anti-alias filter where it shrinks; the same size passes through untouched.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, size: int, mean: tuple[float, float, float], std: tuple[float, float, float]) -> None:
        super().__init__()
        self.size = size
        self.register_buffer("mean", torch.tensor(mean).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(1, 3, 1, 1), persistent=False)

    def forward(self, pixels: Tensor) -> Tensor:
        """Map [B, 1 or 3, h, w] to [B, 3, size, size]."""
        if pixels.shape[-2:] != (self.size, self.size):
            shrinks = max(pixels.shape[-2:]) > self.size
            pixels = F.interpolate(pixels, (self.size, self.size), mode="bicubic", antialias=shrinks)
        if pixels.shape[1] == 1:
            pixels = pixels.expand(-1, 3, -1, -1)
        return (pixels - self.mean) / self.std
