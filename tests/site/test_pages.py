"""What the pages say, against the verdicts they come from."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from urllib.parse import unquote, urlsplit

import numpy as np
import pytest
from pages import Element, html_files, model_file, read_page
from synthetic_board import HOSTILE, Plan, add_card, place

from hierbench.board.ledger import read_board
from hierbench.errors import InputError
from hierbench.evaluation.statistics import wilson
from hierbench.evaluation.verdicts import read_verdicts
from hierbench.reporting.site import build_site
from hierbench.reporting.site.protocols import protocol_views

DEEP = 5


@pytest.fixture(scope="module")
def tiny(site: Path) -> Element:
    return read_page(site / "protocols" / "tiny-v1.html")


def ground(page: Element, dataset: str, samples: int) -> Element:
    """The section of a data set's ground at 4/255."""
    sections = page.every("section", class_="ground")
    found = [s for s in sections if re.fullmatch(rf"{dataset} · .*linf 4/255", s.every("h2")[0].text)]
    (section,) = (s for s in found if f"of {samples} images" in s.one("caption").text)
    return section


def row(section: Element, model: str) -> Element:
    (found,) = (r for r in section.one("tbody").every("tr") if r.every("a")[0].text == model)
    return found


def value(section: Element, model: str, key: str, scoring: str = "rollup") -> float | None:
    """The figure of a row in a column, by the column's key; None where a dash stands."""
    heads = section.every("th", data_key=key)
    own = [th for th in heads if f"s-{scoring}" in th.attributes["class"].split()] or heads
    (head,) = own
    cells = [c for c in row(section, model).children if c.tag in ("td", "th")]
    cell = cells[int(head.attributes["data-col"])]
    said = cell.attributes.get("data-v")
    return None if said is None else float(said)


def pooled(board: Path, model: str, scoring: str, depth: int, attacks: tuple[str, ...], **fields: str) -> float:
    """The worst case over some attacks, from the Parquet files alone."""
    broken = None
    for entry in read_board(board).entries:
        for placed in entry.placed if entry.model == model else ():
            identity = placed.record.identity
            if identity.attack.name not in attacks or identity.dataset.name != fields["dataset"]:
                continue
            if identity.attack.eps != fields.get("eps", "4/255"):
                continue
            verdicts = read_verdicts(placed.path.with_name(placed.record.verdicts.file))
            for attacked, found in verdicts.attacked.items():
                assert attacked in identity.attack.depths
                own = found.broken_rollup if scoring == "rollup" else found.broken_direct
                clean = verdicts.clean.broken_rollup if scoring == "rollup" else verdicts.clean.broken_direct
                assert own is not None and clean is not None
                either = (own | clean)[:, depth - 1]
                broken = either if broken is None else broken | either
    assert broken is not None
    return float(1 - np.mean(broken))


@pytest.mark.parametrize("scoring", ["rollup", "direct"])
def test_the_robust_figure_is_the_worst_per_sample_over_all_image_attacks(
    board: Path, tiny: Element, scoring: str
) -> None:
    section = ground(tiny, "cifar100", 300)
    images = ("superclass_pgd", "autoattack")
    for depth in range(1, DEEP + 1):
        key = "robust-leaf" if depth == DEEP else f"robust-{depth}"
        wanted = pooled(board, "tecoa.tiny", scoring, depth, images, dataset="cifar100")
        assert value(section, "tecoa.tiny", key, scoring) == pytest.approx(wanted, abs=1e-12)


def test_an_attack_on_texts_is_a_column_of_its_own_and_not_in_the_robust_figure(board: Path, tiny: Element) -> None:
    section = ground(tiny, "cifar100", 300)
    text = pooled(board, "tecoa.tiny", "rollup", DEEP, ("text_synonyms",), dataset="cifar100")
    with_text = pooled(
        board, "tecoa.tiny", "rollup", DEEP, ("superclass_pgd", "autoattack", "text_synonyms"), dataset="cifar100"
    )
    assert value(section, "tecoa.tiny", "text") == pytest.approx(text)
    assert value(section, "tecoa.tiny", "robust-leaf") != pytest.approx(with_text) or with_text == 0
    assert "text_synonyms" not in row(section, "tecoa.tiny").every("details")[0].text
    assert ground(tiny, "cifar10", 200).every("th", data_key="text") == []


