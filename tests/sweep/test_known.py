"""Records without notes, as a board has them: found by what a cell comes to, and no further than they are sound."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from hierbench.cli.app import run
from hierbench.sweep.plan import read_plan
from hierbench.sweep.state import look_up

PLAN = """
protocol = "digits-v1"
[[cells]]
models = ["clip", "tecoa"]
attacks = ["leaf_pgd"]
limit = 4
severity_samples = 0
"""


@pytest.fixture(scope="module")
def board(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("known")
    (folder / "plan.toml").write_text(PLAN, encoding="utf-8")
    assert run(["sweep", str(folder / "plan.toml"), "--out", str(folder / "out"), "--quiet", "--device", "cpu"]) == 0
    shutil.rmtree(folder / "out" / ".sweep")
    return folder / "out"


def states(board: Path, tmp_path: Path, text: str = PLAN) -> list[str]:
    path = tmp_path / "plan.toml"
    path.write_text(text, encoding="utf-8")
    return [state.state for state in look_up(read_plan(path, out=board))]


def test_records_are_found_without_notes_and_are_not_run_again(
    board: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert states(board, tmp_path) == ["done", "done"]
    before = {path: path.stat().st_mtime_ns for path in board.rglob("*.json")}
    assert run(["sweep", str(tmp_path / "plan.toml"), "--out", str(board), "--quiet"]) == 0
    assert "all 2 cells are done" in capsys.readouterr().out
    assert {path: path.stat().st_mtime_ns for path in board.rglob("*.json")} == before


@pytest.mark.parametrize(
    "changed",
    [
        "limit = 3", "limit = 4\nseverity_samples = 1", "limit = 4\nscorings = ['direct']", "limit = 4\ndepths = [2]",
        "limit = 4\neps = ['16/255']", "limit = 4\nseeds = [1]", "limit = 4\nbatch_size = 2",
        "limit = 4\ntemplate = 'A sketch of {noun}.'", "limit = 4\nsettings = { steps = 3 }",
        "limit = 4\nsearch_precision = 'bf16'", "limit = 4\nstore_images = '8bit'", "limit = 4\nnorm = 'l2'",
        "limit = 4\nrank_preservation = true",
    ],
)  # fmt: skip
def test_another_setting_is_another_cell(board: Path, tmp_path: Path, changed: str) -> None:
    text = PLAN.replace("limit = 4", changed)
    if "severity_samples" in changed:
        text = text.removesuffix("severity_samples = 0\n")
    assert states(board, tmp_path, text) == ["missing", "missing"]


def test_what_is_damaged_or_of_other_verdicts_is_missing(board: Path, tmp_path: Path) -> None:
    here = tmp_path / "out"
    shutil.copytree(board, here)
    (verdicts,) = here.glob("*/clip/*.parquet")
    verdicts.write_bytes(verdicts.read_bytes()[:-1] + b"x")
    assert states(here, tmp_path) == ["missing", "done"]
    (record,) = here.glob("*/tecoa.digits/*.json")
    record.write_text("{")
    assert states(here, tmp_path) == ["missing", "missing"]


def test_a_cell_that_cannot_be_is_no_obstacle_to_the_others(board: Path, tmp_path: Path) -> None:
    """It fails when it runs, with its reason; the plan can be looked at before."""
    impossible = PLAN.split("protocol")[0] + PLAN.partition("[[cells]]")[2].replace(
        "limit = 4", "limit = 4\ndepths = [9]"
    )
    assert states(board, tmp_path, PLAN + "[[cells]]" + impossible) == ["done", "done", "missing", "missing"]
