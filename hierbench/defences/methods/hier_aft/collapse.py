"""Collapse guards of Hier-AFT: signs that the geometry no longer carries the tree (METHODS.md 5.8)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from hierbench.defences.methods.hier_aft.hypavg import ImageNodes
from hierbench.defences.methods.hier_aft.losses import masked_mean
from hierbench.defences.nodes import TrainingNodes
from hierbench.models import hyperbolic
from hierbench.models.heads import Head, HyperbolicHead

if TYPE_CHECKING:
    from hierbench.defences.methods.hier_aft.terms import TextNodes

ORDER_LIMIT = 0.2
"""Flagged when the radius of a parent exceeds its child's on more than this share of edges."""

CLIP_LIMIT = 0.05
"""Flagged when more than this share of tangent vectors is clipped."""


@torch.no_grad()
def point_statistics(
    head: Head,
    embedding: Tensor,
    images: Tensor,
    text: TextNodes,
    classes: ImageNodes,
    above: list[list[ImageNodes]],
    nodes: TrainingNodes,
) -> dict[str, Tensor]:
    """Return scalars of one batch: nodes skipped, tangents clipped, points at the margin, mean image radii."""
    zero = images.new_zeros(())
    skipped = sum(((rows.present & ~rows.scored).sum() for tree in above for rows in tree), zero)
    present = sum((rows.present.sum() for tree in above for rows in tree), zero)
    found = {"skipped_nodes": skipped / present.clamp_min(1)}
    if not isinstance(head, HyperbolicHead):
        return found
    r, limit, margin = head.curvature, head.max_tangent, head.ball_margin
    everything = [text.leaves, images, *(points for rows in text.levels for points in rows)]
    found["clipped_images"] = hyperbolic.clipped_share(head.image_tangent(embedding), r=r, limit=limit)
    # b_l is largest for some level; the largest scale clips first, so it bounds the share of all levels.
    widest = int(head.level_scale.detach().abs().argmax())
    found["clipped_texts"] = hyperbolic.clipped_share(head.text_tangent(text.features, widest), r=r, limit=limit)
    found["at_margin"] = torch.stack([hyperbolic.margin_share(p, r=r, margin=margin) for p in everything]).max()
    found["image_radius/leaf"] = hyperbolic.radius(images).mean()
    for tree, rows in zip(nodes.trees, above, strict=True):
        for level, row in zip(tree.levels, rows, strict=True):
            found[f"image_radius/{tree.name}/{level.steps}"] = masked_mean(hyperbolic.radius(row.points), row.scored)
    return found


@torch.no_grad()
def collapse_guards(
    head: HyperbolicHead, text: TextNodes, nodes: TrainingNodes, recent: dict[str, float]
) -> dict[str, Any]:
    """Return the record's guards and flags from the final text points and the last part of the log."""
    leaf_radius = hyperbolic.radius(text.leaves)
    radii: dict[str, float] = {"leaf": float(leaf_radius.mean())}
    violated = edges = 0
    for tree, rows in zip(nodes.trees, text.levels, strict=True):
        below = leaf_radius
        for level, points in zip(tree.levels, rows, strict=True):
            here = hyperbolic.radius(points)
            radii[f"{tree.name}/{level.steps}"] = float(here.mean())
            pairs = ~level.self_pair
            violated += int(((here.index_select(0, level.parent) >= below) & pairs).sum())
            edges += int(pairs.sum())
            below = here
    order = violated / edges if edges else 0.0
    clipped = max(recent.get("clipped_images", 0.0), recent.get("clipped_texts", 0.0))
    flags = []
    if order > ORDER_LIMIT:
        flags.append("norm_order")
    if clipped > CLIP_LIMIT:
        flags.append("clipped")
    if recent.get("at_margin", 0.0) > 0:
        flags.append("ball_margin")
    return {
        "flags": flags,
        "text_radius": radii,
        "leaf_text_radius_spread": float(leaf_radius.std(correction=0) / leaf_radius.mean().clamp_min(1e-12)),
        "norm_order_violated": order,
        "level_scale": head.level_scale.tolist(),
        "image_scale": float(head.log_a_image.exp()),
        "text_scale": float(head.log_a_text.exp()),
        "tau": float(head.tau),
        "recent": recent,
    }
