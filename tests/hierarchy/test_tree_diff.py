"""Two trees compared, and the picture of one."""

from __future__ import annotations

import itertools
import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sample_trees import Content, find, random_contents, rehash, save, small_content

from hierbench.cli.app import run
from hierbench.errors import InputError
from hierbench.hierarchy.catalogue import load_hierarchy
from hierbench.hierarchy.diff import adjusted_rand_index, diff
from hierbench.hierarchy.load import hierarchy_from_content
from hierbench.hierarchy.picture import NAMED_UP_TO, cells_of, draw, fit, text_width
from hierbench.hierarchy.tree import Hierarchy


def loaded(content: Content) -> Hierarchy:
    return hierarchy_from_content(rehash(content), where="test")


parts = st.lists(st.integers(0, 4), min_size=2, max_size=12)


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_agreement_is_that_of_scikit_learn(data: st.DataObject) -> None:
    from sklearn.metrics import adjusted_rand_score

    first = data.draw(parts)
    second = data.draw(st.lists(st.integers(0, 4), min_size=len(first), max_size=len(first)))
    assert adjusted_rand_index(np.array(first), np.array(second)) == pytest.approx(adjusted_rand_score(first, second))


def test_a_tree_agrees_with_itself_and_not_with_a_shuffle() -> None:
    from hierbench.hierarchy.shuffle import shuffle

    tree = load_hierarchy("cifar100", "deep")
    same = diff(tree, tree)
    assert [row.agreement for row in same.depths] == [1.0] * 4
    assert not same.only_before
    assert not any(row.moved for row in same.depths)
    control = diff(tree, shuffle(tree, 0))
    assert all(row.agreement is not None and abs(row.agreement) < 0.1 for row in control.depths)
    # the same names over other classes: nearly everybody has another superclass
    assert len(control.depths[3].moved) > 80


def test_a_moved_class_is_named_and_its_neighbours_are_not() -> None:
    content = small_content()
    find(content, "wolf")["parent"] = "pet"
    content["nodes"] = [node for node in content["nodes"] if node["id"] != "wild"]
    find(content, "fox")["parent"] = "animal"
    content["levels"][1] = ["rock", "pet", "fox", "vehicle"]
    before = loaded(small_content())
    found = diff(before, loaded(content))
    assert [node.id for node in found.only_before] == ["wild"]
    assert found.only_after == ()
    first, second = found.depths
    assert (first.agreement, first.moved) == (1.0, ())
    assert [(before.leaves[one.label].id, one.before.id, one.after.id) for one in second.moved] == [
        ("wolf", "wild", "pet"),
        ("fox", "wild", "fox"),
    ]
    assert second.agreement is not None
    assert second.agreement < 1


def test_a_renamed_superclass_moves_nobody() -> None:
    content = small_content()
    for node in content["nodes"]:
        for key in ("id", "parent"):
            node[key] = "beast" if node[key] == "animal" else node[key]
    content["levels"][0][0] = "beast"
    found = diff(loaded(small_content()), loaded(content))
    assert [node.id for node in found.only_after] == ["beast"]
    assert not any(row.moved for row in found.depths)
    # the same noun, though another class is gone from it
    find(content, "wolf")["parent"] = "thing"
    find(content, "fox")["parent"] = "beast"
    content["nodes"] = [node for node in content["nodes"] if node["id"] != "wild"]
    content["levels"][0].append("wolf")
    content["levels"][1] = ["rock", "pet", "wolf", "fox", "vehicle"]
    find(content, "beast")["noun"] = "A Animal"
    before = loaded(small_content())
    assert [before.leaves[one.label].id for one in diff(before, loaded(content)).depths[0].moved] == ["wolf"]


def test_trees_of_other_depths_are_matched_by_agreement() -> None:
    deep, official = load_hierarchy("cifar100", "deep"), load_hierarchy("cifar100", "official")
    found = diff(deep, official)
    assert [row.after for row in found.depths] == [20, None, None, None]
    assert (found.depths[3].best_depth, found.depths[3].best_agreement) == (1, 1.0)
    assert found.depths[1].agreement is None


def test_trees_over_other_classes_are_refused() -> None:
    with pytest.raises(InputError, match=r"^hierarchies 'cifar10/semantic' and .* class '0' is in one only$"):
        diff(load_hierarchy("cifar10", "semantic"), load_hierarchy("digits"))
    content = small_content()
    content["classes"] = content["levels"][2] = [*content["classes"][1:], content["classes"][0]]
    with pytest.raises(InputError, match="the same ones in different orders"):
        diff(loaded(small_content()), loaded(content))


