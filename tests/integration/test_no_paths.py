"""What goes to strangers says nothing of where it was made: a home folder's name is nobody's business."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from hierbench.cli.app import run
from hierbench.models.backbones import WEIGHTS_FILE
from hierbench.paths import data_dir

FAST = ["--dataset", "digits", "--limit", "8", "--batch-size", "8", "--device", "cpu", "--quiet"]


@pytest.fixture
def home(tmp_path: Path) -> Path:
    folder = tmp_path / "home-of-somebody"
    folder.mkdir()
    shutil.copytree(data_dir() / "weights" / "tiny_clip-v1", folder / "towers")
    return folder


def mentions(folder: Path, words: str) -> list[str]:
    """Return the files below a folder that hold the words, binary ones too."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert files
    return [path.name for path in files if words.encode() in path.read_bytes()]


def test_a_model_and_its_records_name_no_folder_of_the_user(home: Path, tmp_path: Path) -> None:
    from hierbench.defences.recipe import FOLDER

    recipe = home / "mine.toml"
    shutil.copy(FOLDER / "digits" / "tecoa.toml", recipe)
    backbone, model, out = f"local-dir:{home / 'towers'}", tmp_path / "mine", tmp_path / "results"
    asked = ["--recipe", str(recipe), "--backbone", backbone, "--limit", "16", "--device", "cpu"]
    assert run(["train", *asked, "--set", "epochs=1", "--set", "batch_size=8", "--out", str(model)]) == 0
    assert mentions(model, "home-of-somebody") == []
    assert json.loads((model / "training.json").read_text("utf-8"))["given"]["recipe"] == "mine.toml"

    moved = home / "runs" / "last"
    shutil.copytree(model, moved)
    evaluate = ["eval", "--attack", "leaf_pgd", "--steps", "1", *FAST]
    assert run([*evaluate, "--model", str(moved), "--backbone", backbone, "--out", str(out / "folder")]) == 0
    assert run([*evaluate, "--model", backbone, "--out", str(out / "backbone")]) == 0
    assert run([*evaluate, "--model", "clip", "--backbone", backbone, "--out", str(out / "clip")]) == 0
    weights = shutil.copy(home / "towers" / WEIGHTS_FILE, home / "their.safetensors")
    assert run([*evaluate, "--model", str(weights), "--backbone", backbone, "--out", str(out / "weights")]) == 0
    assert mentions(out, "home-of-somebody") == []
    given = [json.loads(path.read_text("utf-8"))["arguments"]["given"] for path in sorted(out.rglob("*.json"))]
    assert [(said["model"], said.get("backbone")) for said in given] == [
        ("local-dir:towers", None), ("clip", "local-dir:towers"), ("last", "local-dir:towers"),
        ("their.safetensors", "local-dir:towers"),
    ]  # fmt: skip


def test_a_model_from_a_folder_is_saved_again(home: Path, tmp_path: Path) -> None:
    """Its file names no place, so the one it was read with must be remembered."""
    from hierbench.models.backbones import load_backbone
    from hierbench.models.load import load_model
    from hierbench.models.storage import save_model

    backbone = f"local-dir:{home / 'towers'}"
    save_model(load_backbone(backbone), tmp_path / "first")
    save_model(load_model(str(tmp_path / "first"), backbone=backbone), tmp_path / "second")
    assert load_model(str(tmp_path / "second"), backbone=backbone).name == "clip"