def test_autoattack_has_its_own_column_which_pgd_does_not_enter(board: Path, tiny: Element) -> None:
    wanted = pooled(board, "tecoa.tiny", "direct", DEEP, ("autoattack",), dataset="cifar100")
    section = ground(tiny, "cifar100", 300)
    assert value(section, "tecoa.tiny", "autoattack", "direct") == pytest.approx(wanted)
    assert value(section, "leafonly.tiny", "autoattack") is None
    cells = row(section, "tecoa.tiny").children
    assert [c for c in cells if "all four components" in c.attributes.get("title", "")]


def test_a_figure_carries_its_interval_and_its_counts(tiny: Element) -> None:
    section = ground(tiny, "cifar10", 200)
    cell = next(c for c in row(section, "tecoa.tiny").children if "strong" in c.attributes.get("class", ""))
    title = cell.attributes["title"]
    count, of = map(int, re.match(r"(\d+) of (\d+) images", title).groups())  # type: ignore[union-attr]
    interval = wilson(count, of)
    assert float(cell.attributes["data-v"]) == count / of
    assert f"{100 * interval.low:.1f} to {100 * interval.high:.1f}" in title
    assert cell.one("small", class_="ci").text == f"{100 * interval.low:.1f}–{100 * interval.high:.1f}"


def test_relative_is_robust_over_clean(tiny: Element) -> None:
    section = ground(tiny, "cifar10", 200)
    clean, robust = value(section, "fare.tiny", "clean-leaf"), value(section, "fare.tiny", "robust-leaf")
    assert clean and robust is not None
    assert value(section, "fare.tiny", "relative-leaf") == pytest.approx(robust / clean)


def test_figures_are_pale_where_the_clean_direct_accuracy_is_under_half(tiny: Element) -> None:
    section = ground(tiny, "cifar100", 300)
    found = row(section, "tecoa.tiny")

    def cells_with(*classes: str) -> list[Element]:
        return [c for c in found.children if set(classes) <= set(c.attributes.get("class", "").split())]

    clean = [float(c.attributes["data-v"]) for c in cells_with("c-clean", "s-direct")]
    for scoring in ("rollup", "direct"):
        cells = cells_with("strong", f"s-{scoring}")
        assert ["pale" in c.attributes["class"].split() for c in cells] == [c < 0.5 for c in clean]
    assert any(c < 0.5 for c in clean) and any(c >= 0.5 for c in clean)


def test_trained_known_and_unseen_are_pooled_like_the_figure_they_divide(tiny: Element) -> None:
    section = ground(tiny, "cifar100", 300)
    parts = {name: value(section, "clip", name) for name in ("known", "unseen")}
    whole = value(section, "clip", "robust-leaf")
    assert None not in parts.values()
    counts = {"known": 240, "unseen": 60}  # 20 of 100 classes are unseen, three images a class
    assert whole == pytest.approx(sum(counts[n] * v for n, v in parts.items() if v is not None) / 300)
    assert section.every("th", data_key="trained")[0].text == "trained on"  # no column of trained classes


def test_rows_of_two_grounds_are_never_in_one_table(tiny: Element) -> None:
    sections = tiny.every("section", class_="ground")
    assert len(sections) == 6  # four radii of cifar10, two sample lists of cifar100
    assert len({s.attributes["data-section"] for s in sections}) == 6
    picks = {a.attributes["data-show"] for a in tiny.every("a") if "data-show" in a.attributes}
    assert picks == {s.attributes["data-section"] for s in sections}
    assert all(len(s.every("table")) == 1 for s in sections)


def test_a_custom_row_is_marked_stands_last_and_is_never_the_best(tiny: Element) -> None:
    section = ground(tiny, "cifar100", 300)
    rows = section.one("tbody").every("tr")
    last = rows[-1]
    assert last.every("a")[0].text == "odd.tiny"
    assert "is-custom" in last.attributes["class"]
    assert last.every("span", class_="custom")[0].text == "custom"
    assert last.every("td", class_="best") == []
    # it would be the best, and another one is marked in its place
    robust = {r.every("a")[0].text: value(section, r.every("a")[0].text, "robust-leaf") or 0.0 for r in rows}
    assert max(robust, key=lambda model: robust[model]) == "odd.tiny"
    for key in ("robust-1", "robust-leaf"):
        (head,) = (th for th in section.every("th", data_key=key) if "s-rollup" in th.attributes["class"].split())
        column = int(head.attributes["data-col"])
        cells = [[c for c in r.children if c.tag in ("td", "th")][column] for r in rows]
        assert sum("best" in c.attributes["class"].split() for c in cells) == 1


