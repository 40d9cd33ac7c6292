"""Outlines become trees, and what is wrong with one is said with its line."""

from __future__ import annotations

from pathlib import Path

import pytest

from hierbench.errors import InputError
from hierbench.hierarchy.class_table import LeafClass, read_class_table
from hierbench.hierarchy.errors import HierarchyError
from hierbench.hierarchy.load import load_hierarchy_file
from hierbench.hierarchy.outline import build_all, build_outline, build_outline_file
from hierbench.hierarchy.shuffle import permuted, shuffle
from hierbench.hierarchy.tree import Hierarchy

CLASSES = tuple(
    LeafClass(name, name, f"a {name}", wordnet)
    for name, wordnet in (
        ("truck", None),
        ("cat", "n02121620"),
        ("wolf", None),
        ("rock", None),
        ("dog", None),
        ("car", None),
    )
)

OUTLINE = """\
# dataset: toys
# tree: small
# title: Small
# description: A small tree, with a colon: here.
# default: yes
# source: written for the tests
# licence: Apache-2.0

## a comment
thing | a thing |
  animal | an animal | n00015388
    pet | a pet |
      @cat
      @dog
    @wolf
  vehicle | a vehicle
    @car
    @truck
  @rock
"""


def built(text: str = OUTLINE) -> Hierarchy:
    return build_outline(text, CLASSES, where="toys.outline")


def test_an_outline_becomes_a_tree() -> None:
    tree = built()
    assert (tree.dataset, tree.tree, tree.title, tree.default) == ("toys", "small", "Small", True)
    assert tree.description == "A small tree, with a colon: here."
    assert [leaf.id for leaf in tree.leaves] == [row.id for row in CLASSES]
    assert tree.leaves[1].wordnet == "n02121620"
    assert tree.leaves[1].noun == "a cat"
    assert tree.nodes[1].wordnet == "n00015388"
    assert [level.ids for level in tree.levels] == [
        ("animal", "vehicle", "rock"),
        ("pet", "wolf", "car", "truck", "rock"),
        ("truck", "cat", "wolf", "rock", "dog", "car"),
    ]
    assert tree.levelling == (
        "The nodes 1 and 2 edges below the root, a shallower leaf standing for itself; then the leaves."
    )


def test_a_header_picks_the_levels_and_says_the_rule() -> None:
    tree = built("# levels: 1\n# levelling: Only the kingdoms.\n" + OUTLINE)
    assert [len(level) for level in tree.levels] == [3, 6]
    assert tree.levelling == "Only the kingdoms."
    assert [len(level) for level in built("# levels: 2\n" + OUTLINE).levels] == [5, 6]
    assert [len(level) for level in built("# levels: 1, 2, 3\n" + OUTLINE).levels] == [3, 5, 6]


def test_a_flat_outline_has_the_leaves_alone() -> None:
    header = OUTLINE[: OUTLINE.index("thing")]
    tree = built(header + "thing | a thing |\n" + "".join(f"  @{row.id}\n" for row in CLASSES))
    assert [len(level) for level in tree.levels] == [6]
    assert tree.levelling == "The leaves are the only level."


def test_a_group_may_be_called_like_a_class_or_like_another_group() -> None:
    text = OUTLINE.replace("pet | a pet", "cat | a cat-like pet").replace(
        "vehicle | a vehicle", "Animal | a toy animal"
    )
    ids = [node.id for node in built(text).nodes]
    assert "animal.cat" in ids
    assert "thing.animal" in ids


def test_windows_line_ends_are_fine() -> None:
    assert built(OUTLINE.replace("\n", "\r\n")) == built()


def replaced(old: str, new: str) -> str:
    assert OUTLINE.count(old) == 1, old
    return OUTLINE.replace(old, new)


