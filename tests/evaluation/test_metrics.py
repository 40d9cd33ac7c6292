from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from evaluation.toy_cell import LEVELS, ToyTree
from hierbench.errors import InputError
from hierbench.evaluation import metrics, scores
from hierbench.evaluation.verdicts import AttackVerdicts, CleanVerdicts, Verdicts

TREE = np.array([[0, 0, 1, 1, 1], [0, 1, 2, 2, 3], [0, 1, 2, 3, 4]])
leaves = st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=1, max_size=40)


@given(leaves)
def test_roll_up_equals_brute_force_and_is_monotone(pairs: list[tuple[int, int]]) -> None:
    predicted, labels = np.array(pairs).T
    broken = metrics.roll_up_broken(predicted, labels, TREE)
    for i, (p, y) in enumerate(pairs):
        assert broken[i].tolist() == [int(row[p]) != int(row[y]) for row in TREE]
    assert (broken[:, 1:] >= broken[:, :-1]).all()


def test_no_prediction_is_broken_at_every_depth() -> None:
    assert metrics.roll_up_broken(np.array([-1]), np.array([4]), TREE).all()


@given(leaves)
def test_levels_beside_the_accuracies(pairs: list[tuple[int, int]]) -> None:
    labels = np.array(pairs)[:, 1]
    rng_chance = [np.mean([[row[g] == row[y] for g in range(5)] for y in labels]) for row in TREE]
    assert metrics.chance_roll_up(labels, TREE) == pytest.approx(rng_chance)
    assert metrics.chance_direct(TREE).tolist() == [1 / 2, 1 / 4, 1 / 5]
    for row, level in zip(TREE, metrics.majority_level(labels, TREE), strict=True):
        nodes = [int(row[y]) for y in labels]
        assert level == max(nodes.count(n) for n in nodes) / len(nodes)


def _paths(tree: type[ToyTree]) -> list[set[str]]:
    return [{f"leaf{leaf}", f"pair{LEVELS[0][leaf]}"} for leaf in range(4)]


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=1, max_size=30))
def test_tree_errors_equal_sets_of_nodes(pairs: list[tuple[int, int]]) -> None:
    predicted, labels = np.array(pairs).T
    found = metrics.tree_errors(predicted, labels, ToyTree())
    paths = _paths(ToyTree)
    wrong = [(p, y) for p, y in pairs if p != y]
    precision = [len(paths[p] & paths[y]) / len(paths[p]) for p, y in pairs]
    assert found.precision == pytest.approx(np.mean(precision))
    assert found.error_rate == pytest.approx(len(wrong) / len(pairs))
    heights = [1 if LEVELS[0][p] == LEVELS[0][y] else 2 for p, y in wrong]
    if wrong:
        assert found.severity == pytest.approx(np.mean(heights))
        assert found.ahd == pytest.approx(np.mean(heights) * len(wrong) / len(pairs))
    else:
        assert found.severity is None
        assert found.ahd == 0.0
    edges = [0 if p == y else (2 if LEVELS[0][p] == LEVELS[0][y] else 4) for p, y in pairs]
    assert found.tree_induced_error == pytest.approx(np.mean(edges))


def test_tree_errors_need_a_sample() -> None:
    with pytest.raises(InputError, match="at least one"):
        metrics.tree_errors(np.array([], dtype=int), np.array([], dtype=int), ToyTree())


def make_verdicts(clean: np.ndarray, attacked: dict[int, np.ndarray], labels: np.ndarray) -> Verdicts:
    """Verdicts under roll-up from predicted leaves, direct ones the same."""
    n = len(labels)
    tree = ToyTree.leaf_to_node
    right = metrics.roll_up_broken(clean, labels, tree)

    def attack(depth: int, predicted: np.ndarray) -> AttackVerdicts:
        broken = metrics.roll_up_broken(predicted, labels, tree)
        searched = ~right[:, depth - 1]
        ones, zeros = np.ones(n, dtype=bool), np.zeros(n)
        return AttackVerdicts(
            predicted=predicted, broken_rollup=broken, broken_direct=broken, searched=searched, moved=ones,
            unverified=~ones, linf=zeros, l2=zeros, steps=np.ones(n, dtype=np.int64), clean_loss=zeros,
            final_loss=zeros + 1, full_budget=ones, severity_predicted=np.where(searched, predicted, -1),
        )  # fmt: skip

    ids = tuple(str(i) for i in range(n))
    verdicts = CleanVerdicts(predicted=clean, broken_rollup=right, broken_direct=right)
    return Verdicts(ids, labels, verdicts, {d: attack(d, p) for d, p in attacked.items()})


predictions = hnp.arrays(np.int64, 24, elements=st.integers(0, 3))


@settings(max_examples=60)
@given(predictions, predictions, predictions, predictions)
def test_scores_equal_counting(clean: np.ndarray, one: np.ndarray, two: np.ndarray, labels: np.ndarray) -> None:
    """Every figure of a depth, counted sample by sample."""
    attacked = {1: one, 2: two}
    verdicts = make_verdicts(clean, attacked, labels)
    for entry in scores.depth_scores(verdicts, ToyTree()):  # type: ignore[arg-type]
        node = ToyTree.leaf_to_node[entry.depth - 1]
        right = [node[c] == node[y] for c, y in zip(clean, labels, strict=True)]
        own = [r and node[a] == node[y] for r, a, y in zip(right, attacked[entry.depth], labels, strict=True)]
        worst = [
            r and node[a] == node[y] and node[b] == node[y] for r, a, b, y in zip(right, one, two, labels, strict=True)
        ]
        assert entry.rollup.clean.count == sum(right)
        assert entry.rollup.robust is not None
        assert entry.rollup.robust.count == sum(own)
        assert entry.rollup.robust.of == 24
        assert entry.rollup.worst.count == sum(worst)
        if any(right):
            assert entry.rollup.success is not None
            assert (entry.rollup.success.count, entry.rollup.success.of) == (sum(right) - sum(own), sum(right))
            assert entry.rollup.relative == pytest.approx(sum(own) / sum(right))
        else:
            assert entry.rollup.success is None
            assert entry.rollup.relative is None


@settings(max_examples=60)
@given(predictions, predictions, predictions)
def test_transfer_leaves_out_what_roll_up_implies(clean: np.ndarray, one: np.ndarray, labels: np.ndarray) -> None:
    verdicts = make_verdicts(clean, {1: one, 2: one}, labels)
    for cell in scores.transfer_cells(verdicts):
        implied = cell.scoring == "rollup" and cell.score_depth > cell.attack_depth
        assert cell.implied == implied
        if cell.scoring == "rollup" and implied:
            assert cell.success_share is None
            broken = verdicts.attack_broken(cell.attack_depth, "rollup")
            assert broken is not None
            hit = broken[:, cell.attack_depth - 1] & ~verdicts.clean.broken_rollup[:, cell.attack_depth - 1]
            assert broken[hit, cell.score_depth - 1].all(), "what is called implied must always hold"
