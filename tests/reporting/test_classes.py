"""Any table over the images of some classes: every figure counted again from the verdict files."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from hierbench.cli.app import app
from hierbench.datasets.seen import load_seen
from hierbench.errors import InputError
from hierbench.evaluation.statistics import wilson
from hierbench.reporting.build import LayoutName, make_report
from hierbench.reporting.classes import Classes, over_classes
from hierbench.reporting.collect import Selection
from hierbench.reporting.standings import gather, standings_of
from hierbench.reporting.table import Report

RECORDS = Path(__file__).parents[2] / "leaderboard" / "records"
CIFAR = Selection(protocol="tiny-v1", dataset="cifar100", attack="multilevel_apgd", eps="4/255")
PGD = Selection(protocol="tiny-v1", dataset="cifar100", attack="superclass_pgd", eps="4/255", model="tecoa,hier_aft")


def frame(placed_path: Path, file: str, classes: str) -> pd.DataFrame:
    """The rows of a verdict file that are of these classes."""
    verdicts = pd.read_parquet(placed_path.with_name(file))
    known = np.array(load_seen("seen-v1").known_mask("cifar100"))
    chosen: pd.DataFrame = verdicts[known[verdicts["label"]] == (classes == "seen")]
    return chosen


@pytest.mark.parametrize("classes", ["seen", "unseen"])
@pytest.mark.parametrize("scoring", ["rollup", "direct"])
def test_a_record_of_some_classes_has_their_figures_alone(classes: Classes, scoring: str) -> None:
    checked = 0
    for found, whole in zip(over_classes(gather(RECORDS, PGD), classes), gather(RECORDS, PGD), strict=True):
        rows = frame(found.path, found.record.verdicts.file, classes)
        assert list(found.verdicts.sample_ids) == rows["sample_id"].tolist()
        assert found.record.counts.scored == len(rows) < whole.record.counts.scored
        for entry in found.record.depths:
            scores = getattr(entry, scoring)
            right = ~rows[f"clean_broken_{scoring}_d{entry.depth}"]
            robust = right & ~rows[f"attack_d{entry.depth}_broken_{scoring}_d{entry.depth}"]
            assert (scores.clean.count, scores.robust.count) == (right.sum(), robust.sum())
            assert scores.clean.low == wilson(int(right.sum()), len(rows)).low
            checked += 1
    assert checked


def test_the_two_parts_are_the_whole_at_every_attacked_and_scored_depth() -> None:
    whole, seen, unseen = (over_classes(gather(RECORDS, PGD), of) for of in ("all", "seen", "unseen"))
    for one, first, second in zip(whole, seen, unseen, strict=True):
        cells = zip(one.record.transfer, first.record.transfer, second.record.transfer, strict=True)
        for everything, a, b in cells:
            assert everything.robust.count == a.robust.count + b.robust.count
            assert everything.robust.of == a.robust.of + b.robust.of


@pytest.mark.parametrize("layout", ["methods-datasets", "methods-depths", "methods-attacks", "methods-eps"])
@pytest.mark.parametrize("classes", ["seen", "unseen"])
def test_every_layout_counts_what_the_split_by_classes_counts(layout: LayoutName, classes: Classes) -> None:
    apart = make_report("methods-seen", RECORDS, CIFAR, depth="leaf")
    wanted = {row["model"]: (row["clean"], row["robust"], row["samples"]) for row in apart.rows
              if row["classes"] == classes}  # fmt: skip
    report = make_report(layout, RECORDS, CIFAR, classes=classes, depth="leaf")
    assert {row["model"]: (row["clean"], row["robust"], row["samples"]) for row in report.rows} == wanted
    assert all(row["split"] == f"test, {classes} classes" for row in report.rows)
    counted = {
        "seen": "80 seen classes of 100 (split seen-v1, known to the backbone, no defence was fine-tuned on them)",
        "unseen": "20 unseen classes of 100 (split seen-v1, zero-shot)",
    }
    assert report.tables[0].title.endswith(f", {classes} classes")
    assert report.tables[0].label.endswith(f"-{classes}")
    assert said(report) == f"cifar100: images of the {counted[classes]}; all classes are candidates"


def said(report: Report) -> str:
    (table,) = report.tables
    return next(note for note in table.notes if "candidates" in note)


def test_what_the_defences_were_fine_tuned_on_is_told_from_what_the_backbone_knows() -> None:
    selection = Selection(protocol="tiny-v1", dataset="tiny_imagenet@32", attack="multilevel_apgd", eps="4/255")
    note = said(make_report("methods-depths", RECORDS, selection, classes="seen"))
    assert "160 seen classes of 200" in note
    assert "the defences were fine-tuned on them; of clip known to the backbone alone" in note


def test_figures_over_some_classes_stand_on_a_ground_of_their_own() -> None:
    grounds = {of: standings_of(over_classes(gather(RECORDS, CIFAR), of))[0].ground for of in ("all", "seen", "unseen")}
    assert len(set(grounds.values())) == 3
    assert len({ground.sample_list_hash for ground in grounds.values()}) == 3


@pytest.mark.parametrize(
    ("selection", "classes", "reason"),
    [
        (Selection(protocol="digits-v1"), "unseen", "no image of digits is of such a class (split seen-v1)"),
        (Selection(dataset="cifar10"), "seen", "no image of cifar10 is of such a class (split seen-v1)"),
        (Selection(dataset="nips2017@32"), "seen", "no class split says which classes of nips2017@32 were seen"),
        (CIFAR, "new", "'new' is none of all, seen, unseen"),
    ],
)
def test_a_data_set_without_such_classes_is_refused(selection: Selection, classes: Classes, reason: str) -> None:
    with pytest.raises(InputError) as caught:
        make_report("methods-datasets", RECORDS, selection, classes=classes)
    assert "--classes" in str(caught.value) and reason in str(caught.value)


def test_options_that_contradict_each_other_are_refused() -> None:
    for layout in ("seen", "methods-seen"):
        with pytest.raises(InputError, match=rf"--classes is for .* not {layout}"):
            make_report(layout, RECORDS, CIFAR, classes="seen")
    with pytest.raises(InputError, match="--reported: papers print no figures over the seen classes"):
        make_report("methods-depths", RECORDS, CIFAR, classes="seen", reported=True)


def test_verdicts_that_were_changed_are_refused(tmp_path: Path) -> None:
    found = gather(RECORDS, Selection(protocol="tiny-v1", dataset="cifar100", attack="multilevel_apgd", eps="4/255",
                                      model="tecoa"))[0]  # fmt: skip
    path = tmp_path / found.path.name
    shutil.copy(found.path, path)
    with pytest.raises(InputError, match=r"missing: .* there are no figures over some of the classes"):
        make_report("methods-depths", tmp_path, Selection(), classes="seen")
    verdicts = pd.read_parquet(found.path.with_name(found.record.verdicts.file))
    verdicts["attack_d5_broken_rollup_d5"] = False
    verdicts.to_parquet(tmp_path / found.record.verdicts.file)
    with pytest.raises(InputError, match="another SHA-256"):
        make_report("methods-depths", tmp_path, Selection(), classes="seen")


def test_the_commands_take_it(tmp_path: Path) -> None:
    asked = ["--records", str(RECORDS), "--protocol", "tiny-v1", "--dataset", "cifar100", "--eps", "4/255",
             "--attack", "multilevel_apgd", "--classes", "unseen"]  # fmt: skip
    compared = CliRunner().invoke(app, ["compare", "tecoa", "hier_aft", *asked])
    assert compared.exit_code == 0, compared.stderr
    assert "170 images of cifar100 test, unseen classes" in " ".join(compared.stdout.split())
    assert "20 unseen classes of 100" in " ".join(compared.stdout.split())
    drawn = CliRunner().invoke(app, ["plot", "plane", *asked, "--out", str(tmp_path / "plane.svg")])
    assert drawn.exit_code == 0 and "20 unseen classes of 100" in " ".join(drawn.stdout.split())
    refused = CliRunner().invoke(app, ["table", "--layout", "methods-depths", *asked[:-1], "new"])
    assert refused.exit_code != 0 and "'new'" in refused.stderr
