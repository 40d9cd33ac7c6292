from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from attack_toys import LEVELS, TREE
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from hierbench.attacks.objectives.base import node_logits
from hierbench.attacks.verdict import Criterion, broken, predicted_nodes, scorings_of, true_nodes
from hierbench.errors import InputError
from hierbench.models.layout import NodeLayout

ROLLUP_ONLY = NodeLayout.from_levels(LEVELS, direct=False)


@st.composite
def nested_levels(draw: st.DrawFn) -> list[list[int]]:
    """Draw nested cuts: each level refines the one before, the last is the leaves."""
    leaves = draw(st.integers(2, 9))
    rows = [list(range(leaves))]
    for _ in range(draw(st.integers(0, 3))):
        finer = rows[0]
        nodes = max(finer) + 1
        merged = [draw(st.integers(0, nodes - 1)) for _ in range(nodes)]
        names = {old: new for new, old in enumerate(dict.fromkeys(merged))}
        rows.insert(0, [names[merged[node]] for node in finer])
    return rows


def few_valued_logits(count: int, width: int, seed: int) -> Tensor:
    """Logits of few values, so that ties are common."""
    return torch.randint(0, 4, (count, width), generator=torch.Generator().manual_seed(seed)).float()


@settings(max_examples=60, deadline=None)
@given(levels=nested_levels(), seed=st.integers(0, 999))
def test_rollup_by_hand_with_ties_to_the_lowest_leaf_and_monotone(levels: list[list[int]], seed: int) -> None:
    layout = NodeLayout.from_levels(levels, direct=False)
    logits = few_valued_logits(20, layout.num_leaves, seed)
    labels = torch.randint(0, layout.num_leaves, (20,), generator=torch.Generator().manual_seed(seed))
    nodes = predicted_nodes(logits, layout, "rollup")
    verdicts = broken(logits, labels, layout, "rollup")
    for row, values in enumerate(logits.tolist()):
        leaf = values.index(max(values))
        assert nodes[row].tolist() == [level[leaf] for level in levels]
        assert verdicts[row].tolist() == [level[leaf] != level[int(labels[row])] for level in levels]
    # Broken at a depth implies broken at every deeper one: per image, and so for any set of images.
    assert bool((verdicts[:, :-1] <= verdicts[:, 1:]).all())


@settings(max_examples=30, deadline=None)
@given(levels=nested_levels(), seed=st.integers(0, 999))
def test_direct_by_hand(levels: list[list[int]], seed: int) -> None:
    layout = NodeLayout.from_levels(levels, direct=True)
    logits = few_valued_logits(10, layout.width, seed)
    nodes = predicted_nodes(logits, layout, "direct")
    for depth, (start, stop) in enumerate(layout.columns):
        for row, values in enumerate(logits[:, start:stop].tolist()):
            assert int(nodes[row, depth]) == values.index(max(values))


@settings(max_examples=40, deadline=None)
@given(levels=nested_levels(), seed=st.integers(0, 999))
def test_max_pooled_logits_decide_as_rollup_does(levels: list[list[int]], seed: int) -> None:
    layout = NodeLayout.from_levels(levels, direct=False)
    logits = torch.randn(10, layout.num_leaves, generator=torch.Generator().manual_seed(seed))
    nodes = predicted_nodes(logits, layout, "rollup")
    for depth in range(1, layout.num_depths + 1):
        pooled = node_logits(logits, layout, depth=depth, scoring="rollup", pooling="max")
        assert torch.equal(pooled.argmax(dim=1), nodes[:, depth - 1])


def test_logsumexp_decisions_differ_from_rollup_and_are_not_monotone() -> None:
    layout = NodeLayout.from_levels([[0, 1, 1, 1], [0, 1, 2, 3]], direct=False)
    logits = torch.tensor([[1.0, 0.9, 0.9, 0.9]])
    pooled = node_logits(logits, layout, depth=1, scoring="rollup", pooling="logsumexp")
    assert pooled.argmax(dim=1).item() == 1  # the three leaves together outweigh the first
    assert predicted_nodes(logits, layout, "rollup").tolist() == [[0, 0]]  # wrong at depth 1 and right at the leaf


