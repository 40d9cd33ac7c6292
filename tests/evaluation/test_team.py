"""One cell in several processes: the verdicts of one, whoever computed them and whoever was lost."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
import warnings
from pathlib import Path

import pytest
from filelock import FileLock

from evaluation.test_runner import comparable
from evaluation.toy_cell import ToyVictim, toy_cell
from hierbench.evaluation.cell import Cell
from hierbench.evaluation.journal import Journal
from hierbench.evaluation.observer import Observer
from hierbench.evaluation.runner import run_cell
from hierbench.evaluation.storage import DamagedFileWarning
from hierbench.evaluation.stored import finished_record
from hierbench.evaluation.team import SharedUnits, Team, units_in


class Rehearsed(Team):
    """A team without others: what a process does when the others are late."""

    def told(self, value):  # type: ignore[no-untyped-def]
        return value

    def meet(self) -> None:
        pass


def shared(cell: Cell, rank: int, size: int = 2) -> SharedUnits:
    return SharedUnits(cell, Journal(cell.journal_path, cell.fingerprint()), Rehearsed(rank, size), Observer())


def calls(cell: Cell) -> list[tuple[str, int, int]]:
    assert isinstance(cell.victim, ToyVictim)
    return cell.victim.calls


def test_the_leader_gathers_what_another_computed(tmp_path: Path) -> None:
    alone, cell = toy_cell(tmp_path / "alone"), toy_cell(tmp_path / "team")
    expected = run_cell(alone)
    shared(cell, rank=1).work()
    assert len(calls(cell)) == len(calls(alone))
    record = run_cell(toy_cell(tmp_path / "team"), team=Rehearsed(0, 2))
    assert cell.verdicts_path.read_bytes() == alone.verdicts_path.read_bytes()
    kept = {**comparable(record), "environment": None}
    assert kept == {**comparable(expected), "environment": None}
    assert record.environment.world_size == 2
    assert not cell.journal_path.exists()


def test_the_number_of_processes_is_no_part_of_the_fingerprint(tmp_path: Path) -> None:
    import dataclasses

    cell = toy_cell(tmp_path)
    wider = dataclasses.replace(cell, environment=cell.environment.model_copy(update={"world_size": 4}))
    other = dataclasses.replace(cell, environment=cell.environment.model_copy(update={"threads": 7}))
    assert wider.fingerprint() == cell.fingerprint() != other.fingerprint()


def test_processes_begin_at_different_ends_and_no_unit_is_computed_twice(tmp_path: Path) -> None:
    first, second = toy_cell(tmp_path), toy_cell(tmp_path)
    threads = [threading.Thread(target=shared(cell, rank).work) for rank, cell in enumerate((first, second))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
    whole = toy_cell(tmp_path / "whole")
    run_cell(whole)
    assert len(calls(first)) + len(calls(second)) == len(calls(whole))
    assert units_in(Journal(first.journal_path, first.fingerprint())) == len(calls(whole))


def test_a_unit_in_other_hands_is_waited_for_and_taken_over_when_they_let_go(tmp_path: Path) -> None:
    cell = toy_cell(tmp_path)
    work = shared(cell, rank=0)
    claimed = work.journal.path(work.key("clean", 0, 0)).with_suffix(".claim")
    claimed.parent.mkdir(parents=True)
    lock = FileLock(claimed)
    lock.acquire()
    thread = threading.Thread(target=work.work)
    thread.start()
    time.sleep(0.5)
    assert thread.is_alive()
    assert {(phase, n) for phase, _, n in calls(cell)} == {("clean", 8), ("clean", 16)}, "the others were not computed"
    lock.release()
    thread.join(timeout=60)
    assert not thread.is_alive()
    assert len(calls(cell)) == 9


def test_a_damaged_unit_is_made_again(tmp_path: Path) -> None:
    alone, cell = toy_cell(tmp_path / "alone"), toy_cell(tmp_path / "team")
    run_cell(alone)
    shared(cell, rank=1).work()
    for unit in cell.journal_path.glob("*.safetensors"):
        unit.write_bytes(unit.read_bytes()[:-9])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DamagedFileWarning)
        run_cell(toy_cell(tmp_path / "team"), team=Rehearsed(0, 2))
    assert cell.verdicts_path.read_bytes() == alone.verdicts_path.read_bytes()


def command(out: Path, processes: int) -> list[str]:
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes), "-m"]
    words = ["eval", "--model", "tecoa", "--attack", "leaf_pgd", "--limit", "40", "--batch-size", "4", "--steps", "10"]
    return [sys.executable, *(launcher if processes > 1 else ["-m"]), "hierbench", *words, "--quiet", "--out", str(out)]


def start(out: Path, processes: int) -> subprocess.Popen[str]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        command(out, processes), env=environment, stdout=subprocess.PIPE, text=True, start_new_session=True
    )


def verdicts(out: Path) -> bytes:
    (path,) = out.rglob("*.parquet")
    assert finished_record(path.with_suffix(".json")) is not None
    return path.read_bytes()


@pytest.mark.slow
def test_one_two_and_four_processes_give_the_same_verdicts_and_one_answer(tmp_path: Path) -> None:
    for processes in (1, 2, 4):
        process = start(tmp_path / str(processes), processes)
        said, _ = process.communicate(timeout=500)
        assert process.returncode == 0
        assert len(said.splitlines()) == 1, "only the leader speaks"
        (record,) = (tmp_path / str(processes)).rglob("*.json")
        content = json.loads(record.read_text())
        assert content["environment"]["world_size"] == processes
        assert content["counts"]["scored"] == 40
    assert verdicts(tmp_path / "1") == verdicts(tmp_path / "2") == verdicts(tmp_path / "4")


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="no SIGKILL here")
def test_one_of_two_killed_and_the_run_resumed_ends_with_the_same_verdicts(tmp_path: Path) -> None:
    alone = start(tmp_path / "alone", 1)
    alone.communicate(timeout=500)
    process = start(tmp_path / "killed", 2)
    deadline = time.monotonic() + 300
    while not list((tmp_path / "killed").rglob("attack-*.safetensors")) and time.monotonic() < deadline:
        time.sleep(0.01)
    children = [int(p) for p in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()]
    os.kill(random.Random(0).choice(children), signal.SIGKILL)
    process.communicate(timeout=300)
    assert process.returncode != 0
    kept = {p.name for p in (tmp_path / "killed").rglob("*.safetensors")}
    assert kept, "a lost process lost finished units"
    assert not list((tmp_path / "killed").rglob("*.parquet"))
    again = start(tmp_path / "killed", 2)
    again.communicate(timeout=500)
    assert again.returncode == 0
    assert verdicts(tmp_path / "killed") == verdicts(tmp_path / "alone")
    (record,) = (tmp_path / "killed").rglob("*.json")
    cost = json.loads(record.read_text())["cost"]
    assert cost["sessions"] == 2
    assert cost["units_resumed"] >= len(kept) - 1  # one may have been torn by the kill
