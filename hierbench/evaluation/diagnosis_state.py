"""What forwards and attacks must leave as it was: weights, buffers, modes, and the global random generators."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from hierbench.evaluation.diagnosis_types import Check


@dataclass(frozen=True)
class State:
    """Hashes of everything that must not change; None where there is no module."""

    generators: dict[str, str]
    weights: str | None
    buffers: str | None
    training: tuple[str, ...] | None
    """Names of the submodules in training mode."""

    @classmethod
    def of(cls, module: nn.Module | None) -> State:
        """Take the state of a module and of the global generators."""
        if module is None:
            return cls(_generators(), None, None, None)
        return cls(
            generators=_generators(),
            weights=_hash(module.named_parameters()),
            buffers=_hash(module.named_buffers()),
            training=tuple(name or "the model" for name, part in module.named_modules() if part.training),
        )


def state_checks(before: State, after: State) -> tuple[Check, ...]:
    """Compare the states before and after all forwards and attacks."""
    moved = [name for name, state in before.generators.items() if after.generators[name] != state]
    checks = [
        Check(
            "rng_untouched",
            "fail" if moved else "pass",
            ", ".join(moved) or "none moved",
            "the model draws from or seeds a global random generator, so that results depend on what ran before"
            if moved
            else "the global random generators of torch, NumPy and Python are as they were",
        )
    ]
    if before.training is None or after.training is None:
        return tuple(checks)
    modes = sorted(set(before.training) | set(after.training))
    checks.append(
        Check(
            "mode",
            "fail" if modes else "pass",
            f"{len(modes)} in training mode" if modes else "evaluation",
            f"{modes[0]} is in training mode, where dropout and batch norm make a verdict depend on its batch"
            if modes
            else "every part of the model was in evaluation mode before the attacks and after them",
        )
    )
    for name, unequal, broken, fine in (
        (
            "buffers",
            before.buffers != after.buffers,
            "forwards change the model's buffers (batch-norm statistics?), so that it is another model after an attack",
            "buffers, batch-norm statistics among them, are as they were",
        ),
        (
            "weights",
            before.weights != after.weights,
            "the weights changed while the model was attacked: PGD and AutoAttack would see two models",
            "every attack saw the same weights, to the bit",
        ),
    ):
        said = ("fail", "changed", broken) if unequal else ("pass", "unchanged", fine)
        checks.append(Check(name, *said))  # type: ignore[arg-type]
    return tuple(checks)


def _hash(tensors: Iterable[tuple[str, Tensor]]) -> str:
    digest = hashlib.sha256()
    for name, tensor in tensors:
        values = tensor.detach().cpu().contiguous()
        digest.update(f"{name}|{values.dtype}|{tuple(values.shape)}|".encode())
        digest.update(values.view(-1).view(torch.uint8).numpy().tobytes() if values.numel() else b"")
    return digest.hexdigest()


def _generators() -> dict[str, str]:
    kind, keys, position, has_gauss, cached = np.random.get_state(legacy=True)
    states = {
        "torch": torch.get_rng_state().numpy().tobytes(),
        "NumPy": repr((kind, position, has_gauss, cached)).encode() + np.asarray(keys).tobytes(),
        "random": repr(random.getstate()).encode(),
    }
    if torch.cuda.is_available():
        states["torch (CUDA)"] = b"".join(state.numpy().tobytes() for state in torch.cuda.get_rng_state_all())
    return {name: hashlib.sha256(state).hexdigest() for name, state in states.items()}
