"""Facts about the class tables and trees of Food-101, SUN397, DTD, EuroSAT and PCAM."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

import pytest

from hierbench.errors import InputError
from hierbench.hierarchy.class_table import LeafClass, read_class_table
from hierbench.hierarchy.load import load_hierarchy_file
from hierbench.hierarchy.tree import Hierarchy

ROOT = Path(__file__).parents[2]
CLASSES = {"food101": 101, "sun397": 397, "dtd": 47, "eurosat": 10, "pcam": 2}
DEFAULTS = {"food101": "kind", "sun397": "official", "dtd": "pattern", "eurosat": "land_use", "pcam": "diagnosis"}
# Bare nouns of the tables: mass nouns, plurals, and things there is one of.
BARE = (
    "annual ",
    "badlands",
    "healthy ",
    "herbaceous ",
    "industrial ",
    "lymph ",
    "pasture ",
    "permanent ",
    "residential ",
)
ONLY_ONE = "the "


def table(dataset: str) -> tuple[LeafClass, ...]:
    return read_class_table(ROOT / "hierbench" / "datasets" / "classes" / f"{dataset}.tsv")


def tree_of(dataset: str, name: str) -> Hierarchy:
    return load_hierarchy_file(ROOT / "hierarchies" / dataset / f"{name}.json")


def node_names(tree: Hierarchy, depth: int, ids: Iterable[str]) -> set[str]:
    """The names of the nodes at one depth that hold the given classes."""
    order = [leaf.id for leaf in tree.leaves]
    level = tree.level(depth)
    return {level.names[int(level.leaf_to_node[order.index(one)])] for one in ids}


@pytest.mark.parametrize(("dataset", "count"), CLASSES.items())
def test_a_table_has_every_class_once_in_unique_words(dataset: str, count: int) -> None:
    rows = table(dataset)
    assert len(rows) == count
    for words in ([row.name for row in rows], [row.noun for row in rows]):
        assert len({word.lower() for word in words}) == count
        assert all(word == word.strip() and "_" not in word and "/" not in word for word in words)
    used = [row.wordnet for row in rows if row.wordnet]
    assert len(set(used)) == len(used)


def test_food101_is_in_the_order_of_its_hub_copy() -> None:
    ids = [row.id for row in table("food101")]
    # The release's own list, which the Hub copy keeps, has cheesecake first; sorting the ids would swap the two.
    assert ids[16:18] == ["cheesecake", "cheese_plate"]
    ids[16:18] = ["cheese_plate", "cheesecake"]
    assert ids == sorted(ids)


def test_sun397_is_in_the_order_of_its_hub_copy() -> None:
    ids = [row.id for row in table("sun397")]
    # The Hub copy sorts the words; sorted by the release's own paths, /j/jail/indoor would come before /j/jail_cell.
    assert ids[206:208] == ["jail_cell", "jail_indoor"]
    assert ids == sorted(ids)
    assert (ids[0], ids[9], ids[84], ids[396]) == ("abbey", "apse_indoor", "cathedral_indoor", "youth_hostel")


@pytest.mark.parametrize("dataset", ["dtd", "eurosat"])
def test_dtd_and_eurosat_are_alphabetical(dataset: str) -> None:
    ids = [row.id for row in table(dataset)]
    assert ids == sorted(ids)


def test_pcam_has_no_tumour_first_and_nothing_above_its_two_classes() -> None:
    assert [row.id for row in table("pcam")] == ["no_tumor", "tumor"]
    assert [len(level) for level in tree_of("pcam", "diagnosis").levels] == [2]


@pytest.mark.parametrize("dataset", ["sun397", "dtd", "eurosat", "pcam"])
def test_a_noun_has_its_article_by_sound(dataset: str) -> None:
    for row in table(dataset):
        if row.noun.startswith((*BARE, ONLY_ONE)):
            continue
        article, _, rest = row.noun.partition(" ")
        vowel = rest[0].lower() in "aeiou" and not rest.startswith("utility")
        assert article == ("an" if vowel or rest.startswith("herb ") else "a"), row.noun


@pytest.mark.parametrize(("dataset", "name"), DEFAULTS.items())
def test_one_tree_is_the_default(dataset: str, name: str) -> None:
    trees = [load_hierarchy_file(path) for path in sorted((ROOT / "hierarchies" / dataset).glob("*.json"))]
    assert [tree.tree for tree in trees if tree.default] == [name]
    assert len(trees) >= {"food101": 3, "sun397": 2}.get(dataset, 1)


def test_the_shapes_of_the_trees() -> None:
    def shape(dataset: str, name: str) -> list[int]:
        return [len(level) for level in tree_of(dataset, name).levels]

    assert shape("food101", "kind") == [4, 10, 25, 101]
    assert shape("food101", "course") == [4, 9, 18, 101]
    assert shape("food101", "ingredient") == [4, 8, 25, 101]
    assert shape("sun397", "official") == [3, 15, 397]
    assert shape("sun397", "purpose") == [7, 17, 66, 397]
    assert shape("dtd", "pattern") == [4, 12, 47]
    assert shape("dtd", "regularity") == [2, 8, 47]
    assert shape("eurosat", "land_use") == [2, 4, 10]
    assert shape("eurosat", "cover") == [3, 6, 10]


@pytest.mark.parametrize(
    ("tree", "depth", "node", "ids"),
    [
        ("kind", 3, "deep-fried sweet dough", "beignets churros donuts"),
        ("kind", 3, "raw fish dish", "ceviche sashimi tuna_tartare"),
        ("kind", 3, "frozen dessert", "frozen_yogurt ice_cream"),
        ("kind", 3, "soup", "clam_chowder french_onion_soup hot_and_sour_soup lobster_bisque miso_soup"),
        ("course", 2, "breakfast dish", "breakfast_burrito eggs_benedict huevos_rancheros omelette waffles"),
        ("course", 1, "dessert", "baklava cannoli macarons tiramisu creme_brulee cup_cakes"),
        ("ingredient", 3, "mollusc dish", "clam_chowder escargots fried_calamari mussels oysters scallops takoyaki"),
        ("ingredient", 3, "crab, lobster or shrimp dish", "crab_cakes lobster_bisque shrimp_and_grits"),
        ("ingredient", 3, "bean, tofu or avocado dish", "edamame falafel hummus miso_soup guacamole"),
    ],
)
def test_food_stands_where_a_cook_would_put_it(tree: str, depth: int, node: str, ids: str) -> None:
    assert node_names(tree_of("food101", tree), depth, ids.split()) == {node}


def test_the_two_sides_of_a_sun397_building_are_told_apart_by_the_first_depth() -> None:
    tree = tree_of("sun397", "official")
    ids = {leaf.id for leaf in tree.leaves}
    bases = [one.removesuffix("_indoor") for one in ids if one.endswith("_indoor")]
    pairs = [one for one in bases if one + "_outdoor" in ids]
    assert len(pairs) == 20
    assert node_names(tree, 1, [one + "_indoor" for one in pairs]) == {"indoor place"}
    assert node_names(tree, 1, [one + "_outdoor" for one in pairs]) == {"man-made outdoor place"}


@pytest.mark.slow
def test_wordnet_ids_name_what_their_class_names() -> None:
    from hierbench.wordnet import open_wordnet

    try:
        reader = open_wordnet()
    except InputError as error:
        if "wordnet" in os.environ.get("HIERBENCH_REQUIRE", "").split(","):
            raise
        pytest.skip(str(error))

    def key(words: str) -> str:
        return "".join(c for c in words.lower() if c.isalpha())

    for dataset in CLASSES:
        for row in table(dataset):
            if row.wordnet is None or row.id == "beef_tartare":  # WordNet's name for it is steak tartare
                continue
            lemmas = [key(word) for word in reader.synset_from_pos_and_offset("n", int(row.wordnet[1:])).lemma_names()]
            assert any(key(row.id).startswith(word) or key(row.name).endswith(word) for word in lemmas), row