@pytest.mark.parametrize("odd", [float("nan"), float("inf"), -float("inf")])
def test_logits_that_are_not_finite_are_no_answer_and_broken(odd: float) -> None:
    logits = torch.zeros(2, TREE.width)
    logits[:, 0] = 5.0
    logits[0, 5] = odd
    labels = torch.zeros(2, dtype=torch.long)
    assert predicted_nodes(logits, TREE, "rollup").tolist() == [[-1, -1, -1], [0, 0, 0]]
    assert broken(logits, labels, TREE, "rollup").tolist() == [[True] * 3, [False] * 3]
    # Direct scoring at a coarse depth does not read the leaf column that is odd.
    assert broken(logits, labels, TREE, "direct")[0].tolist() == [False, False, True]


@pytest.mark.parametrize("scoring", ["rollup", "direct"])
@pytest.mark.parametrize("depth", [1, 2, 3])
def test_margin_is_above_zero_exactly_where_broken(scoring: str, depth: int) -> None:
    generator = torch.Generator().manual_seed(depth)
    logits = torch.randn(200, TREE.width, generator=generator)
    labels = torch.randint(0, 8, (200,), generator=generator)
    criterion = Criterion(TREE, depth, scoring)
    truth = criterion.true_node(labels)
    assert torch.equal(truth, true_nodes(labels, TREE)[:, depth - 1])
    wrong, odd = criterion.broken(logits, truth)
    assert torch.equal(wrong, broken(logits, labels, TREE, scoring)[:, depth - 1])
    assert torch.equal(criterion.margin(logits, truth) > 0, wrong)
    assert not odd.any()
    assert 0 < int(wrong.sum()) < 200


def test_undefined_verdicts_are_refused() -> None:
    single = NodeLayout.from_levels([[0, 0, 0], [0, 1, 2]], direct=True)
    with pytest.raises(InputError, match="robustness is undefined"):
        Criterion(single, 1, "rollup")
    with pytest.raises(InputError, match="depths 1 to 2"):
        Criterion(single, 3, "rollup")
    with pytest.raises(InputError, match="use scoring rollup"):
        Criterion(ROLLUP_ONLY, 1, "direct")
    with pytest.raises(InputError, match="rollup or direct"):
        Criterion(TREE, 1, "mean")
    assert Criterion(ROLLUP_ONLY, 3, "direct").scoring == "direct"  # the leaves are always there
    assert scorings_of(ROLLUP_ONLY) == ("rollup",)
    assert scorings_of(TREE) == ("rollup", "direct")


def test_layout_tables() -> None:
    assert TREE.columns == ((8, 10), (10, 15), (0, 8))
    assert TREE.node_counts == (2, 5, 8)
    assert TREE.ancestors(2).tolist() == [[0, 0], [0, 1], [1, 2], [1, 3], [1, 4]]
    assert TREE.membership(1).sum(dim=0).tolist() == [3.0, 5.0]
    assert TREE.to("cpu") is TREE
    stored = np.array(LEVELS)
    stored.flags.writeable = False  # a hierarchy's tables are
    tree = NodeLayout.from_hierarchy(SimpleNamespace(leaf_to_node=stored), direct=True)
    assert tree.columns == TREE.columns
    assert torch.equal(tree.leaf_to_node, TREE.leaf_to_node)
    assert ROLLUP_ONLY.columns == ((0, 0), (0, 0), (0, 8))
    assert ROLLUP_ONLY.width == 8


@pytest.mark.parametrize(
    ("levels", "columns", "said"),
    [
        ([[0, 0, 2], [0, 1, 2]], ((3, 6), (0, 3)), "without leaves"),
        ([[0, 0, 1], [0, 1, 2]], ((3, 6), (0, 3)), "2 nodes and 3 columns"),
        ([[0, 0, 1], [0, 1, 2]], ((0, 3),), "1 column ranges for 2 depths"),
        ([[0, 0, 1], [0, 2, 1]], ((3, 5), (0, 3)), "label order"),
        ([[0, 0, 1], [0, 1, 2]], ((3, 5), (5, 8)), "leaf columns"),
    ],
)
def test_layouts_that_do_not_fit_are_refused(levels: list[list[int]], columns: tuple[object, ...], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        NodeLayout(leaf_to_node=torch.tensor(levels), columns=columns)
