"""Square under l2: mass is moved between windows of the perturbation (arXiv 1912.00049, section 3.3)."""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor

from hierbench.attacks.threat import ThreatModel, per_image

_TINY = 1e-12


def bumps(clean: Tensor, threat: ThreatModel, signs: Tensor) -> Tensor:
    """Return images with a 5 x 5 grid of bumps of random sign, on the sphere of the radius, clipped to the box.

    ``clean`` is [B, c, h, w]; ``signs`` [B, c * 25] is -1 or 1.
    """
    rows, channels, height, width = clean.shape
    side = max(min(height, width) // 5, 1)
    pattern = _bump(side).to(clean)
    delta = torch.zeros_like(clean)
    down, right = (height - 5 * side) // 2, (width - 5 * side) // 2
    for index in range(25):
        top, left = down + index // 5 * side, right + index % 5 * side
        if top + side <= height and left + side <= width and top >= 0 and left >= 0:
            sign = signs.view(rows, channels, 25)[:, :, index, None, None]
            delta[:, :, top : top + side, left : left + side] += sign * pattern
    return _on_sphere(clean, delta, threat)


def moved_mass(best: Tensor, clean: Tensor, threat: ThreatModel, side: Tensor, draw: Tensor) -> Tensor:
    """Return the next query: one window takes a new bump and the mass of another, which is emptied.

    ``best`` and ``clean`` are [B, c, h, w], ``side`` long [B] (odd), ``draw`` [B, 5 + c] in (-1, 1): the corners of
    two windows, whether the bump lies or stands, and a sign a channel. Rows have windows of their own size and place,
    so each is gathered onto a patch of the largest size among them.
    """
    _, channels, height, width = best.shape
    largest = int(side.max())
    delta = best - clean
    place = torch.arange(largest, device=best.device)
    used = place[None, :] < side[:, None]
    valid = (used[:, :, None] & used[:, None, :])[:, None]

    def corner(length: int, at: Tensor) -> Tensor:
        return ((at * 0.5 + 0.5) * (length - side + 1)).long()

    def positions(down: Tensor, right: Tensor) -> Tensor:
        row = (corner(height, down)[:, None] + place).clamp_max(height - 1)
        column = (corner(width, right)[:, None] + place).clamp_max(width - 1)
        return (row[:, :, None] * width + column[:, None, :]).flatten(1)[:, None].expand(-1, channels, -1)

    into, out_of = positions(draw[:, 0], draw[:, 1]), positions(draw[:, 2], draw[:, 3])
    flat = delta.flatten(2)
    mask = valid.expand(-1, channels, -1, -1).flatten(2)
    target, source = _set(flat, into, mask), _set(flat, out_of, mask)
    # The mass of both windows, and whatever the box left unused of the radius, goes to the channels in equal parts.
    windows = (flat.square() * (target | source)).sum(dim=2, keepdim=True)
    unused = (threat.radius**2 - flat.square().sum(dim=(1, 2), keepdim=True)).clamp_min(0.0) / channels
    old = flat.gather(2, into) * mask
    old = old / (old.square().sum(dim=2, keepdim=True).sqrt() + _TINY)
    pattern = torch.stack([_padded_bump(int(s), largest) for s in side.tolist()]).to(best)
    pattern = torch.where(draw[:, 4, None, None] > 0, pattern, pattern.transpose(1, 2)).flatten(1)[:, None]
    new = (pattern * draw[:, 5:].sign()[:, :, None] + old) * mask
    new = new / (new.square().sum(dim=2, keepdim=True).sqrt() + _TINY) * (unused + windows).sqrt()
    flat = flat.masked_fill(source | target, 0.0).scatter_add(2, into, new * mask)
    return _on_sphere(clean, flat.view_as(best), threat)


def _set(like: Tensor, positions: Tensor, mask: Tensor) -> Tensor:
    """Return bool, shaped as ``like``: the positions for which the mask holds."""
    found = torch.zeros_like(like)
    return found.scatter_add(2, positions, mask.to(like.dtype)) > 0


def _on_sphere(clean: Tensor, delta: Tensor, threat: ThreatModel) -> Tensor:
    """Return clean + delta scaled to the radius, in the box."""
    length = delta.flatten(1).norm(dim=1).clamp_min(_TINY)
    return threat.project(clean + delta * per_image(threat.radius / length), clean)


@lru_cache(maxsize=64)
def _bump(side: int) -> Tensor:
    """Return [side, side] of unit length: two pyramids of opposite sign, one below the other."""
    if side < 2:
        return torch.ones(side, side)
    upper = side // 2
    pattern = torch.cat([_pyramid(upper, side), -_pyramid(side - upper, side)])
    return torch.nn.functional.normalize(pattern.flatten(), dim=0).view(side, side)


@lru_cache(maxsize=512)
def _padded_bump(side: int, size: int) -> Tensor:
    padded = torch.zeros(size, size)
    padded[:side, :side] = _bump(side)
    return padded


def _pyramid(height: int, width: int) -> Tensor:
    """Return [height, width]: rings around the middle, each adding 1 / (its number counted from outside) squared."""
    values = torch.zeros(height, width)
    middle_row, middle_column = height // 2, width // 2
    top, left = middle_row, middle_column
    reach = max(middle_row, middle_column) + 1
    for ring in range(reach):
        rows = slice(max(top - ring, 0), min(middle_row + ring + 1, height))
        columns = slice(max(left - ring, 0), min(middle_column + ring + 1, width))
        values[rows, columns] += 1.0 / (ring + 1) ** 2
    return torch.nn.functional.normalize(values.flatten(), dim=0).view(height, width)
