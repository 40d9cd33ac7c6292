"""Names, charts and trees: the parts the pages are put together from."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hierbench.hierarchy.catalogue import list_hierarchies, load_hierarchy
from hierbench.reporting.site.charts import BOTTOM, HEIGHT, TOP, WIDTH, Series, make_chart
from hierbench.reporting.site.figures import Figure
from hierbench.reporting.site.names import kept_name, model_page, safe_link, slug
from hierbench.reporting.site.render import visible
from hierbench.reporting.site.trees import MOST_ROWS, ROW, branches_of, draw_levels


def fig(value: float) -> Figure:
    return Figure(value, max(0.0, value - 0.05), min(1.0, value + 0.05), int(100 * value), 100)


@given(st.text())
@settings(max_examples=300, deadline=None)
def test_a_slug_is_a_plain_file_name_whatever_the_text(text: str) -> None:
    made = slug(text)
    assert set(made) <= set("abcdefghijklmnopqrstuvwxyz0123456789_-.@+")
    assert made[0].isalnum() or made[0] == "_"
    assert ".." not in made and len(made) <= 80
    page = model_page(text, text, text)
    assert set(page) <= set("abcdefghijklmnopqrstuvwxyz0123456789_-.") and page.endswith(".html")
    assert set(kept_name(text, ".json", "sha256:" + "0" * 64)) <= set(made) | set(text) | set("0.json")


@pytest.mark.parametrize("first, second", [("A", "a"), ("a b", "a-b"), ("con", "con-"), ("é", "e"), ("", "x")])
def test_two_texts_never_share_a_slug(first: str, second: str) -> None:
    assert slug(first).lower() != slug(second).lower()


@pytest.mark.parametrize("name", ["con", "nul", "com1", "aux.v1"])
def test_a_name_that_windows_keeps_for_a_device_is_not_used(name: str) -> None:
    assert slug(name).startswith(name.partition(".")[0] + "-")


@pytest.mark.parametrize(
    "name", ["../x.json", "a/b.json", ".x.json", "x.json.exe", "a..json", "x" * 300 + ".json", "<b>.json"]
)
def test_a_name_that_is_not_plain_is_replaced_by_its_hash(name: str) -> None:
    assert kept_name(name, ".json", "sha256:" + "ab" * 32) == "abababababababab.json"


@pytest.mark.parametrize(
    "address",
    ["javascript:alert(1)", "JAVASCRIPT:x", " https://a.org", "http://a.org", "https://", "https://user@a.org",
     "//a.org", "https://[", "https://a.org/\n", None],
)  # fmt: skip
def test_only_https_is_a_link(address: str | None) -> None:
    assert safe_link(address) is None


def test_spaces_and_ordinary_letters_are_shown_as_they_are() -> None:
    assert visible(" é 漢 – x") == " é 漢 – x"


@given(st.lists(st.floats(0, 1), min_size=1, max_size=9))
@settings(max_examples=200, deadline=None)
def test_labels_of_curves_never_run_into_each_other_or_under_the_axis(values: list[float]) -> None:
    chart = make_chart(
        "t", "x", [Series(str(i), ((0.0, fig(v)),)) for i, v in enumerate(values)], [(0.0, "0"), (1.0, "1")]
    )
    heights = sorted(line.label_y for line in chart.lines)
    assert all(b - a >= 13.0 - 1e-9 for a, b in itertools.pairwise(heights))
    assert heights[-1] <= HEIGHT - BOTTOM + 1e-9
    assert heights[0] >= TOP - 1e-9


def test_a_point_lies_where_its_figure_is() -> None:
    chart = make_chart(
        "t", "x", [Series("a", ((0.0, fig(1.0)), (0.5, fig(0.0)), (1.0, fig(0.5))))], [(0.0, "0"), (1.0, "1")]
    )
    (line,) = chart.lines
    assert [p.y for p in line.points] == [TOP, HEIGHT - BOTTOM, (TOP + HEIGHT - BOTTOM) / 2]
    assert line.points[0].x < line.points[1].x < line.points[2].x < WIDTH
    assert all(p.high <= p.y <= p.low for p in line.points)  # y runs downward


@pytest.mark.parametrize("dataset, tree", list_hierarchies())
def test_the_levels_of_every_tree_are_drawn_without_gaps_or_overlaps(dataset: str, tree: str) -> None:
    hierarchy = load_hierarchy(dataset, tree)
    drawing = draw_levels(hierarchy)
    rows = round(drawing.height / ROW)
    assert rows <= MOST_ROWS or len(drawing.depths) == 1
    column = drawing.width / len(drawing.depths)
    covered = np.zeros((rows, len(drawing.depths)), dtype=int)
    for box in drawing.boxes:
        top, bottom = round(box.y / ROW), round((box.y + box.height) / ROW)
        covered[top:bottom, round(box.x / column) : round((box.x + box.width) / column)] += 1
    assert (covered == 1).all()
    assert len(drawing.depths) + drawing.left_out == hierarchy.num_depths


@pytest.mark.parametrize("dataset, tree", [("digits", "strokes"), ("imagenet", "wordnet"), ("pcam", "diagnosis")])
def test_the_branches_hold_every_class_once(dataset: str, tree: str) -> None:
    hierarchy = load_hierarchy(dataset, tree)
    found: list[str] = []
    waiting = [branches_of(hierarchy)]
    while waiting:
        node = waiting.pop()
        found += [id_ for _, id_ in node.leaves]
        waiting += node.branches
    assert sorted(found) == sorted(leaf.id for leaf in hierarchy.leaves)
