from __future__ import annotations

import dataclasses
import random
import warnings
from pathlib import Path

import numpy as np
import pytest

from evaluation.toy_cell import ToyVictim, toy_cell, with_victim
from hierbench.errors import HierbenchError, InputError
from hierbench.evaluation import journal, runner
from hierbench.evaluation.journal import locked
from hierbench.evaluation.observer import Observer
from hierbench.evaluation.records import Record
from hierbench.evaluation.runner import run_cell
from hierbench.evaluation.storage import DamagedFileWarning
from hierbench.evaluation.verdicts import read_verdicts, to_table

UNITS = 9
"""Units of the toy cell below: 3 chunks, a clean pass and two attacked depths."""


def codes(record: Record, level: str = "failed") -> set[str]:
    return {flag.code for flag in record.checks.flags if flag.level == level}


def comparable(record: Record) -> dict[str, object]:
    """Everything of a record that must not depend on interruptions."""
    return record.model_dump(exclude={"created": True, "cost": {"seconds", "images_per_second", "sessions",
                             "units_resumed", "peak_memory_bytes"}})  # fmt: skip


def test_a_run_writes_record_and_verdicts_and_nothing_else(tmp_path: Path) -> None:
    cell = toy_cell(tmp_path)
    record = run_cell(cell)
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted([cell.record_path.name, cell.verdicts_path.name])
    verdicts = read_verdicts(cell.verdicts_path)
    assert verdicts.sample_ids == cell.images.ids
    assert record.counts.scored == record.counts.declared == record.verdicts.rows == 40
    worst = np.mean([not (verdicts.attack_broken(1, "rollup")[i, 1] or verdicts.attack_broken(2, "rollup")[i, 1])  # type: ignore[index]
                     for i in range(40)])  # fmt: skip
    assert record.depths[1].rollup.worst.value == worst
    assert not record.checks.failed
    assert record.cost.forwards == 40 + 2 * 160
    assert record.counts.attacked_per_depth == {"1": 40, "2": 39}


def test_verdicts_read_back_equal(tmp_path: Path) -> None:
    cell = toy_cell(tmp_path, direct=False)
    run_cell(cell)
    verdicts = read_verdicts(cell.verdicts_path)
    assert verdicts.clean.broken_direct is None
    assert to_table(verdicts).equals(to_table(read_verdicts(cell.verdicts_path)))
    assert np.isnan(verdicts.attacked[2].clean_loss).sum() == (~verdicts.attacked[2].searched).sum()
    cell.verdicts_path.write_bytes(cell.verdicts_path.read_bytes()[:-40])
    with pytest.raises(HierbenchError, match="not a readable Parquet file"):
        read_verdicts(cell.verdicts_path)


def test_a_finished_cell_is_read_and_force_runs_it(tmp_path: Path) -> None:
    cell = toy_cell(tmp_path)
    first = run_cell(cell)
    again = with_victim(cell, stop_at=0)
    assert run_cell(again) == first, "a finished cell must not compute anything"
    forced = with_victim(cell)
    second = run_cell(forced, force=True)
    assert len(forced.victim.calls) == UNITS  # type: ignore[attr-defined]
    assert comparable(second) == comparable(first)


@pytest.mark.parametrize("damage", ["verdicts gone", "verdicts changed", "record torn", "record edited"])
def test_a_damaged_result_is_made_again(tmp_path: Path, damage: str) -> None:
    cell = toy_cell(tmp_path)
    first = run_cell(cell)
    if damage == "verdicts gone":
        cell.verdicts_path.unlink()
    elif damage == "verdicts changed":
        cell.verdicts_path.write_bytes(cell.verdicts_path.read_bytes() + b"x")
    elif damage == "record torn":
        cell.record_path.write_bytes(cell.record_path.read_bytes()[:500])
    else:
        cell.record_path.write_text(cell.record_path.read_text().replace('"count": 40', '"count": 50'))
    fresh = with_victim(cell)
    with pytest.warns(DamagedFileWarning, match="evaluated again"):
        second = run_cell(fresh)
    assert comparable(second) == comparable(first)
    assert len(fresh.victim.calls) == UNITS  # type: ignore[attr-defined]


