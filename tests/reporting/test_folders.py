"""Records from several folders at once."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner

from hierbench.cli.app import app
from hierbench.errors import InputError
from hierbench.reporting import table_frame
from hierbench.reporting.build import make_report
from hierbench.reporting.collect import Selection, collect_records
from hierbench.reporting.standings import gather
from reporting.toy_records import toy_record


def test_several_folders_are_one_and_a_record_in_two_of_them_counts_once(tmp_path: Path) -> None:
    one = toy_record(tmp_path / "one", "alpha")
    other = toy_record(tmp_path / "two", "beta")
    for path in (one, one.with_suffix(".parquet")):
        shutil.copy(path, tmp_path / "two" / path.name)
    both = [tmp_path / "one", tmp_path / "two"]
    assert {p.path for p in gather(both, Selection())} == {one, other}
    assert [r.identity.model.name for r in collect_records(both, Selection())] == ["alpha", "beta"]
    (table,) = make_report("methods-depths", both, Selection()).tables
    assert [str(row[0].content) for row in table.rows[-2:]] == ["alpha", "beta"]
    frame = table_frame("methods-depths", [str(folder) for folder in both])
    assert set(frame["model"]) == {"alpha", "beta"}
    asked = [word for folder in both for word in ("--records", str(folder))]
    for command in (["table", "--layout", "methods-depths"], ["compare", "alpha", "beta"]):
        assert CliRunner().invoke(app, [*command, *asked]).exit_code == 0
    with pytest.raises(InputError, match="three does not exist"):
        gather([*both, tmp_path / "three"], Selection())
    with pytest.raises(InputError, match=r"no record under .*one, .*two for --model gamma"):
        gather(both, Selection(model="gamma"))


def test_two_runs_of_one_cell_are_not_taken_for_two_attacks(tmp_path: Path) -> None:
    first = toy_record(tmp_path / "one", "alpha")
    shutil.copytree(tmp_path / "one", tmp_path / "again")
    again = tmp_path / "again" / first.relative_to(tmp_path / "one")
    content = json.loads(again.read_text(encoding="utf-8"))
    content["created"] = "2030-01-01T00:00:00Z"
    again.write_text(json.dumps(content), encoding="utf-8")
    both = [tmp_path / "one", tmp_path / "again"]
    assert [p.path for p in gather(both, Selection())] == [first], "the same verdicts: once"
    content["verdicts"]["sha256"] = "sha256:" + 64 * "0"
    again.write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(InputError) as caught:
        gather(both, Selection())
    assert "two runs of one cell" in str(caught.value) and str(first) in str(caught.value)


def test_a_board_a_folder_and_a_file_are_all_places_to_look(tmp_path: Path) -> None:
    one = toy_record(tmp_path / "board" / "records" / "toy" / "alpha", "alpha")
    (tmp_path / "board" / "left_out").mkdir()
    (tmp_path / "board" / "left_out" / "list.json").write_text("{}", encoding="utf-8")
    other, third = toy_record(tmp_path / "mine", "beta"), toy_record(tmp_path / "theirs", "gamma")
    places = [tmp_path / "board", tmp_path / "mine", third]
    assert {p.path for p in gather(places, Selection())} == {one, other, third}
    assert {r.identity.model.name for r in collect_records(places, Selection())} == {"alpha", "beta", "gamma"}
    with pytest.raises(InputError, match="names no folder"):
        gather([], Selection())


def test_no_classes_given_are_all_of_them(tmp_path: Path) -> None:
    toy_record(tmp_path, "alpha")
    frame = table_frame("methods-depths", tmp_path, classes=None)
    assert set(frame["model"]) == {"alpha"}
