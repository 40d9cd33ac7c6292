from __future__ import annotations

import errno
import multiprocessing
import os
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hierbench.errors import HierbenchError, InputError
from hierbench.evaluation import storage
from hierbench.evaluation.journal import Journal, UnitKey, locked
from hierbench.evaluation.storage import DamagedFileWarning, atomic_write

KEY = UnitKey("attack", 2, 3, "sha256:ab")


def unit() -> dict[str, np.ndarray]:
    return {
        "flags": np.array([True, False, True]),
        "losses": np.array([0.5, np.nan, 2.0]),
        "block": np.arange(6).reshape(3, 2),
    }


def same(a: dict[str, Any] | None, b: dict[str, Any]) -> bool:
    return (
        a is not None
        and a.keys() == b.keys()
        and all(a[k].dtype == b[k].dtype and np.array_equal(a[k], b[k], equal_nan=b[k].dtype.kind == "f") for k in b)
    )


def test_a_unit_comes_back_bit_equal(tmp_path: Path) -> None:
    Journal(tmp_path, "f").write(KEY, unit())
    journal = Journal(tmp_path, "f")
    assert same(journal.read(KEY), unit())
    assert journal.resumed == 1
    assert journal.read(UnitKey("attack", 2, 4, "sha256:ab")) is None
    assert journal.resumed == 1


@pytest.mark.parametrize(
    "other",
    [
        UnitKey("attack", 2, 3, "sha256:cd"),
        UnitKey("attack", 1, 3, "sha256:ab"),
        UnitKey("clean", 2, 3, "sha256:ab"),
    ],
)
def test_a_changed_key_or_setting_never_finds_a_unit(tmp_path: Path, other: UnitKey) -> None:
    Journal(tmp_path, "f").write(KEY, unit())
    assert Journal(tmp_path, "f").read(other) is None
    assert Journal(tmp_path, "g").read(KEY) is None


def test_a_unit_renamed_to_other_settings_is_refused(tmp_path: Path) -> None:
    ours, theirs = Journal(tmp_path, "f"), Journal(tmp_path, "g")
    theirs.write(KEY, unit())
    theirs.path(KEY).rename(ours.path(KEY))
    with pytest.warns(DamagedFileWarning, match="belongs to other settings"):
        assert ours.read(KEY) is None


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=120)
@given(data=st.data())
def test_any_torn_or_altered_unit_is_noticed(tmp_path: Path, data: st.DataObject) -> None:
    journal = Journal(tmp_path, "f")
    journal.write(KEY, unit())
    path = journal.path(KEY)
    whole = path.read_bytes()
    if data.draw(st.booleans(), label="torn"):
        changed = whole[: data.draw(st.integers(0, len(whole) - 1), label="kept")]
    else:
        at = data.draw(st.integers(0, len(whole) - 1), label="at")
        changed = whole[:at] + bytes([whole[at] ^ data.draw(st.integers(1, 255))]) + whole[at + 1 :]
    path.write_bytes(changed)
    try:
        with pytest.warns(DamagedFileWarning, match="attack at depth 2, chunk 3"):
            assert journal.read(KEY) is None
    except pytest.fail.Exception:
        # a flip in the padding of the header changes nothing that is stored
        assert same(journal.read(KEY), unit())


def test_a_folder_in_place_of_a_unit_is_noticed(tmp_path: Path) -> None:
    journal = Journal(tmp_path, "f")
    journal.path(KEY).mkdir()
    with pytest.warns(DamagedFileWarning):
        assert journal.read(KEY) is None


def test_two_writers_in_one_folder(tmp_path: Path) -> None:
    with locked(tmp_path), pytest.raises(InputError, match="another run is writing"), locked(tmp_path):
        pass
    with locked(tmp_path):
        pass


def test_a_lock_ends_with_its_process(tmp_path: Path) -> None:
    """A killed process must not leave a lock that needs cleaning by hand."""
    script = textwrap.dedent(
        f"""
        import os, signal
        from pathlib import Path
        from hierbench.evaluation.journal import locked
        with locked(Path({str(tmp_path)!r})):
            print("held", flush=True)
            os.kill(os.getpid(), signal.SIGKILL)
        """
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.stdout == "held\n"
    assert done.returncode == -9
    with locked(tmp_path):
        pass


def test_a_lock_holds_across_processes(tmp_path: Path) -> None:
    with locked(tmp_path):
        context = multiprocessing.get_context("spawn")
        with context.Pool(1) as pool:
            assert pool.apply(_try_lock, (str(tmp_path),)) == "another run"


def _try_lock(folder: str) -> str:
    try:
        with locked(Path(folder)):
            return "locked"
    except InputError as error:
        return "another run" if "another run" in str(error) else str(error)


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(InputError, match=r"--out: cannot write in .*file"), locked(tmp_path / "file" / "journal"):
        pass


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="root may write anywhere")
def test_a_read_only_folder_is_named(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(InputError, match="--out: cannot write"), locked(tmp_path / "journal"):
        pass


def test_a_full_disk_leaves_nothing_half_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "record.json"
    atomic_write(target, b"old")

    def full(_: Path) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(storage, "_flush", full)
    with pytest.raises(HierbenchError, match=r"cannot write .*record.json: No space left on device"):
        atomic_write(target, b"new")
    assert target.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["record.json"]


def test_what_a_kill_left_behind_is_overwritten(tmp_path: Path) -> None:
    (tmp_path / ".record.json.unfinished").write_bytes(b"half")
    atomic_write(tmp_path / "record.json", b"whole")
    assert [p.name for p in tmp_path.iterdir()] == ["record.json"]


def test_sessions_are_counted_and_forgotten(tmp_path: Path) -> None:
    journal = Journal(tmp_path, "f")
    assert [journal.begin_session(fresh=False) for _ in range(2)] == [1, 2]
    journal.write(KEY, unit())
    (tmp_path / "sessions").write_bytes(b"\xff torn")
    assert journal.begin_session(fresh=False) == 1
    assert journal.read(KEY) is not None
    assert not journal.outdated
    assert journal.begin_session(fresh=True) == 1
    assert journal.read(KEY) is None
    assert not journal.outdated


def test_units_of_another_fingerprint_are_dropped_and_said(tmp_path: Path) -> None:
    journal = Journal(tmp_path, "f")
    journal.begin_session(fresh=False)
    journal.write(KEY, unit())
    other = Journal(tmp_path, "g")
    assert other.begin_session(fresh=False) == 1
    assert other.outdated
    assert not list(tmp_path.glob("*.safetensors"))
