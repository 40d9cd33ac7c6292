"""SIGKILL at random moments: the resumed run ends with the same bits."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from evaluation.test_victim import engine_cell
from hierbench.evaluation.runner import run_cell
from hierbench.evaluation.stored import finished_record
from hierbench.models.backbones import BACKBONES

TESTS = Path(__file__).parents[1]
CHILD = Path(__file__).with_name("kill_child.py")
FORWARDS = 60
"""About as many forwards as the child makes in all."""

pytestmark = [pytest.mark.slow, pytest.mark.skipif(os.name == "nt", reason="no SIGKILL here")]


def start(*arguments: str) -> subprocess.Popen[bytes]:
    paths = os.pathsep.join([str(TESTS), str(TESTS.parent)])
    environment = {**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen([sys.executable, *arguments], stdout=subprocess.PIPE, env=environment)


def test_killed_at_ten_random_moments_inside_the_engine(tmp_path: Path) -> None:
    reference = engine_cell(tmp_path / "whole")
    expected = run_cell(reference)
    rng = random.Random(0)
    cell = engine_cell(tmp_path / "killed")
    kills = 0
    while kills < 10:
        child = start(str(CHILD), str(tmp_path / "killed"))
        assert child.stdout is not None
        child.stdout.read(rng.randint(1, FORWARDS // 2))
        time.sleep(rng.random() * 0.005)  # anywhere between two forwards too: in a write, in a rename
        child.send_signal(signal.SIGKILL)
        code = child.wait()
        assert code in (-signal.SIGKILL, 0)
        kills += 1
        if code == 0 or cell.record_path.exists():
            assert finished_record(cell.record_path) is not None, "a record that is there must be whole"
            break
    record = run_cell(cell)
    assert cell.verdicts_path.read_bytes() == reference.verdicts_path.read_bytes()
    assert record.depths == expected.depths
    assert record.transfer == expected.transfer
    assert not [p for p in cell.folder.iterdir() if p.name.startswith(".")]


@pytest.mark.skipif("tiny_clip-v1" not in BACKBONES, reason="the backbone's weights are not here")
def test_the_command_killed_at_random_moments(tmp_path: Path) -> None:
    """Ten kills of the real command on digits, each after another number of finished units."""
    command = ["-c", "from hierbench.cli import main; main()", "eval", "--quiet", "--device", "cpu", "--limit", "120"]
    command += ["--batch-size", "10", "--steps", "5"]  # 3 chunks: 3 clean and 9 attack units
    assert start(*command, "--out", str(tmp_path / "whole")).wait() == 0
    (expected,) = (tmp_path / "whole").rglob("*.parquet")
    rng = random.Random(1)
    for kill in range(10):
        child = start(*command, "--out", str(tmp_path / "killed"))
        before = len(list((tmp_path / "killed").rglob("*.safetensors")))
        wanted = min(before + rng.randint(0, 2), 11)
        while child.poll() is None and len(list((tmp_path / "killed").rglob("*.safetensors"))) < wanted:
            time.sleep(0.01)
        time.sleep(rng.random() * 0.3)
        child.kill()
        if child.wait() == 0:
            break
        assert not list((tmp_path / "killed").rglob("*.json")), f"kill {kill} left a record of an unfinished run"
    assert start(*command, "--out", str(tmp_path / "killed")).wait() == 0
    (found,) = (tmp_path / "killed").rglob("*.parquet")
    assert found.name == expected.name
    assert found.read_bytes() == expected.read_bytes()
