"""Acceptance rules: a forward that draws, optimises, remembers or has no gradient is seen as what it is."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.autograd import grad as imported_before

from board import toy
from hierbench.board.verify.rules import Behaviour, averaging_attacks, breaches, observe
from hierbench.evaluation.protocol import Protocol


class Plain(nn.Module):
    """Four classes from eight pixels."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layer = nn.Linear(8, 4)
        self.register_buffer("seen", torch.zeros(()))
        self.trained = torch.optim.SGD([nn.Parameter(torch.zeros(2))], lr=0.1)

    def forward(self, pixels: Tensor) -> Tensor:
        return self.layer(pixels.flatten(1))


class Draws(Plain):
    def forward(self, pixels: Tensor) -> Tensor:
        return super().forward(pixels + 0.01 * torch.randn_like(pixels))


class Remembers(Plain):
    def forward(self, pixels: Tensor) -> Tensor:
        self.seen += 1
        return super().forward(pixels)


class Purifies(Plain):
    def search(self, loss: Tensor, pixels: Tensor) -> Tensor:
        return torch.autograd.grad(loss, pixels)[0]

    def forward(self, pixels: Tensor) -> Tensor:
        with torch.enable_grad():
            given = pixels.detach().requires_grad_(True)
            gradient = self.search(super().forward(given).logsumexp(dim=1).sum(), given)
        return super().forward(pixels - 0.01 * gradient)


class PurifiesByAnOldName(Purifies):
    def search(self, loss: Tensor, pixels: Tensor) -> Tensor:
        return imported_before(loss, pixels)[0]


class PurifiesBackward(Purifies):
    def search(self, loss: Tensor, pixels: Tensor) -> Tensor:
        loss.backward(inputs=[pixels])
        assert pixels.grad is not None
        return pixels.grad


class Steps(Plain):
    def forward(self, pixels: Tensor) -> Tensor:
        self.trained.step()
        return super().forward(pixels)


class Rounds(Plain):
    def forward(self, pixels: Tensor) -> Tensor:
        return super().forward(torch.round(pixels))


class Detaches(Plain):
    def forward(self, pixels: Tensor) -> Tensor:
        return super().forward(pixels.detach())


@pytest.fixture
def protocol(tmp_path: Path) -> Protocol:
    return toy.add_protocol(tmp_path)


def look(kind: Callable[[], nn.Module]) -> Behaviour:
    model = kind()
    pixels = torch.rand(6, 1, 2, 4, generator=torch.Generator().manual_seed(1))
    return observe(model, model, pixels, torch.arange(6) % 4)


def test_a_plain_forward_breaks_no_rule(protocol: Protocol) -> None:
    seen = look(Plain)
    assert seen == Behaviour(zero_gradients=0.0, repeats=True, optimises=None)
    assert list(breaches(seen, protocol, variant="standard", evaluated=("leaf_pgd",))) == []


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        (Draws, "two forwards of the same images differ"),
        (Remembers, "the forward optimises: seen is another after a forward"),
        (Purifies, "the forward optimises: it runs a backward pass"),
        (PurifiesByAnOldName, "the forward optimises: it runs a backward pass"),
        (PurifiesBackward, "the forward optimises: it runs a backward pass"),
        (Steps, "the forward optimises: an optimiser makes a step"),
        (Rounds, "100% of the images have a gradient of exactly zero"),
        (Detaches, "100% of the images have a gradient of exactly zero"),
    ],
)
def test_what_breaks_a_rule_is_named(kind: Callable[[], nn.Module], reason: str, protocol: Protocol) -> None:
    found = list(breaches(look(kind), protocol, variant="standard", evaluated=("leaf_pgd",)))
    assert any(line.startswith(reason) for line in found), found


def test_autograd_is_as_it_was_afterwards() -> None:
    before = torch.autograd._engine_run_backward
    look(Purifies)
    assert torch.autograd._engine_run_backward is before


def test_rand_needs_a_protocol_that_averages(protocol: Protocol) -> None:
    assert averaging_attacks(protocol) == ()
    (reason,) = breaches(look(Draws), protocol, variant="rand", evaluated=("leaf_pgd",))
    assert reason.startswith("variant rand: toyboard-v1 has no attack that averages over draws")


def test_rand_needs_a_record_of_an_averaging_attack(tmp_path: Path) -> None:
    from hierbench.evaluation.protocol import load_protocol_file

    text = toy.TOML.replace(toy.NAME, "toyrand-v1").replace('"multilevel_apgd"]', '"multilevel_apgd", "autoattack"]')
    path = tmp_path / "toyrand-v1.toml"
    averaging = '[attack.parameters.autoattack]\nversion = "rand"\n\n[[dataset]]'
    path.write_text(text.replace("[[dataset]]", averaging), encoding="utf-8")
    protocol = load_protocol_file(path)
    assert averaging_attacks(protocol) == ("autoattack",)
    seen = look(Draws)
    (reason,) = breaches(seen, protocol, variant="rand", evaluated=("leaf_pgd",))
    assert reason == "variant rand: needs a record of autoattack, which average over draws"
    assert list(breaches(seen, protocol, variant="rand", evaluated=("leaf_pgd", "autoattack"))) == []
