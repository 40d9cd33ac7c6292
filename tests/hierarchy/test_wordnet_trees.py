"""The committed WordNet trees against WordNet 3.0 itself, read here without the builder."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from wordnet_cases import RECIPES, ROOT, class_rows, wordnet_or_skip

from hierbench.hierarchy.builders.recipe import read_names, read_recipe
from hierbench.hierarchy.builders.wordnet import build_wordnet_file
from hierbench.hierarchy.load import load_hierarchy_file
from hierbench.hierarchy.text import same_text_key
from hierbench.hierarchy.tree import Hierarchy, Node
from hierbench.hierarchy.write import hierarchy_text

RE_ATTACHED = {"n06794110": "n04217882", "n06874185": "n04217882", "n13899404": "n04274530"}

each_recipe = pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.parent.name)


@pytest.fixture(scope="module")
def wordnet() -> Any:
    return wordnet_or_skip()


def tree_of(recipe: Path) -> Hierarchy:
    return load_hierarchy_file(recipe.with_suffix(".json"))


def above(wordnet: Any, wnid: str) -> set[str]:
    """Every synset above one: all hypernyms, and the re-attachments of the specification."""
    found: set[str] = set()
    waiting = [wnid]
    while waiting:
        here = waiting.pop()
        synset = wordnet.synset_from_pos_and_offset("n", int(here[1:]))
        more = [f"n{one.offset():08d}" for one in synset.hypernyms() + synset.instance_hypernyms()]
        more = [RE_ATTACHED[here]] if here in RE_ATTACHED else more
        waiting += [one for one in more if one not in found]
        found.update(more)
    return found


def wrong_edges(tree: Hierarchy, places: dict[str, str], wordnet: Any) -> list[tuple[str, str]]:
    """The edges of a tree that are no path upward in WordNet."""
    by_id = {node.id: node for node in tree.nodes}
    inner = {node.parent for node in tree.nodes}
    wrong: list[tuple[str, str]] = []
    for node in tree.nodes:
        parent = by_id.get(node.parent or "")
        if parent is None:
            continue
        if node.id in places:
            # placed by hand: under that synset, or whatever pruning left above it
            fine = parent.wordnet in {places[node.id], *above(wordnet, places[node.id])}
        else:
            own_group = node.id not in inner and parent.wordnet == node.wordnet
            fine = own_group or parent.wordnet in above(wordnet, str(node.wordnet))
        if not fine:
            wrong.append((node.id, parent.id))
    return wrong


def test_there_is_a_tree_for_each_data_set_the_issue_names() -> None:
    names = {path.parent.name for path in RECIPES}
    assert names >= {"imagenet", "tiny_imagenet", "cifar10", "cifar100", "caltech101", "caltech256", "oxford_pets"}


@each_recipe
def test_a_committed_tree_is_built_byte_for_byte(recipe: Path, wordnet: Any) -> None:
    built = build_wordnet_file(recipe, class_rows, wordnet)
    assert recipe.with_suffix(".json").read_bytes() == hierarchy_text(built).encode("utf-8")
    assert (built.dataset, built.tree) == (recipe.parent.name, "wordnet")


@each_recipe
def test_every_edge_is_a_path_upward_in_wordnet(recipe: Path, wordnet: Any) -> None:
    assert wrong_edges(tree_of(recipe), dict(read_recipe(recipe).places), wordnet) == []


def test_a_wrong_edge_is_found(wordnet: Any) -> None:
    tree = tree_of(ROOT / "hierarchies" / "cifar10" / "wordnet.recipe")
    moved = tuple(
        Node(node.id, "n03791235" if node.id == "cat" else node.parent, node.name, node.noun, node.wordnet)
        for node in tree.nodes
    )
    broken = Hierarchy(**{**vars_of(tree), "nodes": moved})
    assert wrong_edges(broken, {}, wordnet) == [("cat", "n03791235")]


def vars_of(tree: Hierarchy) -> dict[str, Any]:
    return {name: getattr(tree, name) for name in Hierarchy.__dataclass_fields__}


@each_recipe
def test_the_hypernym_kept_is_the_deepest(recipe: Path, wordnet: Any) -> None:
    """Each second parent is recorded, and none of the dropped ones is deeper, or as deep and earlier by name."""
    lines = [line for line in tree_of(recipe).choices if ": under n" in line]
    for line in lines:
        wnid, kept, *dropped = re.findall(r"n\d{8}", line)
        synset, first, *others = (
            wordnet.synset_from_pos_and_offset("n", int(one[1:])) for one in (wnid, kept, *dropped)
        )
        assert {first, *others} == set(synset.hypernyms() + synset.instance_hypernyms())
        assert others
        for other in others:
            assert (-first.max_depth(), first.name()) < (-other.max_depth(), other.name())


@each_recipe
def test_every_second_parent_on_the_way_up_is_recorded(recipe: Path, wordnet: Any) -> None:
    tree = tree_of(recipe)
    places = read_recipe(recipe).places
    lines = [line for line in tree.choices if ": under n" in line or ": re-attached under n" in line]
    recorded = {line[:9]: re.findall(r"n\d{8}", line)[1] for line in lines}
    for leaf in tree.leaves:
        here: str | None = places.get(leaf.id, leaf.wordnet)
        while here is not None:
            synset = wordnet.synset_from_pos_and_offset("n", int(here[1:]))
            parents = [f"n{one.offset():08d}" for one in synset.hypernyms() + synset.instance_hypernyms()]
            if here in RE_ATTACHED or len(parents) > 1:
                assert here in recorded, here
                here = recorded[here]
            else:
                here = parents[0] if parents else None


def test_imagenet_is_whole() -> None:
    tree = tree_of(ROOT / "hierarchies" / "imagenet" / "wordnet.recipe")
    assert tree.num_leaves == 1000
    assert [leaf.id for leaf in tree.leaves] == sorted(leaf.id for leaf in tree.leaves)
    assert all(leaf.id == leaf.wordnet for leaf in tree.leaves)
    # METHODS.md section 1: about 1,374 nodes, leaf depths 2 to 16, mean 9.6
    assert len(tree.nodes) == 1373
    assert (tree.leaf_depth.min(), tree.leaf_depth.max()) == (2, 16)
    assert round(float(tree.leaf_depth.mean()), 1) == 9.6
    assert [len(level) for level in tree.levels] == [6, 34, 79, 208, 1000]
    parent = {node.id: node.parent for node in tree.nodes}
    assert parent["n06794110"] == parent["n06874185"] == "n04217882"
    assert sum("re-attached" in line for line in tree.choices) == 3


@pytest.mark.parametrize("name", ["imagenet_a", "imagenet_r"])
def test_the_subsets_of_imagenet_keep_its_classes(name: str) -> None:
    whole = {row.id: row for row in class_rows("imagenet")}
    rows = class_rows(name)
    assert len(rows) == 200
    assert [row.id for row in rows] == sorted(row.id for row in rows)
    assert all(whole[row.id] == row for row in rows)


@each_recipe
def test_no_class_that_needed_a_choice_is_without_one(recipe: Path) -> None:
    """A class that is not called by its synset, or was placed, has a line wherever its name is not that one noun."""
    tree, said = tree_of(recipe), read_recipe(recipe)
    lines = [line for line in tree.choices if line.startswith("class ")]
    named = {line.split(" ")[1].rstrip(":") for line in lines}
    assert set(said.places) <= named
    assert named <= {leaf.id for leaf in tree.leaves}
    assert not {leaf.id for leaf in tree.leaves if leaf.wordnet is None} - named


def test_a_class_above_another_becomes_a_leaf_of_its_group() -> None:
    tree = tree_of(ROOT / "hierarchies" / "cifar100" / "wordnet.recipe")
    by_id = {node.id: node for node in tree.nodes}
    assert by_id["whale"].parent == by_id["dolphin"].parent == "n02062744"
    assert by_id["n02062744"].wordnet == by_id["whale"].wordnet
    assert any(line.startswith("n02062744 (whale) is above other classes") for line in tree.choices)


WORDNETS_WORDS = re.compile(
    r"\b(whole|instrumentality|artifact|entity|matter|placental|commodity|conveyance|organism|abstraction)\b"
)


@each_recipe
def test_superclasses_are_called_in_english(recipe: Path) -> None:
    tree = tree_of(recipe)
    for level in tree.levels[:-1]:
        for node, held in zip(level.nodes, level.leaf_counts.tolist(), strict=True):
            if held > 1 and node.id != "n01886756":
                assert not WORDNETS_WORDS.search(node.noun), node
                assert not re.search(r"[()/_]", node.noun), node
    for level in tree.levels:
        for texts in (level.names, level.nouns):
            assert len({same_text_key(text) for text in texts}) == len(level)


def test_the_table_of_names_has_right_articles_and_no_unused_name() -> None:
    names = read_names(ROOT / "hierarchies" / "wordnet-names.tsv")
    for wnid, words in names.items():
        article = re.match(r"(an?) (\w)", words.noun)
        if article:
            vowel = article[2].lower() in "aeiou" and not words.noun.startswith("a un")
            assert (article[1] == "an") == vowel, (wnid, words.noun)
    used = {node.wordnet for recipe in RECIPES for node in tree_of(recipe).nodes}
    assert set(names) <= used
    for recipe in RECIPES:
        assert set(read_recipe(recipe).names) <= {node.wordnet for node in tree_of(recipe).nodes}, recipe
    assert list(names) == sorted(names)