def test_the_command_prints_a_comparison(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["hierarchy", "diff", "cifar100/deep", "cifar100"]) == 0
    assert "the same tree" in capsys.readouterr().out
    assert run(["hierarchy", "diff", "cifar100/deep", "cifar100/habitat"]) == 0
    said = capsys.readouterr().out
    assert "nodes 2/4/8/20/100 against" in said
    assert "only in cifar100/habitat" in said
    assert "--moved lists them all" in said
    assert run(["hierarchy", "diff", "cifar100/deep", "cifar100/habitat", "--moved"]) == 0
    assert capsys.readouterr().out.count(" moved from ") > said.count(" moved from ") > 0
    path = save(small_content(), tmp_path / "small.json")
    for other, wanted in (
        ("cifar10", "different classes"),
        ("cifar10/nope", "unknown hierarchy"),
        ("x.json", "no such"),
    ):
        assert run(["hierarchy", "diff", str(path), other]) == 2
        error = capsys.readouterr().err
        assert wanted in error
        assert error.count("\n") == 1


# Pictures.


@settings(max_examples=40, deadline=None)
@given(random_contents())
def test_the_cells_of_a_picture_tile_it(content: Content) -> None:
    tree = loaded(content)
    filled = np.zeros((tree.num_depths, tree.num_leaves), dtype=int)
    for cell in cells_of(tree):
        filled[cell.top : cell.bottom, cell.first : cell.last] += 1
    assert (filled == 1).all()
    assert sum(cell.leaf for cell in cells_of(tree)) == tree.num_leaves


def test_a_label_stays_inside_its_box() -> None:
    for name, width, height in itertools.product(
        ("cat", "starfish, sea urchin or sea cucumber", "a" * 60), (20, 60, 200, 400), (8, 20, 100)
    ):
        label = fit(name, width, height)
        if label is None:
            continue
        assert " ".join(label.text.split("\n")) == name
        lines = label.text.split("\n")
        across, along = (height, width) if label.turned else (width, height)
        assert max(text_width(line, label.size) for line in lines) <= across
        assert len(lines) * label.size <= along
    assert fit("a" * 60, 20, 20) is None
    assert fit("cat", 400, 100) is not None


@pytest.mark.parametrize(
    ("tree", "layout"), [("cifar10/semantic", None), ("cifar10/semantic", "radial"), ("tiny_imagenet/wordnet", None)]
)
def test_every_name_is_drawn_and_the_file_depends_on_the_tree_alone(
    tree: str, layout: str | None, tmp_path: Path
) -> None:
    dataset, _, name = tree.partition("/")
    hierarchy = load_hierarchy(dataset, name)
    assert hierarchy.num_leaves <= NAMED_UP_TO
    first, again = (draw(hierarchy, tmp_path / f"{i}.svg", layout=layout).read_bytes() for i in "ab")
    assert first == again
    # a name may be broken into lines, each an element of its own
    body = first.decode().split("</metadata>")[1]
    drawn = re.sub(r"<[^>]*>|\s", "", body).replace("&apos;", "'")
    for leaf in hierarchy.leaves:
        assert re.sub(r"\s", "", leaf.name) in drawn, leaf.name


def test_a_large_tree_names_its_superclasses_only(tmp_path: Path) -> None:
    text = draw(load_hierarchy("imagenet", "wordnet"), tmp_path / "i.svg").read_text()
    assert "mammal" in text
    assert "goldfish" not in text


@pytest.mark.parametrize("kind", ["png", "pdf"])
def test_pictures_come_in_other_formats(kind: str, tmp_path: Path) -> None:
    start = {"png": b"\x89PNG", "pdf": b"%PDF"}[kind]
    assert draw(load_hierarchy("digits"), tmp_path / f"d.{kind}").read_bytes().startswith(start)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["--picture", "tree.gif"], "tree.gif should end in .png or .svg or .pdf"),
        (["--picture", "no/such/tree.svg"], "--picture: cannot write no/such/tree.svg"),
        (["--picture", "tree.svg", "--layout", "spiral"], "--layout: 'spiral' is none of layered, radial"),
        (["--layout", "radial"], "--layout is of a picture"),
        (["--picture", "tree.svg", "--depth", "1"], "--depth folds the drawing"),
    ],
)
def test_a_picture_that_cannot_be_is_refused_in_one_line(
    given: list[str], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(["hierarchy", "show", "digits", *given]) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1
    assert not list(tmp_path.iterdir())
