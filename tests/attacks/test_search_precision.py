"""A search in coarser arithmetic: its verdicts are float32's, and it leaves no sample on a mistake float32 lacks."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import torch
from attack_toys import TREE, conv_net, ids_of, images_of
from torch import Tensor

from hierbench.attacks.engine.attack import run_attack
from hierbench.attacks.engine.batching import Cost
from hierbench.attacks.engine.passes import Passes
from hierbench.attacks.engine.result import AttackResult
from hierbench.attacks.engine.search import StageSearch
from hierbench.attacks.objectives.base import LeafObjective
from hierbench.attacks.optimisers.apgd import APGD
from hierbench.attacks.optimisers.base import Stage
from hierbench.attacks.optimisers.pgd import PGD
from hierbench.attacks.threat import ThreatModel

NET = conv_net(TREE.width)
IMAGES = images_of(60)
RIGHT = NET(IMAGES)[:, :8].argmax(dim=1)
PLAN = [Stage("pgd", LeafObjective(), PGD(steps=10)), Stage("apgd", LeafObjective(), APGD(steps=20))]


def attack(forward: Any, images: Tensor, labels: Tensor, plan: list[Stage], **others: Any) -> AttackResult:
    given: dict[str, Any] = {"depth": 3, "scoring": "rollup", "batch_size": 32, "seed": 0, "dataset": "toy"}
    threat = ThreatModel("linf", Fraction(4, 255))
    return run_attack(
        forward, images, labels, ids_of(len(images)), plan=plan, layout=TREE, threat=threat, attack_name="test",
        **{**given, **others},
    )  # fmt: skip


def test_the_search_computes_in_bf16_and_the_verdict_in_float32() -> None:
    seen: list[tuple[bool, torch.dtype]] = []

    def watched(pixels: Tensor) -> Tensor:
        product = pixels.flatten(1) @ torch.ones(pixels[0].numel(), 2)
        seen.append((torch.is_grad_enabled(), product.dtype))
        return NET(pixels)

    attack(watched, IMAGES, RIGHT, PLAN, search_precision="bf16")
    assert {dtype for gradient, dtype in seen if gradient} == {torch.bfloat16}
    assert torch.float32 in {dtype for gradient, dtype in seen if not gradient}


@pytest.mark.parametrize("pooled", [False, True])
def test_no_success_is_lost_to_verification(pooled: bool) -> None:
    given: dict[str, Any] = {"pooled": pooled, "depth": TREE.num_depths}
    coarse = attack(NET, IMAGES, RIGHT, PLAN, search_precision="bf16", **given)
    exact = attack(NET, IMAGES, RIGHT, PLAN, **given)
    assert coarse.unverified.sum() == exact.unverified.sum() == 0
    assert abs(int(coarse.verdict.sum()) - int(exact.verdict.sum())) <= 2
    assert coarse.verdict.any() and not coarse.verdict.all()


def test_what_looks_broken_is_looked_at_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """A model whose coarse logits are wrong from the start: only the second look keeps its samples in the search."""
    lying = {"on": True}

    def rough(pixels: Tensor) -> Tensor:
        logits = NET(pixels)
        return logits.flip(1) if lying["on"] and torch.is_autocast_enabled("cpu") else logits

    plan = [Stage("pgd", LeafObjective(), PGD(steps=5))]
    second_look = attack(rough, IMAGES, RIGHT, plan, search_precision="bf16")
    assert second_look.unverified.sum() == 0
    assert int(second_look.steps_used[second_look.searched].max()) == 5
    monkeypatch.setattr(StageSearch, "_looked_at_again", lambda self, slots, found: found)
    left_early = attack(rough, IMAGES, RIGHT, plan, search_precision="bf16")
    assert left_early.unverified.sum() > 0


def test_a_quicker_form_of_the_model_searches_and_never_judges() -> None:
    quick_saw: list[bool] = []

    def quick(pixels: Tensor) -> Tensor:
        quick_saw.append(torch.is_autocast_enabled("cpu"))
        return NET(pixels).flip(1)  # calls everything broken: only the model's own word may count

    plan = [Stage("pgd", LeafObjective(), PGD(steps=5))]
    for precision in ("bf16", "fp32"):
        quick_saw.clear()
        found = attack(NET, IMAGES, RIGHT, plan, search_precision=precision, search_forward=quick)
        assert quick_saw and set(quick_saw) == {precision == "bf16"}
        assert found.unverified.sum() == 0 and torch.equal(found.clean_logits, NET(IMAGES))
        assert torch.equal(found.logits, NET(found.adversarial))


def test_full_precision_is_untouched_by_the_choice() -> None:
    plain, named = attack(NET, IMAGES, RIGHT, PLAN), attack(NET, IMAGES, RIGHT, PLAN, search_precision="fp32")
    assert torch.equal(plain.adversarial, named.adversarial) and plain.forwards == named.forwards
    tf32 = attack(NET, IMAGES, RIGHT, PLAN, search_precision="tf32")  # on a CPU the same thing
    assert np.array_equal(tf32.verdict, plain.verdict)


def test_a_second_look_is_counted() -> None:
    cost = Cost()
    passes = Passes(forward=NET, layout=TREE, cost=cost, part=8, precision="bf16")
    assert passes.exact(IMAGES[:5]).dtype == torch.float32 and cost.forwards >= 5