FAULTS: dict[str, tuple[str, str]] = {
    "missing header": (
        replaced("# licence: Apache-2.0\n", ""),
        "toys.outline: the header line '# licence: ...' is missing",
    ),
    "unknown header": (
        replaced("# licence:", "# license:"),
        "toys.outline:7: unknown header 'license': did you mean 'licence'?",
    ),
    "header without a colon": (
        replaced("## a comment", "# a comment"),
        "toys.outline:9: a header line reads '# name: value'; a comment begins with '##'",
    ),
    "header twice": (replaced("## a comment", "# tree: other"), "toys.outline:9: header 'tree' occurs twice"),
    "empty header": (replaced("# title: Small", "# title:"), "toys.outline:3: header 'title' is empty"),
    "late header": (
        OUTLINE + "# levels: 1\n",
        "toys.outline:20: a header line after the first node: headers come first",
    ),
    "default": (replaced("default: yes", "default: true"), "toys.outline: header 'default' is 'true': write yes or no"),
    "no nodes": (OUTLINE[: OUTLINE.index("thing")], "toys.outline: holds no nodes"),
    "tab": (replaced("      @cat", "\t@cat"), "toys.outline:13: holds a tab: indent by two spaces"),
    "odd indentation": (
        replaced("    @wolf", "   @wolf"),
        "toys.outline:15: is indented by 3 spaces: two spaces are one edge",
    ),
    "jump": (replaced("      @cat", "        @cat"), "toys.outline:13: is indented 2 steps more than the line above"),
    "indented root": (
        replaced("thing | a thing", "  thing | a thing"),
        "toys.outline:10: the first node is the root: it is not indented",
    ),
    "second root": (replaced("  vehicle | a", "vehicle | a"), "toys.outline:16: is a second root: indent it"),
    "child of a leaf": (
        replaced("      @dog", "        @dog"),
        "toys.outline:14: stands under the leaf @cat: leaves have no children",
    ),
    "unknown class": (
        replaced("@wolf", "@wlf"),
        "toys.outline:15: class 'wlf' is not in the class table: did you mean 'wolf'?",
    ),
    "class twice": (replaced("@wolf", "@cat"), "toys.outline:15: node 'cat' is already on line 13"),
    "class missing": (replaced("  @rock\n", ""), "toys.outline: class 'rock' has no node"),
    "leaf root": (
        OUTLINE[: OUTLINE.index("thing")] + "@cat\n",
        "toys.outline:10: the root is a leaf: begin with 'name | noun |'",
    ),
    "one field": (
        replaced("pet | a pet |", "pet"),
        "toys.outline:12: has 1 fields: an inner node reads 'name | noun | WordNet id or nothing'",
    ),
    "four fields": (
        replaced("pet | a pet |", "pet | a | b | c"),
        "toys.outline:12: has 4 fields: an inner node reads 'name | noun | WordNet id or nothing'",
    ),
    "empty noun": (replaced("pet | a pet |", "pet | |"), "toys.outline:12: field 'noun' is empty"),
    "empty name": (replaced("pet | a pet |", "| a pet |"), "toys.outline:12: field 'name' is empty"),
    "name without letters": (
        replaced("pet | a pet |", "ねこ | a pet |"),
        "toys.outline:12: name 'ねこ' gives no id: it needs a Latin letter or a digit",
    ),
    "single child": (
        replaced("    @truck\n  @rock", "  @truck\n  @rock"),
        "toys.outline:16: node 'vehicle' has the single child 'car': merge the two",
    ),
    "group without leaves": (
        OUTLINE + "  plant | a plant |\n",
        "toys.outline:20: node 'plant' has no children and is not in 'classes'",
    ),
    "shared noun": (
        replaced("vehicle | a vehicle", "vehicle | an animal"),
        "toys.outline:16: level 1: nodes 'animal' and 'vehicle' share the noun 'an animal'",
    ),
    "markup": (
        replaced("a pet |", "a [b]pet |"),
        "toys.outline:12: node 'pet': field 'noun' holds '[', which names may not: they are plain text",
    ),
    "wordnet": (
        replaced("n00015388", "animal.n.01"),
        "toys.outline:11: node 'animal': field 'wordnet' is 'animal.n.01': "
        "one of n, v, a, r, s and eight digits make a WordNet id",
    ),
    "bad tree name": (
        replaced("tree: small", "tree: ../small"),
        "toys.outline: field 'tree' is '../small': lower-case letters, digits, '_' and '-' make a name",
    ),
    "levels in words": (
        "# levels: one\n" + OUTLINE,
        "toys.outline: header 'levels' is 'one': write indentations as in '1,2,4'",
    ),
    "levels out of order": (
        "# levels: 2,1\n" + OUTLINE,
        "toys.outline: header 'levels' is '2,1': ascending indentations from 1 to 3",
    ),
    "levels too deep": (
        "# levels: 1,4\n" + OUTLINE,
        "toys.outline: header 'levels' is '1,4': ascending indentations from 1 to 3",
    ),
    "root as a level": (
        "# levels: 0,1\n" + OUTLINE,
        "toys.outline: header 'levels' is '0,1': ascending indentations from 1 to 3",
    ),
}


@pytest.mark.parametrize(("text", "said"), [pytest.param(*fault, id=name) for name, fault in FAULTS.items()])
def test_a_faulty_outline_is_refused_with_its_line(text: str, said: str) -> None:
    with pytest.raises(HierarchyError) as caught:
        built(text)
    assert str(caught.value) == said


