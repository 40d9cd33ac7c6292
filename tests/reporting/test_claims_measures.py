"""What claims compare besides accuracy: what an attack broke, and whether nodes and margins grow with depth."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from hierbench.errors import InputError
from hierbench.evaluation.statistics import mcnemar
from hierbench.reporting.claims.evidence import Evidence
from hierbench.reporting.claims.file import Claim, read_claims
from hierbench.reporting.claims.judge import judge
from hierbench.reporting.claims.margins import read_margins
from hierbench.reporting.claims.report import claims_report
from hierbench.reporting.collect import Selection
from hierbench.reporting.standings import gather

ROOT = Path(__file__).parents[2]
STUDY = ROOT / "leaderboard" / "study"
TEXT = """
name = "test"
title = "Claims of a test"
protocol = "tiny-v1"
seeds = ["-s1", "-s2", "-s3"]
[[claim]]
id = "one"
statement = "Texts of many classes break more"
source = "a test"
printed = "nothing"
otherwise = "nobody knows"
"""
SUCCESS = """
[[claim.contrast]]
models = ["clean_ft.tiny"]
datasets = ["cifar100"]
depths = ["leaf"]
scored_by = "direct"
measure = "success"
first = { attack = "text_synonyms", aimed = "leaf" }
second = { attack = "text_synonyms", aimed = 2, depth = 2 }
"""
MARGIN = """
[[claim.contrast]]
models = ["hier_aft.tiny"]
datasets = ["cifar100"]
measure = "margin"
"""


@pytest.fixture
def claim(tmp_path: Path) -> Callable[[str], Any]:
    def read(contrast: str) -> Any:
        path = tmp_path / "claims.toml"
        path.write_text(TEXT + contrast, encoding="utf-8")
        return read_claims(path)

    return read


def test_success_is_counted_over_what_both_sides_have_right(claim: Callable[[str], Any]) -> None:
    evidence = Evidence(gather(STUDY, Selection(protocol="tiny-v1", model="clean_ft", attack="text_synonyms")))
    ((finding,),) = [entry.findings for entry in judge(claim(SUCCESS), evidence)]
    assert finding.seeds == 3
    samples = []
    for seed, difference, test in zip((1, 2, 3), finding.differences, finding.tests, strict=True):
        (path,) = (STUDY / "tiny-v1" / f"clean_ft.tiny-s{seed}").glob("*.text_synonyms.direct.*.parquet")
        rows = pd.read_parquet(path)
        rows = rows[~rows["clean_broken_direct_d5"] & ~rows["clean_broken_direct_d2"]]
        leaf, above = rows["attack_d5_broken_direct_d5"], rows["attack_d2_broken_direct_d2"]
        assert difference == pytest.approx(leaf.mean() - above.mean())
        assert test == mcnemar(leaf, above)
        samples.append(len(rows))
    assert finding.samples == min(samples) < 300


def test_a_side_scored_at_another_depth_says_so(claim: Callable[[str], Any]) -> None:
    table = claims_report(claim(SUCCESS), STUDY).tables[1]
    line = next(row for row in table.rows if str(row[0].content).startswith("clean_ft"))
    assert "at the leaves − at depth 2, share broken" in str(line[0].content) and line[2].content == "leaf and 2"


def norms(tmp_path: Path, **row: Any) -> Path:
    path = tmp_path / "norms.json"
    whole = {"cell": "hier_aft.tiny-s1/cifar100", "protocol": "tiny-v1",
             "margin_growth": {"n": 10, "grew": 7, "shrank": 2}, **row}  # fmt: skip
    path.write_text(json.dumps({"rows": [whole]}), encoding="utf-8")
    return path


def test_growth_is_the_share_that_grew_less_the_share_that_shrank(claim: Callable[[str], Any], tmp_path: Path) -> None:
    evidence = Evidence([], read_margins("tiny-v1", norms(tmp_path)))
    ((finding,),) = [entry.findings for entry in judge(claim(MARGIN), evidence)]
    assert finding.differences == (pytest.approx(0.5),) and finding.samples == 10
    assert finding.p_value == pytest.approx(2 * sum((1, 9, 36)) / 2**9), "the exact sign test of 7 against 2"
    assert finding.verdict == "not shown", "one seed shows nothing"
    assert read_margins("digits-v1", norms(tmp_path)) == {}


@pytest.mark.parametrize(
    "row",
    [
        {"margin_growth": {"n": 3, "grew": 2, "shrank": 2}},
        {"margin_growth": {"n": 0, "grew": 0, "shrank": 0}},
        {"margin_growth": {"n": 1.5, "grew": 1, "shrank": 0}},
        {"margin_growth": {"n": 9 * 10**15, "grew": 1, "shrank": 0}},
        {"margin_growth": {}},
        {"margin_growth": None},
        {"cell": 5, "margin_growth": [1]},
    ],
)
def test_counts_that_cannot_be_are_refused(tmp_path: Path, row: dict[str, Any]) -> None:
    path = norms(tmp_path, **row)
    with pytest.raises(InputError, match=r"norms\.json: not a record of benchmarks/norms\.py"):
        read_margins("tiny-v1", path)
    with pytest.raises(InputError, match=r"none\.json: No such file"):
        read_margins("tiny-v1", tmp_path / "none.json")


def test_the_project_s_own_counts_are_read() -> None:
    found = read_margins("tiny-v1")
    (images,) = {len(pair.first) for (model, dataset), pair in found.items() if dataset == "cifar100"}
    assert images == 883 and ("hier_aft.tiny", "cifar100") in found


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ('measure = "margin"\ndepths = [1]', "depths: known are datasets, models, measure"),
        ('measure = "margin"\nfirst = { attack = "none" }', "first: known are"),
        ('measure = "size"', "measure: 'size' is none of accuracy, rank_preservation, success, margin"),
    ],
)
def test_a_measure_of_models_has_no_sides(claim: Callable[[str], Any], change: str, reason: str) -> None:
    whole = MARGIN.replace('measure = "margin"', change)
    if "size" in change:
        whole += 'depths = [1]\nfirst = { attack = "none" }\nsecond = { attack = "none" }\n'
    with pytest.raises(InputError) as caught:
        claim(whole)
    assert reason in str(caught.value)


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ("depth = 2 }", "depth = 0 }", "second.depth: 0 is no depth"),
        ('measure = "success"', 'measure = "accuracy"', "second.depth: only the second side of measure 'success'"),
        ('aimed = "leaf" }', 'aimed = "leaf", depth = 1 }', "first.depth: only the second side of measure 'success'"),
        ('first = { attack = "text_synonyms"', 'first = { attack = "none"', "first.attack: 'none' breaks nothing"),
    ],
)
def test_a_side_says_only_what_its_measure_asks(claim: Callable[[str], Any], old: str, new: str, reason: str) -> None:
    assert old in SUCCESS
    with pytest.raises(InputError) as caught:
        claim(SUCCESS.replace(old, new))
    assert reason in str(caught.value)


def test_margins_have_no_attack_or_depth_in_the_long_form(claim: Callable[[str], Any]) -> None:
    (row,) = claims_report(claim(MARGIN), STUDY).rows
    assert all(row[name] is None for name in ("depth", "scored_by", "first_attack", "second_eps", "first_depth"))
    notes = claims_report(claim(SUCCESS), STUDY).tables[1].notes
    assert any("share broken" in note for note in notes) and not any("sign test" in note for note in notes)


def test_a_claim_may_be_of_margins_alone(claim: Callable[[str], Any]) -> None:
    (read,) = claim(MARGIN).claims
    assert isinstance(read, Claim)
    assert (
        read.contrasts[0].words() == "hier_aft.tiny: images of larger margin at the leaves than at depth 1 − the others"
    )


def test_equal_cost_is_what_was_trained() -> None:
    """The epochs of the plan were worked out by hand; the training records count the passes."""
    folder = ROOT / "leaderboard" / "trainings" / "tiny-v1"

    def passes(path: Path) -> int:
        run = json.loads(path.read_text(encoding="utf-8"))["run"]
        return int(run["forwards"] + run["backwards"])

    others = sorted(folder.glob("*-equal-cost.json"))
    assert others
    for path in others:
        assert passes(path) == pytest.approx(passes(folder / "tecoa.tiny-s1.json"), rel=0.02), path.name
