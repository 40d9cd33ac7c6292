"""A model bound to one data set's prompts and one tree: pixels to logits at every depth, in one forward."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from hierbench.datasets.spec import fill_template
from hierbench.errors import InputError
from hierbench.hierarchy.tree import Hierarchy
from hierbench.models.layout import NodeLayout
from hierbench.models.zeroshot import ZeroShotModel


class BoundModel(nn.Module):
    """Leaf logits first, then the direct logits of depth 1, 2, ... D - 1 (with ``direct``).

    Prompts are encoded once, here. ``layout`` says which column is which node. Of several templates each makes a prompt
    of every node, and a node's point is that of ``zeroshot.ensemble_features``.
    """

    def __init__(
        self, model: ZeroShotModel, hierarchy: Hierarchy, template: str | Sequence[str], *, direct: bool = True
    ) -> None:
        super().__init__()
        self.model = model
        self.hierarchy = hierarchy
        self.templates = (template,) if isinstance(template, str) else tuple(template)
        self.layout = NodeLayout.from_hierarchy(hierarchy, direct=direct).to(model.device)
        self.prompts = tuple(ensemble_prompts(hierarchy, self.templates))
        """Every level's prompts, coarsest first: node after node, each with one prompt a template."""
        depth = hierarchy.num_depths
        wanted = [depth, *range(1, depth)] if direct else [depth]
        count = len(self.templates)
        with torch.no_grad():
            points = [
                model.node_points(self.prompts[d - 1], steps_above_leaf=depth - d, templates=count) for d in wanted
            ]
            self.points = torch.cat(points)

    @property
    def template(self) -> str:
        """The one template; an ensemble has none, and what edits a node's prompt refuses it by this ``InputError``."""
        if len(self.templates) != 1:
            raise InputError(
                f"--template: this edits or replaces a node's one prompt, here it has {len(self.templates)}; "
                "give one template"
            )
        return self.templates[0]

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


def ensemble_prompts(hierarchy: Hierarchy, templates: Sequence[str]) -> list[tuple[str, ...]]:
    """Return the prompts of every level, coarsest first: of node 0 under each template, then of node 1, and so on."""
    each = [level_prompts(hierarchy, template) for template in templates]
    return [tuple(text for node in zip(*level, strict=True) for text in node) for level in zip(*each, strict=True)]


def bind(
    model: ZeroShotModel, hierarchy: Hierarchy, *, template: str | Sequence[str], direct: bool = True
) -> BoundModel:
    """Return the model bound to a tree's prompts; ``direct`` adds logits over the superclasses' own prompts.

    Several templates are an ensemble: their prompts' features are averaged node by node.
    """
    return BoundModel(model, hierarchy, template, direct=direct)
