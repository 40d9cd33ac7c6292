"""Heights, common ancestors, paths and cuts against brute force on random ragged trees."""

from __future__ import annotations

from collections import deque
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from sample_trees import Content, balanced, caterpillar, random_contents, rehash, small_content

from hierbench.errors import InputError
from hierbench.hierarchy.distances import hierarchical_agreement, lca_depth, lca_height, path_length
from hierbench.hierarchy.load import hierarchy_from_content
from hierbench.hierarchy.tree import Forest, Hierarchy

quick = settings(max_examples=60, deadline=None)


def loaded(content: Content) -> Hierarchy:
    return hierarchy_from_content(content, where="test")


def upward(content: Content, name: str) -> list[str]:
    """The node and all above it, the root last."""
    parent = {entry["id"]: entry["parent"] for entry in content["nodes"]}
    trail = [name]
    while parent[trail[-1]] is not None:
        trail.append(parent[trail[-1]])
    return trail


def brute_height(content: Content, name: str) -> int:
    """The longest way down, by looking at every leaf's way up."""
    ways = [upward(content, leaf) for leaf in content["classes"]]
    return max(way.index(name) for way in ways if name in way)


def brute_path(content: Content, start: str) -> dict[str, int]:
    """Edges to every node, by breadth-first search over undirected edges."""
    near: dict[str, list[str]] = {entry["id"]: [] for entry in content["nodes"]}
    for entry in content["nodes"]:
        if entry["parent"] is not None:
            near[entry["id"]].append(entry["parent"])
            near[entry["parent"]].append(entry["id"])
    steps = {start: 0}
    waiting = deque([start])
    while waiting:
        here = waiting.popleft()
        for there in near[here]:
            if there not in steps:
                steps[there] = steps[here] + 1
                waiting.append(there)
    return steps


@quick
@given(random_contents())
def test_common_ancestors_and_paths_equal_brute_force(content: Content) -> None:
    tree = loaded(content)
    for a, leaf_a in enumerate(content["classes"]):
        steps = brute_path(content, leaf_a)
        for b, leaf_b in enumerate(content["classes"]):
            above_b = upward(content, leaf_b)
            meet = next(name for name in upward(content, leaf_a) if name in above_b)
            assert tree.lca_height[a, b] == brute_height(content, meet)
            assert tree.lca_depth[a, b] == len(upward(content, meet)) - 1
            assert tree.path_length[a, b] == steps[leaf_b]


@quick
@given(random_contents())
def test_cuts_equal_brute_force(content: Content) -> None:
    tree = loaded(content)
    assert tree.num_depths == len(content["levels"])
    assert tree.leaf_to_node.shape == (tree.num_depths, tree.num_leaves)
    for depth in tree.depths:
        ids = content["levels"][depth - 1]
        assert list(tree.level(depth).ids) == ids
        for label, leaf in enumerate(content["classes"]):
            holder = next(name for name in upward(content, leaf) if name in ids)
            assert ids[tree.leaf_to_node[depth - 1, label]] == holder
            assert tree.level(depth).leaf_to_node[label] == tree.leaf_to_node[depth - 1, label]
        if depth > 1:
            coarser = content["levels"][depth - 2]
            for index, name in enumerate(ids):
                holder = next(above for above in upward(content, name) if above in coarser)
                assert coarser[tree.parents(depth)[index]] == holder
                assert tree.own_parent(depth)[index] == (holder == name)


@quick
@given(random_contents())
def test_levels_are_nested_and_broken_coarse_implies_broken_fine(content: Content) -> None:
    tree = loaded(content)
    for depth in list(tree.depths)[1:]:
        fine, coarse = tree.leaf_to_node[depth - 1], tree.leaf_to_node[depth - 2]
        np.testing.assert_array_equal(tree.parents(depth)[fine], coarse)
        assert len(tree.level(depth)) > len(tree.level(depth - 1))
    np.testing.assert_array_equal(tree.leaf_to_node[-1], np.arange(tree.num_leaves))


@quick
@given(random_contents())
def test_ancestors_and_agreement_equal_set_arithmetic(content: Content) -> None:
    tree = loaded(content)
    above = [set(upward(content, leaf)[:-1]) for leaf in content["classes"]]
    for label, leaf in enumerate(content["classes"]):
        assert [tree.nodes[p].id for p in tree.ancestors(label)] == upward(content, leaf)[:-1]
        assert tree.leaves_under(int(tree.shape.leaf_nodes[label])).tolist() == [label]
    a, b = (grid.ravel() for grid in np.indices((tree.num_leaves, tree.num_leaves)))
    found = hierarchical_agreement(tree, a, b)
    for i, (p, y) in enumerate(zip(a, b, strict=True)):
        shared = len(above[p] & above[y])
        precision, recall = shared / len(above[p]), shared / len(above[y])
        assert found.precision[i] == pytest.approx(precision)
        assert found.recall[i] == pytest.approx(recall)
        f = 0.0 if shared == 0 else 2 * precision * recall / (precision + recall)
        assert found.f[i] == pytest.approx(f)
    np.testing.assert_array_equal(lca_height(tree, a, b), tree.lca_height.ravel())
    np.testing.assert_array_equal(lca_depth(tree, a, b), tree.lca_depth.ravel())
    np.testing.assert_array_equal(path_length(tree, a, b), tree.path_length.ravel())


