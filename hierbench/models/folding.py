"""Batch norms with frozen statistics folded into the convolutions before them, for as long as an attack searches.

An attack's passes are where the time goes, in training and in evaluation, and weights and statistics stand still in
them: a batch norm is then a scale and a shift, and folding it saves about a fifth of a small network's pass. The
function computed is the same up to rounding, which is checked on real images first; a tower where it does not hold is
left as it is.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from hierbench.models.binding import BoundModel

TOLERANCE = 1e-4
"""Largest change of an embedding, relative to the largest entry, that counts as rounding."""

Pair = tuple[nn.Conv2d, nn.BatchNorm2d]


@torch.no_grad()
def foldable_pairs(tower: nn.Module, embed: Callable[[Tensor], Tensor], pixels: Tensor) -> list[Pair]:
    """Return the convolutions whose output goes straight into a batch norm, or none if folding changes the embedding.

    ``tower`` is in eval mode; ``embed`` maps ``pixels`` [B, c, h, w] through it. Pairs are found by watching one
    forward pass, so that any architecture will do.
    """
    made: list[tuple[Tensor, nn.Conv2d]] = []
    pairs: list[Pair] = []
    calls: dict[nn.Module, int] = {}

    def after_convolution(module: nn.Module, _: object, output: Tensor) -> None:
        calls[module] = calls.get(module, 0) + 1
        if isinstance(module, nn.Conv2d):
            made.append((output, module))

    def before_norm(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        calls[module] = calls.get(module, 0) + 1
        for output, convolution in made:
            if output is inputs[0] and isinstance(module, nn.BatchNorm2d) and module.running_mean is not None:
                pairs.append((convolution, module))

    hooks = [m.register_forward_hook(after_convolution) for m in tower.modules() if isinstance(m, nn.Conv2d)]
    hooks += [m.register_forward_pre_hook(before_norm) for m in tower.modules() if isinstance(m, nn.BatchNorm2d)]
    try:
        plain = embed(pixels)
    finally:
        for hook in hooks:
            hook.remove()
    pairs = [pair for pair in pairs if calls[pair[0]] == calls[pair[1]] == 1]
    with batch_norms_folded(pairs):
        folded = embed(pixels)
    close = float((folded - plain).abs().max()) <= TOLERANCE * float(plain.abs().max())
    return pairs if close else []


@contextmanager
def batch_norms_folded(pairs: Sequence[Pair]) -> Iterator[None]:
    """Fold the pairs inside the block and restore the very same weights after it."""
    kept: list[tuple[nn.Conv2d, nn.BatchNorm2d, Tensor, Tensor | None]] = []
    try:
        for convolution, norm in pairs:
            kept.append((convolution, norm, convolution.weight.data, convolution.bias))
            weight, bias = _folded(convolution, norm)
            convolution.weight.data = weight
            convolution.bias = nn.Parameter(bias, requires_grad=False)
            norm.__dict__["forward"] = _unchanged
        yield
    finally:
        for convolution, norm, weight, old_bias in kept:
            convolution.weight.data = weight
            convolution.bias = old_bias
            norm.__dict__.pop("forward", None)


def folded_copy(bound: BoundModel, pixels: Tensor) -> BoundModel:
    """Return a copy of a bound model for a search's passes: batch norms folded, memory with the channels last.

    ``pixels`` [B, c, h, w] are real images to check the copy on. Tensors outside the image tower are shared; a model
    in whose tower nothing can be folded comes back as it is.
    """
    if not foldable_pairs(bound.model.visual, bound.model.embed, pixels):
        return bound
    tower = {id(tensor) for tensor in bound.model.visual.state_dict(keep_vars=True).values()}
    outside = [t for t in bound.state_dict(keep_vars=True).values() if id(t) not in tower]
    twin = copy.deepcopy(bound, {id(tensor): tensor for tensor in [*outside, bound.model.tokenizer, bound.points]})
    pairs = foldable_pairs(twin.model.visual, twin.model.embed, pixels)
    for convolution, norm in pairs:
        weight, bias = _folded(convolution, norm)
        convolution.weight.data = weight
        convolution.bias = nn.Parameter(bias, requires_grad=False)
        norm.__dict__["forward"] = _unchanged
    twin.model.visual.to(memory_format=torch.channels_last)
    return twin


@torch.no_grad()
def _folded(convolution: nn.Conv2d, norm: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    mean, variance = norm.running_mean, norm.running_var
    assert mean is not None and variance is not None  # foldable_pairs took only norms with statistics
    scale = torch.rsqrt(variance + norm.eps)
    if norm.weight is not None:
        scale = scale * norm.weight
    shift = -mean if convolution.bias is None else convolution.bias - mean
    bias = shift * scale
    if norm.bias is not None:
        bias = bias + norm.bias
    return convolution.weight * scale.view(-1, 1, 1, 1), bias


def _unchanged(features: Tensor) -> Tensor:
    return features
