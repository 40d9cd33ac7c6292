"""Claims: read from a file, tested on the committed records, and judged by rules that are checked one by one."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from hierbench.cli.app import app, run
from hierbench.errors import InputError
from hierbench.evaluation.records import Record
from hierbench.evaluation.statistics import McNemar, holm, mcnemar
from hierbench.evaluation.verdicts import Verdicts
from hierbench.paths import data_dir
from hierbench.reporting.claims.evidence import Evidence, Pair
from hierbench.reporting.claims.file import Claim, Contrast, Side, find_claims, read_claims
from hierbench.reporting.claims.judge import Finding, Judged, judge, verdict_of
from hierbench.reporting.claims.report import claims_report, judged_records
from hierbench.reporting.collect import Selection
from hierbench.reporting.plots.claims import draw_claims
from hierbench.reporting.standings import gather

RECORDS = Path(__file__).parents[2] / "leaderboard" / "records"
TEXT = """
name = "test"
title = "Claims of a test"
protocol = "digits-v1"
seeds = ["", "-s1", "-s2"]

[[claim]]
id = "one"
statement = "Superclass attacks are worse for superclasses"
source = "a test"
printed = "{tecoa|mean of 15|clean} there"
reported = "hier_aft-paper"
otherwise = "nobody knows"
[[claim.contrast]]
models = ["clip", "tecoa.digits"]
datasets = ["digits"]
depths = [1, "leaf"]
first = { attack = "leaf_pgd" }
second = { attack = "superclass_pgd", aimed = 1 }

[[claim]]
id = "two"
statement = "Hier-AFT keeps more than TeCoA"
source = "a test"
printed = "nothing"
otherwise = "nobody knows"
[[claim.contrast]]
datasets = ["digits"]
depths = ["leaf"]
first = { model = "hier_aft.digits", attack = "multilevel_apgd" }
second = { model = "tecoa.digits", attack = "multilevel_apgd" }
"""


@pytest.fixture
def claims_file(tmp_path: Path) -> Callable[..., Path]:
    def write(text: str = TEXT) -> Path:
        path = tmp_path / "claims.toml"
        path.write_text(text, encoding="utf-8")
        return path

    return write


def verdicts(model: str, attack: str) -> pd.DataFrame:
    (path,) = (RECORDS / "digits-v1" / model).glob(f"*.{attack}.rollup.*.parquet")
    return pd.read_parquet(path)


def test_a_contrast_is_the_difference_of_two_columns_of_the_verdict_files(claims_file: Callable[..., Path]) -> None:
    claims = read_claims(claims_file())
    found = judge(claims, Evidence(gather(RECORDS, Selection(protocol="digits-v1"))))[0].findings
    for finding in found:
        contrast = finding.contrast
        leaf, above = (verdicts(contrast.first.model, name) for name in ("leaf_pgd", "superclass_pgd"))
        depth = 3 if contrast.depth == "leaf" else contrast.depth
        clean = leaf[f"clean_broken_rollup_d{depth}"]
        first = ~(leaf[f"attack_d3_broken_rollup_d{depth}"] | clean)
        second = ~(above[f"attack_d1_broken_rollup_d{depth}"] | above[f"clean_broken_rollup_d{depth}"])
        assert finding.samples == len(leaf) == 360 and finding.seeds == 1
        assert finding.differences == (pytest.approx(first.mean() - second.mean()),)
        assert finding.tests == (mcnemar(first, second),)
        assert finding.verdict == "not shown", "one seed shows nothing"
    assert found[0].differences[0] > 0.3, "on the undefended digits the two attacks differ by far"


def test_holm_is_over_every_measured_contrast_of_the_file(claims_file: Callable[..., Path]) -> None:
    judged = judge(read_claims(claims_file()), Evidence(gather(RECORDS, Selection(protocol="digits-v1"))))
    found = [finding for entry in judged for finding in entry.findings]
    assert [f.p_holm for f in found] == list(holm([f.p_value for f in found if f.p_value is not None]))
    assert len(found) == 5


def test_a_record_off_its_protocol_is_no_evidence(claims_file: Callable[..., Path]) -> None:
    """Images of another split were scored beside the protocol's: they must not stand in for them."""
    text = TEXT.split("[[claim]]")[0].replace("digits-v1", "tiny-v1") + "[[claim]]" + TEXT.split("[[claim]]")[2]
    text = text.replace('"digits"', '"tiny_imagenet@32"').replace(".digits", ".tiny").replace("multilevel_apgd", "apgd")
    placed = gather(RECORDS, Selection(protocol="tiny-v1", dataset="tiny_imagenet@32", attack="apgd"))
    assert placed and all(p.record.identity.dataset.split == "heldout" for p in placed)
    ((finding,),) = [entry.findings for entry in judge(read_claims(claims_file(text)), Evidence(placed))]
    assert finding.verdict == "not measured"


