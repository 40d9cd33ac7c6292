"""Training in several processes under ``torchrun``: one model, one set of files, and resuming after a kill."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from standin import SmallModel, small_images
from test_trainer import RECIPE, run
from torch import Tensor

from hierbench.defences.training.checkpoint import CHECKPOINT_FILE
from hierbench.defences.training.processes import Processes, join_processes
from hierbench.defences.training.trainer import RECORD_FILE
from hierbench.defences.training.trainlog import mean_of_parts
from hierbench.errors import HierbenchError, InputError
from hierbench.processes import own_device

SCRIPT = """
import json, os, signal, sys
from pathlib import Path
sys.path.insert(0, {folder!r})
import torch
torch.set_num_threads(1)
from standin import SmallModel, small_images
from test_trainer import run
from hierbench.defences.training.trainer import TrainingInterruptedError

out, given = Path(sys.argv[1]), json.loads(sys.argv[2])
rank = os.environ["RANK"]
note = out.with_name(out.name + "-notes")
note.mkdir(exist_ok=True)
(note / f"pid{{rank}}").write_text(str(os.getpid()))
asked, steps = [], 0
signal.signal(signal.SIGINT, lambda *_: asked.append(1))

def should_stop():
    global steps
    steps += 1
    return bool(asked) or (given.get("stop_rank") == int(rank) and steps == given["stop_step"])

where = out if rank == "0" or given.get("shared", True) else out.with_name("elsewhere")
try:
    result = run(
        where, given["name"], model=SmallModel(double=given.get("double", False)), recipe=given["recipe"],
        validation=small_images(seed=9) if given.get("validation") else None, should_stop=should_stop,
    )
except TrainingInterruptedError as error:
    (note / f"stopped{{rank}}").write_text(str(error))
    sys.exit(0)
