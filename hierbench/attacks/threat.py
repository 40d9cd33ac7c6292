"""Threat models: how far, in which norm, an image may be moved."""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal, get_args

import torch
from torch import Tensor

from hierbench.errors import InputError

Norm = Literal["linf", "l2"]
NORMS: tuple[Norm, ...] = get_args(Norm)

BALL_TOLERANCE = 1e-6
"""How far float rounding may leave an image outside its ball."""

_NUMBER = re.compile(r"(?:\d{1,12}(?:\.\d{0,18})?|\.\d{1,18})(?:[eE][+-]?\d{1,2})?")


def parse_eps(value: str | float | Fraction, *, norm: Norm = "linf", name: str = "eps") -> Fraction:
    """Read a perturbation size as an exact fraction, in units where a pixel spans [0, 1].

    Accepts ``"8/255"``, ``"0.03137"``, ``"1e-2"``, numbers and fractions. Under ``linf`` the value lies in
    [0, 1]; under ``l2`` it may be larger. Anything else is an ``InputError`` of one line. METHODS.md 2.

    >>> parse_eps("8/255")
    Fraction(8, 255)
    >>> parse_eps("4")
    Traceback (most recent call last):
    ...
    hierbench.errors.InputError: eps 4 is above 1, and pixels span [0, 1]: did you mean 4/255?
    """
    shown = str(value).strip()
    parts = [part.strip() for part in shown.split("/")]
    # A pattern, not Fraction(text) alone: "1e999999999" would fill the memory before it failed.
    if len(parts) > 2 or not all(_NUMBER.fullmatch(part) for part in parts):
        raise InputError(
            f"{name} {shown[:40]!r} is not a size: give a fraction such as 8/255 or a decimal such as 0.03"
        )
    numbers = [Fraction(part) for part in parts]
    if len(numbers) == 2 and numbers[1] == 0:
        raise InputError(f"{name} {shown!r} divides by zero: give a fraction such as 8/255")
    eps = numbers[0] / numbers[1] if len(numbers) == 2 else numbers[0]
    if norm == "linf" and eps > 1:
        hint = f": did you mean {shown}/255?" if eps <= 255 and len(parts) == 1 else ""
        raise InputError(f"{name} {shown} is above 1, and pixels span [0, 1]{hint}")
    return eps


@dataclass(frozen=True, slots=True)
class ThreatModel:
    """A norm and an exact radius; the pixel grid is that of the images it is applied to.

    Args:
        norm: ``linf`` or ``l2``, over all pixels and channels of one image.
        eps: the radius, in units where a pixel spans [0, 1].

    Raises ``InputError`` on an unknown norm, a negative radius, or a linf radius above 1. METHODS.md 2.
    """

    norm: Norm
    eps: Fraction

    def __post_init__(self) -> None:
        if self.norm not in NORMS:
            raise InputError(f"norm {self.norm!r} is unknown: use {' or '.join(NORMS)}")
        object.__setattr__(self, "eps", parse_eps(self.eps, norm=self.norm))

    @property
    def radius(self) -> float:
        """The radius as a float."""
        return float(self.eps)

    def project(self, moved: Tensor, images: Tensor) -> Tensor:
        """Bring images back into the ball around ``images`` and into the box [0, 1].

        Shapes: both [B, c, h, w]. Ball first, box second: clipping to the box moves each pixel towards the
        clean one, which lies in the box, so the result is in both.
        """
        if self.norm == "linf":
            return torch.clamp(moved, *self.bounds(images))
        delta = moved - images
        length = delta.flatten(1).norm(dim=1).clamp_min(torch.finfo(delta.dtype).tiny)
        shrink = (self.radius / length).clamp_max(1.0)
        return (images + delta * per_image(shrink)).clamp_(0.0, 1.0)

    def bounds(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return the lowest and highest allowed pixels, [B, c, h, w] each: box and linf ball together."""
        return (images - self.radius).clamp_(min=0.0), (images + self.radius).clamp_(max=1.0)

    def direction(self, gradient: Tensor) -> Tensor:
        """Return the steepest unit move: the sign under linf, the normalised gradient under l2; zero stays zero."""
        if self.norm == "linf":
            return gradient.sign()
        # Scaled by the largest entry first: squares of gradients near 1e-30 would underflow to a zero length.
        largest = gradient.flatten(1).abs().amax(dim=1)
        scaled = gradient / per_image(torch.where(largest > 0, largest, torch.ones_like(largest)))
        length = scaled.flatten(1).norm(dim=1)
        return scaled / per_image(torch.where(length > 0, length, torch.ones_like(length)))

    def distances(self, moved: Tensor, images: Tensor) -> Tensor:
        """Return [B]: how far each image was moved, in this norm."""
        return distances(moved, images, norm=self.norm)


def distances(moved: Tensor, images: Tensor, *, norm: Norm) -> Tensor:
    """Return float64 [B]: the distance of each image from the clean one, [B, c, h, w] both."""
    delta = (moved.double() - images.double()).flatten(1)
    return delta.abs().amax(dim=1) if norm == "linf" else delta.norm(dim=1)


def per_image(values: Tensor) -> Tensor:
    """Return values [B] shaped to stand beside images, [B, 1, 1, 1]."""
    return values.view(-1, 1, 1, 1)
