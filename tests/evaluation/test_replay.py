"""Adversarial images on disk: kept, judged again, shown to another model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cli import fake_model

from evaluation.replaying import RUN, N, OtherBound, OtherModel, images_of, stored
from hierbench.attacks.threat import distances
from hierbench.errors import InputError
from hierbench.evaluation import runner
from hierbench.evaluation.prepare import prepare_cell
from hierbench.evaluation.replay import file as image_file
from hierbench.evaluation.replay.file import open_images
from hierbench.evaluation.replay.form import decode
from hierbench.evaluation.replay.run import replay
from hierbench.evaluation.request import Request
from hierbench.evaluation.runner import run_cell
from hierbench.evaluation.stored import read_record
from hierbench.evaluation.verdicts import read_verdicts
from hierbench.evaluation.victim import EngineVictim

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.parametrize("form", ["8bit", "float"])
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"norm": "l2", "eps": "3/4"},
        {"attack": "leaf_pgd"},
        {"attack": "multilevel_apgd"},
        {"scoring": "direct"},
        {"eps": "0"},
    ],
    ids=str,
)
def test_stored_images_are_verified_from_disk(out: Path, form: str, changes: dict[str, Any]) -> None:
    done = replay(stored(out, form, **changes), device="cpu")
    assert done.confirmed and not done.transferred
    assert set(done.differing.values()) == {0}
    assert done.depths == done.source_depths
    assert done.notes == ()


def test_float_images_carry_the_verdicts_of_the_record(out: Path) -> None:
    file = open_images(stored(out))
    verdicts = read_verdicts(next(out.rglob("*.parquet")))
    for depth, attack in verdicts.attacked.items():
        judged = file.judged(depth)
        assert np.array_equal(judged.predicted, attack.predicted)
        assert np.array_equal(judged.broken_rollup, attack.broken_rollup)
        deltas = file.deltas(depth, 0, N)
        clean = prepare_cell(request(out)).images.pixels(np.arange(N))
        far = distances(decode(deltas, clean, form="float"), clean.float() / 255, norm="linf")
        assert np.array_equal(far.numpy(), attack.linf)


def test_8_bit_images_have_verdicts_of_their_own(out: Path) -> None:
    """With a radius of a grid step and a half a third of every change is lost, and some success with it."""
    changes = {"eps": "3/510", "limit": 360, "attack": "leaf_pgd", "settings": {"steps": 5}, "batch_size": 64}
    coarse, fine = (open_images(stored(out, form, **changes)) for form in ("8bit", "float"))
    assert (fine.judged(3).broken_rollup & ~coarse.judged(3).broken_rollup).any()
    assert coarse.tensors.shapes["d3.delta"] == ("I8", (360, 1, 8, 8))
    assert np.abs(coarse.deltas(3, 0, 360)).max() == 1
    assert replay(coarse.path, device="cpu").confirmed


def request(out: Path, form: str | None = None, **changes: Any) -> Request:
    return Request(model="clip", out=out, store_images=form, **{**RUN, **changes})


@pytest.mark.parametrize("form", ["8bit", "float"])
def test_keeping_images_changes_no_figure(out: Path, form: str) -> None:
    plain = run_cell(prepare_cell(request(out / "a")))
    kept = run_cell(prepare_cell(request(out / "b", form)))
    varying = {"created": True, "cost": {"seconds", "images_per_second", "per_depth", "peak_memory_bytes"}}
    assert plain.model_dump(exclude=varying) == kept.model_dump(exclude=varying)
    assert plain.cost.forwards == kept.cost.forwards


def test_a_killed_run_goes_on_and_ends_with_the_same_file(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = stored(out / "whole")
    real, calls = EngineVictim.attack, [0]

    def failing(self: EngineVictim, *arguments: Any) -> Any:
        calls[0] += 1
        if calls[0] == 4:
            raise KeyboardInterrupt
        return real(self, *arguments)

    with monkeypatch.context() as patched:
        patched.setattr(EngineVictim, "attack", failing)
        with pytest.raises(KeyboardInterrupt):
            stored(out / "killed")
    assert not list((out / "killed").rglob("*.images-*"))
    record = run_cell(prepare_cell(request(out / "killed", "float")))
    assert record.cost.units_resumed > 0
    killed = images_of(out / "killed", "float")
    tensors, again = open_images(whole).tensors, open_images(killed).tensors
    assert all(np.array_equal(tensors.rows(name), again.rows(name)) for name in tensors.shapes)
    assert [p.suffix for p in sorted(killed.parent.iterdir())] == [".safetensors", ".json", ".parquet"]


def test_a_run_that_was_killed_without_images_goes_on_with_them(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = EngineVictim.attack

    def failing(self: EngineVictim, chunk: Any, clean: Any, depth: int, report: Any) -> Any:
        if depth == 3:
            raise KeyboardInterrupt
        return real(self, chunk, clean, depth, report)

    with monkeypatch.context() as patched:
        patched.setattr(EngineVictim, "attack", failing)
        with pytest.raises(KeyboardInterrupt):
            run_cell(prepare_cell(request(out)))
    record = run_cell(prepare_cell(request(out, "8bit")))
    assert record.cost.units_resumed == 2, "the clean pass is kept, the attacks are made again for their images"
    assert replay(images_of(out, "8bit"), device="cpu").confirmed


def test_a_finished_cell_without_its_images_is_run_again(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run_cell(prepare_cell(request(out)))
    path = stored(out)
    held = path.read_bytes()
    monkeypatch.setattr(runner, "_Run", None)  # nothing may run from here on
    assert run_cell(prepare_cell(request(out, "float"))).checks.failed is False
    path.write_bytes(held[:-1])
    with pytest.raises(TypeError):
        run_cell(prepare_cell(request(out, "float")))


def test_more_than_a_file_may_hold_is_refused_before_the_run(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(image_file, "MAX_BYTES", N * 64 * 3 * 4 - 1)
    with pytest.raises(InputError, match=r"--store-images: .* use --limit or fewer --depth, or 8bit"):
        prepare_cell(request(out, "float"))
    prepare_cell(request(out, "8bit"))
    with pytest.raises(InputError, match=r"--store-images: 'png' is none of 8bit, float"):
        prepare_cell(request(out, "png"))


@pytest.mark.parametrize("form", ["8bit", "float"])
def test_a_transfer_is_an_ordinary_record(out: Path, form: str) -> None:
    path = stored(out, form)
    done = replay(path, model="tecoa.digits", device="cpu", out=out)
    record = done.record
    assert record is not None and done.transferred and done.confirmed
    assert done.record_path is not None and read_record(done.record_path) == record
    attack = record.identity.attack
    assert attack.name == "transfer:clip/superclass_pgd"
    assert attack.parameters["source_weights"] == open_images(path).identity.model.weights_hash
    assert record.identity.protocol.custom
    assert record.identity.model.name == "tecoa.digits"
    assert record.checks.raised_share is None
    assert {flag.code for flag in record.checks.flags} >= {"transferred_images"}
    verdicts = read_verdicts(done.record_path.with_suffix(".parquet"))
    stored_images = open_images(path)
    cell = prepare_cell(request(out))
    bound = OtherBound(OtherModel("tecoa.digits"), cell.hierarchy)
    clean = cell.images.pixels(np.arange(N))
    for depth, found in verdicts.attacked.items():  # by hand
        images = decode(stored_images.deltas(depth, 0, N), clean, form=stored_images.form)
        predicted = bound(images)[:, :10].argmax(dim=1).numpy()
        assert np.array_equal(found.predicted, predicted)
        assert found.steps.sum() == 0 and not np.isfinite(found.final_loss).any()


def test_a_transfer_counts_samples_that_the_source_never_attacked(out: Path) -> None:
    path = stored(out, eps="2/255")
    file = open_images(path)
    wrong = int(file.clean.broken_rollup[:, 0].sum())
    assert wrong > 0, "the source gets some wrong"
    record = replay(path, model="tecoa.digits", device="cpu", out=out).record
    assert record is not None and not record.checks.failed
    assert "source_was_wrong" in {flag.code for flag in record.checks.flags}


def test_a_transfer_can_be_interrupted_and_is_read_when_finished(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = stored(out)
    first = replay(path, model="tecoa.digits", device="cpu", out=out).record
    monkeypatch.setattr(runner, "_Run", None)
    assert replay(path, model="tecoa.digits", device="cpu", out=out).record == first


def test_other_weights_of_the_same_name_are_no_verification(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = stored(out)
    monkeypatch.setattr(OtherModel, "__init__", lambda self, name: fake_model.FakeModel.__init__(self, name))
    with pytest.raises(InputError, match="model clip has other weights now"):
        replay(path, device="cpu")
    assert replay(path, model="clip", device="cpu", out=out).transferred
