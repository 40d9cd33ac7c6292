"""The WordNet builder on small class lists: its rule, its records, and one line for each mistake."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jsonschema
import pytest
from sample_trees import rehash, small_content
from wordnet_cases import class_rows, wordnet_or_skip

from hierbench.cli.app import run
from hierbench.errors import InputError
from hierbench.hierarchy.builders import synsets
from hierbench.hierarchy.builders.recipe import Words, read_names, read_recipe
from hierbench.hierarchy.builders.synsets import NounTree
from hierbench.hierarchy.builders.wordnet import build_wordnet, build_wordnet_file, recipe_path
from hierbench.hierarchy.class_table import LeafClass
from hierbench.hierarchy.content import hierarchy_content
from hierbench.hierarchy.errors import HierarchyError
from hierbench.hierarchy.load import hierarchy_from_content
from hierbench.hierarchy.schema import json_schema
from hierbench.hierarchy.tree import Hierarchy
from hierbench.paths import data_dir

RECIPE = """\
# dataset: toys
# title: WordNet
# description: By hypernyms.
# default: no
# source: written for the tests
# licence: Apache-2.0
# sizes: 4, 2
## a comment
name n00003553 | thing | a thing
name n02083346 | canine | a dog or a fox
name n01886756 | mammal | a mammal
name n01471682 | vertebrate | an animal with a backbone
name n02084071 | dog kind | any kind of dog
"""
DOG, FOX, PUG, FROG, CAR = "n02084071", "n02118333", "n02110958", "n01639765", "n02958343"


@pytest.fixture(scope="module")
def wordnet() -> Any:
    return wordnet_or_skip()


@pytest.fixture
def opened(wordnet: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The command line reads WordNet once more otherwise, which takes seconds."""
    monkeypatch.setattr("hierbench.wordnet.open_wordnet", lambda: wordnet)


def row(name: str, wnid: str | None) -> LeafClass:
    return LeafClass(name, name, f"a {name}", wnid)


def build(
    tmp_path: Path, wordnet: Any, classes: list[LeafClass], text: str = RECIPE, names: dict[str, Words] | None = None
) -> Hierarchy:
    path = tmp_path / "wordnet.recipe"
    path.write_text(text, encoding="utf-8")
    return build_wordnet(read_recipe(path), classes, names or {}, wordnet)


FIVE = [row("dog", DOG), row("fox", FOX), row("pug", PUG), row("frog", FROG), row("car", CAR)]


def test_an_ancestor_class_is_a_leaf_of_its_group_and_chains_are_pruned(tmp_path: Path, wordnet: Any) -> None:
    tree = build(tmp_path, wordnet, FIVE)
    assert [(node.id, node.parent) for node in tree.nodes] == [
        ("n00003553", None),
        ("car", "n00003553"),
        ("n01471682", "n00003553"),
        ("frog", "n01471682"),
        ("n02083346", "n01471682"),
        ("fox", "n02083346"),
        ("n02084071", "n02083346"),
        ("dog", "n02084071"),
        ("pug", "n02084071"),
    ]
    assert [level.ids for level in tree.levels] == [
        ("n01471682", "car"),
        ("n02084071", "fox", "frog", "car"),
        ("dog", "fox", "pug", "frog", "car"),
    ]
    assert "n02084071 (dog) is above other classes: its own, dog, became a leaf under it" in tree.choices
    assert "n02084071 (dog): under n02083346 (canine); dropped n01317541 (domestic animal)" in tree.choices
    assert any(line.startswith("class dog: sense 1 of 7 of 'dog': ") for line in tree.choices)


def test_classes_with_one_synset_are_leaves_of_it(tmp_path: Path, wordnet: Any) -> None:
    classes = [row("hound", DOG), row("dog", DOG), row("fox", FOX), row("frog", FROG)]
    tree = build(tmp_path, wordnet, classes, RECIPE.replace("sizes: 4", "sizes: 3"))
    assert {node.id: node.parent for node in tree.nodes}["hound"] == DOG
    assert {node.id: node.parent for node in tree.nodes}["dog"] == DOG
    assert "n02084071 (dog) is shared by several classes: its own, hound, dog, became leaves under it" in tree.choices
    assert any(
        line.startswith("class hound: none of the 2 senses of 'hound', taken for n02084071") for line in tree.choices
    )


