"""Facts about the tables and trees of Caltech-101, Caltech-256, Oxford-IIIT Pet and STL-10, and of newer views."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import pytest

from hierbench.errors import InputError
from hierbench.hierarchy.class_table import LeafClass, read_class_table
from hierbench.hierarchy.load import load_hierarchy_file
from hierbench.hierarchy.tree import Hierarchy

ROOT = Path(__file__).parents[2]
CLASSES = {"caltech101": 102, "caltech256": 257, "oxford_pets": 37, "stl10": 10}
TREES = [
    *((dataset, "semantic") for dataset in CLASSES),
    ("oxford_pets", "size"),
    ("cifar10", "keeping"),
    ("cifar10", "medium"),
    ("tiny_imagenet", "material"),
    ("tiny_imagenet", "size"),
]
# What WordNet 3.0 has no synset for, or only the one another class of the table already has.
NO_SYNSET = {
    "caltech101": "background_google cougar_face crocodile_head faces_easy flamingo_head garfield yin_yang",
    "caltech256": "breadmaker cartman clutter homer-simpson superman tennis-shoes touring-bike",
    "oxford_pets": "american_bulldog bengal birman bombay british_shorthair havanese maine_coon ragdoll russian_blue "
    "shiba_inu sphynx",
    "stl10": "",
}
# Written with a vowel, spoken with a consonant, or the other way round.
SOUNDS = {"euphonium": "a", "ewer": "a", "unicorn": "a", "useful": "a", "hourglass": "an"}
CATS = (
    "abyssinian bengal birman bombay british_shorthair egyptian_mau maine_coon persian ragdoll russian_blue siamese "
    "sphynx"
)


def table(dataset: str) -> tuple[LeafClass, ...]:
    return read_class_table(ROOT / "hierbench" / "datasets" / "classes" / f"{dataset}.tsv")


def tree_of(dataset: str, name: str) -> Hierarchy:
    return load_hierarchy_file(ROOT / "hierarchies" / dataset / f"{name}.json")


def group(tree: Hierarchy, depth: int, name: str) -> set[str]:
    """The class ids below the node of that name at one depth."""
    level = tree.level(depth)
    node = level.names.index(name)
    return {leaf.id for leaf, at in zip(tree.leaves, level.leaf_to_node, strict=True) if at == node}


@pytest.fixture(scope="module")
def reader() -> Any:
    from hierbench.wordnet import open_wordnet

    try:
        return open_wordnet()
    except InputError as error:
        if "wordnet" in os.environ.get("HIERBENCH_REQUIRE", "").split(","):
            raise
        pytest.skip(str(error))


def article_is_wrong(noun: str) -> bool:
    """Whether a noun phrase that begins with an article has the wrong one for its first sound."""
    found = re.match(r"(an?) (\w+)", noun)
    if found is None:
        return False
    article, word = found.groups()
    return article != SOUNDS.get(word, "an" if word[0] in "aeiouAEIOU" else "a")


@pytest.mark.parametrize(("dataset", "count"), CLASSES.items())
def test_a_table_has_every_class_once_in_unique_words(dataset: str, count: int) -> None:
    rows = table(dataset)
    assert len(rows) == count
    for words in ([row.name for row in rows], [row.noun for row in rows]):
        assert len({word.casefold() for word in words}) == count
        assert all(word == word.strip() and not set(word) & set("_/()") for word in words)
    used = [row.wordnet for row in rows if row.wordnet]
    assert len(set(used)) == len(used)
    assert {row.id for row in rows if not row.wordnet} == set(NO_SYNSET[dataset].split())


def test_label_order_is_that_of_the_hub_copies() -> None:
    stl10 = "airplane bird car cat deer dog horse monkey ship truck"
    assert [row.id for row in table("stl10")] == stl10.split()
    for dataset in ("caltech101", "oxford_pets"):
        ids = [row.id for row in table(dataset)]
        assert ids == sorted(ids)
    # Of the 102 folders the background is one, and no. 4: upper case does not sort first in these copies.
    caltech101 = [row.id for row in table("caltech101")]
    assert [caltech101.index(one) for one in ("accordion", "background_google", "faces", "yin_yang")] == [0, 4, 37, 101]
    # Caltech-256 numbers its folders 001 to 257: two alphabets, and clutter the last.
    caltech256 = [row.id for row in table("caltech256")]
    letters = [re.sub(r"-101$|-", "", one) for one in caltech256]
    assert letters[:250] == sorted(letters[:250])
    assert letters[250:256] == sorted(letters[250:256])
    numbers = {"ak47": 1, "bat": 7, "eiffel-tower": 62, "ibis-101": 114, "mars": 137, "wine-bottle": 246, "zebra": 250}
    numbers |= {"airplanes-101": 251, "greyhound": 254, "tennis-shoes": 255, "toad": 256, "clutter": 257}
    assert {one: caltech256.index(one) + 1 for one in numbers} == numbers


@pytest.mark.parametrize("dataset", CLASSES)
def test_class_nouns_have_the_article_of_their_sound(dataset: str) -> None:
    assert [row.noun for row in table(dataset) if article_is_wrong(row.noun)] == []


@pytest.mark.parametrize(("dataset", "name"), TREES)
def test_group_nouns_are_phrases_with_the_right_article(dataset: str, name: str) -> None:
    tree = tree_of(dataset, name)
    inner = [node for node in tree.nodes if node.id not in {leaf.id for leaf in tree.leaves}]
    assert [node.noun for node in inner if article_is_wrong(node.noun)] == []
    bare = ("something", "food", "footwear", "gear", "equipment", "sports", "prepared", "knitwear", "anything")
    assert [node.noun for node in inner if node.noun.split()[0].strip(",") not in ("a", "an", *bare)] == []
    assert not any(set(node.noun) & set("/()_") for node in inner)
    names = [node.name.casefold() for node in inner]
    assert len(set(names)) == len(names)


def test_an_article_is_judged_by_its_sound() -> None:
    assert all(article_is_wrong(noun) for noun in ("an unicorn", "a hourglass", "a elk", "an euphonium", "an bear"))
    assert not any(article_is_wrong(noun) for noun in ("a unicorn", "an hourglass", "an elk", "the Eiffel Tower"))


def test_pets_are_cats_or_dogs_in_every_group() -> None:
    cats = set(CATS.split())
    everything = {row.id for row in table("oxford_pets")}
    semantic = tree_of("oxford_pets", "semantic")
    assert group(semantic, 1, "cat") == cats
    assert group(semantic, 1, "dog") == everything - cats
    size = tree_of("oxford_pets", "size")
    for name in size.level(2).names:
        assert group(size, 2, name) <= (cats if name.endswith("house cat") else everything - cats)
    terriers = {one for one in everything if one.endswith("terrier")}
    assert group(semantic, 2, "terrier") == terriers


def test_background_and_clutter_stand_alone_below_the_root() -> None:
    for dataset, one in (("caltech101", "background_google"), ("caltech256", "clutter")):
        tree = tree_of(dataset, "semantic")
        leaf = next(leaf for leaf in tree.leaves if leaf.id == one)
        assert group(tree, 1, leaf.name) == {one}


def test_views_of_one_data_set_group_it_differently() -> None:
    for dataset, views in {
        "cifar10": ("semantic", "medium", "keeping"),
        "oxford_pets": ("semantic", "size"),
        "tiny_imagenet": ("semantic", "habitat", "size", "material"),
    }.items():
        first = {
            frozenset(frozenset(group(tree, 1, name)) for name in tree.level(1).names)
            for tree in (tree_of(dataset, view) for view in views)
        }
        assert len(first) == len(views)


def test_wordnet_groups_of_the_trees_hold_for_their_classes(reader: Any) -> None:
    """A group that carries a synset stands above its classes in WordNet; what English says more freely carries none."""

    def synset(node_id: str) -> Any:
        return reader.synset_from_pos_and_offset("n", int(node_id[1:]))

    checked = 0
    for dataset, name in TREES:
        tree = tree_of(dataset, name)
        parent = {node.id: node.parent for node in tree.nodes}
        said = {node.id: node.wordnet for node in tree.nodes}
        for leaf in tree.leaves:
            if leaf.wordnet is None:
                continue
            above = {one for path in synset(leaf.wordnet).hypernym_paths() for one in path}
            at = parent[leaf.id]
            while at is not None:
                group_synset = said[at]
                if group_synset is not None:
                    assert synset(group_synset) in above, (dataset, name, leaf.id, at)
                    checked += 1
                at = parent[at]
    assert checked > 200


def test_class_synsets_carry_the_class_as_a_word(reader: Any) -> None:
    """Of the class names, nearly all are lemmas of their synset; the rest are near-synonyms or the next word above."""

    def plain(text: str) -> str:
        return re.sub(r"[-_ ]", "", text).casefold()

    others = {
        "ceiling fan", "off-center face", "stop sign", "side of a car", "body of a cougar",
        "AK-47", "desk globe", "diamond ring", "fighter jet", "human skeleton", "motorbike", "PalmPilot",
        "paper shredder", "PCI card", "Pez dispenser", "picnic table", "rotary phone", "self-propelled lawn mower",
        "Swiss Army knife", "video projector", "welding mask", "toad",
        "Egyptian Mau", "Japanese Chin", "Leonberger", "Persian", "wheaten terrier", "German shorthaired pointer",
        "inline skate",
    }  # fmt: skip
    found = set()
    for dataset in CLASSES:
        for row in table(dataset):
            if row.wordnet is None:
                continue
            lemmas = {
                plain(word) for word in reader.synset_from_pos_and_offset("n", int(row.wordnet[1:])).lemma_names()
            }
            if not {plain(row.name), plain(row.name).removesuffix("s")} & lemmas:
                found.add(row.name)
    assert found <= others
