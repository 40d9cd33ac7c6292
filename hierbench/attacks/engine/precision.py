"""Arithmetic that an attack's verdicts can rest on."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from hierbench.attacks.precision_names import SearchPrecision


@contextmanager
def exact_float32(device: torch.device) -> Iterator[None]:
    """Compute in full float32, with repeatable kernels, while inside; the settings from before come back after.

    Autocast is off: it rounds the backward pass too, and gradients that underflow make a model look robust. On CUDA,
    convolutions round to TensorFloat-32 by default: that is off as well. METHODS.md 7.2.
    """
    with torch.autocast(device_type=device.type, enabled=False):
        if device.type != "cuda":
            yield
            return
        matmul = torch.backends.cuda.matmul.allow_tf32
        torch.backends.cuda.matmul.allow_tf32 = False
        try:
            with torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False):
                yield
        finally:
            torch.backends.cuda.matmul.allow_tf32 = matmul


@contextmanager
def search_arithmetic(device: torch.device, precision: SearchPrecision) -> Iterator[None]:
    """Compute a search's passes more coarsely, inside ``exact_float32``.

    ``tf32`` rounds the factors of convolutions and products on CUDA (on a CPU it changes nothing); ``bf16`` is
    autocast, forward and backward. Gradients that underflow there make an attack weaker, never a verdict wrong.
    """
    if precision == "bf16":
        with torch.autocast(device_type=device.type, dtype=torch.bfloat16, cache_enabled=False):
            yield
    elif precision == "tf32" and device.type == "cuda":
        matmul = torch.backends.cuda.matmul.allow_tf32
        torch.backends.cuda.matmul.allow_tf32 = True
        try:
            with torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=True):
                yield
        finally:
            torch.backends.cuda.matmul.allow_tf32 = matmul
    else:
        yield
