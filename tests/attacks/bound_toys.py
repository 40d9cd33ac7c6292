"""Small models bound to a tree, for attacks on more than the logits."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from attack_toys import LEVELS, TREE, conv_net
from torch import Tensor, nn

from hierbench.attacks.universal import Fit
from hierbench.models.heads import CosineHead, Head, HyperbolicHead
from hierbench.models.layout import NodeLayout

PROMPTS = (
    ("node 1/0", "node 1/1"),
    ("node 2/0", "leaf 2", "node 2/2", "node 2/3", "leaf 7"),
    tuple(f"leaf {leaf}" for leaf in range(8)),
)
"""Of ``attack_toys.TREE``: leaf 2 and leaf 7 are ragged, so they have one prompt at two depths."""
WIDTH = 16


class ToyModel(nn.Module):
    """Embeds by a frozen random network (or any other), answers by a head; its text features are drawn per prompt."""

    def __init__(self, head: Head, embedder: nn.Module | None = None) -> None:
        super().__init__()
        self.head = head
        self.embedder = embedder or conv_net(WIDTH, seed=3)
        self.text_projection = torch.eye(WIDTH)
        self.requires_grad_(False)

    def embed(self, pixels: Tensor) -> Tensor:
        out: Tensor = self.embedder(pixels)
        return out

    def text_hidden(self, prompts: Sequence[str]) -> Tensor:
        rows = []
        for text in prompts:
            generator = torch.Generator().manual_seed(sum((i + 1) * ord(letter) for i, letter in enumerate(text)))
            rows.append(torch.randn(WIDTH, generator=generator))
        return torch.stack(rows)

    def logits(self, embedding: Tensor, points: Tensor) -> Tensor:
        return self.head.logits(embedding, points)


class ToyBound(nn.Module):
    """Leaf logits, then those of the depths above: as ``hierbench.models.binding.BoundModel`` gives them."""

    def __init__(self, model: ToyModel, layout: NodeLayout = TREE, prompts: Sequence[Sequence[str]] = PROMPTS) -> None:
        super().__init__()
        self.model = model
        self.layout = layout
        self.prompts = tuple(prompts)
        depth = layout.num_depths
        wanted = [depth, *range(1, depth)] if layout.has_direct else [depth]
        self.points = torch.cat(
            [model.head.points(model.text_hidden(self.prompts[d - 1]), depth - d).detach() for d in wanted]
        )

    def forward(self, pixels: Tensor) -> Tensor:
        return self.model.logits(self.model.embed(pixels), self.points)


def hyperbolic_head(levels: int = 3, *, scale: float = 4.0) -> HyperbolicHead:
    return HyperbolicHead(levels=levels, m_image=1.0, m_text=scale, tau=0.05)


def bound_model(kind: str = "hyperbolic", *, direct: bool = True) -> ToyBound:
    head = hyperbolic_head() if kind == "hyperbolic" else CosineHead(logit_scale=3.0)
    return ToyBound(ToyModel(head), NodeLayout.from_levels(LEVELS, direct=direct)).eval()


class NoFitter:
    """Stands where a fitter is wanted and no perturbation is."""

    def fit(self, component: str, objective: object, **given: object) -> Fit:
        return Fit(torch.zeros(3, 8, 8), 0.0, 0.0, 1, 0)