@pytest.mark.parametrize("stop", range(UNITS))
def test_an_interrupted_run_goes_on_with_the_same_bits(tmp_path: Path, stop: int) -> None:
    whole = toy_cell(tmp_path / "whole")
    reference = run_cell(whole)
    cell = toy_cell(tmp_path / "killed")
    with pytest.raises(KeyboardInterrupt):
        run_cell(with_victim(cell, stop_at=stop))
    assert not cell.record_path.exists()
    assert not cell.verdicts_path.exists()
    rest = with_victim(cell)
    record = run_cell(rest)
    assert comparable(record) == comparable(reference)
    assert cell.verdicts_path.read_bytes() == whole.verdicts_path.read_bytes()
    assert len(rest.victim.calls) == UNITS - stop  # type: ignore[attr-defined]
    assert record.cost.sessions == 2
    assert record.cost.units_resumed == stop
    assert not cell.journal_path.exists()


def test_units_lost_or_torn_at_random_are_made_again(tmp_path: Path) -> None:
    reference = run_cell(toy_cell(tmp_path / "whole"))
    rng = random.Random(5)
    for trial in range(12):
        cell = toy_cell(tmp_path / str(trial))
        with pytest.raises(KeyboardInterrupt):
            run_cell(with_victim(cell, stop_at=rng.randint(2, UNITS - 1)))
        units = sorted(cell.journal_path.glob("*.safetensors"))
        for unit in rng.sample(units, k=rng.randint(1, len(units))):
            data = unit.read_bytes()
            if rng.random() < 0.3:
                unit.unlink()
            else:
                unit.write_bytes(data[: rng.randint(0, len(data) - 1)])
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            record = run_cell(with_victim(cell))
        assert comparable(record) == comparable(reference)
        assert all(issubclass(w.category, DamagedFileWarning) for w in caught)


@pytest.mark.parametrize(
    "other",
    [
        {"eps": "20/255"},
        {"seed": 1},
        {"batch_size": 5},
        {"severity_samples": 5},
        {"depths": (2,)},
        {"scoring": "direct"},
    ],
)
def test_a_changed_setting_is_another_cell(tmp_path: Path, other: dict[str, object]) -> None:
    cell, changed = toy_cell(tmp_path), toy_cell(tmp_path, **other)  # type: ignore[arg-type]
    assert cell.identity.cell != changed.identity.cell
    assert cell.fingerprint() != changed.fingerprint()


