"""The worked example of CONTRIBUTING.md, as a reader would follow it."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

TEXT = (Path(__file__).parents[2] / "CONTRIBUTING.md").read_text(encoding="utf-8")


def example(name: str) -> str:
    found = re.search(rf"<!-- example: {re.escape(name)} -->\n```[a-z]+\n(.*?)```", TEXT, re.DOTALL)
    assert found, name
    return found[1]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "trades.py").write_text(example("trades.py"), encoding="utf-8")
    return tmp_path


def hierbench(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "hierbench", *arguments], cwd=folder, capture_output=True, text=True, check=False
    )


def test_the_example_defence_trains_evaluates_and_is_drawn(folder: Path) -> None:
    for line in example("commands").strip().splitlines():
        program, *arguments = line.split()
        assert program == "hierbench"
        if arguments[0] == "train":
            arguments = [*arguments[:-1], "steps=6"]  # seconds in place of a minute; everything else as it stands
        done = hierbench(folder, *arguments)
        assert done.returncode == 0, done.stderr
    record = json.loads((folder / "hierbench-models/trades.digits/training.json").read_text())
    assert record["given"]["defence"] == "trades" and record["run"]["checks"]["loss_uses_attack"]
    assert (folder / "training.svg").stat().st_size > 1000
    results = list((folder / "hierbench-results").rglob("*.json"))
    assert len(results) == 1 and json.loads(results[0].read_text())["identity"]["model"]["defence"] == "trades"


@pytest.mark.parametrize(
    ("reference", "change", "complaint"),
    [
        ("trades.py:Trades", "", "no subclass of Defence called 'Trades'"),
        ("nothere.py:TRADES", "", "nothere.py: no such Python file"),
        ("trades.py:TRADES", 'name = "tecoa"', "a defence called 'tecoa' exists"),
        ("trades.py:TRADES", "import nosuchthing", "trades.py does not load (ModuleNotFoundError"),
        ("trades.py:TRADES", 'name = "Two Words"', "lower-case letters"),
    ],
)
def test_a_file_that_is_wrong_gets_one_line(folder: Path, reference: str, change: str, complaint: str) -> None:
    file = folder / "trades.py"
    file.write_text(file.read_text().replace('name = "trades"', change) if change else file.read_text())
    done = hierbench(folder, "train", "--defence", reference)
    assert done.returncode != 0 and complaint in done.stderr and done.stderr.count("\n") == 1
    assert not (folder / "hierbench-models").exists()


def test_the_example_submission_is_evaluated_packed_and_verified(tmp_path: Path) -> None:
    """From a fresh clone to a verified submission of a new defence, by the page's own commands."""
    (tmp_path / "smoothed.py").write_text(example("smoothed.py"), encoding="utf-8")
    said = ""
    for line in example("submission").strip().splitlines():
        program, *arguments = shlex.split(line)
        assert program == "hierbench"
        if arguments[0] == "train":
            arguments = [*arguments[:-1], "steps=6"]  # seconds in place of a minute; everything else as it stands
        done = hierbench(tmp_path, *arguments)
        assert done.returncode == 0, done.stdout + done.stderr
        said = done.stdout
    package = tmp_path / "hierbench-board/submissions/digits-v1/smoothed.digits"
    assert f"verified: {package.relative_to(tmp_path)} (1 of 1 records, 360 samples, 64 stored images)" in said
    assert "not checked" not in said
    card = json.loads((package / "submission.json").read_text(encoding="utf-8"))
    assert card["title"] == "Smoothed TeCoA" and "digits leaf_pgd" not in card["left_out"] and card["left_out"]
