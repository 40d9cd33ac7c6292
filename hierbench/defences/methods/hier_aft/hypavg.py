"""HypAvg: image points of classes and of the nodes above them, from one batch (METHODS.md 5.8, Parents)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from hierbench.defences.nodes import TrainingTree
from hierbench.models.heads import Head


@dataclass(frozen=True)
class ImageNodes:
    """Image points of the nodes of one level in one batch."""

    points: Tensor
    """[M, E]; a node without an image in the batch is at the origin."""
    present: Tensor
    """bool [M]: an image of the batch lies under the node."""
    scored: Tensor
    """bool [M]: two distinct children are present; only then is the node's own point more than its child's."""


def class_nodes(head: Head, points: Tensor, labels: Tensor, *, num_classes: int) -> ImageNodes:
    """Return the midpoint of each class's images: ``points [B, E]``, ``labels [B]`` -> K nodes.

    ``scored`` is all False: leaves are scored image by image.
    """
    members = nn.functional.one_hot(labels, num_classes).to(points.dtype).transpose(0, 1)
    present = members.sum(-1) > 0
    return ImageNodes(points=head.midpoint(points, members), present=present, scored=torch.zeros_like(present))


def climb(head: Head, classes: ImageNodes, tree: TrainingTree) -> list[ImageNodes]:
    """Return the nodes of each level above the leaves, from l = 1 upward.

    A parent is the unweighted midpoint of its children that are present; one present child passes its point upward
    and leaves the parent unscored.
    """
    levels: list[ImageNodes] = []
    below = classes
    for level in tree.levels:
        members = (level.children * below.present.to(level.children.dtype)).to(below.points.dtype)
        count = members.sum(-1)
        below = ImageNodes(points=head.midpoint(below.points, members), present=count > 0, scored=count > 1)
        levels.append(below)
    return levels