def test_the_best_of_a_column_is_marked_once_over_comparable_rows(tiny: Element) -> None:
    section = ground(tiny, "cifar10", 200)
    models = ("clip", "tecoa.tiny", "fare.tiny")
    best = max(models, key=lambda model: value(section, model, "robust-leaf") or 0)
    for model in models:
        cells = [c for c in row(section, model).children if "s-rollup" in c.attributes.get("class", "")]
        leaf = [c for c in cells if "strong" in c.attributes["class"]][-1]
        assert ("best" in leaf.attributes["class"].split()) == (model == best)


def test_nothing_is_the_best_where_only_pale_figures_are_higher(tmp_path: Path) -> None:
    board = tmp_path / "board"
    deep = Plan("weak.tiny", dataset="cifar100", tree="deep", samples=300, clean=0.4, strength=0.1)
    place(board, deep)
    place(board, replace(deep, model="one.tiny", clean=0.9, strength=0.95))
    place(board, replace(deep, model="two.tiny", clean=0.9, strength=0.99))
    build_site(board, tmp_path / "site")
    section = ground(read_page(tmp_path / "site" / "protocols" / "tiny-v1.html"), "cifar100", 300)
    leaf = {m: value(section, m, "robust-leaf") for m in ("weak.tiny", "one.tiny", "two.tiny")}
    assert max(leaf, key=lambda model: leaf[model] or 0.0) == "weak.tiny"
    shown = [r.every("td", class_="best") for r in section.one("tbody").every("tr")]
    assert all("pale" not in c.attributes["class"].split() for cells in shown for c in cells)
    for model in leaf:
        cells = [c for c in row(section, model).every("td", class_="strong") if "s-rollup" in c.attributes["class"]]
        assert "best" not in cells[-1].attributes["class"].split()


def test_a_record_that_failed_a_check_is_listed_but_in_no_figure(tiny: Element, site: Path) -> None:
    section = ground(tiny, "cifar100", 300)
    assert value(section, "broken.tiny", "robust-leaf") is None
    assert value(section, "broken.tiny", "clean-leaf") is not None
    assert "1 failed" in row(section, "broken.tiny").text
    page = read_page(model_file(site, "broken-tiny"))
    assert "the attack moved no pixel" in page.text
    assert len(page.one("table", class_="lines").one("tbody").every("tr")) == 1


def test_a_model_without_direct_scoring_has_dashes_there(tiny: Element) -> None:
    section = ground(tiny, "cifar100", 300)
    assert value(section, "leafonly.tiny", "robust-1", "direct") is None
    assert value(section, "leafonly.tiny", "robust-1", "rollup") is not None
    widths = {len([c for c in r.children if c.tag in ("td", "th")]) for r in section.one("tbody").every("tr")}
    assert len(widths) == 1


def test_others_images_lower_the_row_and_are_credited(board: Path, site: Path, tiny: Element) -> None:
    section = ground(tiny, "cifar100", 200)
    alone = pooled(board, "sample.tiny", "rollup", DEEP, ("superclass_pgd",), dataset="cifar100")
    both = pooled(board, "sample.tiny", "rollup", DEEP, ("superclass_pgd", "their-attack"), dataset="cifar100")
    assert both < alone
    assert value(section, "sample.tiny", "robust-leaf") == pytest.approx(both)
    page = read_page(model_file(site, "sample-tiny"))
    credit = page.one("article", class_="credit")
    assert "Stronger attack" in credit.text and "Eve Elsewhere" in credit.text
    effect = next(t for t in page.every("table") if "without and with" in t.text)
    line = effect.every("tbody")[0].every("tr", class_="s-rollup")[0]
    figures = [float(c.attributes["data-v"]) for c in line.every("td", class_="num")]
    assert figures == pytest.approx([alone, both])


