from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from attack_toys import LEVELS, TREE
from hypothesis import given, settings
from hypothesis import strategies as st
from test_verdicts import nested_levels

from hierbench.attacks.objectives.base import (
    LeafObjective,
    LevelsObjective,
    NodeObjective,
    TargetedObjective,
    level_weights,
    node_logits,
)
from hierbench.errors import InputError
from hierbench.models.layout import NodeLayout

LABELS = torch.arange(8)
LOGITS = torch.randn(8, TREE.width, generator=torch.Generator().manual_seed(3)) * 4


def pooled_by_hand(depth: int, scoring: str, pooling: str) -> np.ndarray:
    values = LOGITS.double().numpy()
    if scoring == "direct":
        start, stop = TREE.columns[depth - 1]
        return values[:, start:stop]
    level = LEVELS[depth - 1]
    columns = []
    for node in range(max(level) + 1):
        own = values[:, [leaf for leaf in range(8) if level[leaf] == node]]
        columns.append(own.max(axis=1) if pooling == "max" else np.log(np.exp(own).sum(axis=1)))
    return np.stack(columns, axis=1)


def cross_entropy_by_hand(values: np.ndarray, targets: list[int]) -> np.ndarray:
    return np.log(np.exp(values).sum(axis=1)) - values[np.arange(len(values)), targets]


CASES = [(scoring, pooling) for scoring in ("rollup", "direct") for pooling in ("max", "logsumexp")]


@pytest.mark.parametrize(("scoring", "pooling"), CASES)
@pytest.mark.parametrize("depth", [1, 2, 3])
def test_node_objective_is_the_cross_entropy_by_hand(depth: int, scoring: str, pooling: str) -> None:
    by_hand = pooled_by_hand(depth, scoring, pooling)
    found = node_logits(LOGITS, TREE, depth=depth, scoring=scoring, pooling=pooling)
    assert np.allclose(found.numpy(), by_hand, atol=1e-5)
    objective = NodeObjective(depth=depth, scoring=scoring, pooling=pooling)
    aims = objective.aims(LOGITS, LABELS, TREE)
    assert aims.shape == (8, 1, 1)
    loss = objective.loss(LOGITS, aims[:, 0], TREE)
    assert np.allclose(loss.numpy(), cross_entropy_by_hand(by_hand, LEVELS[depth - 1]), atol=1e-4)


def test_leaf_objective_reads_the_leaves_alone() -> None:
    objective = LeafObjective()
    loss = objective.loss(LOGITS, objective.aims(LOGITS, LABELS, TREE)[:, 0], TREE)
    assert np.allclose(loss.numpy(), cross_entropy_by_hand(LOGITS.double().numpy()[:, :8], list(range(8))), atol=1e-4)


@pytest.mark.parametrize(("scoring", "pooling"), CASES)
def test_levels_objective_is_the_weighted_sum(scoring: str, pooling: str) -> None:
    objective = LevelsObjective(scoring=scoring, pooling=pooling)
    loss = objective.loss(LOGITS, objective.aims(LOGITS, LABELS, TREE)[:, 0], TREE)
    by_hand = sum(
        weight * cross_entropy_by_hand(pooled_by_hand(depth, scoring, pooling), LEVELS[depth - 1])
        for depth, weight in zip((1, 2, 3), (1 - 2 / 4, 1 - 1 / 4, 1.0), strict=True)
    )
    assert np.allclose(loss.numpy(), by_hand, atol=1e-4)


def test_level_weights_are_the_papers() -> None:
    # Hier-AFT with L = 5: leaf to coarsest 1, 5/6, 2/3, 1/2, 1/3 (METHODS.md 1).
    assert level_weights(5)[::-1] == pytest.approx((1, 5 / 6, 2 / 3, 1 / 2, 1 / 3))
    assert level_weights(1) == (1.0,)


def test_a_level_of_one_node_adds_nothing() -> None:
    with_root = NodeLayout.from_levels([[0] * 8, *LEVELS], direct=False)
    objective = LevelsObjective(scoring="rollup", pooling="logsumexp", weights=(1.0, 0.5, 0.75, 1.0))
    plain = LevelsObjective(scoring="rollup", pooling="logsumexp", weights=(0.5, 0.75, 1.0))
    logits = LOGITS[:, :8].clone().requires_grad_()
    loss = objective.loss(logits, objective.aims(logits, LABELS, with_root)[:, 0], with_root)
    assert torch.allclose(loss, plain.loss(logits, plain.aims(logits, LABELS, TREE)[:, 0], TREE), atol=1e-5)
    with pytest.raises(InputError, match="weights has 3 values, and the tree 4 depths"):
        plain.aims(logits, LABELS, with_root)