def pair(first: list[int], second: list[int]) -> Pair:
    return Pair(np.array(first, dtype=bool), np.array(second, dtype=bool))


class Told(Evidence):
    """Evidence that says what it was told."""

    def __init__(self, pairs: list[Pair | None]) -> None:
        self._pairs = pairs

    def pairs(self, contrast: Contrast, seeds: object) -> list[Pair | None]:
        return self._pairs


def judged_on(claims_file: Callable[..., Path], pairs: list[Pair | None]) -> Finding:
    text = TEXT.split("[[claim]]")
    claims = read_claims(claims_file("[[claim]]".join([text[0], text[2]])))
    ((finding,),) = [entry.findings for entry in judge(claims, Told(pairs))]
    return finding


def test_the_interval_is_students_over_the_seeds_and_p_the_worst_of_them(claims_file: Callable[..., Path]) -> None:
    pairs = [pair([1] * 90 + [0] * 10, [1] * k + [0] * (100 - k)) for k in (60, 62, 64)]
    finding = judged_on(claims_file, list(pairs))
    assert finding.differences == pytest.approx((0.3, 0.28, 0.26))
    half = 4.302652729911275 * 0.02 / 3**0.5  # t(2) at 97.5 %
    assert (finding.low, finding.high) == pytest.approx((0.28 - half, 0.28 + half))
    assert finding.p_value == max(mcnemar(p.first, p.second).p_value for p in pairs)
    assert finding.verdict == "held"


@pytest.mark.parametrize(
    ("losses", "verdict"),
    [
        ((30, 28), "not shown"),  # two seeds
        ((30, 28, -26), "not shown"),  # a seed the other way: the mean is smaller than n can show
        ((40, 38, -6), "not shown"),  # and here it is not, and says nothing either way
        ((30, 28, 2), "not shown"),  # the interval over the seeds reaches 0
        ((-30, -28, -26), "did not hold"),  # the other way round
        ((-40, -38, 6), "did not hold"),  # a seed the other way, and the mean below 0 by more than n can find
        ((-3, -2, -3), "not shown"),  # against the claim, and smaller than n can show
        ((2, 3, 2), "not shown"),  # all above 0, and smaller than n can show
        ((30, 29, 28), "held"),
    ],
)
def test_what_is_held_shown_and_not(claims_file: Callable[..., Path], losses: tuple[int, ...], verdict: str) -> None:
    pairs: list[Pair | None] = []
    for loss in losses:
        first, second = [1] * 50 + [0] * 50, [1] * (50 - abs(loss)) + [0] * (50 + abs(loss))
        flips = [1 - first[70]], [first[70]]  # one pair the other way, so that the two disagree in both directions
        one, other = [*first, *flips[0]], [*second, *flips[1]]
        pairs.append(pair(other, one) if loss < 0 else pair(one, other))
    assert judged_on(claims_file, pairs).verdict == verdict


@dataclasses.dataclass
class Shown:
    """A committed record under another name, with what a test says of its samples."""

    record: Record
    verdicts: Verdicts


def shown(model: str, *, tree: str | None = None, overlap: list[float] | None = None, flip: bool = False) -> Shown:
    """Return the digits record of tecoa as that of ``model``: on ``tree``, all broken (``flip``), with ``overlap``."""
    (found,) = gather(RECORDS, Selection(protocol="digits-v1", model="tecoa.digits", attack="leaf_pgd"))
    identity = found.record.identity
    changed = {"model": identity.model.model_copy(update={"name": model})}
    if tree is not None:
        said = (f"tree: {identity.hierarchy.name} -> {tree}",)
        changed["protocol"] = identity.protocol.model_copy(update={"deviations": said})  # type: ignore[assignment]
        changed["hierarchy"] = identity.hierarchy.model_copy(update={"name": tree})  # type: ignore[assignment]
    verdicts, depth = found.verdicts, found.verdicts.num_depths
    attack = verdicts.attacked[depth]
    if flip:
        attack = dataclasses.replace(attack, broken_rollup=np.ones_like(attack.broken_rollup))
    if overlap is not None:
        padded = overlap + [np.nan] * (len(verdicts.labels) - len(overlap))
        attack = dataclasses.replace(attack, severity_overlap=np.array(padded))
    verdicts = dataclasses.replace(verdicts, attacked={depth: attack})
    return Shown(found.record.model_copy(update={"identity": identity.model_copy(update=changed)}), verdicts)


def one_contrast(claims_file: Callable[..., Path], contrast: str) -> Contrast:
    head, *_ = TEXT.split("[[claim.contrast]]")
    ((made,),) = [claim.contrasts for claim in read_claims(claims_file(f"{head}[[claim.contrast]]\n{contrast}")).claims]
    return made


