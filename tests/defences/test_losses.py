"""The terms that several defences share, against NumPy float64 and finite differences."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pytest
import torch
from standin import SmallModel

from hierbench.defences.losses import frozen_tower, kl_divergence, right_share, soft_cross_entropy

Array = npt.NDArray[np.float64]


def shares(logits: Array) -> Array:
    raw = np.exp(logits - logits.max(axis=-1, keepdims=True))
    out: Array = raw / raw.sum(axis=-1, keepdims=True)
    return out


def kl(target: Array, predicted: Array) -> Array:
    """KL(softmax(target) || softmax(predicted)), one an image, entry by entry."""
    rows = []
    for p, q in zip(shares(target), shares(predicted), strict=True):
        rows.append(sum(p[j] * (math.log(p[j]) - math.log(q[j])) for j in range(len(p))))
    return np.array(rows)


def logits(*shape: int, seed: int = 0, scale: float = 3.0) -> Array:
    return np.random.default_rng(seed).normal(scale=scale, size=shape)


def slope(function: Callable[[Array], float], at: Array, direction: Array, step: float = 1e-6) -> float:
    return (function(at + step * direction) - function(at - step * direction)) / (2 * step)


@pytest.mark.parametrize("shape", [(1, 2), (7, 5), (3, 40)])
def test_kl_divergence_is_that_of_the_formula_one_an_image(shape: tuple[int, int]) -> None:
    target, predicted = logits(*shape, seed=1), logits(*shape, seed=2, scale=1.0)
    got = kl_divergence(torch.from_numpy(target), torch.from_numpy(predicted))
    np.testing.assert_allclose(got.numpy(), kl(target, predicted), rtol=1e-10)
    single = kl_divergence(torch.from_numpy(target).float(), torch.from_numpy(predicted).float())
    np.testing.assert_allclose(single.numpy(), kl(target, predicted), rtol=1e-4, atol=1e-6)


def test_kl_divergence_takes_its_mean_over_the_first_argument() -> None:
    """A sure target against an even guess costs log K; an even target against a sure guess costs far more."""
    sure, even = torch.tensor([[60.0, 0.0, 0.0, 0.0]]).double(), torch.zeros(1, 4).double()
    assert float(kl_divergence(sure, even)) == pytest.approx(math.log(4))
    assert float(kl_divergence(even, sure)) == pytest.approx(0.75 * 60 - math.log(4))


def test_kl_divergence_is_zero_between_equals_and_ignores_a_shift() -> None:
    z = torch.from_numpy(logits(6, 5))
    assert float(kl_divergence(z, z + 7.0).abs().max()) < 1e-12
    assert float(kl_divergence(z, torch.from_numpy(logits(6, 5, seed=1))).min()) > 0


def test_kl_divergence_has_both_gradients() -> None:
    target, predicted = logits(4, 6, seed=3), logits(4, 6, seed=4)
    weights = np.random.default_rng(5).uniform(0.5, 2.0, 4)
    along = logits(4, 6, seed=6, scale=1.0)
    a, b = torch.from_numpy(target).requires_grad_(), torch.from_numpy(predicted).requires_grad_()
    (kl_divergence(a, b) * torch.from_numpy(weights)).sum().backward()
    assert a.grad is not None and b.grad is not None
    wanted_a = slope(lambda z: float(kl(z, predicted) @ weights), target, along)
    wanted_b = slope(lambda z: float(kl(target, z) @ weights), predicted, along)
    assert float((a.grad.numpy() * along).sum()) == pytest.approx(wanted_a, rel=1e-6)
    assert float((b.grad.numpy() * along).sum()) == pytest.approx(wanted_b, rel=1e-6)
    assert abs(wanted_a) > 0.1 and abs(wanted_b) > 0.1


@pytest.mark.parametrize("size", [50.0, 1e4])
def test_kl_divergence_stays_finite_where_a_share_is_zero(size: float) -> None:
    target = torch.tensor([[size, 0.0, -size]], requires_grad=True)
    predicted = torch.tensor([[-size, 0.0, size]], requires_grad=True)
    value = kl_divergence(target, predicted).sum()
    value.backward()
    assert float(value.detach()) == pytest.approx(2 * size, rel=1e-5)
    assert target.grad is not None and predicted.grad is not None
    assert bool(target.grad.isfinite().all() & predicted.grad.isfinite().all())


def test_soft_cross_entropy_is_that_of_the_formula_one_an_image() -> None:
    target, z = shares(logits(7, 5, seed=1)), logits(7, 5, seed=2)
    want = [-sum(q[j] * math.log(p[j]) for j in range(5)) for q, p in zip(target, shares(z), strict=True)]
    got = soft_cross_entropy(torch.from_numpy(target), torch.from_numpy(z))
    np.testing.assert_allclose(got.numpy(), want, rtol=1e-10)


def test_soft_cross_entropy_of_sure_targets_is_the_cross_entropy() -> None:
    z, labels = torch.from_numpy(logits(7, 5)), torch.tensor([0, 1, 2, 3, 4, 0, 1])
    got = soft_cross_entropy(torch.eye(5, dtype=torch.float64)[labels], z)
    torch.testing.assert_close(got, torch.nn.functional.cross_entropy(z, labels, reduction="none"))
    far = soft_cross_entropy(torch.eye(3)[[0]], torch.tensor([[-1e4, 0.0, 1e4]]))
    assert float(far) == pytest.approx(2e4)


def test_right_share_counts_largest_logits_and_leaves_the_graph() -> None:
    z = torch.tensor([[2.0, 1.0], [0.0, 1.0], [3.0, 1.0], [5.0, 1.0]], dtype=torch.float64, requires_grad=True)
    share = right_share(z, torch.tensor([0, 0, 0, 1]))
    assert float(share) == 0.5 and share.dtype == torch.float32 and share.shape == () and not share.requires_grad


def test_a_frozen_tower_answers_as_the_model_did_and_moves_with_nothing() -> None:
    model = SmallModel(double=True)
    model.visual.train()
    modes = [module.training for module in model.modules()]
    pixels = torch.rand(5, 1, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    before = SmallModel(double=True).embed(pixels)
    tower = frozen_tower(model)
    # The model is as it was: same modes, same gradients.
    assert [module.training for module in model.modules()] == modes
    assert all(p.requires_grad for p in model.visual.parameters())
    assert not any(module.training for module in tower.modules())
    assert not any(p.requires_grad for p in tower.parameters())
    with torch.no_grad():
        for tensor in model.visual.state_dict().values():
            tensor.add_(1)
        model.embed(pixels)  # in train mode: it moves the model's own batch statistics
    assert torch.equal(model.embed(pixels, tower=tower), before)
    # No tensor is shared.
    own = {t.data_ptr() for t in model.visual.state_dict().values()}
    assert not own & {t.data_ptr() for t in tower.state_dict().values()}