def test_a_row_without_the_headline_attack_says_so(tiny: Element) -> None:
    assert "no headline attack" in row(ground(tiny, "cifar100", 300), "tecoa.tiny").text
    assert "no headline attack" not in row(ground(tiny, "cifar10", 200), "tecoa.tiny").text


def test_a_model_page_holds_what_its_records_say(site: Path) -> None:
    page = read_page(model_file(site, "sample-tiny"))
    for said in (
        "Ada Example, Ben O'Sample & Co", "MIT", "Tiny-ImageNet at 32 pixels", "tiny_clip-v1", "learning_rate",
        "0.9, 0.999", "935871ce9b7c9dfc2fa6c31b14d543f89a66b708", "recent/loss", "2026-02-03", "code hash",
        "hierbench eval --model FOLDER --protocol tiny-v1 --dataset cifar100",
    ):  # fmt: skip
        assert said in page.text, said
    assert [a.attributes["href"] for a in page.every("a") if a.text == "https://example.org/weights"] == [
        "https://example.org/weights"
    ]


def test_the_transfer_table_shows_every_cell_of_the_records(board: Path, site: Path) -> None:
    page = read_page(model_file(site, "tecoa-tiny"))
    entry = next(e for e in read_board(board).entries if e.model == "tecoa.tiny")
    wanted = sorted(f"{100 * cell.robust.value:.1f}" for placed in entry.placed for cell in placed.record.transfer)
    shown = []
    for table in page.every("table", class_="heat"):
        for line in table.one("tbody").every("tr")[1:]:
            shown += [
                c.text.split(" ")[0].split(".")[0] + "." + c.text.split(".")[1][:1]
                for c in line.every("td", class_="num")
            ]
    assert sorted(shown) == wanted


def test_curves_hold_one_point_a_radius_and_depth(site: Path) -> None:
    page = read_page(model_file(site, "tecoa-tiny"))
    over_eps = [s for s in page.every("svg", class_="chart") if s.every("title")[0].text == "Over eps"]
    wide = max(over_eps, key=lambda s: len(s.every("g", class_="line")[0].every("path", class_="whisker")))
    lines = wide.every("g", class_="line")
    assert [line.every("text", class_="name")[0].text for line in lines] == ["depth 1", "depth 2", "leaves"]
    assert all(len(line.every("path", class_="whisker")) == 5 for line in lines)  # clean and four radii
    over_depth = [s for s in page.every("svg", class_="chart") if s.every("title")[0].text == "Over depth"]
    names = [[line.every("text", class_="name")[0].text for line in s.every("g", class_="line")] for s in over_depth]
    assert ["clean", "eps 1/255", "eps 2/255", "eps 4/255", "eps 8/255"] in names


def test_a_dataset_page_draws_its_trees_and_names_who_was_measured(site: Path) -> None:
    page = read_page(site / "datasets" / "cifar100.html")
    trees = page.every("section", class_="tree")
    assert len(trees) == 5
    deep = trees[0]
    assert [tr.every("td")[0].text for tr in deep.every("table", class_="compact")[0].one("tbody").every("tr")] == [
        "2", "4", "8", "20", "100",
    ]  # fmt: skip
    classes = [li for ul in deep.every("li", class_="leaves") for li in ul.every("li")]
    assert len(classes) == 100
    assert "sample.tiny" in deep.text and "No record yet" in trees[1].text


def test_reported_figures_stand_apart_with_protocol_and_source(site: Path) -> None:
    page = read_page(site / "reported.html")
    groups = page.every("section", class_="ground")
    assert [g.every("h2")[0].text for g in groups] == ["a-paper", "b-paper"]
    assert "arXiv:0000.00001" in groups[0].text and "arXiv:0000.00002" not in groups[0].text
    assert "Copied, not measured" in page.text
    assert "60.30" in groups[0].text
    assert "a note, <b>bold</b>" in groups[0].text
    for path in html_files(site):
        if path.name != "reported.html":
            assert "arXiv:0000.0000" not in path.read_text()