from safetensors.torch import save_file
save_file({{n: t.contiguous() for n, t in result.model.state_dict().items()}}, note / f"weights{{rank}}")
(note / f"record{{rank}}").write_text(json.dumps(result.record))
"""


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"}


def start(out: Path, **given: Any) -> subprocess.Popen[str]:
    script = out.parent / "script.py"
    script.write_text(SCRIPT.format(folder=str(Path(__file__).parent)))
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command = [*launcher, str(script), str(out), json.dumps(given)]
    return subprocess.Popen(command, env=environment(), text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)


def finish(process: subprocess.Popen[str], *, code: int | None = 0) -> str:
    said, _ = process.communicate(timeout=500)
    if code is not None:
        assert process.returncode == code, said
    return said


def notes(out: Path) -> Path:
    return out.with_name(out.name + "-notes")


def weights(out: Path, rank: int) -> dict[str, Tensor]:
    from safetensors.torch import load_file

    return load_file(notes(out) / f"weights{rank}")


def record(out: Path, rank: int) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((notes(out) / f"record{rank}").read_text())
    return found


def equal(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def wait_for(path: Path, process: subprocess.Popen[str]) -> None:
    while not path.exists():
        assert process.poll() is None, finish(process)
        time.sleep(0.005)


# -- one process ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("size", "count"), [(16, 1), (16, 2), (17, 4), (3, 3)])
def test_shares_are_the_whole_batch_and_differ_by_at_most_one_image(size: int, count: int) -> None:
    positions = np.random.default_rng(0).permutation(100)[:size]
    shares = [Processes(rank, count).share(positions) for rank in range(count)]
    assert np.concatenate(shares).tolist() == positions.tolist()
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


def test_one_process_talks_to_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    alone = join_processes(torch.device("cpu"))
    assert alone == Processes(0, 1) and alone.leads and not torch.distributed.is_initialized()
    assert alone.gather("x") == ["x"] and alone.any(True, torch.device("cpu"))
    alone.agree(1, "never")
    parameter = torch.nn.Parameter(torch.zeros(2))
    alone.sum_gradients([parameter])
    assert parameter.grad is None


def test_a_world_size_without_the_rest_is_refused_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    for name in ("RANK", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(InputError, match=r"WORLD_SIZE is set, .*; use torchrun") as caught:
        join_processes(torch.device("cpu"))
    assert "\n" not in str(caught.value)


def test_each_process_takes_the_gpu_of_its_own_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOCAL_RANK", "3")
    assert (own_device("cuda"), own_device("cpu"), own_device("cuda:1")) == ("cuda:3", "cpu", "cuda:1")
    monkeypatch.delenv("LOCAL_RANK")
    assert own_device("cuda") == "cuda"


def test_a_batch_smaller_than_the_processes_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hierbench.defences.training.trainer.join_processes", lambda _: Processes(0, 20))
    with pytest.raises(InputError, match="a batch of 16 images cannot be shared by 20 processes"):
        run(tmp_path, "tecoa")


def test_processes_that_differ_are_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Processes, "gather", lambda self, value: [value, "another"])
    with pytest.raises(HierbenchError, match="of this training ended with different weights"):
        Processes(0, 2).agree("one", "ended with different weights")


def test_a_value_that_only_some_parts_have_is_their_mean() -> None:
    parts = [(6, {"loss": 1.0}), (5, {"loss": 2.0, "rare": 4.0}), (5, {"loss": 4.0, "rare": 8.0})]
    assert mean_of_parts(parts) == pytest.approx({"loss": (6 + 10 + 20) / 16, "rare": 6.0})


# -- two processes ----------------------------------------------------------------------------------------------------

PLAIN = {**RECIPE, "augmentation": "none", "log_points": 12}


@pytest.mark.slow
def test_two_processes_take_the_steps_of_one(tmp_path: Path) -> None:
    recipe = {**PLAIN, "batch_size": 15, "validation_images": 20, "validation_points": 3}
    finish(start(tmp_path / "two", name="clean_ft", double=True, recipe=recipe, validation=True))
    alone = run(tmp_path / "one", "clean_ft", model=SmallModel(double=True), recipe=recipe)
    assert equal(weights(tmp_path / "two", 0), weights(tmp_path / "two", 1))
    for name, value in weights(tmp_path / "two", 0).items():
        torch.testing.assert_close(value, alone.model.state_dict()[name], rtol=0, atol=1e-9)
    first, second = (record(tmp_path / "two", rank)["run"] for rank in (0, 1))
    for key in set(first) - {"seconds"}:
        assert first[key] == second[key], key
    for one, other in zip(first["curve"], alone.record["run"]["curve"], strict=True):
        assert one == pytest.approx(other, rel=1e-5)
    assert first["processes"] == 2 and len(first["validation"]) == 3
    assert first["forwards"] == alone.record["run"]["forwards"] + 3 * 20 * 12
    assert sorted(p.name for p in (tmp_path / "two").iterdir()) == [CHECKPOINT_FILE, RECORD_FILE]
    with pytest.raises(InputError, match="processes differs: was 2, is 1"):
        run(tmp_path / "two", "clean_ft", model=SmallModel(double=True), recipe=recipe, validation=small_images(seed=9))


@pytest.mark.slow
def test_only_the_first_process_writes(tmp_path: Path) -> None:
    given: dict[str, Any] = {"name": "tecoa", "shared": False, "recipe": {**RECIPE, "checkpoint_steps": 1, "steps": 3}}
    finish(start(tmp_path / "two", **given))
    assert sorted(p.name for p in (tmp_path / "two").iterdir()) == [CHECKPOINT_FILE, RECORD_FILE]
    assert not (tmp_path / "elsewhere").exists()
    # A folder that only the first sees holds a checkpoint of its own: they would start from different steps.
    assert "processes of this training do not start from one state" in finish(start(tmp_path / "two", **given), code=1)


@pytest.mark.slow
def test_kill_9_of_one_process_and_resuming_ends_in_the_same_bits(tmp_path: Path) -> None:
    recipe = {
        **RECIPE,
        "steps": 24,
        "checkpoint_steps": 1,
        "accumulate": 2,
        "ema_decay": 0.9,
        "precision": "bf16",
        "validation_images": 20,
        "validation_points": 5,
    }
    given: dict[str, Any] = {"name": "hier_aft", "recipe": recipe, "validation": True}
    finish(start(tmp_path / "whole", **given))
    for victim in (1, 0):
        (notes(tmp_path / "killed") / f"pid{victim}").unlink(missing_ok=True)
        before = (tmp_path / "killed" / CHECKPOINT_FILE).stat().st_mtime_ns if victim == 0 else 0
        process = start(tmp_path / "killed", **given)
        wait_for(notes(tmp_path / "killed") / f"pid{victim}", process)
        wait_for(tmp_path / "killed" / CHECKPOINT_FILE, process)
        while (tmp_path / "killed" / CHECKPOINT_FILE).stat().st_mtime_ns == before and process.poll() is None:
            time.sleep(0.005)
        os.kill(int((notes(tmp_path / "killed") / f"pid{victim}").read_text()), signal.SIGKILL)
        finish(process, code=1)
        assert not (tmp_path / "killed" / RECORD_FILE).exists()
    finish(start(tmp_path / "killed", **given))
    for rank in (0, 1):
        assert equal(weights(tmp_path / "killed", rank), weights(tmp_path / "whole", 0))
    whole, killed = (record(tmp_path / name, 0)["run"] for name in ("whole", "killed"))
    assert killed["resumes"] == 2
    for key in set(whole) - {"seconds", "resumes"}:
        assert killed[key] == whole[key], key


@pytest.mark.slow
def test_a_stop_asked_of_one_process_stops_both_with_a_checkpoint(tmp_path: Path) -> None:
    recipe = {**RECIPE, "checkpoint_steps": None}
    finish(start(tmp_path / "whole", name="tecoa", recipe=recipe))
    finish(start(tmp_path / "stopped", name="tecoa", recipe=recipe, stop_rank=1, stop_step=5))
    for rank in (0, 1):
        assert "stopped at step 5 of 12" in (notes(tmp_path / "stopped") / f"stopped{rank}").read_text()
    assert [p.name for p in (tmp_path / "stopped").iterdir()] == [CHECKPOINT_FILE]
    finish(start(tmp_path / "stopped", name="tecoa", recipe=recipe))
    assert equal(weights(tmp_path / "stopped", 1), weights(tmp_path / "whole", 0))


@pytest.mark.slow
def test_ctrl_c_stops_both_with_a_checkpoint(tmp_path: Path) -> None:
    recipe = {**RECIPE, "steps": 100_000, "checkpoint_steps": 1}
    process = start(tmp_path / "stopped", name="clean_ft", recipe=recipe)
    wait_for(tmp_path / "stopped" / CHECKPOINT_FILE, process)
    process.send_signal(signal.SIGINT)
    finish(process, code=None)
    for rank in (0, 1):
        assert "of 100000" in (notes(tmp_path / "stopped") / f"stopped{rank}").read_text()


UNITS = """
import os
import torch
from hierbench.defences.training.processes import join_processes
from hierbench.errors import HierbenchError

cpu = torch.device("cpu")
them = join_processes(cpu)
assert (them.rank, them.count) == (int(os.environ["RANK"]), 2) and join_processes(cpu) == them
assert them.gather({"rank": them.rank}) == [{"rank": 0}, {"rank": 1}]
assert them.any(them.rank == 1, cpu) and not them.any(False, cpu)
both, one, none = (torch.nn.Parameter(torch.zeros(2, 2)) for _ in range(3))
both.grad = torch.full((2, 2), 1.0 + them.rank)
if them.rank == 1:
    one.grad = torch.ones(2, 2)
them.sum_gradients([both, one, none])
assert both.grad.tolist() == [[3.0, 3.0]] * 2 and one.grad.tolist() == [[1.0, 1.0]] * 2 and none.grad is None
them.agree("same", "differ")
try:
    them.agree(them.rank, "differ")
except HierbenchError as error:
    assert str(error) == "the processes of this training differ"
else:
    raise AssertionError("not found out")
"""


@pytest.mark.slow
def test_what_two_processes_say_to_each_other(tmp_path: Path) -> None:
    (tmp_path / "units.py").write_text(UNITS)
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    subprocess.run([*launcher, str(tmp_path / "units.py")], check=True, env=environment(), timeout=500)