def test_a_side_on_a_control_tree_is_looked_for_there_and_the_other_is_not(claims_file: Callable[..., Path]) -> None:
    text = """
        models = ["tecoa.digits"]
        datasets = ["digits"]
        depths = ["leaf"]
        first = { attack = "leaf_pgd" }
        second = { attack = "leaf_pgd", tree = "strokes-shuffled1" }
    """
    contrast = one_contrast(claims_file, text)
    assert contrast.words() == "tecoa.digits: leaf_pgd in its tree − leaf_pgd in strokes-shuffled1"
    own, control = shown("tecoa.digits"), shown("tecoa.digits", tree="strokes-shuffled1", flip=True)
    other = shown("tecoa.digits", tree="strokes-shuffled2")
    found = Evidence([own, control, other]).pair(contrast, "")  # type: ignore[list-item]
    assert found is not None and found.first.any() and not found.second.any()
    assert Evidence([own, other]).pair(contrast, "") is None  # type: ignore[list-item]
    assert Evidence([control, other]).pair(contrast, "") is None  # type: ignore[list-item]


def test_ranks_are_compared_by_sample_and_tested_by_sign_flips(claims_file: Callable[..., Path]) -> None:
    text = """
        datasets = ["digits"]
        depths = ["leaf"]
        measure = "rank_preservation"
        first = { model = "a.v", attack = "leaf_pgd" }
        second = { model = "b.v", attack = "leaf_pgd" }
    """
    contrast = one_contrast(claims_file, text)
    assert contrast.words() == "a.v − b.v: leaf_pgd, rank preservation"
    values = [0.25, 1.0, 0.5] * 20
    placed = [shown(f"a.v{seed}", overlap=[v * 0.9 for v in values] + [0.5]) for seed in ("", "-s1", "-s2")]
    placed += [shown(f"b.v{seed}", overlap=[v * 0.6 for v in values]) for seed in ("", "-s1", "-s2")]
    claims = read_claims(claims_file(TEXT.split("[[claim.contrast]]")[0] + f"[[claim.contrast]]\n{text}"))
    ((finding,),) = [entry.findings for entry in judge(claims, Evidence(placed))]  # type: ignore[arg-type]
    assert finding.samples == 60, "only samples that both searched in full"
    assert finding.differences == pytest.approx((0.175,) * 3)
    assert finding.p_value == pytest.approx(1 / 20_001)
    assert finding.detectable == pytest.approx(2.8016 * 0.3 * np.std(values, ddof=1) / 60**0.5, rel=1e-3)
    assert finding.verdict == "held"
    bare = [shown("a.v"), shown("b.v")]
    assert Evidence(bare).pair(contrast, "") is None, "a record without ranks is none"  # type: ignore[arg-type]


def test_nothing_is_shown_where_a_record_is_missing(claims_file: Callable[..., Path]) -> None:
    assert judged_on(claims_file, [None, None, None]).verdict == "not measured"
    some = pair([1] * 90 + [0] * 10, [1] * 40 + [0] * 60)
    assert judged_on(claims_file, [some, None, some]).verdict == "not shown"


def finding_of(**said: object) -> Finding:
    side = Side(model="m.v", attack="none", stopped_by="rollup", eps="1/255")
    contrast = Contrast(
        dataset="digits", depth=1, scored_by="rollup", classes="all", first=side, second=side, least=0.1
    )
    given: dict[str, object] = {
        "contrast": contrast, "samples": 100, "differences": (0.2, 0.2, 0.2), "tests": (McNemar(20, 0, 1e-6),) * 3,
        "mean": 0.2, "low": 0.15, "high": 0.25, "p_value": 1e-6, "p_holm": 0.001, "detectable": 0.1,
        "verdict": "not shown",
    }  # fmt: skip
    return Finding(**{**given, **said})  # type: ignore[arg-type]


def test_a_difference_must_be_larger_than_what_would_matter() -> None:
    assert verdict_of(finding_of()) == "held"
    assert verdict_of(finding_of(low=0.05)) == "not shown"
    assert verdict_of(finding_of(p_holm=0.06)) == "not shown"
    assert verdict_of(finding_of(low=0.02, high=0.08)) == "did not hold", "wholly below what would matter"


def test_a_claim_is_as_good_as_its_worst_contrast() -> None:
    claim = Claim(id="c", statement="s", source="s", printed="p", otherwise="o", contrasts=())
    kinds = {v: finding_of(verdict=v) for v in ("held", "not measured", "not shown", "did not hold")}
    for count, worst in enumerate(kinds, start=1):
        assert Judged(claim, tuple(list(kinds.values())[:count])).verdict == worst
    assert Judged(claim, (kinds["not measured"], kinds["not shown"])).verdict == "not shown"


