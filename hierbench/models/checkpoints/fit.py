"""Tensors into a module, strictly: every name, shape and kind of number, and no NaN."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from hierbench.errors import InputError
from hierbench.models.checkpoints.reporting import some

FLOATS = (torch.float32, torch.float16, torch.bfloat16)
"""What a weight may be stored in: all of them become fp32 exactly."""


def load_strictly(module: nn.Module, state: Mapping[str, Any], *, where: Path, of: str = "the model") -> None:
    """Load tensors into a module; the module is untouched unless all of them fit.

    Raises ``InputError``, one line, with every missing and unexpected name (the first few in words, the rest counted),
    else with every shape that differs, else with what is no plain float, else with NaN or infinity.
    """
    own = module.state_dict()
    _check_names(own, state, where, of)
    fitted = {name: _reshaped(state[name], tensor) for name, tensor in own.items()}
    wrong = [name for name, tensor in own.items() if fitted[name].shape != tensor.shape]
    if wrong:
        first = f"{wrong[0]} is {tuple(fitted[wrong[0]].shape)}; {of} wants {tuple(own[wrong[0]].shape)}"
        rest = f" ({len(wrong)} of {len(own)} tensors have another shape)" if len(wrong) > 1 else ""
        raise InputError(f"{where}: {first}{rest}")
    for name, tensor in own.items():
        _check_numbers(fitted[name], tensor, name, where)
    with torch.no_grad():
        for name, tensor in own.items():
            tensor.copy_(fitted[name])


def stored_types(state: Mapping[str, Tensor]) -> str:
    """Return the types that floating tensors are stored in, the commonest first: ``float16+float32``."""
    counts: dict[str, int] = {}
    for tensor in state.values():
        if tensor.is_floating_point():
            name = str(tensor.dtype).removeprefix("torch.")
            counts[name] = counts.get(name, 0) + tensor.numel()
    return "+".join(sorted(counts, key=lambda name: -counts[name]))


def _check_names(own: Mapping[str, Tensor], state: Mapping[str, Any], where: Path, of: str) -> None:
    missing = [name for name in own if name not in state]
    unexpected = [name for name in state if name not in own]
    if not missing and not unexpected:
        return
    parts = [f"lacks {some(missing)}"] if missing else []
    parts += [f"has {some(unexpected)}, which {of} lacks"] if unexpected else []
    raise InputError(f"{where}: {'; '.join(parts)} ({len(missing)} missing, {len(unexpected)} unexpected)")


def _reshaped(value: Any, own: Tensor) -> Tensor:
    """Return a tensor, with a single number in the shape the module has it in: [] and [1] are both in use."""
    if not isinstance(value, Tensor):
        return torch.empty(0)
    return value.reshape(own.shape) if value.numel() == own.numel() == 1 else value


def _check_numbers(value: Tensor, own: Tensor, name: str, where: Path) -> None:
    plain = value.layout == torch.strided and not value.is_quantized and value.device.type == "cpu"
    fits = value.dtype in FLOATS if own.is_floating_point() else value.dtype == own.dtype
    if not (plain and fits):
        kind = str(value.dtype).removeprefix("torch.")
        shown = kind if plain else f"{kind}, {value.layout}"
        wanted = "float32, float16 or bfloat16" if own.is_floating_point() else str(own.dtype).removeprefix("torch.")
        raise InputError(f"{where}: {name} is stored as {shown}; it should be {wanted}")
    if value.is_floating_point() and not bool(torch.isfinite(value).all()):
        raise InputError(f"{where}: {name} holds NaN or infinity; a training that diverged saves such weights")
