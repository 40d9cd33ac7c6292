"""The model as other libraries see it: its candidates, what it counts, and what it keeps them from."""

from __future__ import annotations

import pytest
import torch
from attack_toys import LEVELS, TREE, conv_net, images_of
from torch import Tensor, nn

from hierbench.attacks.external.node_model import NodeModel, frozen
from hierbench.attacks.verdict import predicted_nodes
from hierbench.errors import HierbenchError

NET = conv_net(TREE.width, seed=2)
IMAGES = images_of(200, seed=2)


@pytest.mark.parametrize("scoring", ["rollup", "direct"])
@pytest.mark.parametrize("depth", [1, 2, 3])
def test_its_arg_max_is_the_verdict(depth: int, scoring: str) -> None:
    model = NodeModel(NET, TREE, depth=depth, scoring=scoring)
    logits = model(IMAGES)
    assert logits.shape == (200, model.candidates)
    expected = predicted_nodes(NET(IMAGES), TREE, scoring)[:, depth - 1]
    assert torch.equal(logits.argmax(dim=1), expected)
    assert len(expected.unique()) > 1


def test_candidates_are_leaves_columns_and_sums() -> None:
    logits = NET(IMAGES)
    assert torch.equal(NodeModel(NET, TREE, depth=3, scoring="rollup")(IMAGES), logits[:, :8])
    assert torch.equal(NodeModel(NET, TREE, depth=2, scoring="direct")(IMAGES), logits[:, 10:15])
    pooled = NodeModel(NET, TREE, depth=1, scoring="rollup", pooling="logsumexp")(IMAGES)
    nodes = torch.tensor(LEVELS[0])
    expected = torch.stack([logits[:, :8][:, nodes == node].logsumexp(dim=1) for node in (0, 1)], dim=1)
    assert torch.allclose(pooled, expected, atol=1e-5)
    # The point of the warning in its description: its arg-max is another one on some of these images.
    assert (pooled.argmax(dim=1) != predicted_nodes(logits, TREE, "rollup")[:, 0]).any()


def test_passes_are_counted_to_the_image() -> None:
    model = NodeModel(NET, TREE, depth=3, scoring="rollup")
    with torch.no_grad():
        model(IMAGES[:5])
    assert (model.calls.forwards, model.calls.backwards) == (5, 0)
    query = IMAGES[:7].clone().requires_grad_()
    # One tensor that goes through twice, as in an expectation over transformations.
    torch.autograd.grad(model(query).sum() + model(query).sum(), query)
    assert (model.calls.forwards, model.calls.backwards) == (19, 14)
    logits = model(query)
    for column in range(3):  # FAB asks for every candidate's gradient in turn
        logits.backward(torch.nn.functional.one_hot(torch.full((7,), column), 8).float(), retain_graph=True)
    assert (model.calls.forwards, model.calls.backwards) == (26, 35)
    moved = query * 1.0  # not a leaf
    torch.autograd.grad(model(moved).sum(), query)
    assert (model.calls.forwards, model.calls.backwards) == (33, 42)
    assert model(IMAGES[:0]).shape == (0, 8)
    assert model.calls.forwards == 33


def test_the_gradient_is_the_model_s_own() -> None:
    query = IMAGES[:9].clone().requires_grad_()
    weights = torch.randn(9, 8, generator=torch.Generator().manual_seed(0))
    (own,) = torch.autograd.grad((NET(query)[:, :8] * weights).sum(), query)
    model = NodeModel(NET, TREE, depth=3, scoring="rollup")
    (seen,) = torch.autograd.grad((model(query) * weights).sum(), query)
    assert torch.equal(own, seen)


class Odd(nn.Module):
    """Row 0 is flat, row 1 has an infinite gradient, row 2 answers NaN."""

    def forward(self, pixels: Tensor) -> Tensor:
        logits = NET(pixels)
        flat = logits[:1].detach() + 0 * pixels[:1].sum()
        steep = logits[1:2] + (pixels[1:2] - pixels[1:2].detach()).sqrt().sum()
        return torch.cat([flat, steep, logits[2:3] * torch.nan, logits[3:]])


def test_gradients_and_logits_that_are_wrong_are_counted_and_do_not_reach_the_images() -> None:
    model = NodeModel(Odd(), TREE, depth=3, scoring="rollup")
    query = IMAGES[:6].clone().requires_grad_()
    (gradient,) = torch.autograd.grad(model(query).sum(), query)
    assert bool(torch.isfinite(gradient).all())
    assert model.calls.zero_gradients == 1
    assert model.calls.nonfinite_gradients == 2
    assert model.calls.nonfinite_logits == 1
    (raw,) = torch.autograd.grad(Odd()(query)[:, :8].sum(), query)
    assert not bool(torch.isfinite(raw).all())


def test_the_wrapped_model_is_left_alone() -> None:
    inner = conv_net(TREE.width).train().requires_grad_(True)
    model = NodeModel(inner, TREE, depth=3, scoring="rollup")
    model.eval()
    assert inner.training
    assert not model.training
    assert [name for name, _ in model.named_parameters()] == ["anchor"]
    query = IMAGES[:4].clone().requires_grad_()
    with pytest.raises(RuntimeError, match="stop"), frozen(inner):
        model(query).sum().backward()
        raise RuntimeError("stop")
    assert all(weight.grad is None and weight.requires_grad for weight in inner.parameters())
    model(query).sum().backward()  # without the guard
    assert all(weight.grad is not None for weight in inner.parameters())


def test_half_precision_is_refused() -> None:
    model = NodeModel(lambda pixels: NET(pixels).half(), TREE, depth=3, scoring="rollup")
    with pytest.raises(HierbenchError, match="float32"):
        model(IMAGES[:2])
