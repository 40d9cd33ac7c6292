"""The restricted forest: trained classes, the nodes above them, weights, negatives."""

from __future__ import annotations

import pytest
import torch
from standin import digits_forest, mixed_forest, ragged_tree

from hierbench.defences.methods.hier_aft.hnsa import negative_tables
from hierbench.defences.methods.hier_aft.hypavg import class_nodes, climb
from hierbench.defences.nodes import TrainingNodes, level_weight, training_nodes
from hierbench.errors import InputError
from hierbench.hierarchy.catalogue import load_hierarchy
from hierbench.hierarchy.tree import Forest
from hierbench.models.heads import HyperbolicHead
from hierbench.models.negatives import at_radius


def ragged(classes: list[int] | None = None) -> TrainingNodes:
    return training_nodes(Forest((ragged_tree(),)), template="{noun}", classes=classes)


def prompts(nodes: TrainingNodes, rows: torch.Tensor) -> list[str]:
    return [nodes.prompts[row] for row in rows.tolist()]


def test_weights_of_five_depths_are_those_of_the_paper() -> None:
    tree = load_hierarchy("cifar100", "deep")
    assert tree.num_depths == 5
    assert [level_weight(steps, tree) for steps in range(5)] == pytest.approx([1, 5 / 6, 2 / 3, 1 / 2, 1 / 3])
    (restricted,) = training_nodes(Forest((tree,)), template="{}").trees
    assert [level.weight for level in restricted.levels] == pytest.approx([5 / 6, 2 / 3, 1 / 2, 1 / 3])
    assert [len(level.prompt) for level in restricted.levels] == [len(tree.level(d)) for d in (4, 3, 2, 1)]


def test_a_ragged_leaf_is_one_prompt_and_no_child_of_its_own() -> None:
    nodes = ragged()
    above, top = nodes.trees[0].levels
    leaf = dict(enumerate(nodes.prompts[:10]))
    assert set(prompts(nodes, top.prompt)) == {"a ring", leaf[1], "a stroke"}
    assert set(prompts(nodes, above.prompt)) == {
        *(leaf[c] for c in (0, 8, 6, 1, 5, 9)),
        "an open stroke",
        "a straight stroke",
    }
    assert [c for c in range(10) if above.self_pair[c]] == [0, 1, 5, 6, 8, 9]
    assert top.self_pair.sum() == 1
    assert above.children.sum(0).tolist() == [1.0] * 10


def test_untrained_classes_vanish_with_the_nodes_that_held_only_them() -> None:
    nodes = ragged([0, 1, 2, 5, 8])
    everything = ragged()
    assert nodes.classes == (0, 1, 2, 5, 8)
    assert nodes.prompts[:5] == tuple(everything.prompts[c] for c in nodes.classes)
    unseen = {everything.prompts[c] for c in (3, 4, 6, 7, 9)} | {"a straight stroke"}
    assert not unseen & set(nodes.prompts)
    above, top = nodes.trees[0].levels
    assert "an open stroke" in prompts(nodes, above.prompt)  # left with one child: kept, and never scored
    assert len(top.prompt) == 3
    assert above.weight == 1 - 1 / 4 and top.weight == 1 - 2 / 4  # the whole tree's depth counts


def test_a_level_left_with_one_node_is_cut_off() -> None:
    nodes = training_nodes(digits_forest("strokes"), template="{noun}", classes=[0, 8])
    assert nodes.trees[0].levels == ()
    nodes = training_nodes(digits_forest("strokes"), template="{noun}", classes=[0, 8, 6, 9])
    assert [len(level.prompt) for level in nodes.trees[0].levels] == [2]


@pytest.mark.parametrize(
    ("classes", "word"), [([3], "too few"), ([1, 1, 2], "twice"), ([0, 10], "0 to 9"), ([-1, 2], "0 to 9")]
)
def test_bad_class_lists(classes: list[int], word: str) -> None:
    with pytest.raises(InputError, match=word):
        ragged(classes)


def test_two_classes_with_one_prompt_are_refused() -> None:
    with pytest.raises(InputError, match="template"):
        training_nodes(digits_forest("strokes"), template="a photo")