def test_the_tables_say_what_is_printed_and_what_was_found(claims_file: Callable[..., Path]) -> None:
    report = claims_report(read_claims(claims_file()), RECORDS)
    summary, details = report.tables
    first = [value.content for value in summary.rows[0]]
    assert first == ["Superclass attacks are worse for superclasses", "52.62 there", "not shown", "4 not shown", ""]
    assert len(report.rows) == 5 and {row["claim"] for row in report.rows} == {"one", "two"}
    said = [row[0].content for row in details.rows]
    assert "clip: leaf_pgd − superclass_pgd at depth 1" in said
    assert "hier_aft.digits − tecoa.digits: multilevel_apgd" in said


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ('protocol = "digits-v1"', 'protocol = "digit-v1"', "protocol: "),
        ('id = "two"', 'id = "one"', "claim: id 'one' is there twice"),
        ('otherwise = "nobody knows"\n[[claim.contrast]]\nmodels', "[[claim.contrast]]\nmodels", "otherwise: missing"),
        ("depths = [1,", "depths = [0,", "contrast[0].depths: 0 is no depth"),
        ('datasets = ["digits"]', 'datasets = ["cifar100"]', "datasets: 'cifar100' is none of the protocol's"),
        ('first = { attack = "leaf_pgd" }', 'first = { atack = "leaf_pgd" }', "first.atack: did you mean 'attack'"),
        ('models = ["clip", "tecoa.digits"]\n', "", "first.model: missing"),
        ("{tecoa|mean of 15|clean}", "{tecoa|mean of 16|clean}", "0 such figures are reported"),
        ('name = "test"', "name = test", "not valid TOML"),
        ('depths = ["leaf"]', 'depths = ["leaf"]\nmeasure = "rank"', "measure: 'rank' is none of accuracy, rank_pres"),
        (
            'first = { attack = "leaf_pgd" }',
            'first = { attack = "leaf_pgd", tree = "stroke" }',
            "first.tree: unknown hier",
        ),
        ("depths = [1,", 'measure = "rank_preservation"\ndepths = [1,', "depths: ranks are those of the leaves"),
        ('depths = ["leaf"]', 'depths = ["leaf"]\nclasses = "new"', "classes: 'new' is none of all, seen, unseen"),
    ],
)
def test_a_malformed_file_is_refused_by_key(claims_file: Callable[..., Path], old: str, new: str, words: str) -> None:
    assert old in TEXT
    with pytest.raises(InputError) as caught:
        read_claims(claims_file(TEXT.replace(old, new, 1) if old != 'id = "two"' else TEXT.replace(old, new)))
    assert words in str(caught.value) and "\n" not in str(caught.value)


def test_every_shipped_file_can_be_read() -> None:
    names = sorted(path.stem for path in (data_dir() / "leaderboard" / "claims").glob("*.toml"))
    assert names == ["tiny-v1"]
    for name in names:
        assert read_claims(find_claims(name)).name == name
    with pytest.raises(InputError, match=r"give a .toml file, or one of tiny-v1"):
        find_claims("nothing")


def test_a_file_that_is_there_is_read_whatever_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("README.md").write_text("# not TOML at all", encoding="utf-8")
    with pytest.raises(InputError, match=r"claims README.md: (not valid TOML|name: missing)"):
        read_claims(find_claims("README.md"))


def test_the_command_writes_every_format(claims_file: Callable[..., Path], tmp_path: Path) -> None:
    path = str(claims_file())
    for form in ("markdown", "latex", "csv", "rich"):
        result = CliRunner().invoke(app, ["claims", path, "--records", str(RECORDS), "--format", form])
        assert result.exit_code == 0 and "not shown" in result.output
    assert run(["claims", "nothing"]) == 2


def test_the_picture_has_a_row_for_every_measured_contrast(claims_file: Callable[..., Path], tmp_path: Path) -> None:
    path, out = str(claims_file()), tmp_path / "claims.svg"
    assert run(["plot", "claims", path, "--records", str(RECORDS), "--out", str(out)]) == 0
    first = out.read_bytes()
    assert run(["plot", "claims", path, "--records", str(RECORDS), "--out", str(out)]) == 0
    assert out.read_bytes() == first, "the same bytes each time"
    judged, _ = judged_records(read_claims(claims_file()), RECORDS)
    drawn: list[tuple[float, float]] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            "hierbench.reporting.plots.claims._draw", lambda axes, place, f, label: drawn.append((place, f.mean))
        )
        draw_claims(judged, tmp_path / "again.svg")
    assert [mean for _, mean in drawn] == [f.mean for entry in judged for f in entry.findings]
    with pytest.raises(InputError, match="no contrast of the claims was measured"):
        draw_claims([], out)
