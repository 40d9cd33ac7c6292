"""A bound model compiled for the passes of a search, tried once before a search relies on it."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager

import torch
from torch import Tensor, nn

from hierbench.errors import InputError

Forward = Callable[[Tensor], Tensor]


def compiled(model: nn.Module, pixels: Tensor, arithmetic: Callable[[], AbstractContextManager[None]]) -> Forward:
    """Return a model's forward compiled by ``torch.compile``, after one pass with a gradient that it has to survive.

    ``pixels`` [B, c, h, w] should be a batch of the size that most passes will have: another size compiles once more,
    for all sizes. ``arithmetic`` is what the passes will run inside, since a change of it compiles anew as well.
    Raises ``InputError`` naming ``--compile`` where no compiler is at hand or the model cannot be compiled.
    """
    try:
        made: Forward = torch.compile(model.forward)
        query = pixels.detach().requires_grad_()
        with torch.enable_grad(), arithmetic():
            (gradient,) = torch.autograd.grad(made(query).float().sum(), query)
    except Exception as error:  # a compiler's failures share no base class
        first = str(error).strip().splitlines() or [type(error).__name__]
        raise InputError(f"--compile: torch cannot compile this model here ({first[0]}); leave it out") from error
    if gradient.shape != pixels.shape:
        raise InputError("--compile: the compiled model gives no gradient for its pixels; leave it out")
    return made
