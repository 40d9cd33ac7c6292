"""Seen and unseen classes apart: counted again from the verdict files."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from hierbench.datasets.seen import load_seen
from hierbench.errors import InputError
from hierbench.reporting.build import make_report
from hierbench.reporting.collect import Selection

RECORDS = Path(__file__).parents[2] / "leaderboard" / "records"
CIFAR = Selection(protocol="tiny-v1", dataset="cifar100", attack="multilevel_apgd", eps="4/255")


def test_every_figure_is_a_count_over_the_classes_of_its_group() -> None:
    report = make_report("methods-seen", RECORDS, CIFAR, depth="1,leaf")
    known = np.array(load_seen("seen-v1").known_mask("cifar100"))
    checked = 0
    for row in report.rows:
        folder = RECORDS / "tiny-v1" / str(row["model"])
        names = [json.loads(p.read_text(encoding="utf-8"))["verdicts"]["file"]
                 for p in folder.glob("cifar100.*.multilevel_apgd.rollup.linf-4_255.*.json")]  # fmt: skip
        verdicts = pd.read_parquet(folder / names[0])
        group = verdicts[known[verdicts["label"]] == (row["classes"] == "seen")]
        clean = ~group[f"clean_broken_rollup_d{row['depth']}"]
        robust = clean & ~group[f"attack_d5_broken_rollup_d{row['depth']}"]
        assert len(names) == 1 and row["samples"] == len(group)
        assert (row["clean"], row["robust"]) == pytest.approx((clean.mean(), robust.mean()))
        checked += 1
    assert checked == 4 * len({row["model"] for row in report.rows})


def test_the_groups_are_all_of_the_images() -> None:
    report = make_report("methods-seen", RECORDS, CIFAR)
    both = {row["classes"]: row["samples"] for row in report.rows}
    assert sum(both.values()) == 300 or sum(both.values()) == 883  # the protocol's lists
    (table,) = report.tables
    assert table.groups[1:] == ("seen classes", "seen classes", "unseen classes", "unseen classes")


def test_a_data_set_without_unseen_classes_is_refused() -> None:
    with pytest.raises(InputError, match="methods-seen: training may use every class of digits"):
        make_report("methods-seen", RECORDS, Selection(protocol="digits-v1"))
