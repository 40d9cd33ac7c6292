"""Records from several folders at once."""

from __future__ import annotations

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
