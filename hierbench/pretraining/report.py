"""What a pre-trained backbone can do: accuracy on known and unseen classes, beside chance."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from hierbench.datasets.images import ImageSet
from hierbench.datasets.seen import SeenSplit
from hierbench.datasets.spec import fill_template
from hierbench.evaluation.statistics import wilson
from hierbench.hierarchy.catalogue import load_hierarchy
from hierbench.models.zeroshot import ZeroShotModel


@torch.no_grad()
def embeddings(model: ZeroShotModel, images: ImageSet, batch: int = 256) -> Tensor:
    """Return the image embeddings of a whole set, fp32 [n, E]."""
    parts = [
        model.embed(images.pixels(np.arange(start, min(start + batch, len(images)))).float() / 255)
        for start in range(0, len(images), batch)
    ]
    return torch.cat(parts)


@torch.no_grad()
def accuracy_report(model: ZeroShotModel, images: ImageSet, seen: SeenSplit) -> dict[str, Any]:
    """Return accuracy on known and unseen classes, leaf and superclass, each with n, interval and chance.

    ``among_themselves`` restricts the candidates to the classes of that group, ``all_classes`` does not.
    Superclasses are those of the default tree's level above the leaves, by the leaf's arg-max (roll-up).
    """
    spec = images.spec
    hierarchy = load_hierarchy(spec.base_name)
    prompts = [fill_template(spec.template, c.name, c.noun) for c in spec.classes]
    logits = model.logits(embeddings(model, images), model.node_points(prompts, steps_above_leaf=0))
    labels = torch.from_numpy(images.labels)
    known = torch.tensor(seen.known_mask(spec.name))
    level = hierarchy.level(max(hierarchy.num_depths - 1, 1))
    node = torch.from_numpy(level.leaf_to_node)
    report: dict[str, Any] = {"dataset": spec.name, "split": images.split, "revision": images.revision}
    for group, mask in (("known", known), ("unseen", ~known)):
        rows = mask[labels]
        n = int(rows.sum())
        if n == 0:
            continue
        inside = logits[rows].masked_fill(~mask[None, :], -torch.inf)
        truth = labels[rows]
        parents = int(torch.unique(node[mask]).numel())
        report[group] = {
            "among_themselves": _share(inside.argmax(1) == truth, 1 / int(mask.sum())),
            "all_classes": _share(logits[rows].argmax(1) == truth, 1 / len(known)),
            "superclass_among_themselves": _share(node[inside.argmax(1)] == node[truth], 1 / parents),
            "superclass_all_classes": _share(node[logits[rows].argmax(1)] == node[truth], 1 / len(level)),
        }
    unseen = report.get("unseen")
    if unseen is not None:
        first = unseen["among_themselves"]
        report["zero_shot_capable"] = bool(first["low"] > first["chance"])
    return report


def _share(hits: Tensor, chance: float) -> dict[str, float | int]:
    count, n = int(hits.sum()), int(hits.numel())
    interval = wilson(count, n)
    return {"accuracy": count / n, "low": interval.low, "high": interval.high, "n": n, "chance": chance}
