"""What is left as eps or the prompts change: the same attacks and images at each, counted again from the files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from evaluation import toy_cell
from evaluation.toy_cell import ToyImages, toy_images

from hierbench.errors import InputError
from hierbench.reporting.build import make_report
from hierbench.reporting.collect import Selection
from hierbench.reporting.plots.lines import at_one_place, eps_lines
from hierbench.reporting.standings import Shown, gather
from reporting.toy_records import toy_record

LONG, SHORT = 30, 12


def short(folder: Path, model: str, eps: str, strength: float, **settings: Any) -> Path:
    """A record over some of the long list's images, in another order."""
    images = toy_images(LONG)
    chosen = np.random.default_rng(3).permutation(LONG)[:SHORT]
    part = ToyImages(tuple(images.ids[i] for i in chosen), images.labels[chosen], images.array[chosen])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(toy_cell, "toy_images", lambda n, seed: part)
        return toy_record(folder, model, eps=eps, strength=strength, n=SHORT, **settings)


def right(path: Path, depth: int, ids: list[str]) -> np.ndarray:
    """Right under every attack of a file and clean, for some samples."""
    frame = pd.read_parquet(path.with_suffix(".parquet")).set_index("sample_id").loc[ids]
    columns = [c for c in frame if c.endswith(f"_broken_rollup_d{depth}")]
    return ~frame[columns].any(axis=1).to_numpy()


def ids_of(path: Path) -> list[str]:
    return list(pd.read_parquet(path.with_suffix(".parquet"))["sample_id"])


@pytest.mark.parametrize("depth", [1, 2])
def test_only_images_that_every_record_scored_count(tmp_path: Path, depth: int) -> None:
    few, many = short(tmp_path, "alpha", "8/255", 8), toy_record(tmp_path, "alpha", eps="30/255", n=LONG)
    common = ids_of(few)
    assert len(ids_of(many)) == LONG and set(common) < set(ids_of(many))
    report = make_report("methods-eps", tmp_path, Selection(), depth=str(depth))
    found = {row["eps"]: row for row in report.rows}
    for eps, path in (("8/255", few), ("30/255", many)):
        assert found[eps]["robust"] == pytest.approx(right(path, depth, common).mean())
        assert found[eps]["samples"] == SHORT
    assert found["8/255"]["sample_list_hash"] == found["30/255"]["sample_list_hash"]
    assert right(many, depth, common).mean() != right(many, depth, ids_of(many)).mean(), "else nothing was shown"
    (table,) = report.tables
    assert table.columns == ("model", "clean", "8/255", "30/255")
    assert f"over the {SHORT} images that all records share, of lists of {LONG} and {SHORT}" in table.notes
    (line,) = eps_lines(at_one_place(gather(tmp_path, Selection()), Shown(), depth=depth), Shown())
    assert [p.value for p in line.robust][1:] == [found["8/255"]["robust"], found["30/255"]["robust"]]
    assert line.robust[0].value == found["8/255"]["clean"]


def test_one_list_for_all_is_not_said_to_be_shared(tmp_path: Path) -> None:
    for eps in ("8/255", "30/255"):
        toy_record(tmp_path, "alpha", eps=eps, strength=8)
    (table,) = make_report("methods-eps", tmp_path, Selection()).tables
    assert table.columns[2:] == ("8/255", "30/255")
    assert not any("share" in note for note in table.notes)


def test_an_attack_that_was_not_met_at_every_radius_is_left_out(tmp_path: Path) -> None:
    gentle = [toy_record(tmp_path, "alpha", eps=eps, strength=6) for eps in ("8/255", "30/255")]
    harder = toy_record(tmp_path, "alpha", eps="30/255", strength=30, attack="second")
    assert right(gentle[1], 1, ids_of(gentle[1])).sum() > right(harder, 1, ids_of(harder)).sum()
    report = make_report("methods-eps", tmp_path, Selection(), depth="1")
    assert [row["robust"] for row in report.rows] == [right(path, 1, ids_of(path)).mean() for path in gentle]
    (table,) = report.tables
    assert "left out, as not every model met them at every eps: second" in table.notes
    assert "attacks, the same at every eps: first" in table.notes


