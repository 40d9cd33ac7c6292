"""The site in a real Chromium: what a reader does, on a screen, on a phone, by keyboard, in both themes."""

from __future__ import annotations

import functools
import http.server
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pages import model_file
from requiring import require_or_skip
from synthetic_board import HOSTILE

pytestmark = pytest.mark.browser

TINY = "protocols/tiny-v1.html"
TABLE = "section.ground:not([hidden]) table"
NAMES = f"{TABLE} tbody tr:not([hidden]) th a"


@pytest.fixture(scope="session")
def kinds(site: Path) -> dict[str, str]:
    """One page of each kind."""
    return {
        "index": "index.html",
        "protocol": TINY,
        "model": f"models/{model_file(site, 'sample-tiny').name}",
        "curves": f"models/{model_file(site, 'tecoa-tiny').name}",
        "dataset": "datasets/cifar100.html",
        "reported": "reported.html",
    }


KINDS = ("index", "protocol", "model", "curves", "dataset", "reported")


def deep(tab: Any) -> None:
    """Choose the ground of five depths with the most rows."""
    tab.locator("nav.picker a", has_text="5").first.click()
    assert tab.locator(NAMES).count() == 5


def column(tab: Any, key: str) -> list[float | None]:
    """The shown figures of a column, top to bottom; None where a dash stands."""
    head = tab.locator(f'{TABLE} th[data-key="{key}"]:visible')
    index = int(head.get_attribute("data-col"))
    rows = tab.locator(f"{TABLE} tbody tr:not([hidden])")
    values = [rows.nth(i).locator(":scope > *").nth(index).get_attribute("data-v") for i in range(rows.count())]
    return [None if v is None else float(v) for v in values]


def test_a_click_on_a_heading_sorts_and_a_second_one_turns_the_order(visitor: Any) -> None:
    tab = visitor.open(TINY)
    deep(tab)
    head = tab.locator(f'{TABLE} th[data-key="clean-2"]:visible')
    assert head.get_attribute("aria-sort") == "none"
    head.locator("button").click()
    assert head.get_attribute("aria-sort") == "descending"
    found = column(tab, "clean-2")
    assert found[:-1] == sorted(found[:-1], reverse=True)  # the custom row stays last
    head.locator("button").click()
    assert head.get_attribute("aria-sort") == "ascending"
    found = column(tab, "clean-2")
    assert found[:-1] == sorted(found[:-1])
    assert tab.locator(f'{TABLE} [aria-sort="ascending"]').count() == 1
    for _ in range(2):  # the custom row has the highest figure here
        tab.locator(f'{TABLE} th[data-key="robust-1"]:visible button').click()
        assert tab.locator(NAMES).last.inner_text() == "odd.tiny"


def test_names_sort_as_text_and_what_was_not_measured_stands_last_either_way(visitor: Any) -> None:
    tab = visitor.open(TINY)
    deep(tab)
    tab.locator(f'{TABLE} th[data-key="model"] button').click()
    names = tab.locator(NAMES).all_inner_texts()
    assert names[:-1] == sorted(names[:-1])
    button = tab.locator(f'{TABLE} th[data-key="autoattack"]:visible button')
    for _ in range(2):
        button.click()
        figures = column(tab, "autoattack")[:-1]
        measured = [v for v in figures if v is not None]
        assert figures == measured + [None] * (len(figures) - len(measured))
        assert measured


def test_the_keyboard_alone_sorts_a_table(visitor: Any) -> None:
    tab = visitor.open(TINY)
    deep(tab)
    tab.locator(f'{TABLE} th[data-key="model"] button').focus()
    tab.keyboard.press("Tab")
    focused = tab.evaluate("document.activeElement.closest('th')?.dataset.key")
    assert focused == "clean-1"
    tab.keyboard.press("Enter")
    assert tab.locator(f'{TABLE} th[data-key="clean-1"]:visible').get_attribute("aria-sort") == "descending"
    tab.keyboard.press("Space")
    assert tab.locator(f'{TABLE} th[data-key="clean-1"]:visible').get_attribute("aria-sort") == "ascending"
    assert tab.evaluate("document.activeElement.closest('th')?.dataset.key") == "clean-1"
    outline = tab.evaluate("getComputedStyle(document.activeElement).outlineStyle")
    assert outline == "solid"


def test_the_first_tab_reaches_the_skip_link(visitor: Any) -> None:
    tab = visitor.open(TINY)
    tab.keyboard.press("Tab")
    assert tab.evaluate("document.activeElement.className") == "skip"
    assert tab.evaluate("document.activeElement.getBoundingClientRect().top") >= 0
    tab.keyboard.press("Enter")
    assert tab.evaluate("document.activeElement.id") == "main"


