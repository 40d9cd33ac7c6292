"""What a tree looks like in a terminal."""

from __future__ import annotations

import io

import pytest
from rich.console import Console
from rich.table import Table
from rich.tree import Tree
from sample_trees import Content, caterpillar

from hierbench.errors import InputError
from hierbench.hierarchy.draw import render, summary
from hierbench.hierarchy.load import hierarchy_from_content


def printed(drawing: Tree | Table) -> str:
    console = Console(file=io.StringIO(), width=140, color_system=None)
    console.print(drawing)
    file = console.file
    assert isinstance(file, io.StringIO)
    return file.getvalue()


def test_a_tree_is_drawn_with_depths_and_leaf_counts(content: Content) -> None:
    lines = [line.rstrip() for line in printed(render(hierarchy_from_content(content, where="test"))).splitlines()]
    assert lines == [
        "thing 7 leaves",
        "├── animal depth 1 4 leaves",
        "│   ├── pet depth 2 2 leaves",
        "│   │   ├── cat depth 3",
        "│   │   └── dog depth 3",
        "│   └── wild depth 2 2 leaves",
        "│       ├── wolf depth 3",
        "│       └── fox depth 3",
        "├── vehicle depth 1 to 2 2 leaves",
        "│   ├── car depth 3",
        "│   └── truck depth 3",
        "└── rock depth 1 to 3",
    ]


def test_a_tree_is_folded_below_a_depth(content: Content) -> None:
    tree = hierarchy_from_content(content, where="test")
    assert [line.split()[1] for line in printed(render(tree, 1)).splitlines()[1:]] == ["animal", "vehicle", "rock"]
    assert len(printed(render(tree, 2)).splitlines()) == 6
    assert printed(render(tree, 3)) == printed(render(tree))
    for depth in (0, 4):
        with pytest.raises(InputError, match="has depths 1"):
            render(tree, depth)


def test_a_summary_has_a_row_a_depth(content: Content) -> None:
    text = printed(summary(hierarchy_from_content(content, where="test")))
    assert content["hash"] in text
    assert "toys/small: Small" in text
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in text.splitlines() if line.startswith("│")]
    # Roll-up chance at depth 1: (4/7)^2 + (2/7)^2 + (1/7)^2 = 21/49.
    assert rows == [
        ["1", "3", "1 to 4", "33.3", "42.9", "57.1"],
        ["2", "4", "1 to 2", "25.0", "26.5", "28.6"],
        ["3", "7", "1", "14.3", "14.3", "14.3"],
    ]


def test_a_title_with_markup_is_printed_as_it_is(content: Content) -> None:
    from sample_trees import rehash

    tree = hierarchy_from_content(rehash({**content, "title": "[red]Small[/red]", "licence": "[b]"}), where="test")
    text = printed(summary(tree))
    assert "[red]Small[/red]" in text
    assert "[b]" in text


def test_a_very_deep_tree_is_drawn_folded() -> None:
    assert "spine1 depth 1 1199 leaves" in printed(render(hierarchy_from_content(caterpillar(1200), where="test"), 1))
