"""A larger ball holds the smaller one: an attack that leaves more there has failed."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

from reporting.toy_records import toy_record

from hierbench.board.verify import orderings
from hierbench.board.verify.figures import Cell
from hierbench.board.verify.orderings import rising_with_eps
from hierbench.evaluation.stored import read_record
from hierbench.evaluation.verdicts import read_verdicts
from hierbench.paths import data_dir


def cells(*paths: Path) -> list[Cell]:
    read = [(path, read_record(path), read_verdicts(path.with_suffix(".parquet"))) for path in paths]
    return [Cell(path, record, verdicts, cast("Any", None)) for path, record, verdicts in read]


def test_more_left_at_a_larger_radius_is_refused(tmp_path: Path) -> None:
    hard, weak = toy_record(tmp_path, eps="20/255", strength=20), toy_record(tmp_path, eps="30/255", strength=3)
    for given in (cells(hard, weak), cells(weak, hard)):
        ((path, reason),) = rising_with_eps(given)
        assert path == weak and reason.startswith("depths.0: first leaves ")
        assert "more samples right at eps 30/255 than at 20/255" in reason


def test_less_left_or_chance_is_no_finding(tmp_path: Path) -> None:
    soft, hard = toy_record(tmp_path, eps="20/255", strength=12), toy_record(tmp_path, eps="30/255", strength=30)
    assert not list(rising_with_eps(cells(soft, hard)))
    few, same = (
        toy_record(tmp_path, eps="20/255", strength=10, n=12),
        toy_record(tmp_path, eps="30/255", strength=9, n=12),
    )
    assert not list(rising_with_eps(cells(few, same)))


def test_only_where_the_attack_aimed_is_looked_at(tmp_path: Path) -> None:
    """A search of the leaves stops at its first success there, however little that changes above."""
    for depths, found in (((2,), 0), ((1,), 1)):
        hard = toy_record(tmp_path, eps="20/255", strength=20, depths=depths)
        weak = toy_record(tmp_path, eps="30/255", strength=20, depths=depths)
        small, large = cells(hard, weak)
        right = large.verdicts.attacked[depths[0]].broken_rollup
        right[:, 0] = large.verdicts.clean.broken_rollup[:, 0]
        assert len(list(rising_with_eps([small, large]))) == found


def test_samples_are_matched_by_name(tmp_path: Path) -> None:
    """The longer list at the larger radius holds samples that nobody asked about at the smaller one."""
    hard = toy_record(tmp_path, eps="20/255", strength=20, n=40)
    weak = toy_record(tmp_path, eps="30/255", strength=3, n=60)
    assert [path for path, _ in rising_with_eps(cells(hard, weak))] == [weak]


def test_another_attack_model_setting_or_prompt_is_another_matter(tmp_path: Path) -> None:
    hard = toy_record(tmp_path, eps="20/255", strength=20)
    weak: dict[str, Any] = {"eps": "30/255", "strength": 3}
    others = [
        toy_record(tmp_path, attack="second", **weak),
        toy_record(tmp_path, "beta", **weak),
        toy_record(tmp_path, identity={"dataset": {"template": "a sketch of {noun}"}}, **weak),
        toy_record(tmp_path, scoring="direct", **weak),
        toy_record(tmp_path, identity={"attack": {"name": "first", "parameters": {"steps": 1}}}, **weak),
    ]
    for other in others:
        assert not list(rising_with_eps(cells(hard, other)))


def test_the_projects_own_radii_are_compared() -> None:
    """What may not differ must not differ by itself, or nothing would ever be compared."""
    found = cells(*(data_dir() / "leaderboard/records/tiny-v1/clip").glob("cifar100.*.multilevel_apgd.*.json"))
    assert len(found) == 4 and len({orderings._but_eps(cell) for cell in found}) == 1
    assert not list(rising_with_eps(found))
