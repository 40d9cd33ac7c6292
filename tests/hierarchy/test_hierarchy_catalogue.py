"""Trees by data set and name: the default, wildcards, near names, and what is refused."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from sample_trees import SMALL_CLASSES, rehash, save, small_content

from hierbench.errors import InputError
from hierbench.hierarchy import load as load_module
from hierbench.hierarchy.catalogue import HIERARCHIES, list_hierarchies, load_forest, load_hierarchy
from hierbench.hierarchy.errors import HierarchyError
from hierbench.hierarchy.load import load_hierarchy_file
from hierbench.hierarchy.shuffle import shuffle
from hierbench.registry import Registry


def put(folder: Path, tree: str, *, default: bool = False, dataset: str = "toys") -> Path:
    return save(
        rehash({**small_content(), "tree": tree, "default": default, "dataset": dataset}), folder / f"{tree}.json"
    )


@pytest.fixture
def toys(tmp_path: Path) -> Registry[Path]:
    registry: Registry[Path] = Registry("hierarchy", plural="hierarchies")
    for tree, default in (("size", False), ("small", True), ("shape", False)):
        registry.add(f"toys/{tree}", put(tmp_path, tree, default=default))
    return registry


def test_every_tree_is_listed_without_opening_one(toys: Registry[Path], tmp_path: Path) -> None:
    toys.add("blocks/broken", tmp_path / "none.json")
    assert list_hierarchies(registry=toys) == [
        ("blocks", "broken"),
        ("toys", "shape"),
        ("toys", "size"),
        ("toys", "small"),
    ]


def test_the_default_tree_is_the_one_marked(toys: Registry[Path]) -> None:
    assert load_hierarchy("toys", registry=toys).tree == "small"
    assert load_hierarchy("toys", "shape", registry=toys).tree == "shape"
    assert load_hierarchy("toys@32", registry=toys).tree == "small"


def test_classes_are_checked_against_the_data_set(toys: Registry[Path]) -> None:
    assert load_hierarchy("toys", classes=SMALL_CLASSES, registry=toys).num_leaves == 7
    with pytest.raises(HierarchyError, match=r"small\.json: class 'fox' is not a class of the data set"):
        load_hierarchy("toys", classes=SMALL_CLASSES[:-1], registry=toys)
    with pytest.raises(HierarchyError, match=r"size\.json: class 'fox' is not a class of the data set"):
        load_forest("toys", ["size"], classes=SMALL_CLASSES[:-1], registry=toys)


@pytest.mark.parametrize(
    ("dataset", "tree", "said"),
    [
        ("toys", "smal", "unknown hierarchy 'smal' of dataset 'toys': did you mean 'small'?"),
        ("toys", "zzz", "unknown hierarchy 'zzz' of dataset 'toys': known are shape, size, small"),
        ("toy", None, "no hierarchies for dataset 'toy': did you mean 'toys'?"),
        ("toys", "../toys/small", "tree '../toys/small' is not a name"),
        ("toys", "/etc/passwd", "tree '/etc/passwd' is not a name"),
        ("toys", "small.json", "tree 'small.json' is not a name"),
        ("toys", "..", "tree '..' is not a name"),
        ("toys", "", "tree '' is not a name"),
        ("../toys", "small", "dataset '../toys' is not a name"),
        ("toys/small", None, "dataset 'toys/small' is not a name"),
        ("", None, "dataset '' is not a name"),
        ("toys\n", None, "dataset 'toys\\n' is not a name"),
    ],
)
def test_a_wrong_name_is_refused_in_one_line(dataset: str, tree: str | None, said: str, toys: Registry[Path]) -> None:
    with pytest.raises(InputError) as caught:
        load_hierarchy(dataset, tree, registry=toys)
    assert str(caught.value).startswith(said)
    assert str(caught.value).splitlines() == [str(caught.value)]


def test_a_data_set_has_one_default(toys: Registry[Path], tmp_path: Path) -> None:
    toys.add("toys/other", put(tmp_path, "other", default=True))
    with pytest.raises(InputError, match="needs one default hierarchy and has 'other' and 'small'"):
        load_hierarchy("toys", registry=toys)
    none: Registry[Path] = Registry("hierarchy", plural="hierarchies")
    none.add("toys/size", tmp_path / "size.json")
    with pytest.raises(InputError, match="needs one default hierarchy and has none: name a tree of size"):
        load_hierarchy("toys", registry=none)


def test_a_forest_is_all_trees_or_those_named(toys: Registry[Path]) -> None:
    def names(trees: list[str] | None) -> list[str]:
        return [tree.tree for tree in load_forest("toys", trees, registry=toys)]

    assert names(None) == ["small", "shape", "size"]
    assert names(["size", "small"]) == ["size", "small"]
    assert names(["s*e"]) == ["shape", "size"]
    assert names(["size", "s*"]) == ["size", "shape", "small"]
    with pytest.raises(InputError, match="no tree of dataset 'toys' matches 'x"):
        names(["x*"])
    with pytest.raises(InputError, match="did you mean 'size'"):
        names(["siz"])
    with pytest.raises(InputError, match="at least one"):
        names([])


def test_a_file_must_be_what_its_place_says(toys: Registry[Path], tmp_path: Path) -> None:
    toys.add("toys/alias", tmp_path / "small.json")
    with pytest.raises(HierarchyError, match="field 'tree' is 'small', the file's place says 'alias'"):
        load_hierarchy("toys", "alias", registry=toys)
    (tmp_path / "more").mkdir()
    toys.add("toys/moved", put(tmp_path / "more", "moved", dataset="blocks"))
    with pytest.raises(HierarchyError, match="field 'dataset' is 'blocks', the file's place says 'toys'"):
        load_hierarchy("toys", "moved", registry=toys)


def test_a_file_that_is_gone_is_named(toys: Registry[Path], tmp_path: Path) -> None:
    (tmp_path / "size.json").unlink()
    with pytest.raises(HierarchyError, match=r"size\.json: no such file"):
        load_hierarchy("toys", "size", registry=toys)


def test_a_file_is_parsed_once_until_it_changes(
    toys: Registry[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    parsed: list[Path] = []
    original = load_module.load_hierarchy_file

    def counting(path: Path) -> object:
        parsed.append(path)
        return original(path)

    monkeypatch.setattr(load_module, "load_hierarchy_file", counting)
    first = load_hierarchy("toys", "size", registry=toys)
    assert load_hierarchy("toys", "size", registry=toys) is first
    assert len(parsed) == 1
    changed = rehash({**small_content(), "tree": "size", "default": False, "title": "Sizes"})
    save(changed, tmp_path / "size.json")
    os.utime(tmp_path / "size.json", ns=(1, 1))
    assert load_hierarchy("toys", "size", registry=toys).title == "Sizes"
    assert len(parsed) == 2


def test_the_shipped_trees_are_listed() -> None:
    shipped = list_hierarchies()
    assert ("digits", "strokes") in shipped
    assert ("cifar100", "official") in shipped
    assert all("/" not in tree for _, tree in shipped)
    assert len(shipped) == len(HIERARCHIES)


def test_listing_needs_neither_numpy_nor_pydantic() -> None:
    code = (
        "import sys; from hierbench.hierarchy.catalogue import list_hierarchies; assert list_hierarchies(); "
        "sys.exit(bool({'numpy', 'pydantic', 'torch'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_control_tree_is_made_from_a_listed_one_when_asked_for() -> None:
    made = load_hierarchy("cifar100@32", "deep-shuffled3")
    assert made.content_hash == shuffle(load_hierarchy("cifar100", "deep"), 3).content_hash
    assert made is load_hierarchy("cifar100", "deep-shuffled3"), "once"
    assert made.content_hash != load_hierarchy("cifar100", "deep-shuffled4").content_hash
    forest = load_forest("cifar100", ["deep", "deep-shuffled3"])
    assert [tree.tree for tree in forest.trees] == ["deep", "deep-shuffled3"]
    assert "cifar100/deep-shuffled3" not in HIERARCHIES.names(), "it is no listed tree"


@pytest.mark.parametrize("name", ["deep-shuffled03", "dep-shuffled1", "deep-shuffled1-shuffled2", "deep-shuffled"])
def test_other_spellings_of_a_control_tree_are_refused(name: str) -> None:
    with pytest.raises(InputError, match=rf"unknown hierarchy '{name}'"):
        load_hierarchy("cifar100", name)


def test_a_listed_tree_of_such_a_name_is_itself(toys: Registry[Path], tmp_path: Path) -> None:
    path = put(tmp_path, "plain-shuffled1")
    toys.add("toys/plain-shuffled1", path)
    assert load_hierarchy("toys", "plain-shuffled1", registry=toys).description == load_hierarchy_file(path).description