def test_a_hostile_text_is_text_everywhere(site: Path) -> None:
    seen = 0
    for path in html_files(site):
        page = read_page(path)
        scripts = page.every("script")
        assert [s.attributes["src"] for s in scripts] == ["site.js" if path.parent == site else "../site.js"]
        assert [s.text for s in scripts] == [""]
        assert page.every("img") == [] and page.every("iframe") == []
        handlers = [e for e in page.every() for name in e.attributes if name.startswith("on") or name == "style"]
        assert handlers == []
        seen += HOSTILE in page.text
        assert "49" not in [w for w in page.text.split() if w.startswith("{{")]
    assert seen >= 3  # its protocol, its page, the data set's page


def test_characters_that_hide_or_reorder_text_are_shown(tmp_path: Path) -> None:
    board = tmp_path / "board"
    place(board, Plan("evil\u202egnp.exe\u200b\x1b[31m", dataset="digits", tree="strokes", protocol="digits-v1"))
    build_site(board, tmp_path / "site")
    for path in html_files(tmp_path / "site"):
        assert not set("\u202e\u200b\x1b") & set(path.read_text())
    assert any("evil\ufffdgnp" in p.read_text() for p in html_files(tmp_path / "site"))


def test_every_link_leads_into_the_site_or_is_https_from_a_card(site: Path) -> None:
    outside = set()
    for path in html_files(site):
        page = read_page(path)
        ids = {e.attributes["id"] for e in page.every() if "id" in e.attributes}
        for element in page.every():
            for name in ("href", "src"):
                address = element.attributes.get(name)
                if address is None or address.startswith("data:image/svg+xml,"):
                    continue
                parts = urlsplit(address)
                if parts.scheme or parts.netloc:
                    assert parts.scheme == "https" and element.attributes["rel"].startswith("noopener")
                    outside.add(address)
                    continue
                target = path if not parts.path else path.parent / unquote(parts.path)
                assert target.resolve().is_relative_to(site.resolve()) and target.is_file(), address
                if parts.fragment:
                    there = ids if target == path else {e.attributes.get("id") for e in read_page(target).every()}
                    assert unquote(parts.fragment) in there, address
    assert outside == {
        "https://example.org/paper?id=1&v=2", "https://example.org/code", "https://example.org/weights",
        "https://example.org/attack",
    }  # fmt: skip


@pytest.mark.parametrize(
    "address", ["javascript:alert(1)", "http://example.org/x", "data:text/html,x", "//example.org"]
)
def test_a_card_with_another_address_is_refused(tmp_path: Path, address: str) -> None:
    board = tmp_path / "board"
    add_card(board, Plan("sample.digits", dataset="digits", tree="strokes", protocol="digits-v1"), paper=address)
    with pytest.raises(InputError, match=r"submission\.json: paper"):
        build_site(board, tmp_path / "site")


def test_ids_are_unique_and_tables_are_described(site: Path) -> None:
    for path in html_files(site):
        page = read_page(path)
        ids = [e.attributes["id"] for e in page.every() if "id" in e.attributes]
        assert len(set(ids)) == len(ids), path.name
        for cell in page.every("th"):
            assert cell.attributes.get("scope") in ("col", "row", "colgroup", "rowgroup")
        for tag in ("main", "header", "footer"):
            page.one(tag)
        assert page.every("nav") and page.every("a", class_="skip")[0].attributes["href"] == "#main"


def test_a_thousand_leaves_stay_a_page(tmp_path: Path) -> None:
    board = tmp_path / "board"
    place(board, Plan("clip", dataset="imagenet", tree="wordnet", samples=60))
    build_site(board, tmp_path / "site")
    path = tmp_path / "site" / "datasets" / "imagenet.html"
    assert path.stat().st_size < 1_000_000
    page = read_page(path)
    tree = next(t for t in page.every("section", class_="tree") if t.every("h2")[0].text.startswith("WordNet"))
    assert len([li for ul in tree.every("li", class_="leaves") for li in ul.every("li")]) == 1000
    assert len(tree.one("svg", class_="icicle").every("rect")) < 200
    assert "1,000 leaves) would not fit" in tree.text


def test_of_the_same_images_the_longest_list_stands_first() -> None:
    views = protocol_views(read_board(Path(__file__).parents[2] / "leaderboard"))
    (tiny,) = [view for view in views if view.name == "tiny-v1"]
    counts = [view.samples for view in tiny.grounds if view.ground.dataset == "cifar100" and view.ground.tree == "deep"]
    assert len(set(counts)) > 1 and counts == sorted(counts, reverse=True)
