"""Our model as other libraries want theirs: a module from pixels to logits over one flat list of candidates."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from hierbench.attacks.engine.batching import Forward, checked_forward
from hierbench.attacks.objectives.base import Pooling, node_logits
from hierbench.attacks.verdict import Scoring
from hierbench.models.layout import NodeLayout


@dataclass
class Calls:
    """What went through a ``NodeModel``, in images."""

    forwards: int = 0
    backwards: int = 0
    zero_gradients: int = 0
    nonfinite_gradients: int = 0
    nonfinite_logits: int = 0


class NodeModel(nn.Module):
    """Maps pixels [B, c, h, w] to logits [B, n_d] over the nodes of one depth; depth D are the leaves.

    Under roll-up a node's logit is the largest of its leaves', so that the library's own arg-max is our verdict;
    with ``pooling="logsumexp"`` it is not, and the images have to be scored again. Direct scoring reads the depth's
    own columns. Every image that goes through is counted, forward and backward. The wrapped model is no submodule:
    a library that calls ``train()``, ``eval()`` or ``to()`` changes the wrapper and nothing else.

    Args:
        forward: maps pixels to logits over leaves and nodes, text features cached.
        layout: which logit belongs to which node, on ``device``.
        depth, scoring, pooling: what the candidates are. METHODS.md 1, 2.
        device: where the images will be.
        on_forward: called after each forward pass.
    """

    def __init__(
        self,
        forward: Forward,
        layout: NodeLayout,
        *,
        depth: int,
        scoring: Scoring,
        pooling: Pooling = "max",
        device: torch.device | str = "cpu",
        on_forward: Callable[[], None] | None = None,
    ) -> None:
        super().__init__()
        self.layout = layout.to(device)
        self.depth = depth
        self.scoring: Scoring = scoring
        self.pooling: Pooling = pooling
        self.calls = Calls()
        self._inner = (forward,)  # in a tuple, where nn.Module does not look for submodules
        self._on_forward = on_forward
        # Libraries ask the first parameter where the model is.
        self.anchor = nn.Parameter(torch.zeros(1, device=device), requires_grad=False)
        self.eval()

    @property
    def candidates(self) -> int:
        """The number of logits a row has."""
        return self.layout.nodes_at(self.depth)

    def forward(self, pixels: Tensor) -> Tensor:
        """Return the candidates' logits [B, n_d], float32."""
        if not len(pixels):  # Square asks about nobody when the last margin is exactly 0
            return pixels.new_zeros((0, self.candidates))
        if pixels.requires_grad:
            pixels = self._watched(pixels)
        logits = checked_forward(self._inner[0], pixels)
        nodes = node_logits(logits, self.layout, depth=self.depth, scoring=self.scoring, pooling=self.pooling)
        self.calls.forwards += len(pixels)
        self.calls.nonfinite_logits += int((~torch.isfinite(nodes.detach()).all(dim=1)).sum())
        if self._on_forward is not None:
            self._on_forward()
        return nodes

    def _watched(self, pixels: Tensor) -> Tensor:
        """Return the same pixels with a hook that is this pass's alone: one tensor may go through more than once."""
        seen = pixels.view_as(pixels)
        seen.register_hook(self._count)  # type: ignore[no-untyped-call]
        return seen

    def _count(self, gradient: Tensor) -> Tensor | None:
        """Count one backward pass; entries that are not finite become 0, or they would end up in the images."""
        flat = gradient.flatten(1)
        peak = torch.maximum(flat.amax(dim=1), -flat.amin(dim=1))  # quicker than a norm, and it keeps NaN
        odd = ~torch.isfinite(peak)
        self.calls.backwards += len(gradient)
        self.calls.zero_gradients += int((peak == 0).sum())
        self.calls.nonfinite_gradients += int(odd.sum())
        return gradient.nan_to_num(nan=0.0, posinf=0.0, neginf=0.0) if bool(odd.any()) else None


@contextmanager
def frozen(forward: Forward) -> Iterator[None]:
    """Keep a library's ``backward()`` from leaving gradients in the weights of a model that is a module."""
    weights = list(forward.parameters()) if isinstance(forward, nn.Module) else []
    trained = [weight for weight in weights if weight.requires_grad]
    for weight in trained:
        weight.requires_grad_(False)
    try:
        yield
    finally:
        for weight in trained:
            weight.requires_grad_(True)
