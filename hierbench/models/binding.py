"""A model bound to one data set's prompts and one tree: pixels to logits at every depth, in one forward."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from hierbench.datasets.spec import fill_template
from hierbench.errors import InputError
from hierbench.hierarchy.tree import Hierarchy
from hierbench.models.layout import NodeLayout
from hierbench.models.zeroshot import ZeroShotModel


class BoundModel(nn.Module):
    """Leaf logits first, then the direct logits of depth 1, 2, ... D - 1 (with ``direct``).

    Prompts are encoded once, here. ``layout`` says which column is which node.
    """

    def __init__(self, model: ZeroShotModel, hierarchy: Hierarchy, template: str, *, direct: bool = True) -> None:
        super().__init__()
        self.model = model
        self.hierarchy = hierarchy
        self.template = template
        self.layout = NodeLayout.from_hierarchy(hierarchy, direct=direct).to(model.device)
        self.prompts = tuple(tuple(texts) for texts in level_prompts(hierarchy, template))
        depth = hierarchy.num_depths
        wanted = [depth, *range(1, depth)] if direct else [depth]
        with torch.no_grad():
            points = [model.node_points(self.prompts[d - 1], steps_above_leaf=depth - d) for d in wanted]
            self.points = torch.cat(points)

    def forward(self, pixels: Tensor) -> Tensor:
        """Map pixels [B, c, h, w] in [0, 1] to fp32 logits [B, N]."""
        return self.model.logits(self.model.embed(pixels), self.points)


def level_prompts(hierarchy: Hierarchy, template: str) -> list[list[str]]:
    """Return the prompts of every level, coarsest first; two equal ones in a level are an ``InputError``."""
    prompts = []
    for level in hierarchy.levels:
        texts = [fill_template(template, node.name, node.noun) for node in level.nodes]
        if len(set(texts)) != len(texts):
            twice = next(t for t in texts if texts.count(t) > 1)
            raise InputError(
                f"tree {hierarchy.dataset}/{hierarchy.tree}: depth {level.depth} has the prompt {twice!r} twice"
            )
        prompts.append(texts)
    return prompts


def bind(model: ZeroShotModel, hierarchy: Hierarchy, *, template: str, direct: bool = True) -> BoundModel:
    """Return the model bound to a tree's prompts; ``direct`` adds logits over the superclasses' own prompts."""
    return BoundModel(model, hierarchy, template, direct=direct)
