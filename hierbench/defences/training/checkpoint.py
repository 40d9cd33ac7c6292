"""Checkpoints of a training run: one safetensors file, replaced atomically; its header carries the rest as JSON."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from hierbench.errors import InputError

CHECKPOINT_FILE = "checkpoint.safetensors"
FORMAT = 1


def write_checkpoint(path: Path, *, tensors: Mapping[str, Tensor], state: Mapping[str, Any]) -> None:
    """Write tensors and JSON state; a kill at any moment leaves the old file or the new one, never half of one."""
    from safetensors.torch import save_file

    path.parent.mkdir(parents=True, exist_ok=True)
    waiting = path.with_name(path.name + ".part")
    header = {"format": str(FORMAT), "state": json.dumps(state)}
    save_file({name: t.detach().cpu().contiguous() for name, t in tensors.items()}, waiting, metadata=header)
    _settle(waiting, path)


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write a JSON file atomically."""
    path.parent.mkdir(parents=True, exist_ok=True)
    waiting = path.with_name(path.name + ".part")
    waiting.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    _settle(waiting, path)


def read_checkpoint(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return tensors and state; a damaged file or one of another format raises ``InputError`` naming it."""
    from safetensors import SafetensorError, safe_open

    advice = "remove it, or train without resuming"
    try:
        with safe_open(str(path), framework="pt") as file:
            header = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
        state = json.loads(header["state"])
    except (SafetensorError, OSError, KeyError, ValueError) as error:
        raise InputError(f"{path}: not a readable training checkpoint ({error}); {advice}") from None
    if header.get("format") != str(FORMAT) or not isinstance(state, dict):
        raise InputError(f"{path}: checkpoint format {header.get('format')!r}, this version reads {FORMAT}; {advice}")
    return tensors, state


def optimiser_tensors(optimiser: torch.optim.Optimizer, names: Mapping[int, str]) -> dict[str, Tensor]:
    """Flatten an optimiser's state to ``optimiser/<entry>/<parameter>``; ``names`` maps id(parameter) to its name."""
    found: dict[str, Tensor] = {}
    for parameter, entries in optimiser.state.items():
        for entry, value in entries.items():
            if value is not None:
                found[f"optimiser/{entry}/{names[id(parameter)]}"] = torch.as_tensor(value)
    return found


def restore_optimiser(
    optimiser: torch.optim.Optimizer, tensors: Mapping[str, Tensor], parameters: Mapping[str, Tensor]
) -> None:
    """Put back what ``optimiser_tensors`` flattened, in each parameter's own memory layout."""
    for key, value in tensors.items():
        kind, _, rest = key.partition("/")
        if kind != "optimiser":
            continue
        entry, _, name = rest.partition("/")
        parameter = parameters[name]
        if value.shape == parameter.shape and entry != "step":
            value = torch.empty_like(parameter).copy_(value)
        optimiser.state[parameter][entry] = value


def _settle(waiting: Path, path: Path) -> None:
    with waiting.open("rb") as file:
        os.fsync(file.fileno())
    waiting.replace(path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