def test_the_filter_keeps_matching_rows_and_counts_them(visitor: Any) -> None:
    tab = visitor.open(TINY)
    deep(tab)
    assert tab.locator("[data-count]").inner_text() == "5 of 5 models"
    tab.get_by_label("Filter").fill("TECOA cosine")
    assert tab.locator(NAMES).count() == 0
    assert tab.locator("[data-empty]:visible").inner_text() == "No model matches the filter."
    tab.get_by_label("Filter").fill("tecoa autoattack")
    assert tab.locator(NAMES).all_inner_texts() == ["tecoa.tiny"]
    assert tab.locator("[data-count]").inner_text() == "1 of 5 models"


def test_scoring_changes_every_figure_and_its_name(visitor: Any) -> None:
    tab = visitor.open(TINY)
    deep(tab)
    before = column(tab, "robust-1")
    assert tab.locator(f"{TABLE} th.group:visible").first.inner_text().endswith("roll-up")
    tab.get_by_text("direct", exact=True).click()
    assert tab.locator(f"{TABLE} th.group:visible").first.inner_text().endswith("direct")
    assert column(tab, "robust-1") != before
    assert tab.locator(f"{TABLE} .s-rollup:visible").count() == 0


def test_the_state_stands_in_the_fragment_and_a_link_restores_it(visitor: Any) -> None:
    tab = visitor.open(TINY)
    deep(tab)
    tab.get_by_text("direct", exact=True).click()
    tab.locator(f'{TABLE} th[data-key="clean-1"]:visible button').click()
    tab.get_by_label("Filter").fill("tiny")
    tab.get_by_label("cost").uncheck()
    tab.get_by_label("intervals").check()
    shown = tab.locator(NAMES).all_inner_texts()
    again = visitor.open(TINY + "#" + tab.url.partition("#")[2])
    assert again.locator(NAMES).all_inner_texts() == shown
    assert again.get_by_label("Filter").input_value() == "tiny"
    assert not again.get_by_label("cost").is_checked()
    assert again.locator(f"{TABLE} .c-cost:visible").count() == 0
    assert again.locator(f"{TABLE} td .ci:visible").count() > 0
    assert again.locator(f'{TABLE} th[data-key="clean-1"]:visible').get_attribute("aria-sort") == "descending"


def test_a_fragment_from_a_stranger_is_never_html(visitor: Any) -> None:
    tab = visitor.open(
        TINY + "#filter=%3Cimg%20src%3Dx%20onerror%3Dalert(1)%3E&show=%3Cb%3E&scoring=%22&sort=%5D&hide=%22"
    )
    assert tab.locator("img").count() == 0
    assert tab.get_by_label("Filter").input_value() == "<img src=x onerror=alert(1)>"
    assert tab.locator("section.ground:not([hidden])").count() == 1


def test_one_ground_is_shown_at_a_time_and_marked(visitor: Any) -> None:
    tab = visitor.open(TINY)
    assert "linf 4/255" in tab.locator("section.ground:not([hidden]) h2").inner_text()  # the protocol's own radius
    links = tab.locator("nav.picker a")
    for i in range(links.count()):
        links.nth(i).click()
        section = tab.locator("section.ground:not([hidden])")
        assert section.count() == 1
        assert section.get_attribute("data-section") == links.nth(i).get_attribute("data-show")
        assert tab.locator('nav.picker [aria-current="true"]').count() == 1


def test_groups_are_as_wide_as_the_columns_that_are_shown(visitor: Any) -> None:
    tab = visitor.open(TINY)
    deep(tab)
    for hidden in ((), ("clean",), ("clean", "relative", "cost", "about")):
        for name in hidden:
            tab.get_by_label(name, exact=True).uncheck()
        wide = tab.locator(f"{TABLE} th.group:visible").evaluate_all("all => all.reduce((n, th) => n + th.colSpan, 0)")
        assert wide == tab.locator(f"{TABLE} .heads th:visible").count()
        edges = tab.locator(f"{TABLE} th.group:visible").evaluate_all(
            "all => all.map(th => th.getBoundingClientRect().right)"
        )
        heads = tab.locator(f"{TABLE} .heads th:visible").evaluate_all(
            "all => all.map(th => th.getBoundingClientRect().right)"
        )
        assert all(any(abs(edge - head) < 1 for head in heads) for edge in edges)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("scoring", ["rollup", "direct"])
def test_no_page_scrolls_sideways_on_a_phone(visitor: Any, kinds: dict[str, str], kind: str, scoring: str) -> None:
    tab = visitor.open(f"{kinds[kind]}#scoring={scoring}&intervals=on", width=360, height=740, has_touch=True)
    assert tab.evaluate("document.documentElement.scrollWidth") == 360