def test_a_class_called_by_its_synset_leaves_the_group_another_id(tmp_path: Path, wordnet: Any) -> None:
    classes = [LeafClass(DOG, "dog", "a dog", DOG), *FIVE[1:]]
    tree = build(tmp_path, wordnet, classes)
    assert {node.id: node.parent for node in tree.nodes}[DOG] == f"{DOG}.group"
    assert not any(line.startswith(f"class {DOG}") for line in tree.choices)


def test_a_class_without_a_synset_is_placed(tmp_path: Path, wordnet: Any) -> None:
    classes = [*FIVE, row("labradoodle", None)]
    tree = build(tmp_path, wordnet, classes, RECIPE.replace("4, 2", "5, 3") + f"place labradoodle {DOG}\n")
    assert {node.id: node.parent for node in tree.nodes}["labradoodle"] == DOG
    assert "class labradoodle: placed under n02084071 (dog)" in tree.choices
    with pytest.raises(HierarchyError, match=r"class 'labradoodle' has no WordNet id: a line 'place labradoodle n"):
        build(tmp_path, wordnet, classes)


def test_the_re_attachments_are_needed_and_recorded(
    tmp_path: Path, wordnet: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    bubble = NounTree(wordnet)
    bubble.climb("n09229709")
    assert bubble.parents["n13899404"] == "n04274530"
    assert any(line.startswith("n13899404 (ball): re-attached under n04274530 (sphere)") for line in bubble.choices())
    monkeypatch.setattr(synsets, "RE_ATTACHED", {})
    plain = NounTree(wordnet)
    for wnid in ("n09229709", "n06794110", "n06874185"):
        plain.climb(wnid)
        above: str | None = wnid
        while above is not None:
            assert above != "n00001930", f"{wnid} reaches physical entity by itself"
            above = plain.parents[above]


def test_another_version_of_wordnet_is_refused() -> None:
    class Newer:
        def get_version(self) -> str:
            return "3.1"

    with pytest.raises(InputError, match=r"WordNet 3\.0 is needed.*this is WordNet 3\.1"):
        NounTree(Newer())


@pytest.mark.filterwarnings("ignore:No WordNet synset found")
@pytest.mark.parametrize("wnid", ["n00000001", "n99999999", "n02084072"])
def test_an_offset_that_is_no_synset_is_named(tmp_path: Path, wordnet: Any, wnid: str) -> None:
    with pytest.raises(InputError, match=f"^{wnid} is no noun synset of WordNet 3.0$"):
        build(tmp_path, wordnet, [*FIVE, row("bird", wnid)])


def test_a_node_without_a_name_is_named(tmp_path: Path, wordnet: Any) -> None:
    with pytest.raises(HierarchyError, match=r"n02083346 \(canine\) has no English name: add it to wordnet-names.tsv"):
        build(tmp_path, wordnet, FIVE, RECIPE.replace("name n02083346 | canine | a dog or a fox\n", ""))
    named = {"n02083346": Words("canine", "a canine")}
    tree = build(tmp_path, wordnet, FIVE, RECIPE.replace("name n02083346 | canine | a dog or a fox\n", ""), named)
    assert {node.id: node.noun for node in tree.nodes}["n02083346"] == "a canine"


def without(line: str) -> str:
    assert RECIPE.count(line) == 1
    return RECIPE.replace(line, "")


@pytest.mark.parametrize("choices", [[], [""], ["a\x1bb"], ["a\u202eb"], [" a"], "a", [1], None])
def test_choices_are_lines_of_plain_text_or_left_out(choices: object) -> None:
    content = rehash({**small_content(), "choices": choices})
    with pytest.raises(HierarchyError, match=r"^test: field 'choices'"):
        hierarchy_from_content(content, where="test")


def test_choices_are_written_read_and_hashed() -> None:
    tree = hierarchy_from_content(rehash({**small_content(), "choices": ["one", "two"]}), where="test")
    assert tree.choices == ("one", "two")
    assert hierarchy_content(tree)["choices"] == ["one", "two"]
    plain = hierarchy_from_content(small_content(), where="test")
    assert "choices" not in hierarchy_content(plain)
    assert plain != tree
    jsonschema.Draft202012Validator(json_schema()).validate(hierarchy_content(tree))


FAULTS = {
    "missing header": (without("# licence: Apache-2.0\n"), "the header line '# licence: ...' is missing"),
    "no levelling": (without("# sizes: 4, 2\n"), "needs one of '# sizes: ...' and '# restrict: ...'"),
    "two levellings": (RECIPE + "# restrict: imagenet\n", "needs one of '# sizes: ...' and '# restrict: ...'"),
    "unknown header": (RECIPE + "# colour: red\n", "14: a header line reads '# field: value' with a field of "),
    "header twice": (RECIPE + "# title: x\n", "14: header 'title' occurs twice"),
    "empty header": (RECIPE.replace("title: WordNet", "title:"), "2: header 'title' is empty"),
    "default": (RECIPE.replace("default: no", "default: 0"), "header 'default' is '0': write yes or no"),
    "ascending sizes": (RECIPE.replace("4, 2", "2, 4"), "header 'sizes' is '2, 4': descending numbers of leaves"),
    "sizes in words": (RECIPE.replace("4, 2", "four"), "header 'sizes' is 'four'"),
    "size of one": (RECIPE.replace("4, 2", "4, 1"), "header 'sizes' is '4, 1'"),
    "stray line": (RECIPE + "hello\n", "14: 'hello': a line reads '# field: value'"),
    "name in two parts": (RECIPE + "name n00001740 | x\n", "14: reads 'name n00000000 | name | noun phrase'"),
    "name twice": (RECIPE + "name n00003553 | x | an x\n", "14: 'n00003553' occurs twice"),
    "no synset": (RECIPE + "name dog | x | an x\n", "14: 'dog' is no WordNet id of a noun"),
    "half a place": (RECIPE + "place dog\n", "14: reads 'place class n00000000'"),
    "place twice": (RECIPE + f"place dog {FOX}\nplace dog {FOX}\n", "15: 'dog' occurs twice"),
}


@pytest.mark.parametrize(("text", "said"), [pytest.param(*fault, id=name) for name, fault in FAULTS.items()])
def test_a_faulty_recipe_is_refused_with_its_line(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "wordnet.recipe"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(HierarchyError) as caught:
        read_recipe(path)
    line = str(caught.value)
    assert line.startswith(f"{path}:")
    assert line.splitlines() == [line]
    assert said in line


def test_a_recipe_that_does_not_fit_the_classes_is_refused(tmp_path: Path, wordnet: Any) -> None:
    with pytest.raises(HierarchyError, match="line 'place cow': the data set has no such class"):
        build(tmp_path, wordnet, FIVE, RECIPE + f"place cow {FOX}\n")
    two_cars, vehicle = [*FIVE, row("truck", "n04490091")], {"n03791235": Words("motor vehicle", "a motor vehicle")}
    with pytest.raises(HierarchyError, match="levels 1 and 2 are the same cut"):
        build(tmp_path, wordnet, two_cars, RECIPE.replace("4, 2", "5, 4"), vehicle)
    with pytest.raises(HierarchyError, match="at least 2 are needed"):
        build(tmp_path, wordnet, FIVE, RECIPE.replace("4, 2", "5, 2"))


def test_a_table_of_names_is_checked(tmp_path: Path) -> None:
    path = tmp_path / "names.tsv"
    for text, said in (
        ("id\tname\tnoun\n", "names.tsv:1: the header should be wordnet name noun"),
        ("wordnet\tname\tnoun\nn00001740\tthing\n", "names.tsv:2: 3 fields separated by tabs"),
        ("wordnet\tname\tnoun\nn00001740\tthing\t \n", "names.tsv:2: 3 fields separated by tabs"),
        ("wordnet\tname\tnoun\nthing\tthing\ta thing\n", "names.tsv:2: 'thing' is no WordNet id"),
        ("wordnet\tname\tnoun\n" + "n00001740\tthing\ta thing\n" * 2, "names.tsv:3: 'n00001740' occurs twice"),
    ):
        path.write_text(text, encoding="utf-8")
        with pytest.raises(HierarchyError) as caught:
            read_names(path)
        assert said in str(caught.value)


def test_a_restriction_of_a_restriction_is_refused(tmp_path: Path, wordnet: Any) -> None:
    path = tmp_path / "wordnet.recipe"
    text = RECIPE.replace("# sizes: 4, 2", "# restrict: imagenet_a")
    path.write_text(text.replace("dataset: toys", "dataset: imagenet_r"), encoding="utf-8")
    with pytest.raises(HierarchyError, match="the tree of 'imagenet_a' is itself a restriction"):
        build_wordnet_file(path, class_rows, wordnet)


@pytest.mark.parametrize("name", ["nope", "../cifar10", "", "/etc", "cifar10/.."])
def test_a_data_set_without_a_recipe_is_named(name: str) -> None:
    with pytest.raises(InputError, match=r"no WordNet recipe for dataset .*: there is one for caltech101, "):
        recipe_path(name)


def test_a_pixel_grid_changes_no_recipe() -> None:
    assert recipe_path("tiny_imagenet@32") == recipe_path("tiny_imagenet")


def test_the_command_builds_the_committed_tree(
    tmp_path: Path, opened: None, capsys: pytest.CaptureFixture[str]
) -> None:
    committed = data_dir() / "hierarchies" / "cifar10" / "wordnet.json"
    before = committed.read_bytes()
    assert (
        run(["hierarchy", "build", "--dataset", "cifar10", "--source", "wordnet", "--out", str(tmp_path / "a.json")])
        == 0
    )
    assert (tmp_path / "a.json").read_bytes() == before
    changed = committed.stat().st_mtime_ns
    assert run(["hierarchy", "build", "--dataset", "cifar10", "--source", "wordnet"]) == 0
    assert "unchanged" in capsys.readouterr().out
    assert (committed.read_bytes(), committed.stat().st_mtime_ns) == (before, changed)


def test_the_command_builds_a_users_own_tree(tmp_path: Path, opened: None) -> None:
    recipe, table = tmp_path / "toys.recipe", tmp_path / "toys.tsv"
    recipe.write_text(RECIPE, encoding="utf-8")
    rows = "".join(f"{one.id}\t{one.name}\t{one.noun}\t{one.wordnet}\n" for one in FIVE)
    table.write_text(f"id\tname\tnoun\twordnet\n{rows}", encoding="utf-8")
    assert run(["hierarchy", "build", "--recipe", str(recipe), "--classes", str(table)]) == 0
    assert run(["hierarchy", "validate", str(tmp_path / "toys.json")]) == 0


def test_the_command_shuffles_a_tree(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from hierbench.hierarchy.catalogue import load_hierarchy
    from hierbench.hierarchy.load import load_hierarchy_file
    from hierbench.hierarchy.shuffle import shuffle

    out = tmp_path / "s.json"
    given = ["hierarchy", "build", "--dataset", "cifar10", "--tree", "wordnet", "--source", "shuffle", "--seed", "1"]
    assert run([*given, "--out", str(out)]) == 0
    assert load_hierarchy_file(out) == shuffle(load_hierarchy("cifar10", "wordnet"), 1)
    capsys.readouterr()


BAD_COMMANDS = [
    ([], "give --outline FILE, --recipe FILE, or --dataset NAME with --source wordnet or shuffle"),
    (["--dataset", "cifar10"], "give --outline FILE"),
    (["--source", "magic"], "--source: 'magic' is none of outline, wordnet, shuffle"),
    (["--source", "wordnet"], "--dataset: name the dataset"),
    (["--source", "outline"], "--outline: name the outline"),
    (["--source", "wordnet", "--dataset", "nope"], "no WordNet recipe for dataset 'nope'"),
    (["--source", "wordnet", "--dataset", "cifar10", "--tree", "x"], "--tree is of no use with --source wordnet"),
    (["--source", "wordnet", "--dataset", "cifar10", "--seed", "1"], "--seed is of no use with --source wordnet"),
    (["--source", "wordnet", "--recipe", "none.recipe"], "none.recipe: no such file"),
    (["--source", "shuffle", "--dataset", "cifar10"], "--out: name the file of the shuffled tree"),
    (["--source", "shuffle", "--out", "x.json"], "--dataset: name the dataset whose tree is shuffled"),
    (["--source", "shuffle", "--dataset", "cifar10", "--tree", "no", "--out", "x"], "unknown hierarchy 'no'"),
    (["--source", "shuffle", "--outline", "x", "--out", "y"], "--outline is of no use with --source shuffle"),
]


@pytest.mark.parametrize(("given", "said"), BAD_COMMANDS)
def test_a_wrong_command_is_refused_in_one_line(
    given: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["hierarchy", "build", *given]) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("")
    target = tmp_path / "file" / "x.json"
    given = ["hierarchy", "build", "--dataset", "cifar10", "--source", "shuffle", "--out", str(target)]
    assert run(given) == 2
    assert f"--out: cannot write {target}" in capsys.readouterr().err
