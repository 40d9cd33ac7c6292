"""HNSA: nodes of the adjacent levels as extra negatives of a level's softmax (METHODS.md 5.8).

What training and the attack ``universal_hier`` share. Never part of a verdict.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from hierbench.models.heads import Head
from hierbench.models.hyperbolic import radius

Sides = Literal["both", "lower", "upper", "off"]


@dataclass(frozen=True)
class ExtraNegatives:
    """Negatives that one level borrows from its neighbours. ``X`` of them, for ``M`` nodes."""

    groups: tuple[tuple[int, Tensor], ...]
    """Steps above the leaves of a neighbouring level, and long [X_g]: rows of the negatives among the prompts."""
    blocked: Tensor
    """bool [M, X]: the negative is a parent or child of the node, so it is none; columns in the order of the groups."""

    def __len__(self) -> int:
        return self.blocked.shape[1]


@dataclass(frozen=True)
class Neighbour:
    """A level next to the one that borrows. ``M`` nodes there, ``X`` here."""

    prompt: Tensor
    """long [X]: each node's row among the prompts."""
    steps: int
    """Steps above the leaves."""
    related: Tensor
    """bool [M, X]: parent and child."""


def extra_negatives(own: Tensor, neighbours: Iterable[Neighbour]) -> ExtraNegatives:
    """Return what a level whose prompts are the rows ``own [M]`` borrows: each prompt once, and none of its own.

    A prompt that two neighbours have is blocked where it is related in either.
    """
    taken = set(own.tolist())
    columns: dict[int, tuple[int, Tensor]] = {}
    for near in neighbours:
        for column, prompt in enumerate(near.prompt.tolist()):
            if prompt in taken:
                continue
            related = near.related[:, column]
            steps, before = columns.get(prompt, (near.steps, related))
            columns[prompt] = (steps, before | related)
    by_steps: dict[int, list[int]] = {}
    for prompt, (steps, _) in columns.items():
        by_steps.setdefault(steps, []).append(prompt)
    order = [prompt for prompts in by_steps.values() for prompt in prompts]
    empty = torch.zeros(len(own), 0, dtype=torch.bool, device=own.device)
    return ExtraNegatives(
        groups=tuple(
            (steps, torch.tensor(prompts, dtype=torch.long, device=own.device)) for steps, prompts in by_steps.items()
        ),
        blocked=torch.stack([columns[prompt][1] for prompt in order], dim=1) if order else empty,
    )


def at_radius(points: Tensor, target: Tensor) -> Tensor:
    """Move points ``[X, E]`` along their rays to the radius ``target`` (a scalar)."""
    own = radius(points).unsqueeze(-1)
    return points * (target / own.clamp_min(torch.finfo(points.dtype).eps))


def logits_with_negatives(
    head: Head,
    images: Tensor,
    own: Tensor,
    extra: ExtraNegatives,
    features: Tensor,
    rows: Tensor | None,
    *,
    level_radius: bool,
) -> Tensor:
    """Return the logits [B, M + X] of image points [B, E] over a level's nodes and what the level borrows.

    Args:
        head: whose points and logits they are.
        images: image points [B, E].
        own: points of the level's nodes [M, E].
        extra: what it borrows, X nodes; -inf where one is related to the row's true node.
        features: projected text features [P, E] of all prompts.
        rows: long [B], the true node of each image point; None means row m is node m.
        level_radius: move the borrowed nodes to the level's mean radius first; otherwise they keep their own.

    METHODS.md 5.8, HNSA.
    """
    if not len(extra):
        return head.point_logits(images, own)
    borrowed = torch.cat([head.points(features.index_select(0, prompt), steps) for steps, prompt in extra.groups])
    if level_radius:
        borrowed = at_radius(borrowed, radius(own).mean())
    logits = head.point_logits(images, torch.cat([own, borrowed]))
    blocked = extra.blocked if rows is None else extra.blocked.index_select(0, rows)
    unrelated = logits[:, len(own) :].masked_fill(blocked, float("-inf"))
    return torch.cat([logits[:, : len(own)], unrelated], dim=1)
