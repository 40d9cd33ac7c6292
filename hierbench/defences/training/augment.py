"""How training images vary: shifted crops and flips, drawn from one step's own random stream."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from hierbench.errors import InputError


@dataclass(frozen=True)
class Augmentation:
    """Shifts of up to ``side / pad_fraction`` pixels into zero padding, and horizontal flips."""

    pad_fraction: int
    """0: no shifts."""
    flip: bool


AUGMENTATIONS: dict[str, Augmentation] = {
    "none": Augmentation(pad_fraction=0, flip=False),
    "photo": Augmentation(pad_fraction=8, flip=True),  # 4 pixels of 32
    "digit": Augmentation(pad_fraction=8, flip=False),  # 1 pixel of 8; a flipped digit is another sign
}


def named_augmentation(name: str) -> Augmentation:
    """Return an augmentation by name; an unknown one raises ``InputError``."""
    if name not in AUGMENTATIONS:
        raise InputError(f"augmentation {name!r} is unknown: use {', '.join(AUGMENTATIONS)}")
    return AUGMENTATIONS[name]


def augment(images: Tensor, how: Augmentation, stream: np.random.Generator) -> Tensor:
    """Return uint8 images [B, c, h, w], each shifted and flipped by its own draw."""
    count, _, height, width = images.shape
    pad = min(height, width) // how.pad_fraction if how.pad_fraction else 0
    # Always the same three draws, so that one setting does not move the randomness of another.
    top = stream.integers(0, 2 * pad + 1, count)
    left = stream.integers(0, 2 * pad + 1, count)
    flips = stream.random(count) < 0.5
    if pad == 0 and not how.flip:
        return images
    padded = torch.nn.functional.pad(images, (pad, pad, pad, pad))
    rows = torch.from_numpy(top[:, None] + np.arange(height))
    columns = np.arange(width)[None].repeat(count, axis=0)
    if how.flip:
        columns[flips] = columns[flips, ::-1]
    which = torch.arange(count)[:, None, None]
    # Indices on both sides of a slice put their axes first: the result is [B, h, w, c].
    picked = padded[which, :, rows[:, :, None], torch.from_numpy(left[:, None] + columns)[:, None, :]]
    return picked.permute(0, 3, 1, 2)