def test_image_nodes_are_scored_with_two_distinct_children_only() -> None:
    nodes = ragged()
    head = HyperbolicHead(levels=3)
    labels = torch.tensor([0, 0, 8, 1, 2, 2, 9])
    points = head.image_points(torch.randn(7, 4))
    classes = class_nodes(head, points, labels, num_classes=10)
    assert classes.present.nonzero().flatten().tolist() == [0, 1, 2, 8, 9]
    torch.testing.assert_close(classes.points[1], points[3])
    above, top = climb(head, classes, nodes.trees[0])
    level, highest = nodes.trees[0].levels
    assert not above.scored.any()  # the open stroke has only class 2, all others are ragged leaves
    assert {prompts(nodes, level.prompt)[i] for i in above.present.nonzero().flatten().tolist()} == {
        *(nodes.prompts[c] for c in (0, 1, 8, 9)),
        "an open stroke",
    }
    assert {prompts(nodes, highest.prompt)[i] for i in top.scored.nonzero().flatten().tolist()} == {
        "a ring",
        "a stroke",
    }
    stroke = prompts(nodes, highest.prompt).index("a stroke")
    want = head.midpoint(torch.stack([classes.points[2], classes.points[9]]), torch.ones(1, 2))[0]
    torch.testing.assert_close(top.points[stroke], want)


def test_negatives_are_neighbours_that_are_not_kin_and_each_node_counts_once() -> None:
    nodes = ragged()
    tables = negative_tables(nodes, sides="both")
    level = nodes.trees[0].levels[0]
    (steps, rows), (upper_steps, upper_rows) = tables.levels[0][0].groups
    assert (steps, upper_steps) == (0, 2)
    # Ragged leaves already stand in the level, so only the leaves under the two stroke nodes are new.
    assert {nodes.prompts.index(p) for p in prompts(nodes, rows)} == {2, 3, 4, 7}
    assert set(prompts(nodes, upper_rows)) == {"a ring", "a stroke"}
    own = prompts(nodes, level.prompt)
    extra = [*prompts(nodes, rows), *prompts(nodes, upper_rows)]
    blocked = {
        (own[m], extra[x]) for m in range(len(own)) for x in range(len(extra)) if tables.levels[0][0].blocked[m, x]
    }
    leaf = nodes.prompts
    assert blocked == {
        *((("an open stroke", leaf[c])) for c in (2, 3)),
        *((("a straight stroke", leaf[c])) for c in (4, 7)),
        *(((p, "a stroke")) for p in ("an open stroke", "a straight stroke", leaf[5], leaf[9])),
        *(((leaf[c], "a ring")) for c in (0, 6, 8)),
    }


@pytest.mark.parametrize(("sides", "count"), [("off", [0, 0, 0]), ("lower", [0, 4, 7]), ("upper", [2, 2, 0])])
def test_sides(sides: str, count: list[int]) -> None:
    tables = negative_tables(ragged(), sides=sides)  # type: ignore[arg-type]
    assert [len(tables.leaves), *(len(level) for level in tables.levels[0])] == count


def test_leaf_negatives_of_a_forest_come_from_all_trees() -> None:
    nodes = training_nodes(mixed_forest(), template="{noun}")
    table = negative_tables(nodes, sides="both").leaves
    strokes, rag = nodes.trees
    new = set(strokes.levels[0].prompt.tolist()) | set(rag.levels[0].prompt.tolist())
    assert {row for _, rows in table.groups for row in rows.tolist()} == {row for row in new if row >= 10}
    assert bool((table.blocked.sum(1) >= 1).all())


def test_at_radius_keeps_directions() -> None:
    points = torch.randn(4, 3)
    moved = at_radius(points, torch.tensor(0.3))
    torch.testing.assert_close(moved.norm(dim=-1), torch.full((4,), 0.3))
    torch.testing.assert_close(torch.nn.functional.cosine_similarity(points, moved), torch.ones(4))
    assert bool(at_radius(torch.zeros(1, 3), torch.tensor(0.3)).isfinite().all())
