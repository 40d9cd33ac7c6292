"""Random crops, flips and small rotations of a whole batch at once."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor


def vary(pixels: Tensor, flip: Tensor, generator: torch.Generator) -> Tensor:
    """Return varied pixels: one affine map an image (scale, shift, slight turn), flipped where allowed.

    ``pixels`` float [B, 3, H, W] in [0, 1]; ``flip`` bool [B] says which may be mirrored (a digit may not).
    Also scales each image's contrast and brightness a little.
    """
    count = pixels.shape[0]

    def uniform(low: float, high: float) -> Tensor:
        return torch.rand(count, generator=generator) * (high - low) + low

    scale = torch.exp(uniform(math.log(0.7), math.log(1.05)))
    stretch = torch.exp(uniform(-0.15, 0.15))
    angle = uniform(-0.12, 0.12)
    mirror = torch.where(flip & (uniform(0, 1) < 0.5), -1.0, 1.0)
    room = (1 - scale).clamp(min=0) + 0.06
    matrix = torch.zeros(count, 2, 3)
    matrix[:, 0, 0] = mirror * scale * stretch * torch.cos(angle)
    matrix[:, 0, 1] = -scale * torch.sin(angle)
    matrix[:, 1, 0] = mirror * scale * torch.sin(angle)
    matrix[:, 1, 1] = scale / stretch * torch.cos(angle)
    matrix[:, 0, 2] = uniform(-1, 1) * room
    matrix[:, 1, 2] = uniform(-1, 1) * room
    grid = F.affine_grid(matrix, list(pixels.shape), align_corners=False)
    moved = F.grid_sample(pixels, grid, mode="bilinear", padding_mode="reflection", align_corners=False)
    contrast = uniform(0.75, 1.3).view(-1, 1, 1, 1)
    shift = uniform(-0.12, 0.12).view(-1, 1, 1, 1)
    return ((moved - 0.5) * contrast + 0.5 + shift).clamp(0, 1)