def test_a_journal_of_other_code_or_device_is_not_used(tmp_path: Path) -> None:
    """The same cell, gone on with under another device, begins again rather than mix bits."""
    cell = toy_cell(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        run_cell(with_victim(cell, stop_at=5))
    for name, value in (("device", "cuda"), ("threads", 2), ("code_hash", "sha256:" + "1" * 64)):
        moved = dataclasses.replace(with_victim(cell), environment=cell.environment.model_copy(update={name: value}))
        assert moved.identity.cell == cell.identity.cell
        assert moved.fingerprint() != cell.fingerprint()
    moved = dataclasses.replace(with_victim(cell), environment=cell.environment.model_copy(update={"threads": 2}))
    listener = Listener()
    assert run_cell(moved, observer=listener).cost.units_resumed == 0
    assert any("begins again" in str(told) for told in listener.told)


def test_changed_pixels_under_the_same_ids_are_not_resumed(tmp_path: Path) -> None:
    cell = toy_cell(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        run_cell(with_victim(cell, stop_at=5))
    cell.images.array[0] ^= 1  # type: ignore[attr-defined]
    resumed = with_victim(cell)
    run_cell(resumed)
    assert len(resumed.victim.calls) == UNITS - 5 + 2, "chunk 0 of the clean pass and of depth 1 are made again"  # type: ignore[attr-defined]


def test_two_runs_of_one_cell_are_refused(tmp_path: Path) -> None:
    cell = toy_cell(tmp_path)
    with locked(cell.journal_path), pytest.raises(InputError, match="another run is writing"):
        run_cell(cell)
    run_cell(cell)


def test_a_full_disk_at_any_write_leaves_nothing_half_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reference = run_cell(toy_cell(tmp_path / "whole"))
    real = journal.atomic_write
    for allowed in range(0, UNITS + 2, 2):
        cell = toy_cell(tmp_path / str(allowed))
        left = allowed

        def full(path: Path, data: bytes) -> None:
            nonlocal left
            if left == 0:
                raise HierbenchError(f"cannot write {path}: No space left on device")
            left -= 1
            real(path, data)

        with monkeypatch.context() as patched:
            patched.setattr(journal, "atomic_write", full)
            patched.setattr(runner, "atomic_write", full)
            with pytest.raises(HierbenchError, match="No space left"):
                run_cell(cell)
        assert not cell.record_path.exists()
        assert comparable(run_cell(with_victim(cell))) == comparable(reference)


def test_eps_zero_gives_clean_accuracy_exactly(tmp_path: Path) -> None:
    class Vacuous(ToyVictim):
        def attack(self, chunk, clean, depth, report):  # type: ignore[no-untyped-def]
            verdicts, effort = super().attack(chunk, clean, depth, report)
            none = np.zeros(len(chunk.ids), dtype=bool)
            return dataclasses.replace(verdicts, searched=none, moved=none), effort

    cell = dataclasses.replace(toy_cell(tmp_path, eps="0"), victim=Vacuous(0.0))
    record = run_cell(cell)
    for entry in record.depths:
        assert entry.rollup.robust is not None
        assert entry.rollup.robust.count == entry.rollup.worst.count == entry.rollup.clean.count
    assert not record.checks.failed
    assert codes(record, "note") == {"vacuous_attack"}


@pytest.mark.parametrize(
    ("fault", "code"),
    [("returns the clean images", "pixels_not_moved"), ("does not raise its loss", "loss_not_raised")],
)
def test_an_attack_that_does_nothing_fails_the_run(tmp_path: Path, fault: str, code: str) -> None:
    record = run_cell(with_victim(toy_cell(tmp_path), fault=fault))
    assert record.checks.failed
    assert code in codes(record)


def test_clean_accuracy_cannot_pass_for_robust(tmp_path: Path) -> None:
    """METHODS.md 7.1: an attack factory that returned nothing."""

    class Nothing(ToyVictim):
        def attack(self, chunk, clean, depth, report):  # type: ignore[no-untyped-def]
            verdicts, effort = super().attack(chunk, clean, depth, report)
            none = np.zeros(len(chunk.ids), dtype=bool)
            wrong = clean.broken_rollup
            return dataclasses.replace(verdicts, searched=none, moved=none, broken_rollup=wrong), effort

    record = run_cell(dataclasses.replace(toy_cell(tmp_path), victim=Nothing(30 / 255)))
    assert record.checks.failed
    assert "not_attacked" in codes(record)
    assert "nothing_attacked" in codes(record, "warning")


def test_repeated_samples_fail_the_run(tmp_path: Path) -> None:
    cell = toy_cell(tmp_path)
    cell.images.ids = ("toy-0", *cell.images.ids[:-1])  # type: ignore[misc]
    record = run_cell(cell)
    assert not record.checks.ids_unique
    assert "repeated_samples" in codes(record)


def test_an_image_outside_the_ball_fails_the_run(tmp_path: Path) -> None:
    cell = toy_cell(tmp_path, eps="20/255")
    record = run_cell(with_victim(cell, eps=30 / 255))
    assert "outside_ball" in codes(record)


def test_direct_scoring_is_the_one_that_is_judged(tmp_path: Path) -> None:
    class Direct(ToyVictim):
        def attack(self, chunk, clean, depth, report):  # type: ignore[no-untyped-def]
            verdicts, effort = super().attack(chunk, clean, depth, report)
            return dataclasses.replace(verdicts, searched=~clean.broken_direct[:, depth - 1]), effort

    cell = toy_cell(tmp_path, scoring="direct")
    record = run_cell(dataclasses.replace(cell, victim=Direct(30 / 255)))
    assert not record.checks.failed
    assert record.depths[0].direct is not None
    assert record.counts.attacked_per_depth["1"] == record.depths[0].direct.clean.count


class Listener(Observer):
    def __init__(self) -> None:
        self.told: list[tuple[object, ...]] = []

    def attack(self, depth: int, *, done: int, total: int, survivors: int, passes: int) -> None:
        self.told.append((depth, done, survivors))

    def note(self, message: str) -> None:
        self.told.append((message,))

    def end(self) -> None:
        self.told.append(("end",))


def test_progress_ends_at_all_samples_and_the_survivors(tmp_path: Path) -> None:
    listener = Listener()
    record = run_cell(toy_cell(tmp_path), observer=listener)
    for entry in record.depths:
        last = [told for told in listener.told if told[0] == entry.depth][-1]
        assert entry.rollup.robust is not None
        assert last == (entry.depth, 40, entry.rollup.robust.count)
    assert listener.told[-1] == ("end",)
