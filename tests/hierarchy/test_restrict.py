"""The induced tree of some classes."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sample_trees import Content, random_contents, rehash, small_content
from wordnet_cases import class_rows, wordnet_or_skip

from hierbench.errors import InputError
from hierbench.hierarchy.builders.recipe import read_names, read_recipe
from hierbench.hierarchy.builders.wordnet import build_wordnet, recipe_path
from hierbench.hierarchy.catalogue import load_hierarchy
from hierbench.hierarchy.load import hierarchy_from_content
from hierbench.hierarchy.restrict import restrict
from hierbench.hierarchy.tree import Hierarchy
from hierbench.paths import data_dir


def loaded(content: Content) -> Hierarchy:
    return hierarchy_from_content(content, where="test")


def parents(tree: Hierarchy) -> dict[str, str | None]:
    return {node.id: node.parent for node in tree.nodes}


def test_single_children_are_merged_and_levels_follow() -> None:
    tree = restrict(loaded(small_content()), ["dog", "truck", "wolf", "fox"], dataset="few")
    # pet is left with dog alone, vehicle with truck alone
    assert parents(tree) == {
        "thing": None,
        "animal": "thing",
        "dog": "animal",
        "wild": "animal",
        "wolf": "wild",
        "fox": "wild",
        "truck": "thing",
    }
    assert [set(level.ids) for level in tree.levels] == [
        {"animal", "truck"},
        {"dog", "wild", "truck"},
        {"dog", "truck", "wolf", "fox"},
    ]
    assert [leaf.id for leaf in tree.leaves] == ["dog", "truck", "wolf", "fox"]
    assert (tree.dataset, tree.tree, tree.default) == ("few", "small", False)
    assert "restricted" in tree.levelling


def test_a_level_that_says_nothing_is_left_out() -> None:
    whole = loaded(small_content())
    # one node at depth 1; at depth 2 the classes themselves
    assert [level.ids for level in restrict(whole, ["dog", "wolf"], dataset="few").levels] == [("dog", "wolf")]
    # depth 1 is one node, depth 2 is pet and wild
    tree = restrict(whole, ["cat", "dog", "wolf", "fox"], dataset="few")
    assert [len(level) for level in tree.levels] == [2, 4]
    assert tree.nodes[0].id == "animal"


@settings(max_examples=60, deadline=None)
@given(random_contents(), st.data())
def test_a_restriction_keeps_who_is_with_whom(content: Content, data: st.DataObject) -> None:
    whole = loaded(content)
    ids = data.draw(st.permutations(content["classes"]))
    kept = ids[: data.draw(st.integers(2, len(ids)))]
    tree = restrict(whole, kept, dataset="few")
    old = [content["classes"].index(class_id) for class_id in kept]
    new_levels = [frozenset(map(frozenset, groups(level.leaf_to_node.tolist()))) for level in tree.levels]
    old_levels = [frozenset(map(frozenset, groups(level.leaf_to_node[old].tolist()))) for level in whole.levels]
    # the same partitions, without repetitions and without the trivial one
    assert new_levels == [cut for i, cut in enumerate(old_levels) if len(cut) > 1 and cut not in old_levels[i + 1 :]]
    # whoever was nearer stays nearer, or as near
    for a in range(len(kept)):
        for b in range(len(kept)):
            for c in range(len(kept)):
                if tree.lca_depth[a, b] > tree.lca_depth[a, c]:
                    assert whole.lca_depth[old[a], old[b]] > whole.lca_depth[old[a], old[c]]


def groups(parts: list[int]) -> list[set[int]]:
    found: dict[int, set[int]] = {}
    for index, part in enumerate(parts):
        found.setdefault(part, set()).add(index)
    return list(found.values())


def test_all_classes_give_the_tree_itself() -> None:
    whole = loaded(small_content())
    same = restrict(whole, [leaf.id for leaf in whole.leaves], dataset="toys")
    assert same.nodes == whole.nodes
    assert [level.ids for level in same.levels] == [level.ids for level in whole.levels]


def test_nodes_may_be_renamed_and_choices_replaced() -> None:
    whole = loaded(rehash({**small_content(), "choices": ["one"]}))
    assert restrict(whole, ["cat", "dog", "car"], dataset="few").choices == ("one",)
    tree = restrict(
        whole, ["cat", "dog", "car"], dataset="few", choices=[], renamed={"pet": ("house pet", "a house pet")}
    )
    assert tree.choices == ()
    assert {node.id: node.noun for node in tree.nodes}["pet"] == "a house pet"


@pytest.mark.parametrize(
    ("ids", "said"),
    [
        (["cat", "cow"], "class 'cow' is not in the tree"),
        (["cat", "cat"], "two classes or more are needed, none twice"),
        (["cat"], "two classes or more are needed"),
        ([], "two classes or more are needed"),
    ],
)
def test_what_cannot_be_restricted_is_refused(ids: list[str], said: str) -> None:
    with pytest.raises(InputError, match=rf"^hierarchy 'toys/small' restricted to 'few': {said}"):
        restrict(loaded(small_content()), ids, dataset="few")


@pytest.mark.parametrize("name", ["imagenet_a", "imagenet_r"])
def test_restricting_and_building_anew_give_the_same_edges(name: str) -> None:
    """A synset's parent depends on the synset alone, so both ways must meet."""
    wordnet: Any = wordnet_or_skip()
    names = read_names(data_dir() / "hierarchies" / "wordnet-names.tsv")
    recipe = replace(read_recipe(recipe_path("imagenet")), sizes=(60,))
    anew = build_wordnet(recipe, class_rows(name), names, wordnet)
    assert parents(anew) == parents(load_hierarchy(name, "wordnet"))
