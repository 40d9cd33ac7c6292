from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from evaluation.replaying import OtherBound, OtherModel, rewrite

from cli import fake_model
from hierbench.cli.app import run
from hierbench.evaluation import prepare
from hierbench.evaluation.stored import read_record

FAST = ["--limit", "24", "--steps", "3", "--batch-size", "12", "--device", "cpu"]
MACHINE = ("torch", "cpu", "datasets")


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Path:
    fake_model.install(monkeypatch)
    monkeypatch.setattr(prepare, "load_model", lambda entry, **_: OtherModel(entry.name))
    monkeypatch.setattr(prepare, "bind", lambda model, hierarchy, template: OtherBound(model, hierarchy))
    monkeypatch.chdir(tmp_path)
    assert run(["eval", "--store-images", "8bit", *FAST]) == 0
    (path,) = Path("hierbench-results").rglob("*.images-8bit.safetensors")
    assert f"images: {path}" in capsys.readouterr().out
    return path


def error(capsys: pytest.CaptureFixture[str]) -> str:
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1, lines
    return lines[0]


def test_replay_verifies(images: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["replay", str(images), "--device", "cpu"]) == 0
    shown = capsys.readouterr().out
    assert "clip under its own images of superclass_pgd, judged again" in shown
    assert shown.count("direct") == shown.count("rollup") == 3
    assert "verified: 24 samples, 3 attacked depths" in shown
    assert run(["replay", str(images), "--device", "cpu", "--quiet"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 1


def test_replay_on_another_model_writes_a_record_that_tables_show(
    images: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["replay", str(images), "--model", "tecoa", "--device", "cpu"]) == 0
    shown = capsys.readouterr().out
    assert "tecoa.digits under images that superclass_pgd made for clip" in shown and "clip robust" in shown
    record = read_record(Path(shown.split("record: ")[1].strip()))
    entry = record.depths[-1].rollup
    assert entry.robust is not None and f"{100 * entry.robust.value:.1f}" in shown
    assert run(["table", "--layout", "models", "--format", "csv"]) == 0
    assert "transfer:clip/superclass_pgd" in capsys.readouterr().out


def test_a_verdict_that_differs_ends_with_3(images: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def boast(tensors: dict[str, np.ndarray], heading: object) -> None:
        tensors["d1.broken_rollup"][:2] ^= True

    assert run(["replay", str(rewrite(images, boast)), "--device", "cpu"]) == 3
    assert "not verified: 2 of 24 verdicts differ under the attack at depth 1" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["replay", "nowhere"], "nowhere: No such file"),
        (["replay", "."], "not a file"),
        (["replay", "IMAGES", "--model", "tecoo"], "did you mean"),
        (["replay", "IMAGES", "--device", "tpu9"], "--device"),
        (["eval", "--store-images", "png"], "--store-images: 'png' is none of 8bit, float"),
        (["doctor", "--model", "clup"], "did you mean"),
        (["doctor", "--limit", "4"], "--limit: it needs --model"),
        (["doctor", "--steps", "4"], "--steps: it needs --model"),
        (["doctor", "--model", "clip", "--steps", "0"], "--steps: 0 is too few"),
        (["doctor", "--model", "clip", "--eps", "0"], "--eps: 0 allows no change"),
        (["doctor", "--model", "clip", "--depth", "7"], "--depth: 7 does not exist"),
    ],
)
def test_errors_are_one_line_and_2(
    images: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], words: str
) -> None:
    given = [str(images) if word == "IMAGES" else word for word in arguments]
    assert run(given) == 2
    assert words in error(capsys)


def test_doctor_on_a_model_prints_every_check(images: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = ["--model", "clip", "--limit", "24", "--steps", "10", "--queries", "20", "--device", "cpu"]
    assert run(["doctor", *given]) == 0
    shown = capsys.readouterr().out
    for name in ("unbounded_eps", "monotone_eps", "black_box", "pgd_apgd_gap", "deterministic", "rng_untouched"):
        assert name in shown
    assert "24 images of digits, depth 3, scoring rollup, linf eps 32/255" in shown


def test_doctor_ends_with_3_when_a_check_fails(
    images: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        OtherBound, "__call__", lambda self, pixels: fake_model.FakeBound.__call__(self, pixels).round()
    )
    given = ["--model", "clip", "--limit", "24", "--steps", "5", "--queries", "10", "--device", "cpu"]
    assert run(["doctor", *given]) == 3
    shown = capsys.readouterr().out
    assert "failed: " in shown and "zero_gradients" in shown.split("failed: ")[1]


def test_doctor_without_a_model_looks_at_the_machine(images: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(["doctor"])
    shown = capsys.readouterr().out
    assert all(word in shown for word in MACHINE)
