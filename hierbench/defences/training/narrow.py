"""Passes in half precision: the towers are narrow, everything behind their features is not.

A logit of 30 has steps of 1/8 in bf16, and distances near the ball's boundary are differences of near-equal numbers, so
heads and losses stay in fp32; the towers are where the time goes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

if TYPE_CHECKING:
    from hierbench.models.zeroshot import ZeroShotModel

NARROW = {"bf16": torch.bfloat16, "fp16": torch.float16}
TOWERS = ("embed", "encode_text")
"""The model's methods that run a tower and return its features in fp32."""


@contextmanager
def narrow_towers(model: ZeroShotModel, precision: str) -> Iterator[None]:
    """Have the model's towers run under autocast inside the block; ``fp32`` changes nothing."""
    dtype = NARROW.get(precision)
    if dtype is None:
        yield
        return
    kept = {name: model.__dict__[name] for name in TOWERS if name in model.__dict__}
    try:
        for name in TOWERS:
            model.__dict__[name] = _under_autocast(getattr(model, name), model.device.type, dtype)
        yield
    finally:
        for name in TOWERS:
            model.__dict__.pop(name, None)
        model.__dict__.update(kept)


def _under_autocast(method: Callable[..., Tensor], kind: str, dtype: torch.dtype) -> Callable[..., Tensor]:
    def narrow(*args: Any, **options: Any) -> Tensor:
        with torch.autocast(kind, dtype=dtype):
            return method(*args, **options).float()

    return narrow
