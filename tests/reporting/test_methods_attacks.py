"""What each attack leaves, attack by attack: counted again from the verdict files."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from hierbench.errors import InputError
from hierbench.evaluation.stored import read_record
from hierbench.hierarchy.catalogue import load_hierarchy
from hierbench.reporting.build import LayoutName, make_report
from hierbench.reporting.collect import Selection
from reporting.toy_records import toy_record

RECORDS = Path(__file__).parents[2] / "leaderboard" / "records"
TEMPLATE = "This is a photo of {noun}."
CIFAR = Selection(protocol="tiny-v1", dataset="cifar100", eps="4/255", template=TEMPLATE)
ATTACKS = {  # heading: file
    "leaf_pgd, direct": "leaf_pgd.direct",
    "superclass_pgd, rollup": "superclass_pgd.rollup",
    "multilevel_apgd": "multilevel_apgd.rollup",
    "square": "square.rollup",
    "text_characters": "text_characters.rollup",
}


def verdicts(model: str, attack: str) -> pd.DataFrame:
    paths = (RECORDS / "tiny-v1" / model).glob(f"cifar100.deep.{attack}.linf-4_255.*.parquet")
    (path,) = (p for p in paths if read_record(p.with_suffix(".json")).identity.dataset.template == TEMPLATE)
    return pd.read_parquet(path)


def left(frame: pd.DataFrame, depth: int) -> pd.Series:
    columns = [c for c in frame if c.endswith(f"_broken_rollup_d{depth}")]
    return ~frame[columns].any(axis=1)


@pytest.mark.parametrize(("said", "depth"), [(None, 5), ("1", 1)])
def test_every_figure_is_a_count_of_its_attacks_verdicts(said: str | None, depth: int) -> None:
    report = make_report("methods-attacks", RECORDS, CIFAR, depth=said)
    found = {(row["model"], row["column"], row["samples"]): row for row in report.rows}
    for model in ("tecoa.tiny", "mmcoa.tiny", "clip"):
        for heading, name in ATTACKS.items():
            frame = verdicts(model, name)
            row = found[model, heading, len(frame)]
            assert row["depth"] == depth
            assert row["robust"] == pytest.approx(left(frame, depth).mean()), (model, heading)
        together = [verdicts(model, name) for name in list(ATTACKS.values())[:3]]
        together += [verdicts(model, name) for name in ("leaf_pgd.rollup", "superclass_pgd.direct")]
        worst = pd.concat([left(frame, depth) for frame in together], axis=1).all(axis=1)
        assert found[model, "all on images", len(worst)]["robust"] == pytest.approx(worst.mean())


def test_each_sample_list_is_a_table_of_its_own_and_texts_are_in_no_worst_case_of_images() -> None:
    tables = make_report("methods-attacks", RECORDS, CIFAR).tables
    assert [table.title.rpartition("n = ")[2] for table in tables] == ["883", "300", "200"]
    assert len({table.label for table in tables}) == 3
    whole, texts, square = (table.columns for table in tables)
    assert whole[-1] == "all on images" and square == ("model", "clean", "square")
    kinds = [name.split("_")[0] for name in texts[2:-1]]
    assert kinds == sorted(kinds, key=["multilevel", "multimodal", "text"].index) and "text" in kinds
    assert texts[-1] == "all on images"
    images = [n for n, name in enumerate(texts) if name.startswith("multilevel_pgd")]
    for row in tables[1].rows[2:]:
        least = min(float(str(row[n].content)) for n in images)
        assert float(str(row[-1].content)) >= least - 0.02, "a text attack leaves far less than the two on images do"


def test_an_attack_that_a_model_did_not_meet_is_a_gap(tmp_path: Path) -> None:
    toy_record(tmp_path, "alpha", attack="first")
    toy_record(tmp_path, "alpha", attack="second", strength=20)
    toy_record(tmp_path, "beta", attack="second", strength=20)
    (table,) = make_report("methods-attacks", tmp_path, Selection()).tables
    assert table.columns == ("model", "clean", "first", "second", "all on images")
    shown = {row[0].content: [value.content for value in row[1:]] for row in table.rows}
    assert None not in shown["alpha"] and shown["beta"][1] is None
    assert shown["beta"][3] == shown["beta"][2], "its worst case is over what it met"


def test_a_depth_that_no_tree_has_is_refused() -> None:
    with pytest.raises(InputError, match="no record was scored by rollup at depth 9"):
        make_report("methods-attacks", RECORDS, CIFAR, depth="9")


def test_other_prompts_are_a_table_of_their_own_that_says_so(tmp_path: Path) -> None:
    toy_record(tmp_path, "alpha")
    toy_record(tmp_path, "alpha", identity={"dataset": {"template": "a sketch, of {noun}"}})
    titles = [table.title for table in make_report("methods-attacks", tmp_path, Selection()).tables]
    assert sorted(title.partition(", prompts ")[2] for title in titles) == ["'a sketch, of {noun}'", "'{}'"]
    (table,) = make_report("methods-attacks", tmp_path, Selection(template="a sketch, of {noun}")).tables
    assert "prompts" not in table.title
    with pytest.raises(InputError, match=r"no record under .* for --template a photo"):
        make_report("methods-attacks", tmp_path, Selection(template="a photo"))


def test_tables_of_several_prompts_are_told_apart_in_every_form() -> None:
    selection = Selection(protocol="tiny-v1", dataset="cifar100", eps="4/255", attack="leaf_pgd", model="clip")
    report = make_report("methods-attacks", RECORDS, selection)
    labels = [table.label for table in report.tables]
    prompts = [table.title.rpartition("prompts ")[2] for table in report.tables]
    assert len(labels) == 3 == len(set(labels)) and prompts == sorted(prompts), "the order is not that of a hash"
    assert len({row["template"] for row in report.rows}) == 3


@pytest.mark.parametrize("layout", ["methods-attacks", "methods-depths", "methods-datasets"])
def test_what_ignoring_the_image_keeps_stands_above_and_how_many_figures_are_below_it(layout: LayoutName) -> None:
    selection = Selection(
        protocol="tiny-v1", dataset="cifar100", eps="4/255", attack="superclass_pgd", scoring="rollup"
    )
    (table,) = make_report(layout, RECORDS, selection, depth="1").tables
    labels = [str(row[0].content) for row in table.rows]
    assert labels[:2] == ["chance", "majority"]
    lines = pd.read_parquet(next((RECORDS / "tiny-v1" / "clip").glob("cifar100.deep.superclass_pgd.rollup.*.parquet")))
    top = load_hierarchy("cifar100").leaf_to_node[0][lines["label"]]
    majority = max((top == node).mean() for node in set(top))
    assert table.rows[1][1].content == pytest.approx(majority)
    robust = [value.content for row in table.rows[2:] for value in row[2:] if value.content is not None]
    below = sum(value < majority for value in robust)
    assert (
        below
        and f"{below} of {len(robust)} robust figures lie below majority: always naming the most frequent node "
        "keeps more"
        in table.notes
    )
