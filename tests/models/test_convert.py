"""A converted checkpoint is the same model, written whole or not at all; the command line takes file and folder."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from hierbench.cli.app import run
from hierbench.errors import InputError
from hierbench.evaluation.stored import read_record
from hierbench.models.checkpoints import convert as converting
from hierbench.models.checkpoints.convert import convert
from hierbench.models.load import load_model

Write = Callable[[str], Path]


def test_a_converted_checkpoint_is_the_same_model(
    layout_of_six: str, tuned: Any, write: Write, tmp_path: Path, answer: Any
) -> None:
    path, folder = write(layout_of_six), tmp_path / "models" / "mine"
    said = convert(path, folder, backbone=tuned.backbone, name="mine", defence="tecoa", trained_on="digits")
    file, model = load_model(str(path), backbone=tuned.backbone), load_model(str(folder), backbone=tuned.backbone)
    assert said == model.weights_hash == file.weights_hash
    torch.testing.assert_close(answer(model), answer(file), rtol=0, atol=0)
    assert (model.name, model.info.defence, model.info.trained_on) == ("mine", "tecoa", "digits")
    assert model.info.checkpoint == file.info.checkpoint, "where it came from is kept"
    assert sorted(p.name for p in folder.iterdir()) == ["delta.safetensors", "model.json"]
    if layout_of_six == "visual":
        stored = load_file(folder / "delta.safetensors")
        assert all(name.startswith(("clip.visual.", "head.")) for name in stored), "the text tower is the backbone's"


def test_conversion_writes_all_or_nothing(
    tuned: Any, write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, out = write("visual"), tmp_path / "out"

    def dies(model: Any, folder: Path, **_: Any) -> Path:
        folder.mkdir()
        (folder / "delta.safetensors").write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(converting, "save_model", dies)
    with pytest.raises(Exception, match="No space left on device"):
        convert(path, out / "mine", backbone=tuned.backbone)
    assert list(out.iterdir()) == []


def test_nothing_is_overwritten_and_names_are_checked(tuned: Any, write: Write, tmp_path: Path) -> None:
    path = write("visual")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "precious").touch()
    with pytest.raises(InputError, match="is there already"):
        convert(path, tmp_path / "full", backbone=tuned.backbone)
    with pytest.raises(InputError, match="--name should be letters"):
        convert(path, tmp_path / "new", backbone=tuned.backbone, name="../evil")
    assert not (tmp_path / "new").exists()


def evaluate(model: list[str], out: Path) -> Any:
    arguments = ["eval", *model, "--limit", "4", "--attack", "leaf_pgd", "--steps", "2", "--out", str(out), "--quiet"]
    # 4 images are too few for every trust check to pass: both exit codes are of a run that finished
    assert run(arguments) in (0, 3)
    (path,) = out.rglob("*.json")
    return read_record(path)


def test_a_file_and_its_conversion_are_evaluated_alike(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    donor = load_model("tecoa.digits")
    file = tmp_path / "vitb32 eps4.pth.tar"
    torch.save({"epoch": 1, "vision_encoder_state_dict": donor.clip.visual.state_dict(), "optimizer": {}}, file)
    by_file = evaluate(["--model", str(file), "--backbone", "tiny_clip-v1"], tmp_path / "a")
    folder = tmp_path / "converted"
    arguments = ["convert", str(file), "--backbone", "tiny_clip-v1", "--out", str(folder), "--name", "robust"]
    assert run([*arguments, "--defence", "tecoa", "--trained-on", "digits"]) == 0
    assert by_file.identity.model.weights_hash in capsys.readouterr().out
    by_folder = evaluate(["--model", str(folder)], tmp_path / "b")
    assert by_file.identity.model.weights_hash == by_folder.identity.model.weights_hash
    assert by_file.depths == by_folder.depths
    model, resolved = by_file.identity.model, by_file.arguments.resolved
    assert (model.name, model.defence, model.backbone) == ("vitb32-eps4", "unstated", "tiny_clip-v1")
    assert model.activation == "image relu, text gelu"
    assert resolved["model.checkpoint.layout"] == "vision-encoder"
    assert str(resolved["model.checkpoint.sha256"]).startswith("sha256:")
    assert (resolved["model.image_size"], resolved["model.context_length"]) == (32, 32)
    assert resolved["model.precision"] == "float32" and resolved["model.mean"] == [0.5, 0.5, 0.5]
    assert by_file.arguments.given["backbone"] == "tiny_clip-v1"
    assert (by_folder.identity.model.name, by_folder.identity.model.defence) == ("robust", "tecoa")


def test_random_weights_are_said_in_the_record(tmp_path: Path) -> None:
    record = evaluate(["--model", "tiny_clip-v1/random-5"], tmp_path)
    assert record.identity.model.backbone == record.identity.model.name == "tiny_clip-v1/random-5"
    assert record.arguments.resolved["model.weights"] == "random, never trained, seed 5"
    assert any("random, never trained, seed 5" in note for note in record.notes)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--model", "{file}"], "give --backbone"),
        (["--model", "{file}", "--backbone", "tiny_clip-v1", "--weights-layout", "full"], "layout visual"),
        (["--model", "{file}", "--backbone", "tiny_clip-v1", "--weights-layout", "odd"], "none of auto, visual"),
        (["--model", "clip", "--weights-layout", "full"], "model clip is no checkpoint file"),
        (["--model", "tiny_clip-v1/random", "--backbone", "tiny_clip-v1"], "is a backbone itself"),
        (["--model", "{file}", "--backbone", "tiny_clip-v1/nothing"], "has no tag 'nothing'"),
        (["--model", "{file}", "--backbone", "RN50/openai"], "say RN50-quickgelu/openai"),
    ],
)
def test_what_is_ambiguous_is_refused_in_one_line(
    arguments: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "bare.pt"
    torch.save(load_model("clip").clip.visual.state_dict(), file)
    given = [word.format(file=file) for word in arguments]
    assert run(["eval", *given, "--limit", "4", "--out", str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err
    assert said in error and error.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_a_description_from_a_stranger_is_checked(tuned: Any, write: Write, tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    convert(write("visual"), folder, backbone=tuned.backbone)
    path = folder / "model.json"
    for checkpoint in ({"file": 1}, "text", {"file": "a", "unknown": "b"}):
        path.write_text(json.dumps(json.loads(path.read_text()) | {"checkpoint": checkpoint}))
        with pytest.raises(InputError, match="'checkpoint' are not as written"):
            load_model(str(folder), backbone=tuned.backbone)
