"""ImageNet's everyday views: their shape, facts anybody can check, and WordNet's word on every id they carry."""

from __future__ import annotations

from functools import cache

import pytest
from wordnet_cases import wordnet_or_skip

from hierbench.hierarchy.catalogue import load_hierarchy
from hierbench.hierarchy.shuffle import shuffle
from hierbench.hierarchy.tree import Hierarchy

VIEWS = {
    "semantic": [6, 24, 91, 257, 1000],
    "habitat": [5, 28, 155, 1000],
    "size": [4, 25, 153, 1000],
    "material": [5, 37, 151, 1000],
}
# The most of the 1,000 classes that one superclass may hold, by depth.
LARGEST = (400, 130, 30, 15)

# tree, depth, superclass, classes that stand under it.
FACTS = [
    ("semantic", 2, "dog", "n02085620 n02109047 n02113978"),  # Chihuahua, Great Dane, Mexican hairless
    ("semantic", 3, "terrier", "n02094433 n02096051 n02097298"),  # Yorkshire, Airedale, Scottish
    ("semantic", 4, "sighthound", "n02090721 n02091032"),  # Irish wolfhound, Italian greyhound
    ("semantic", 4, "panda", "n02509815 n02510455"),
    ("semantic", 4, "person", "n09835506 n10148035 n10565667"),
    ("semantic", 3, "sea mammal", "n02066245 n02071294 n02074367 n02077923"),
    ("semantic", 4, "shark", "n01484850 n01491361 n01494475"),
    ("semantic", 4, "crane or limpkin", "n02012849"),  # the bird
    ("semantic", 4, "crane or forklift", "n03126707"),  # the machine
    ("semantic", 4, "book, binder or menu", "n06359193 n06596364"),  # website, comic book
    ("habitat", 2, "something from the sea or its shore", "n01484850 n02066245 n09256479 n10565667"),
    ("habitat", 3, "animal of Australian bush", "n01877812 n02115641"),  # wallaby, dingo
    ("habitat", 3, "animal of the far north or south", "n02056570 n02134084"),  # king penguin, polar bear
    ("habitat", 3, "dog from Asia", "n02086079 n02112137"),  # Pekinese, chow
    ("habitat", 3, "dog from Scotland", "n02097298 n02099601"),  # Scottish terrier, golden retriever
    ("habitat", 2, "bathroom, bedroom or nursery", "n04447861 n15075141"),  # toilet seat, toilet paper
    ("habitat", 2, "something in a street or a square", "n06794110 n06874185"),  # street sign, traffic light
    ("size", 3, "tiny dog", "n02085620 n02112018"),  # Chihuahua, Pomeranian
    ("size", 3, "giant dog", "n02109047 n02109525"),  # Great Dane, Saint Bernard
    ("size", 1, "something held in one hand", "n02219486 n04409515 n07745940 n09229709"),  # ant ... soap bubble
    ("size", 1, "something much bigger than a person", "n02066245 n02504458 n02690373 n09193705"),
    ("material", 3, "curly, woolly or corded dog", "n02105505 n02113799"),  # komondor, standard poodle
    ("material", 2, "dog with a short smooth coat", "n02110341 n02110958"),  # Dalmatian, pug
    ("material", 3, "person or hairless dog", "n02113978"),
    ("material", 3, "striped cat or zebra", "n02129604 n02391049"),
    ("material", 3, "black or dark bird", "n01860187"),  # black swan
    ("material", 2, "thing of paper", "n06596364 n15075141"),
    ("material", 2, "metal pot, utensil or instrument", "n03394916 n04487394"),  # French horn, trombone
]

# Superclasses that hold all that WordNet 3.0 puts below the same word, and nothing else.
WHOLE = (
    "dog bird bird_of_prey snake lizard amphibian fish shark beetle butterfly spider person great_ape rodent marsupial"
)


@cache
def view(tree: str) -> Hierarchy:
    return load_hierarchy("imagenet", tree)


def superclasses(tree: Hierarchy, depth: int, ids: str) -> set[str]:
    """The names, at one depth, of the superclasses over these classes."""
    place = {leaf.id: index for index, leaf in enumerate(tree.leaves)}
    level = tree.level(depth)
    return {level.names[int(level.leaf_to_node[place[one]])] for one in ids.split()}


@pytest.mark.parametrize("tree", VIEWS)
def test_a_view_has_its_shape_and_no_giant_or_single_leaf_superclass(tree: str) -> None:
    hierarchy = view(tree)
    assert not hierarchy.default
    assert [len(level) for level in hierarchy.levels] == VIEWS[tree]
    for level, largest in zip(hierarchy.levels[:-1], LARGEST, strict=False):
        assert level.leaf_counts.max() <= largest
        assert level.leaf_counts.min() >= 2


@pytest.mark.parametrize("tree", VIEWS)
def test_the_dog_breeds_are_split(tree: str) -> None:
    hierarchy = view(tree)
    dogs = [leaf.id for leaf in hierarchy.leaves if 2085620 <= int(leaf.id[1:]) <= 2113978]
    assert len(dogs) == 118
    under = [next(iter(superclasses(hierarchy, hierarchy.num_depths - 1, one))) for one in dogs]
    assert len(set(under)) >= 10
    assert max(under.count(name) for name in under) <= 15


@pytest.mark.parametrize(("tree", "depth", "name", "ids"), FACTS)
def test_a_class_stands_where_anybody_would_look_for_it(tree: str, depth: int, name: str, ids: str) -> None:
    assert superclasses(view(tree), depth, ids) == {name}


def test_the_same_facts_fail_on_permuted_leaves() -> None:
    held = [
        (tree, name)
        for tree, depth, name, ids in FACTS
        if superclasses(shuffled(tree), depth, ids) == {name} and len(ids.split()) > 1
    ]
    assert held == []


@cache
def shuffled(tree: str) -> Hierarchy:
    return shuffle(view(tree), 0)


@pytest.mark.parametrize("tree", VIEWS)
def test_wordnet_agrees_with_every_id_of_a_superclass(tree: str) -> None:
    hierarchy, above = view(tree), wordnet_ancestors()
    checked = 0
    for position, node in enumerate(hierarchy.nodes):
        leaves = [hierarchy.leaves[int(index)].id for index in hierarchy.leaves_under(position)]
        if node.wordnet is not None and leaves != [node.id]:
            strangers = [one for one in leaves if int(node.wordnet[1:]) not in above[one]]
            assert strangers == [], node.name
            checked += 1
    assert checked >= 5


@pytest.mark.parametrize("node_id", WHOLE.split())
def test_a_kind_of_animal_is_whole(node_id: str) -> None:
    hierarchy, above = view("semantic"), wordnet_ancestors()
    position, node = next((p, node) for p, node in enumerate(hierarchy.nodes) if node.id == node_id)
    assert node.wordnet is not None
    found = {hierarchy.leaves[int(index)].id for index in hierarchy.leaves_under(position)}
    assert found == {one for one, ancestors in above.items() if int(node.wordnet[1:]) in ancestors}


@cache
def wordnet_ancestors() -> dict[str, set[int]]:
    """By class: the offsets of all its hypernyms in WordNet 3.0."""
    reader = wordnet_or_skip()
    ids = [leaf.id for leaf in view("semantic").leaves]
    found = {one: reader.synset_from_pos_and_offset("n", int(one[1:])) for one in ids}
    return {
        one: {above.offset() for above in synset.closure(lambda below: below.hypernyms() + below.instance_hypernyms())}
        for one, synset in found.items()
    }
