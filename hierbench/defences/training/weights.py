"""Which of a model's weights train, and proof that the others did not move."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from hierbench.defences.base import SCOPES
from hierbench.defences.training.settings import TrainingSettings
from hierbench.errors import HierbenchError
from hierbench.models.scopes import last_blocks, projection_parameters, text_parameters

if TYPE_CHECKING:
    from hierbench.models.zeroshot import ZeroShotModel


@dataclass(frozen=True)
class TrainedWeights:
    """The parameters that train, by scope and name; everything else is frozen."""

    scopes: Mapping[str, dict[str, nn.Parameter]]

    @property
    def named(self) -> dict[str, nn.Parameter]:
        """All of them by their name in the model."""
        return {name: p for group in self.scopes.values() for name, p in group.items()}

    @property
    def names(self) -> dict[int, str]:
        """Names by id(parameter)."""
        return {id(p): name for name, p in self.named.items()}


def scopes_of(trains: Iterable[str], train_scope: str) -> tuple[str, ...]:
    """Return the scopes that move, given those of the method and the recipe's ``train_scope``.

    >>> scopes_of(("visual", "head"), "both"), scopes_of(("visual", "text"), "projection")
    (('visual', 'text', 'text_projection', 'head'), ('visual',))
    """
    wanted = set(trains)
    if train_scope != "method":
        wanted -= {"text"}
        wanted |= {"visual"} | ({"text", "text_projection"} if train_scope == "both" else set())
    return tuple(scope for scope in (*SCOPES, *(wanted - set(SCOPES))) if scope in wanted)


def select_weights(model: ZeroShotModel, trains: Iterable[str], *, train_scope: str = "method") -> TrainedWeights:
    """Turn gradients on for the given scopes and off for everything else.

    ``train_scope`` narrows the image tower, as the recipe's setting of that name says. A scope that the model has no
    parameters for, or an unknown one, raises ``HierbenchError``.
    """
    owners: dict[str, Callable[[], Iterable[nn.Parameter]]] = {
        "visual": lambda: _visual(model, train_scope),
        "text": lambda: text_parameters(model.clip),
        "text_projection": lambda: [model.text_projection],
        "head": model.head.parameters,
    }
    scopes: dict[str, dict[str, nn.Parameter]] = {}
    wanted = list(trains)
    named = dict(model.named_parameters())
    for scope in wanted:
        if scope not in SCOPES:
            raise HierbenchError(f"a defence cannot train {scope!r}: the scopes are {', '.join(SCOPES)}")
        own = {id(p) for p in owners[scope]()}
        scopes[scope] = {name: p for name, p in named.items() if id(p) in own}
        if not scopes[scope]:
            raise HierbenchError(f"model {model.name!r} has no parameters in scope {scope!r}")
    if not scopes:
        raise HierbenchError("the defence trains nothing: its scopes are empty")
    trained = {id(p) for group in scopes.values() for p in group.values()}
    for parameter in named.values():
        parameter.requires_grad_(id(parameter) in trained)
    return TrainedWeights(scopes=scopes)


def _visual(model: ZeroShotModel, train_scope: str) -> Iterable[nn.Parameter]:
    if train_scope == "projection":
        return projection_parameters(model.visual)
    if train_scope.startswith("blocks:"):
        return last_blocks(model.visual, int(train_scope.removeprefix("blocks:")))
    return model.visual.parameters()


def build_optimiser(weights: TrainedWeights, settings: TrainingSettings) -> torch.optim.Optimizer:
    """Return the optimiser; each group carries its ``share`` of the learning rate."""
    groups: list[dict[str, Any]] = []
    for scope, parameters in weights.scopes.items():
        groups.append(
            {
                "params": list(parameters.values()),
                "share": settings.text_projection_rate if scope == "text_projection" else 1.0,
                "weight_decay": 0.0 if scope == "head" else settings.weight_decay,
            }
        )
    if settings.optimiser == "sgd":
        return torch.optim.SGD(groups, lr=settings.learning_rate, momentum=settings.momentum)
    kind = torch.optim.AdamW if settings.optimiser == "adamw" else torch.optim.Adam
    return kind(groups, lr=settings.learning_rate, betas=settings.betas)


def weights_step_mode(model: ZeroShotModel) -> None:
    """Put the visual tower in train mode but its batch norms in eval mode: their statistics stay frozen."""
    model.visual.train()
    for module in model.visual.modules():
        if isinstance(module, _BatchNorm):
            module.eval()


def digest(tensors: Mapping[str, Tensor]) -> str:
    """Content hash of tensors by name."""
    found = hashlib.blake2b(digest_size=16)
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        found.update(f"{name}|{tensor.dtype}|{tuple(tensor.shape)}|".encode())
        found.update(tensor.flatten().view(torch.uint8).numpy().tobytes())
    return found.hexdigest()


def frozen_digest(model: ZeroShotModel, weights: TrainedWeights) -> str:
    """Content hash of every tensor that must not move, batch-norm statistics included."""
    trained = set(weights.named)
    return digest({name: t for name, t in model.state_dict().items() if name not in trained})


def scope_digests(weights: TrainedWeights) -> dict[str, str]:
    """Content hash of what trains, by scope."""
    return {scope: digest(dict(group)) for scope, group in weights.scopes.items()}
