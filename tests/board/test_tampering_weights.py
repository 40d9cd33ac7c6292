"""Packages whose weights or stored images are others than they say are refused."""

from __future__ import annotations

import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest

from board import toy
from board.conftest import Submitted
from board.forge import forge_record, images_of, record_of, rewrite
from board.tampering import BAD_INPUT, UNTRUSTED, Harm, refused, set_
from board.toy import edit_json, sign


def test_swapped_weights_are_refused(submitted: Submitted, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    other = toy.make_model(tmp_path / "other", by=0.05)
    said = submitted.verify(capsys, "--weights", str(other))
    refused(said, UNTRUSTED, "submission.json", "weights.weights_hash: sha256:")


def test_weights_that_only_the_card_has_are_refused(submitted: Submitted, capsys: pytest.CaptureFixture[str]) -> None:
    wrong = "sha256:" + "ab" * 32
    edit_json(submitted.folder / "submission.json", set_("weights", "weights_hash", to=wrong))
    path = record_of(submitted.folder)
    refused(submitted.verify(capsys), UNTRUSTED, path.name, "identity.model.weights_hash: 'sha256:")


def test_weights_renamed_everywhere_are_refused_by_the_weights(
    submitted: Submitted, capsys: pytest.CaptureFixture[str]
) -> None:
    wrong = "sha256:" + "ab" * 32
    for attack in toy.ATTACKS:
        forge_record(submitted.folder, set_("identity", "model", "weights_hash", to=wrong), attack)
    edit_json(submitted.folder / "submission.json", set_("weights", "weights_hash", to=wrong))
    said = submitted.verify(capsys, "--weights", str(submitted.weights))
    refused(said, UNTRUSTED, "submission.json", "and the weights given are")


@pytest.mark.parametrize("name", ["delta.safetensors", "weights.pt", "model.bin"])
def test_a_pickle_inside_a_checkpoint_is_refused(
    submitted: Submitted,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
) -> None:
    weights = tmp_path / "weights"
    shutil.copytree(submitted.weights, weights)
    (weights / name).write_bytes(pickle.dumps(Harm()))
    monkeypatch.chdir(tmp_path)
    said = submitted.verify(capsys, "--weights", str(weights))
    refused(said, BAD_INPUT, name, "a pickle or an archive, which could run code")
    assert not Path("harmed").exists()


def test_an_image_outside_the_ball_is_refused(submitted: Submitted, capsys: pytest.CaptureFixture[str]) -> None:
    path = images_of(record_of(submitted.folder))
    rewrite(path, tensors=lambda t: t["d3.delta"].__setitem__((0, 0, 0, 0), 33))
    sign(submitted.folder)
    refused(submitted.verify(capsys), UNTRUSTED, path.name, "d3.delta: sample 'digits/")


def test_an_image_outside_the_box_is_refused(submitted: Submitted, capsys: pytest.CaptureFixture[str]) -> None:
    """Inside the ball, and darker than black: the clean images are needed to see it."""
    path = images_of(record_of(submitted.folder))

    def darken(tensors: dict[str, np.ndarray]) -> None:
        moved = np.flatnonzero((tensors["d3.delta"] != 0).any(axis=(1, 2, 3)))[0]
        tensors["d3.delta"][moved, 0, 0, 0] = -32  # the corner of a digit is black

    rewrite(path, tensors=darken)
    sign(submitted.folder)
    refused(submitted.verify(capsys), UNTRUSTED, path.name, "has pixels outside [0, 1]")


def test_images_of_another_sample_are_refused_by_their_pixels(
    submitted: Submitted, capsys: pytest.CaptureFixture[str]
) -> None:
    path = images_of(record_of(submitted.folder))
    rewrite(path, tensors=lambda t: t["clean.digest"].__setitem__([0, 1], t["clean.digest"][[1, 0]]))
    sign(submitted.folder)
    refused(submitted.verify(capsys), UNTRUSTED, path.name, "clean.digest: sample 'digits/")


def test_the_image_of_another_sample_is_refused_by_the_weights(
    submitted: Submitted, capsys: pytest.CaptureFixture[str]
) -> None:
    path = images_of(record_of(submitted.folder, "superclass_pgd"))

    def still(tensors: dict[str, np.ndarray]) -> None:
        tensors["d3.delta"][:] = 0  # the clean images, sold as attacked ones

    rewrite(path, tensors=still)
    sign(submitted.folder)
    said = submitted.verify(capsys, "--weights", str(submitted.weights))
    refused(said, UNTRUSTED, path.name, "d3.predicted: the weights give other verdicts on")


def test_a_missing_sample_of_images_is_refused(submitted: Submitted, capsys: pytest.CaptureFixture[str]) -> None:
    path = images_of(record_of(submitted.folder))
    path.unlink()
    sign(submitted.folder)
    refused(submitted.verify(capsys), BAD_INPUT, path.name, "is missing: every attack on images stores a sample")
