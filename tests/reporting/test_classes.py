"""Any table over the images of some classes: every figure counted again from the verdict files."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from hierbench.cli.app import app
from hierbench.datasets.seen import load_seen
from hierbench.errors import InputError
from hierbench.evaluation.statistics import wilson
from hierbench.evaluation.storage import digest_file
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
    for found, whole in zip(over_classes(gather(RECORDS, PGD), classes).placed, gather(RECORDS, PGD), strict=True):
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
    whole, seen, unseen = (over_classes(gather(RECORDS, PGD), of).placed for of in ("all", "seen", "unseen"))
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
        "seen": "80 seen classes of 100, all of them candidates (split seen-v1, known to the backbone, no defence was "
        "fine-tuned on them)",
        "unseen": "20 unseen classes of 100, all of them candidates (split seen-v1, zero-shot)",
    }
    assert report.tables[0].title.endswith(f", {classes} classes")
    assert report.tables[0].label.endswith(f"-{classes}")
    assert said(report) == f"cifar100: images of the {counted[classes]}"


def said(report: Report) -> str:
    (table,) = report.tables
    return next(note for note in table.notes if "candidates" in note)


def test_what_the_defences_were_fine_tuned_on_is_told_from_what_the_backbone_knows() -> None:
    selection = Selection(protocol="tiny-v1", dataset="tiny_imagenet@32", attack="multilevel_apgd", eps="4/255")
    note = said(make_report("methods-depths", RECORDS, selection, classes="seen"))
    assert "160 seen classes of 200" in note
    assert "the defences were fine-tuned on them; of clip known to the backbone alone" in note


def test_figures_over_some_classes_stand_on_a_ground_of_their_own() -> None:
    grounds = {
        of: standings_of(over_classes(gather(RECORDS, CIFAR), of).placed)[0].ground for of in ("all", "seen", "unseen")
    }
    assert len(set(grounds.values())) == 3
    assert len({ground.sample_list_hash for ground in grounds.values()}) == 3


@pytest.mark.parametrize(
    ("selection", "classes", "reason"),
    [
        (Selection(protocol="digits-v1"), "unseen", "no class of digits is unseen (split seen-v1)"),
        (Selection(dataset="cifar10"), "seen", "no class of cifar10 is seen (split seen-v1)"),
        (Selection(dataset="nips2017@32"), "seen", "no class split says which classes of nips2017@32 were seen"),
        (CIFAR, "new", "'new' is none of all, seen, unseen"),
    ],
)
def test_a_data_set_without_such_classes_is_refused(selection: Selection, classes: Classes, reason: str) -> None:
    with pytest.raises(InputError) as caught:
        make_report("methods-datasets", RECORDS, selection, classes=classes)
    assert "--classes" in str(caught.value) and reason in str(caught.value)


def test_one_data_set_without_such_classes_is_left_out_and_said_to_be() -> None:
    selection = Selection(protocol="tiny-v1", dataset="cifar100,nips2017@32", attack="multilevel_apgd", eps="4/255")
    report = make_report("methods-datasets", RECORDS, selection, classes="unseen")
    assert {row["dataset"] for row in report.rows} == {"cifar100"}
    assert "left out: no class split says which classes of nips2017@32 were seen" in report.tables[0].notes


def test_each_table_names_the_classes_of_its_own_data_set() -> None:
    asked = ["--records", str(RECORDS), "--protocol", "tiny-v1", "--eps", "4/255", "--attack", "multilevel_apgd",
             "--dataset", "cifar100,cifar10,tiny*", "--classes", "unseen", "--depth", "leaf"]  # fmt: skip
    result = CliRunner().invoke(app, ["compare", "tecoa", "hier_aft", *asked, "--format", "markdown"])
    assert result.exit_code == 0, result.output
    tables = result.output.split(r"**tecoa.tiny \(A\)")[1:]
    assert len(tables) == 3
    for part in tables:
        assert part.count("unseen classes of") == 1
    depths = [next(line for line in part.splitlines() if line.startswith("| clean")).split("|")[2] for part in tables]
    assert sorted(int(depth) for depth in depths) == [3, 5, 5], "the leaves of each tree"


def test_options_that_contradict_each_other_are_refused() -> None:
    for layout in ("seen", "methods-seen", "depths"):
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


def damaged(folder: Path, change: Callable[[pd.DataFrame], pd.DataFrame]) -> Path:
    """A record of tecoa.tiny whose verdicts were changed by somebody who knows how to hash them."""
    found = gather(RECORDS, replace(CIFAR, model="tecoa"))[0]
    name = found.record.verdicts.file
    change(pd.read_parquet(found.path.with_name(name))).to_parquet(folder / name)
    content = json.loads(found.path.read_text(encoding="utf-8"))
    content["verdicts"]["sha256"] = digest_file(folder / name)
    (folder / found.path.name).write_text(json.dumps(content), encoding="utf-8")
    return folder


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda rows: rows.assign(label=[-1, *rows["label"][1:]]), "labels that are none of the 100 classes"),
        (lambda rows: rows.assign(label=[999, *rows["label"][1:]]), "labels that are none of the 100 classes"),
        (lambda rows: rows.assign(label=rows["label"] + 0.5), "labels that are none of the 100 classes"),
        (lambda rows: rows.assign(label=rows["label"].astype(str)), "labels that are none of the 100 classes"),
        (lambda rows: rows.assign(clean_prediction=5000), "clean predictions that are none of the 100 classes"),
        (lambda rows: rows[:100], "its verdicts are of 100 samples, not of 883"),
        (lambda rows: rows.drop(columns=[c for c in rows if c.startswith("attack_")]), "its verdicts hold no attack"),
        (lambda rows: rows.assign(attack_dx_prediction=0), "cannot be read"),
    ],
)
def test_verdicts_that_do_not_fit_their_record_are_one_line_that_names_it(
    tmp_path: Path, change: Callable[[pd.DataFrame], pd.DataFrame], reason: str
) -> None:
    with pytest.raises(InputError) as caught:
        make_report("methods-depths", damaged(tmp_path, change), Selection(), classes="seen")
    assert reason in str(caught.value) and str(tmp_path) in str(caught.value) and "\n" not in str(caught.value)


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
