"""Two models on the same samples: every number follows from their verdicts, and what cannot be compared is refused."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pandas
import pytest
from scipy.stats import binom
from typer.testing import CliRunner

from hierbench.cli.app import app
from hierbench.errors import InputError
from hierbench.evaluation.statistics import holm, smallest_detectable_difference
from hierbench.reporting.collect import Selection
from hierbench.reporting.compare import compare_report, side
from hierbench.reporting.standings import Shown, gather
from reporting.toy_records import HOSTILE, broken, toy_record


def compare(folder: Path, a: str, b: str, **options: Any) -> pandas.DataFrame:
    sides = [side(word, folder, Selection()) for word in (a, b)]
    return pandas.DataFrame(list(compare_report(*sides, Shown(), **options).rows))


@pytest.mark.parametrize("scoring", ["rollup", "direct"])
def test_every_number_follows_from_the_verdicts(tmp_path: Path, scoring: Any) -> None:
    one, two = (toy_record(tmp_path, m, strength=s) for m, s in (("alpha", 8), ("beta", 24)))
    sides = [side(word, tmp_path, Selection()) for word in ("alpha", "beta")]
    found = pandas.DataFrame(list(compare_report(*sides, Shown(scoring)).rows))
    assert list(zip(found.figure, found.depth, strict=True)) == [
        ("clean", 1),
        ("clean", 2),
        ("robust", 1),
        ("robust", 2),
    ]
    assert (found.only_a + found.only_b).max() > 0
    for _, line in found.iterrows():
        a, b = (~broken(path, scoring, line.depth)[line.figure == "robust"] for path in (one, two))
        n, only_a, only_b = len(a), int((a & ~b).sum()), int((~a & b).sum())
        assert (line.a, line.b, line.samples) == (a.mean(), b.mean(), n)
        assert (line.only_a, line.only_b) == (only_a, only_b)
        assert line.difference == pytest.approx(a.mean() - b.mean(), abs=1e-12)
        p = min(1.0, 2 * binom.cdf(min(only_a, only_b), only_a + only_b, 0.5)) if only_a + only_b else 1.0
        assert line.p == pytest.approx(p)
        draws = np.random.default_rng(3).integers(0, n, (4000, n))
        low, high = np.quantile(a[draws].mean(1) - b[draws].mean(1), [0.025, 0.975])
        assert (line.difference_low, line.difference_high) == pytest.approx((low, high), abs=0.051)
        wanted = smallest_detectable_difference(n, (only_a + only_b) / n)
        assert line.detectable == wanted if wanted < 1 else pandas.isna(line.detectable)
    for figure in ("clean", "robust"):
        part = found[found.figure == figure]
        small, large = sorted(part.p)
        assert sorted(part.p_holm) == pytest.approx(sorted([min(1, 2 * small), max(min(1, 2 * small), large)]))


def test_holm_is_that_of_its_definition() -> None:
    rng = np.random.default_rng(0)
    for _ in range(50):
        p = rng.random(6) ** 3
        for i, corrected in enumerate(holm(list(p))):
            # the largest of (m - rank) p over all that are not larger
            wanted = max(min(1.0, float((p >= q).sum()) * q) for q in p if q <= p[i])
            assert corrected == pytest.approx(wanted)
    assert holm([]) == ()


def test_swapping_the_two_changes_signs_alone(tmp_path: Path) -> None:
    toy_record(tmp_path, "alpha", strength=8)
    toy_record(tmp_path, "beta", strength=24)
    one, two = compare(tmp_path, "alpha", "beta"), compare(tmp_path, "beta", "alpha")
    assert (one.difference == -two.difference).all() and (one.only_a == two.only_b).all() and (one.p == two.p).all()


def test_the_worst_case_is_over_attacks_that_both_met(tmp_path: Path) -> None:
    first = toy_record(tmp_path, "alpha", strength=6)
    toy_record(tmp_path, "beta", strength=8)
    extra = toy_record(tmp_path, "alpha", attack="strong", strength=30)
    sides = [side(word, tmp_path, Selection()) for word in ("alpha", "beta")]
    report = compare_report(*sides, Shown())
    assert report.rows[2]["a"] == np.mean(~broken(first, "rollup", 1)[1])
    assert any("left out, as not every model met them: strong" in note for note in report.tables[0].notes)
    both = compare_report(*sides, Shown(), every=True)
    assert both.rows[2]["a"] == np.mean(~(broken(first, "rollup", 1)[1] | broken(extra, "rollup", 1)[1]))
    assert any(note.startswith("warning: not the same attacks") for note in both.tables[0].notes)
    assert both.rows[2]["a"] < report.rows[2]["a"]  # type: ignore[operator]
    toy_record(tmp_path, "gamma", attack="else")
    with pytest.raises(InputError, match="no attack in common"):
        compare(tmp_path, "gamma", "beta")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"dataset": {"sample_list_hash": "sha256:" + "1" * 64}}, "sample list"),
        ({"dataset": {"revision": "file:new"}}, "dataset revision (file:toy and file:new)"),
        ({"hierarchy": {"hash": "sha256:" + "2" * 64}}, "tree"),
        ({"protocol": {"version": 2}}, "protocol (toy-v1 1 and toy-v1 2)"),
        ({"attack": {"eps": "8/255"}}, "threat model (linf 30/255 and linf 8/255)"),
        ({"dataset": {"grid": (16, 16, 1)}}, "pixel grid (8 8 1 and 16 16 1)"),
    ],
)
def test_other_grounds_are_refused_by_name(tmp_path: Path, change: Any, words: str) -> None:
    toy_record(tmp_path, "alpha")
    toy_record(tmp_path, "beta", identity=change)
    with pytest.raises(InputError) as caught:
        compare(tmp_path, "alpha", "beta")
    assert words in str(caught.value) and "cannot be compared" in str(caught.value)


def test_other_samples_under_one_hash_are_refused(tmp_path: Path) -> None:
    toy_record(tmp_path, "alpha", n=40)
    path = toy_record(tmp_path, "beta", n=36)
    from hierbench.evaluation.stored import read_record

    record, alpha = read_record(path), gather(tmp_path, Selection(model="alpha"))[0].record
    dataset = record.identity.dataset.model_copy(update={"sample_list_hash": alpha.identity.dataset.sample_list_hash})
    identity = record.identity.model_copy(update={"dataset": dataset})
    path.write_text(record.model_copy(update={"identity": identity}).to_json())
    with pytest.raises(InputError, match="do not hold the same samples"):
        compare(tmp_path, "alpha", "beta")


def test_sides_are_names_or_files_and_one_model_each(tmp_path: Path) -> None:
    one = toy_record(tmp_path, "d.one", defence="d")
    two = toy_record(tmp_path, "e.two", defence="e", strength=10)
    assert compare(tmp_path, str(one), str(two)).equals(compare(tmp_path, "d", "e.two"))
    with pytest.raises(InputError, match=r"no record of model 'e.tow'; there are e.two"):
        side("e.tow", tmp_path, Selection())
    with pytest.raises(InputError, match="no record of model"):
        side("*", tmp_path, Selection())
    toy_record(tmp_path, "d.three", defence="d")
    with pytest.raises(InputError, match=r"'d' is not one model: the records are of d.one"):
        side("d", tmp_path, Selection())


@pytest.mark.parametrize("form", ["rich", "csv", "latex", "markdown"])
def test_every_format_holds_the_comparison(tmp_path: Path, form: str) -> None:
    toy_record(tmp_path, "alpha", strength=8)
    path = toy_record(tmp_path, "beta", strength=24, identity={"model": {"name": HOSTILE}})
    found = CliRunner().invoke(app, ["compare", "alpha", str(path), "--records", str(tmp_path), "--format", form])
    assert found.exit_code == 0, found.output
    assert "\x1b" not in found.output and "calc" in found.output
    if form == "csv":
        read = pandas.read_csv(io.StringIO(found.output), float_precision="round_trip")
        sides = [side("alpha", tmp_path, Selection()), side(str(path), tmp_path, Selection())]
        rows = compare_report(*sides, Shown()).rows
        for name in ("a", "b", "difference", "difference_low", "p", "p_holm"):
            assert list(read[name]) == [row[name] for row in rows]


def test_latex_of_a_comparison_compiles(pdflatex: str, tmp_path: Path) -> None:
    from reporting.test_paper_tables import _compiles

    toy_record(tmp_path, "alpha", strength=8)
    path = toy_record(tmp_path, "beta", strength=24, identity={"model": {"name": HOSTILE}})
    out = tmp_path / "t.tex"
    arguments = ["--records", str(tmp_path), "--format", "latex", "--standalone", "--out", str(out)]
    assert CliRunner().invoke(app, ["compare", "alpha", str(path), *arguments]).exit_code == 0
    _compiles(pdflatex, out)
