"""Images of others against a listed model: packed, judged again, counted in its standing with credit."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from board import toy
from board.conftest import Submitted
from board.forge import record_of, rewrite
from board.toy import edit_json, sign
from hierbench.board.ledger import Entry, read_board
from hierbench.cli.app import run
from hierbench.datasets.load import load_images
from hierbench.evaluation.replay.file import open_images
from hierbench.evaluation.replay.form import decode

N = 24


def clean() -> np.ndarray:
    images = load_images("digits", split="test", limit=N)
    return images.pixels(np.arange(N)).numpy()


def attacked(submitted: Submitted) -> np.ndarray:
    """The images of the strongest run, uint8: what somebody could have found."""
    (path,) = submitted.results.rglob("*multilevel_apgd*.safetensors")
    stored = open_images(path)
    images = load_images("digits", split="test", limit=N)
    shown = decode(stored.deltas(3, 0, N), images.pixels(np.arange(N)), form="8bit")
    return np.rint(shown.numpy() * 255).astype(np.uint8)


def submit(submitted: Submitted, file: Path, *more: str, name: str = "found") -> int:
    places = ["--out", str(submitted.board), "--board", str(submitted.board), "--device", "cpu"]
    places += ["--records", str(file.parent / "judged"), "--quiet"]
    words = ["--name", name, "--author", "B. Breaker", "--protocol", toy.NAME]
    given = ["--attack-images", str(file), "--against", str(submitted.weights)]
    return run(["submit", *given, *words, *places, *more], debug=True)


def entry(submitted: Submitted) -> Entry:
    (found,) = read_board(submitted.board).entries
    return found


@pytest.mark.parametrize("kind", ["npy", "safetensors", "stored"])
def test_images_of_others_are_packed_verified_and_credited(
    submitted: Submitted, tmp_path: Path, capsys: pytest.CaptureFixture[str], kind: str
) -> None:
    before = entry(submitted).standings[0]
    shutil.rmtree(submitted.folder / "none", ignore_errors=True)
    if kind == "npy":
        np.save(file := tmp_path / "images.npy", attacked(submitted))
    elif kind == "safetensors":
        save_file({"images": attacked(submitted).astype(np.float32) / 255}, file := tmp_path / "images.safetensors")
    else:
        (kept,) = submitted.results.rglob("*superclass_pgd*.safetensors")
        shutil.copyfile(kept, file := tmp_path / "kept.safetensors")
    assert submit(submitted, file) == 0, capsys.readouterr()
    folder = submitted.board / "attacks" / toy.NAME / "nudged.digits" / "found"
    said = submitted.verify(capsys, "--weights", str(submitted.weights), folder=folder)
    assert said[0] == 0 and "verified: " in said[1] and "not checked" not in said[1]
    after = entry(submitted).standings[0]
    assert [credit.authors for credit in after.credits] == [("B. Breaker",)]
    assert "external:found" in after.attacks
    worst = [d.worst.count for d in after.depths("rollup")]
    assert all(now <= then.worst.count for now, then in zip(worst, before.depths("rollup"), strict=True))


def test_images_that_break_more_lower_the_row(submitted: Submitted, tmp_path: Path) -> None:
    """Without the strong run of its own, the row is as weak as others' images make it."""
    for path in submitted.folder.iterdir():
        if "_pgd" in path.name or ("_apgd" in path.name and "multilevel" in path.name):
            path.unlink() if "leaf_pgd" not in path.name else None
    edit_json(
        submitted.folder / "submission.json",
        lambda card: card.update(left_out=["digits superclass_pgd", "digits multilevel_apgd"]),
    )
    sign(submitted.folder)
    before = [d.worst.count for d in entry(submitted).standings[0].depths("rollup")]
    np.save(tmp_path / "images.npy", attacked(submitted))
    assert submit(submitted, tmp_path / "images.npy") == 0
    after = [d.worst.count for d in entry(submitted).standings[0].depths("rollup")]
    assert after[0] < before[0]


def test_images_outside_the_ball_or_of_other_shapes_are_refused(
    submitted: Submitted, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def complaint(array: np.ndarray) -> str:
        np.save(tmp_path / "images.npy", array, allow_pickle=True)
        arguments = ["submit", "--attack-images", str(tmp_path / "images.npy"), "--against", str(submitted.weights)]
        arguments += ["--name", "found", "--author", "B", "--protocol", toy.NAME, "--out", str(tmp_path / "out")]
        code = run([*arguments, "--records", str(tmp_path / "judged"), "--device", "cpu", "--quiet"])
        assert code == 2
        return capsys.readouterr().err

    far = clean().astype(np.int64)
    far[3, 0, 0, 0] = 200
    assert "the image of sample 'digits/" in complaint(far.astype(np.uint8))
    assert "shape [23, 1, 8, 8], and the sample list needs [24, 1, 8, 8]" in complaint(clean()[:23])
    assert "has pixels outside [0, 1]" in complaint(clean().astype(np.float32) / 255 - 0.1)
    assert "not readable" in complaint(np.array([{"a": 1}], dtype=object))
    assert "int64; give uint8" in complaint(far)
    assert not (tmp_path / "out").exists()


@pytest.fixture
def struck(submitted: Submitted, tmp_path: Path) -> Path:
    np.save(tmp_path / "images.npy", attacked(submitted))
    assert submit(submitted, tmp_path / "images.npy") == 0
    return submitted.board / "attacks" / toy.NAME / "nudged.digits" / "found"


def test_images_that_were_changed_afterwards_are_refused(
    submitted: Submitted, struck: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (path,) = struck.glob("*.safetensors")
    rewrite(path, tensors=lambda t: t["d3.delta"].__setitem__(slice(None), 0))
    sign(struck)
    code, text = submitted.verify(capsys, "--weights", str(submitted.weights), folder=struck)
    assert code == 3 and path.name in text and "d3.predicted: the weights give other verdicts" in text


def test_an_attack_on_a_model_that_is_not_listed_is_refused(
    submitted: Submitted, struck: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.rmtree(submitted.folder)
    code, text = submitted.verify(capsys, folder=struck)
    assert code == 3 and "attack.json: weights_hash: nudged.digits with these weights is not on the board" in text


def test_a_submission_may_not_hold_an_external_record(
    submitted: Submitted, struck: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for path in struck.iterdir():
        if path.name != "attack.json":
            shutil.copyfile(path, submitted.folder / path.name)
    sign(submitted.folder)
    code, text = submitted.verify(capsys)
    assert code == 2 and "does not belong in this kind of package" in text
    assert record_of(submitted.folder).name not in text