def test_on_a_phone_the_first_column_stays_while_the_table_scrolls(visitor: Any) -> None:
    tab = visitor.open(TINY, width=360, height=740)
    deep(tab)
    box = tab.locator("section.ground:not([hidden]) .scroll")
    assert box.evaluate("box => box.scrollWidth > box.clientWidth")
    box.evaluate("box => { box.scrollLeft = 400; }")
    left = tab.locator(f"{TABLE} tbody th").first.evaluate("th => th.getBoundingClientRect().left")
    assert left == pytest.approx(box.evaluate("box => box.getBoundingClientRect().left"), abs=2)
    assert tab.evaluate("document.documentElement.scrollLeft") == 0


def ground_colour(tab: Any) -> tuple[int, ...]:
    said = tab.evaluate("getComputedStyle(document.body).backgroundColor")
    return tuple(int(part) for part in said.removeprefix("rgb(").removesuffix(")").split(","))


def test_dark_follows_the_system_and_the_button_overrides_it_and_is_kept(visitor: Any) -> None:
    light, dark = visitor.open("index.html"), visitor.open("index.html", dark=True)
    assert min(ground_colour(light)) > 230 and max(ground_colour(dark)) < 40
    button = light.locator("[data-theme-button]")
    button.click()
    assert button.inner_text() == "Theme: light"
    button.click()
    assert button.inner_text() == "Theme: dark" and max(ground_colour(light)) < 40
    light.reload()
    assert max(ground_colour(light)) < 40
    dark.locator("[data-theme-button]").click()
    assert min(ground_colour(dark)) > 230


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_no_rule_of_accessibility_is_broken(visitor: Any, kinds: dict[str, str], kind: str, dark: bool) -> None:
    try:
        from axe_playwright_python.sync_playwright import Axe
    except ImportError:
        require_or_skip("browser", "axe is not installed: pip install axe-playwright-python")
    tab = visitor.open(kinds[kind] + "#intervals=on", dark=dark)
    for details in tab.locator("details").all()[:40]:
        details.evaluate("d => { d.open = true; }")
    tags = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]
    # preload would fetch the style sheet, which the page's own policy forbids
    found = Axe().run(tab, options={"runOnly": tags, "preload": False}).response
    said = [f"{v['id']}: {v['nodes'][0]['html'][:150]}: {v['nodes'][0]['failureSummary']}" for v in found["violations"]]
    assert "\n".join(said) == ""
    assert found["passes"]


def test_a_model_page_shows_curves_matrix_and_records(visitor: Any, kinds: dict[str, str]) -> None:
    tab = visitor.open(kinds["curves"])
    charts = tab.locator("svg.chart:visible")
    assert charts.count() == 4  # over depth and over eps, on two data sets
    for i in range(charts.count()):
        box = charts.nth(i).bounding_box()
        assert box["width"] > 250 and box["height"] > 150
        # nothing is drawn outside the picture
        inside = charts.nth(i).evaluate(
            "svg => { const own = svg.getBoundingClientRect();"
            " return [...svg.querySelectorAll('text, path, circle')].every("
            "e => { const b = e.getBoundingClientRect(); return b.left >= own.left - 2 && b.right <= own.right + 2"
            " && b.top >= own.top - 2 && b.bottom <= own.bottom + 2; }); }"
        )
        assert inside
    heat = tab.locator("table.heat:visible").first
    shades = heat.locator("td.num").evaluate_all("all => all.map(td => getComputedStyle(td).backgroundColor)")
    assert len(set(shades)) > 3
    assert all(0.0 <= float(text) <= 100.0 for text in heat.locator("td.num").all_inner_texts())
    tab.get_by_role("radio", name="direct").check(force=True)
    assert tab.locator("svg.chart:visible").count() == 4
    assert tab.locator("a", has_text="verdicts").first.get_attribute("href").endswith(".parquet")
    lines = tab.locator("table.lines tbody tr")
    tab.locator('table.lines th[data-key="leaf"] button').click()
    values = [float(lines.nth(i).locator("td.strong").get_attribute("data-v")) for i in range(lines.count())]
    assert values == sorted(values, reverse=True) and len(values) == 12


def test_the_way_from_a_row_to_its_model_and_its_record(visitor: Any) -> None:
    tab = visitor.open(TINY)
    deep(tab)
    tab.locator(NAMES, has_text="tecoa.tiny").click()
    assert tab.locator("h1").inner_text() == "tecoa.tiny"
    tab.locator("table.lines td.files a").first.click()
    tab.wait_for_url("**/*.json")
    assert '"schema_version": 1' in tab.locator("body").inner_text()