def write_outline(folder: Path, text: str = OUTLINE, name: str = "small") -> Path:
    path = folder / "toys" / f"{name}.outline"
    path.parent.mkdir(exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def test_all_outlines_of_a_folder_are_built(tmp_path: Path) -> None:
    write_outline(tmp_path)
    second = OUTLINE.replace("tree: small", "tree: second").replace("default: yes", "default: no")
    write_outline(tmp_path, second, "second")
    asked: list[str] = []

    def classes_of(dataset: str) -> tuple[LeafClass, ...]:
        asked.append(dataset)
        return CLASSES

    made = build_all(tmp_path, classes_of)
    assert [path.name for path in made] == ["second.json", "small.json"]
    assert set(asked) == {"toys"}
    assert load_hierarchy_file(made[1]) == built()
    before = [path.read_bytes() for path in made]
    assert [path.read_bytes() for path in build_all(tmp_path, classes_of)] == before


def test_nothing_is_written_when_one_outline_is_wrong(tmp_path: Path) -> None:
    write_outline(tmp_path)
    write_outline(tmp_path, replaced("@wolf", "@wlf").replace("tree: small", "tree: zebra"), "zebra")
    with pytest.raises(HierarchyError, match=r"zebra\.outline:15: class 'wlf'"):
        build_all(tmp_path, lambda _: CLASSES)
    assert not list(tmp_path.glob("*/*.json"))


def test_an_outline_stands_where_its_header_says(tmp_path: Path) -> None:
    write_outline(tmp_path, name="other")
    with pytest.raises(HierarchyError, match="header 'tree' is 'small', the file's place says 'other'"):
        build_all(tmp_path, lambda _: CLASSES)


def test_an_outline_file_is_read_strictly(tmp_path: Path) -> None:
    path = write_outline(tmp_path)
    assert build_outline_file(path, CLASSES) == built()
    path.write_bytes(OUTLINE.encode("utf-16"))
    with pytest.raises(HierarchyError, match="is not UTF-8"):
        build_outline_file(path, CLASSES)
    with pytest.raises(HierarchyError, match="no such file"):
        build_outline_file(tmp_path / "none", CLASSES)


TABLE = "id\tname\tnoun\twordnet\nn1\tcat\ta cat\tn02121620\nn2\tdog\ta dog\t\n"


def test_a_class_table_is_read_in_label_order(tmp_path: Path) -> None:
    path = tmp_path / "toys.tsv"
    path.write_text(TABLE)
    assert read_class_table(path) == (
        LeafClass("n1", "cat", "a cat", "n02121620"),
        LeafClass("n2", "dog", "a dog", None),
    )


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "toys.tsv:1: the header should be id name noun wordnet, separated by tabs"),
        (TABLE.replace("noun\t", ""), "toys.tsv:1: the header should be"),
        (TABLE.replace("\tn02121620", ""), "toys.tsv:2: has 3 fields, 4 are needed"),
        (TABLE + "\n", "toys.tsv:4: has 1 fields, 4 are needed"),
        (TABLE.replace("a dog", " "), "toys.tsv:3: field 'noun' is empty"),
        (TABLE.replace("n2", "n1"), "toys.tsv:3: class 'n1' occurs twice"),
    ],
)
def test_a_faulty_class_table_is_refused_with_its_line(text: str, said: str, tmp_path: Path) -> None:
    path = tmp_path / "toys.tsv"
    path.write_text(text)
    with pytest.raises(InputError) as caught:
        read_class_table(path)
    assert said in str(caught.value)


def test_a_shuffled_tree_has_the_same_shape_and_other_groups() -> None:
    tree = built()
    control = shuffle(tree, 0)
    assert control.tree == "small-shuffled0"
    assert not control.default
    assert tree.content_hash in control.source
    assert [leaf.id for leaf in control.leaves] == [leaf.id for leaf in tree.leaves]
    for leaf, again in zip(tree.leaves, control.leaves, strict=True):
        assert (leaf.id, leaf.name, leaf.noun, leaf.wordnet) == (again.id, again.name, again.noun, again.wordnet)
    classes = {row.id for row in CLASSES}
    inner = [node for node in tree.nodes if node.id not in classes]
    assert len(inner) == 4
    assert [node for node in control.nodes if node.id not in classes] == inner
    for array in ("parent", "depth", "height"):
        assert getattr(control.shape, array).tolist() == getattr(tree.shape, array).tolist()
    for depth in list(tree.depths)[:-1]:
        assert control.level(depth).positions.tolist() == tree.level(depth).positions.tolist()
        assert control.level(depth).leaf_counts.tolist() == tree.level(depth).leaf_counts.tolist()
    groups = {frozenset(tree.leaves_under(p).tolist()) for p in tree.level(2).positions.tolist()}
    mixed = {frozenset(control.leaves_under(p).tolist()) for p in control.level(2).positions.tolist()}
    assert groups != mixed


def test_a_shuffle_depends_on_the_seed_and_on_nothing_else() -> None:
    ids = [f"class{i}" for i in range(10)]
    assert permuted(ids, 3) == permuted(list(reversed(ids)), 3)
    assert len({tuple(permuted(ids, seed)) for seed in range(20)}) == 20
    assert sorted(permuted(ids, 3)) == ids
    # Frozen: control models were trained with these.
    assert permuted(["a", "b", "c", "d", "e"], 0) == ["a", "e", "c", "b", "d"]
    assert shuffle(built(), 1) == shuffle(built(), 1)
    assert shuffle(built(), 1) != shuffle(built(), 2)


def test_every_place_of_a_shuffle_is_equally_likely() -> None:
    ids = [f"class{i}" for i in range(5)]
    counts = [[0] * 5 for _ in range(5)]
    draws = 1000
    for seed in range(draws):
        for place, class_id in enumerate(permuted(ids, seed)):
            counts[place][ids.index(class_id)] += 1
    # 200 expected, standard deviation 12.6: five of them.
    assert all(137 <= count <= 263 for row in counts for count in row)
