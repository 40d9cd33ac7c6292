"""The same PGD as torchattacks: equal images step for step, and never a weaker verdict."""

from __future__ import annotations

import warnings
from fractions import Fraction

import numpy as np
import pytest
import torch
from attack_toys import conv_net, images_of
from test_engine import attack

from hierbench.attacks.objectives.base import LeafObjective
from hierbench.attacks.optimisers.base import Stage
from hierbench.attacks.optimisers.pgd import PGD, ascend
from hierbench.attacks.threat import ThreatModel
from hierbench.models.layout import NodeLayout

torchattacks = pytest.importorskip("torchattacks")

FLAT = NodeLayout.from_levels([list(range(10))], direct=True)
NET = conv_net(10, seed=4)
IMAGES = images_of(120, seed=4)
LABELS = NET(IMAGES).argmax(dim=1)


def reference(norm: str, eps: float, alpha: float, steps: int) -> torch.Tensor:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        maker = torchattacks.PGD if norm == "linf" else torchattacks.PGDL2
        attacker = maker(NET, eps=eps, alpha=alpha, steps=steps, random_start=False)
        return attacker(IMAGES, LABELS).detach()


@pytest.mark.parametrize(("norm", "eps", "alpha"), [("linf", "8/255", "2/255"), ("l2", "1/4", "1/20")])
@pytest.mark.parametrize("steps", [1, 7])
def test_iterates_are_the_reference_s(norm: str, eps: str, alpha: str, steps: int) -> None:
    threat = ThreatModel(norm, Fraction(eps))
    adversarial = IMAGES.clone()
    for _ in range(steps):
        query = adversarial.detach().requires_grad_()
        loss = torch.nn.functional.cross_entropy(NET(query), LABELS, reduction="sum")
        (gradient,) = torch.autograd.grad(loss, query)
        adversarial = ascend(query.detach(), IMAGES, gradient, threat, float(Fraction(alpha)))
    expected = reference(norm, float(Fraction(eps)), float(Fraction(alpha)), steps)
    # A gradient entry that rounds to the other side of 0 may turn one pixel: allow a handful in all of them.
    assert ((adversarial - expected).abs() > 1e-5).float().mean() < 1e-4


@pytest.mark.parametrize(("norm", "eps", "alpha"), [("linf", "8/255", "2/255"), ("l2", "1/4", "1/20")])
def test_verdicts_are_at_least_as_strong(norm: str, eps: str, alpha: str) -> None:
    theirs = (NET(reference(norm, float(Fraction(eps)), float(Fraction(alpha)), 10)).argmax(dim=1) != LABELS).numpy()
    plan = [Stage("pgd", LeafObjective(), PGD(steps=10, alpha=alpha, start_at="clean"))]
    ours = attack(NET, IMAGES, LABELS, plan, layout=FLAT, norm=norm, eps=Fraction(eps), depth=1).verdict
    assert 10 < theirs.sum() < 110
    assert (ours >= theirs).all()
    assert ours.sum() - theirs.sum() <= 4  # the first success is kept: a few more, not another attack
    assert isinstance(ours, np.ndarray)
