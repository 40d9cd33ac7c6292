"""Acceptance rules for a model: gradients that are there, a forward that repeats itself and does not optimise."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hierbench.evaluation.protocol import Protocol
from hierbench.evaluation.trust import ZERO_GRADIENTS

if TYPE_CHECKING:
    from torch import Tensor, nn

IMAGES = 32


@dataclass(frozen=True)
class Behaviour:
    """What a model's forward does with one batch."""

    zero_gradients: float
    """Share of images whose gradient of the leaf margin is exactly zero; METHODS.md 7.2."""
    repeats: bool
    """Two forwards of the same batch are equal, bit for bit."""
    optimises: str | None
    """What a forward did that belongs to training or searching, in words."""


def observe(forward: Callable[[Tensor], Tensor], module: nn.Module, images: Tensor, labels: Tensor) -> Behaviour:
    """Send images float32 [n, c, h, w] in [0, 1] with labels [n] through a forward and watch it.

    ``module`` owns every parameter and buffer that the forward may use. A search without gradients inside the forward
    cannot be told from the outside, and is for the reader of the code.
    """
    import torch

    before = _state(module)
    did: list[str] = []
    with _watched(did), torch.no_grad():
        first = forward(images)
        again = forward(images)
    changed = next((name for name, value in _state(module).items() if not _same(before.get(name), value)), None)
    if changed is not None:
        did.append(f"{changed} is another after a forward")
    return Behaviour(
        zero_gradients=_zero_gradients(forward, images, labels),
        repeats=bool(torch.equal(first, again)),
        optimises=did[0] if did else None,
    )


def breaches(behaviour: Behaviour, protocol: Protocol, *, variant: str, evaluated: tuple[str, ...]) -> Iterator[str]:
    """Yield the rules that a model breaks; ``evaluated`` are the names of the attacks it was evaluated under.

    A model that draws at random, or that optimises in its forward, is taken as ``rand`` only, which needs an attack of
    the protocol that averages over draws.
    """
    if behaviour.zero_gradients > ZERO_GRADIENTS:
        share = behaviour.zero_gradients
        yield f"{share:.0%} of the images have a gradient of exactly zero, {ZERO_GRADIENTS:.0%} are allowed"
    needs = [] if behaviour.repeats else ["two forwards of the same images differ"]
    needs += [] if behaviour.optimises is None else [f"the forward optimises: {behaviour.optimises}"]
    if variant != "rand":
        yield from (f"{reason}; declare the variant rand (--rand), or make the forward plain" for reason in needs)
        return
    averaging = averaging_attacks(protocol)
    if not averaging:
        yield (
            f"variant rand: {protocol.name} has no attack that averages over draws (version=rand, or eot above 1), "
            "so that such a model cannot be judged under it"
        )
    elif not set(averaging) & set(evaluated):
        yield f"variant rand: needs a record of {' or '.join(averaging)}, which average over draws"


def averaging_attacks(protocol: Protocol) -> tuple[str, ...]:
    """Return the protocol's attacks whose gradients are averaged over several draws of the model."""
    from hierbench.attacks.catalogue import ATTACKS

    found = []
    for name in protocol.attacks.names:
        spec = ATTACKS.get(name)
        settings = spec.settings(protocol.attacks.fixed(name, {parameter.name for parameter in spec.parameters}))
        eot = settings.get("eot", 1)
        if settings.get("version") == "rand" or (isinstance(eot, int) and eot > 1):
            found.append(name)
    return tuple(found)


def _zero_gradients(forward: Callable[[Tensor], Tensor], images: Tensor, labels: Tensor) -> float:
    """Return the share of exactly zero gradients of z_y - max other z: a margin does not saturate as an entropy may."""
    import torch

    given = images.clone().requires_grad_(True)
    with torch.enable_grad():
        logits = forward(given)
        if not logits.requires_grad:
            return 1.0
        truth = torch.nn.functional.one_hot(labels, logits.shape[1]).bool()
        margin = logits.masked_select(truth) - logits.masked_fill(truth, -torch.inf).amax(dim=1)
        (gradient,) = torch.autograd.grad(margin.sum(), given, allow_unused=True)
    if gradient is None:
        return 1.0
    flat = gradient.flatten(1)
    return float(((flat == 0).all(dim=1) | ~torch.isfinite(flat).all(dim=1)).float().mean())


def _state(module: nn.Module) -> dict[str, Tensor]:
    named = [*module.named_parameters(), *module.named_buffers()]
    return {name: tensor.detach().clone() for name, tensor in named}


def _same(before: Tensor | None, after: Tensor) -> bool:
    import torch

    return before is not None and before.shape == after.shape and torch.equal(before, after)


@contextlib.contextmanager
def _watched(did: list[str]) -> Iterator[None]:
    """Note every backward pass and optimiser step that happens inside."""
    import torch
    from torch.optim.optimizer import register_optimizer_step_pre_hook

    def backward(run: Callable[..., Any]) -> Callable[..., Any]:
        def noted(*arguments: Any, **named: Any) -> Any:
            did.append("it runs a backward pass")
            return run(*arguments, **named)

        return noted

    # torch's own two entries meet in one function, which also sees calls through names imported before
    engine = "_engine_run_backward" if hasattr(torch.autograd, "_engine_run_backward") else None
    names = [engine] if engine else ["backward", "grad"]
    kept = {name: getattr(torch.autograd, name) for name in names}
    hook = register_optimizer_step_pre_hook(lambda *_: did.append("an optimiser makes a step"))
    for name, run in kept.items():
        setattr(torch.autograd, name, backward(run))
    try:
        yield
    finally:
        hook.remove()
        for name, run in kept.items():
            setattr(torch.autograd, name, run)