def test_a_dataset_page_opens_branches_and_finds_classes(visitor: Any, kinds: dict[str, str]) -> None:
    tab = visitor.open(kinds["dataset"])
    outline = tab.locator("[data-outline]").first
    leaves = outline.locator(".leaves > ul > li:visible")
    assert leaves.count() == 0
    outline.get_by_text("open all").click()
    assert leaves.count() == 100
    outline.get_by_text("close all").click()
    assert leaves.count() == 0
    outline.get_by_label("Find a class").fill("whale")
    hits = outline.locator(".hit:visible")
    assert hits.all_inner_texts() == ["whale"]
    assert outline.locator("[data-found]").inner_text() == "1 of 100 classes"
    drawing = tab.locator("svg.icicle").first
    assert drawing.bounding_box()["width"] > 500


def test_names_in_a_drawn_tree_stay_in_their_boxes(visitor: Any, kinds: dict[str, str]) -> None:
    tab = visitor.open(kinds["dataset"])
    outside = tab.locator("svg.icicle").evaluate_all(
        "all => all.flatMap(svg => [...svg.querySelectorAll('g')].filter(g => { const t = g.querySelector('text')"
        ".getBBox(), r = g.querySelector('rect').getBBox(); return t.x + t.width > r.x + r.width + 1"
        " || t.y + t.height > r.y + r.height + 2; }).map(g => g.textContent))"
    )
    assert outside == []


def test_a_hostile_name_is_shown_as_text_and_does_nothing(visitor: Any, site: Path) -> None:
    for page in (TINY, f"models/{model_file(site, 'img-src').name}", "datasets/cifar100.html"):
        tab = visitor.open(page)
        tab.wait_for_timeout(100)
        assert tab.locator("img").count() == 0
        assert tab.title() != "owned"
        assert HOSTILE in tab.locator("body").inner_text() or page == TINY
    tab = visitor.open(TINY)
    tab.locator("nav.picker a", has_text="2").first.click()
    assert HOSTILE in tab.locator(NAMES).all_inner_texts()


def test_without_scripts_every_table_is_there(visitor: Any) -> None:
    tab = visitor.open(TINY, java_script_enabled=False)
    assert tab.locator("section.ground:visible").count() == 6
    assert tab.locator(".controls:visible, .theme:visible").count() == 0
    assert tab.locator("th.group.s-direct:visible").count() > 0


def test_print_leaves_controls_out_and_tables_whole(visitor: Any) -> None:
    tab = visitor.open(TINY, dark=True)
    deep(tab)
    tab.emulate_media(media="print")
    assert tab.locator(".controls:visible, nav:visible").count() == 0
    assert min(ground_colour(tab)) == 255
    box = tab.locator("section.ground:not([hidden]) .scroll")
    assert box.evaluate("box => getComputedStyle(box).overflowX") == "visible"


@pytest.fixture
def server(site: Path) -> Iterator[str]:
    """The site behind a web server, under a folder as on GitHub Pages."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, format: str, *args: object) -> None:
            pass

    handler = functools.partial(Quiet, directory=str(site.parent))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as made:
        threading.Thread(target=made.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{made.server_address[1]}/{site.name}/"
        made.shutdown()


def test_a_web_server_shows_the_same_and_only_its_own_files_are_asked_for(chromium: Any, server: str) -> None:
    context = chromium.new_context()
    tab = context.new_page()
    asked: list[str] = []
    said: list[str] = []
    tab.on("request", lambda request: asked.append(request.url))
    tab.on("response", lambda answer: said.append(f"{answer.status} {answer.url}") if answer.status >= 400 else None)
    tab.on("console", lambda message: said.append(message.text))
    tab.goto(server + TINY)
    tab.locator(f'{TABLE} th[data-key="model"] button').click()
    assert tab.locator(f'{TABLE} th[data-key="model"]').get_attribute("aria-sort") == "ascending"
    assert min(ground_colour(tab)) > 230
    tab.goto(server + "index.html")
    tab.get_by_role("link", name="Data sets").click()
    assert said == []
    assert all(url.startswith((server, "data:")) for url in asked)
    context.close()


def test_the_policy_stops_a_script_that_slipped_through(chromium: Any, site: Path, tmp_path: Path) -> None:
    """Were an escape ever forgotten: neither an inline script nor a handler runs."""
    for name in ("site.css", "site.js"):
        (tmp_path / name).write_bytes((site / name).read_bytes())
    text = (site / "index.html").read_text(encoding="utf-8")
    bad = "<script>document.title='owned'</script><img src=x onerror=\"document.title='owned'\">"
    (tmp_path / "index.html").write_text(text.replace("<h1>", bad + "<h1>"), encoding="utf-8")
    context = chromium.new_context()
    tab = context.new_page()
    tab.goto((tmp_path / "index.html").as_uri())
    tab.wait_for_timeout(200)
    assert tab.title() != "owned"
    assert tab.evaluate("document.documentElement.classList.contains('js')")
    context.close()