def test_small_tree_by_hand(content: Content) -> None:
    tree = loaded(content)
    label = {name: index for index, name in enumerate(content["classes"])}
    cat, dog, wolf, car, rock = (label[name] for name in ("cat", "dog", "wolf", "car", "rock"))
    assert tree.lca_height[cat, dog] == 1
    assert tree.lca_height[cat, wolf] == 2
    assert tree.lca_height[cat, car] == tree.lca_height[car, rock] == 3
    assert tree.path_length[cat, wolf] == 4
    assert tree.path_length[car, rock] == 3
    assert [tree.nodes[p].id for p in tree.ancestors(cat)] == ["cat", "pet", "animal"]
    assert tree.level(2).names == ("rock", "pet", "wild", "vehicle")
    assert tree.level(2).nouns[1] == "a pet"
    assert tree.level(1).leaf_counts.tolist() == [4, 2, 1]
    assert tree.own_parent(2).tolist() == [True, False, False, True]
    assert tree.leaves_under(tree.shape.root).tolist() == list(range(7))
    assert tree.nodes[1].wordnet == "n00015388"
    assert tree.nodes[0].wordnet is None


@pytest.mark.parametrize("depth", [0, -1, 4, 99])
def test_a_depth_outside_the_tree_names_the_range(content: Content, depth: int) -> None:
    with pytest.raises(InputError, match=rf"^depth {depth}: hierarchy 'toys/small' has depths 1 \(coarsest\) to 3$"):
        loaded(content).level(depth)


def test_the_coarsest_level_has_no_parents(content: Content) -> None:
    with pytest.raises(InputError, match=r"depth 1 .* has no coarser level"):
        loaded(content).parents(1)


@pytest.mark.parametrize("leaf", [-1, 7])
def test_a_leaf_outside_the_tree_names_the_range(content: Content, leaf: int) -> None:
    with pytest.raises(InputError, match=f"leaf {leaf}: .* 0 to 6"):
        loaded(content).ancestors(leaf)


@pytest.mark.parametrize(
    ("predicted", "labels", "said"),
    [
        ([0, 7], [0, 0], "predicted: .* 0 to 6"),
        ([0], [-1], "labels: "),
        ([0.5], [0], "integers"),
        ([0], [0, 1], "shape"),
    ],
)
def test_distances_refuse_what_are_no_labels(content: Content, predicted: object, labels: object, said: str) -> None:
    with pytest.raises(InputError, match=said):
        path_length(loaded(content), predicted, labels)  # type: ignore[arg-type]


def test_arrays_are_read_only_and_made_when_asked_for(content: Content) -> None:
    tree = loaded(content)
    assert not {"lca_height", "lca_depth", "path_length", "leaf_to_node"} & set(vars(tree))
    for array in (tree.lca_height, tree.path_length, tree.leaf_to_node, tree.parents(2), tree.level(1).leaf_to_node):
        assert array.dtype == np.int64
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 1
    assert tree.lca_height is tree.lca_height


def test_a_very_deep_tree_needs_no_recursion() -> None:
    count = 3000
    tree = loaded(caterpillar(count))
    assert tree.shape.height[tree.shape.root] == count - 1
    assert tree.path_length[0, count - 1] == count
    assert tree.lca_height[count - 2, count - 1] == 1
    assert len(tree.ancestors(count - 1)) == count - 1


def test_a_balanced_tree_has_closed_forms() -> None:
    tree = loaded(balanced(fan=3, steps=4))
    assert [len(level) for level in tree.levels] == [3, 9, 27, 81]
    assert np.array_equal(tree.path_length, 2 * tree.lca_height)
    # A leaf meets 2 * 3**(h - 1) others at height h.
    for height in range(1, 5):
        assert (tree.lca_height[0] == height).sum() == 2 * 3 ** (height - 1)


def test_hierarchies_are_equal_by_content(content: Content) -> None:
    other = small_content()
    other["title"] = "Other"
    other["hash"] = "x"
    assert loaded(content) == loaded(small_content())
    assert hash(loaded(content)) == hash(loaded(small_content()))
    assert loaded(content) != loaded(rehash(other))
    assert loaded(content) != "toys/small"


def renamed(content: Content, **changes: object) -> Hierarchy:
    return loaded(rehash({**content, **changes}))


def test_a_forest_shares_its_leaves(content: Content) -> None:
    first, second = loaded(content), renamed(small_content(), tree="second")
    forest = Forest((first, second))
    assert len(forest) == 2
    assert [tree.tree for tree in forest] == ["small", "second"]
    assert forest.leaves == first.leaves
    assert forest.dataset == "toys"
    turned = [*content["classes"][1:], content["classes"][0]]
    noun = small_content()
    noun["nodes"][3]["noun"] = "one cat"
    for wrong, said in (
        ((), "at least one"),
        ((first, renamed(small_content(), dataset="other")), "belong to one dataset"),
        ((first, first), "'small' is given twice"),
        (
            (first, renamed(small_content(), tree="b", classes=turned, levels=[*content["levels"][:2], turned])),
            "same order; label 0 differs",
        ),
        ((first, renamed(noun, tree="b")), "label 1 differs"),
        ((first, loaded(balanced(fan=2, steps=2))), "label 0 differs"),
    ):
        with pytest.raises(InputError, match=said):
            Forest(wrong)


def test_no_module_of_this_layer_imports_torch() -> None:
    import subprocess
    import sys

    folder = Path(__file__).parents[2] / "hierbench" / "hierarchy"
    modules = [f"hierbench.hierarchy.{file.stem}" for file in folder.glob("*.py") if file.stem != "__init__"]
    code = f"import sys, {', '.join(modules)}; sys.exit('torch' in sys.modules)"
    assert len(modules) > 10
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