def test_an_attack_of_other_settings_is_another_attack(tmp_path: Path) -> None:
    """More steps at one radius alone would bend the curve there."""
    gentle = [toy_record(tmp_path, "alpha", eps=eps, strength=6) for eps in ("8/255", "30/255")]
    longer = {"attack": {"name": "first", "parameters": {"steps": 100}}}
    toy_record(tmp_path, "alpha", eps="30/255", strength=30, identity=longer)
    report = make_report("methods-eps", tmp_path, Selection(), depth="1")
    assert [row["robust"] for row in report.rows] == [right(path, 1, ids_of(path)).mean() for path in gentle]
    assert "left out, as not every model met them at every eps: first (steps 100)" in report.tables[0].notes


def test_lists_of_one_radius_are_put_together(tmp_path: Path) -> None:
    """Two attacks at each radius, one of them over fewer images: the worst case over what both scored."""
    whole = [toy_record(tmp_path, "alpha", eps=eps, strength=18, parity=0, n=LONG) for eps in ("20/255", "30/255")]
    part = [short(tmp_path, "alpha", eps, 18, parity=1, attack="second") for eps in ("20/255", "30/255")]
    common = ids_of(part[0])
    report = make_report("methods-eps", tmp_path, Selection(), depth="1")
    worst = [right(a, 1, common) & right(b, 1, common) for a, b in zip(whole, part, strict=True)]
    assert [row["robust"] for row in report.rows] == [one.mean() for one in worst]
    alone = [right(a, 1, common) for a in whole]
    assert any((one != both).any() for one, both in zip(alone, worst, strict=True)), "else nothing was shown"


def test_a_radius_that_a_model_lacks_is_a_gap(tmp_path: Path) -> None:
    for eps in ("8/255", "30/255"):
        toy_record(tmp_path, "alpha", eps=eps, strength=8)
    toy_record(tmp_path, "beta", eps="30/255")
    (table,) = make_report("methods-eps", tmp_path, Selection()).tables
    shown = {row[0].content: [value.content for value in row[1:]] for row in table.rows}
    assert shown["beta"][1] is None and None not in shown["alpha"] and shown["beta"][2] is not None


def test_what_cannot_be_compared_is_refused(tmp_path: Path) -> None:
    toy_record(tmp_path, "alpha", eps="8/255", strength=8)
    toy_record(tmp_path, "alpha", eps="30/255", attack="second")
    with pytest.raises(InputError, match=r"no attack in common at every eps \(alpha at 8/255: first; alpha at 30/255"):
        make_report("methods-eps", tmp_path, Selection())
    other = toy_record(
        tmp_path, "beta", eps="30/255", attack="second", identity={"dataset": {"template": "a sketch of {noun}"}}
    )
    assert other.exists()
    with pytest.raises(InputError, match="cannot share a table: they differ in prompt template"):
        make_report("methods-eps", tmp_path, Selection(eps="30/255", model="alpha,beta"))
    with pytest.raises(InputError, match="no record was scored by rollup at depth 9"):
        make_report("methods-eps", tmp_path, Selection(eps="8/255"), depth="9")


def test_each_template_has_its_own_clean_accuracy(tmp_path: Path) -> None:
    """Toy prompts change nothing, so that other images stand for them."""
    other = {"dataset": {"template": "a sketch of {noun}"}}
    plain, sketch = toy_record(tmp_path, "alpha"), short(tmp_path, "alpha", "30/255", 20, identity=other)
    toy_record(tmp_path, "alpha", attack="second")
    common = ids_of(sketch)
    report = make_report("methods-templates", tmp_path, Selection(), depth="1")
    found = {row["template"]: row for row in report.rows}
    assert set(found) == {"{}", "a sketch of {noun}"}
    for template, path in (("{}", plain), ("a sketch of {noun}", sketch)):
        assert found[template]["robust"] == right(path, 1, common).mean()
        clean = pd.read_parquet(path.with_suffix(".parquet")).set_index("sample_id").loc[common]
        assert found[template]["clean"] == (~clean["clean_broken_rollup_d1"]).mean()
    (table,) = report.tables
    assert table.groups == ("", "a sketch of {noun}", "a sketch of {noun}", "{}", "{}")
    assert "left out, as not every model met them at every template: second" in table.notes


def test_a_template_is_no_radius(tmp_path: Path) -> None:
    toy_record(tmp_path, "alpha", eps="30/255")
    toy_record(tmp_path, "alpha", eps="20/255", strength=20)
    tables = make_report("methods-templates", tmp_path, Selection()).tables
    assert [table.title.partition("linf ")[2] for table in tables] == ["eps 30/255, n = 40", "eps 20/255, n = 40"]