@pytest.mark.parametrize("pooling", ["max", "logsumexp"])
@pytest.mark.parametrize("scale", [1.0, 1e3])
def test_losses_and_gradients_stay_finite_at_large_scales(pooling: str, scale: float) -> None:
    # One shift for all nodes would underflow here: exp(-1000) is 0, its logarithm -inf, and the gradient NaN.
    logits = (LOGITS * scale).requires_grad_()
    objective = NodeObjective(depth=2, scoring="rollup", pooling=pooling)
    loss = objective.loss(logits, objective.aims(logits, LABELS, TREE)[:, 0], TREE)
    (gradient,) = torch.autograd.grad(loss.sum(), logits)
    assert bool(torch.isfinite(loss).all())
    assert bool(torch.isfinite(gradient).all())
    by_hand = pooled_by_hand(2, "rollup", "max")
    lost = by_hand.argmax(axis=1) != np.array(LEVELS[1])
    assert bool((gradient[torch.from_numpy(lost)].abs().amax(dim=1) > 0.1).all())


@pytest.mark.parametrize("pooling", ["max", "logsumexp"])
def test_pooled_gradients_match_finite_differences(pooling: str) -> None:
    logits = LOGITS.double().requires_grad_()

    def loss(values: torch.Tensor) -> torch.Tensor:
        objective = NodeObjective(depth=1, scoring="rollup", pooling=pooling)
        return objective.loss(values, objective.aims(values, LABELS, TREE)[:, 0], TREE)

    assert torch.autograd.gradcheck(loss, logits)


@settings(max_examples=60, deadline=None)
@given(levels=nested_levels(), seed=st.integers(0, 999), path=st.booleans(), targets=st.integers(1, 9))
def test_targets_are_never_the_truth_nor_above_nor_below_it(
    levels: list[list[int]], seed: int, path: bool, targets: int
) -> None:
    layout = NodeLayout.from_levels(levels, direct=False)
    labels = torch.arange(layout.num_leaves)
    logits = torch.randn(layout.num_leaves, layout.num_leaves, generator=torch.Generator().manual_seed(seed))
    for depth in range(1, layout.num_depths + 1):
        objective = TargetedObjective(depth=depth, scoring="rollup", pooling="max", targets=targets, path=path)
        if layout.nodes_at(depth) < 2:
            with pytest.raises(InputError, match="no wrong node"):
                objective.aims(logits, labels, layout)
            continue
        aims = objective.aims(logits, labels, layout)
        assert aims.shape == (len(labels), min(targets, layout.nodes_at(depth) - 1), depth)
        for label in labels.tolist():
            final = aims[label, :, -1].tolist()
            assert len(set(final)) == len(final)
            for aim in aims[label].tolist():
                assert aim[-1] != -1
                under = {leaf for leaf in range(layout.num_leaves) if levels[depth - 1][leaf] == aim[-1]}
                assert label not in under
                for above in range(depth - 1):
                    (parent,) = {levels[above][leaf] for leaf in under}
                    expected = parent if path and parent != levels[above][label] else -1
                    assert aim[above] == expected


@pytest.mark.parametrize("scoring", ["rollup", "direct"])
def test_targets_are_the_strongest_wrong_nodes_in_order(scoring: str) -> None:
    objective = TargetedObjective(depth=2, scoring=scoring, pooling="logsumexp", targets=3)
    aims = objective.aims(LOGITS, LABELS, TREE)[:, :, -1].tolist()
    by_hand = pooled_by_hand(2, scoring, "max")
    for label, values in enumerate(by_hand):
        order = [node for node in np.argsort(-values, kind="stable") if node != LEVELS[1][label]]
        assert aims[label] == order[:3]


@pytest.mark.parametrize("path", [False, True])
def test_targeted_loss_by_hand(path: bool) -> None:
    objective = TargetedObjective(depth=2, scoring="rollup", pooling="logsumexp", path=path)
    aims = objective.aims(LOGITS, LABELS, TREE)
    assert aims.shape == (8, 4, 2)  # five nodes: four wrong ones, though nine are allowed
    by_depth = {depth: pooled_by_hand(depth, "rollup", "logsumexp") for depth in (1, 2)}
    for run in range(4):
        loss = objective.loss(LOGITS, aims[:, run], TREE).tolist()
        for label in range(8):
            target = int(aims[label, run, 1])
            expected = -cross_entropy_by_hand(by_depth[2][[label]], [target])[0]
            above = 0 if target < 2 else 1
            if path and above != LEVELS[0][label]:
                expected -= (1 - 2 / 4) * cross_entropy_by_hand(by_depth[1][[label]], [above])[0]
            assert math.isclose(loss[label], expected, abs_tol=1e-4)


def test_settings_that_mean_nothing_are_refused() -> None:
    with pytest.raises(InputError, match="max or logsumexp"):
        NodeObjective(depth=1, scoring="rollup", pooling="mean")
    with pytest.raises(InputError, match="targets 0"):
        TargetedObjective(depth=1, scoring="rollup", pooling="max", targets=0)
