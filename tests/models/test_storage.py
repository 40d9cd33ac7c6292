"""Models on disk: exact round trip, small files, and refusal of what is damaged or hostile."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from hierbench.errors import InputError
from hierbench.models.heads import HyperbolicHead
from hierbench.models.load import load_model
from hierbench.models.storage import DELTA_FILE, MODEL_FILE, read_model, save_model
from hierbench.models.zeroshot import ModelInfo, ZeroShotModel
from hierbench.registry import UnknownNameError


def trained() -> ZeroShotModel:
    """A model that differs from its backbone in two tensors and its head."""
    model = load_model("clip")
    with torch.no_grad():
        model.clip.visual.head.proj.weight.mul_(1.01)
        model.text_projection.add_(1e-3)
    model.head = HyperbolicHead(levels=3, curvature=1.0, m_image=2.0, m_text=3.0, tau=0.07)
    model.info = ModelInfo("toy.digits", "toy", "digits", model.backbone, trained_on="digits", settings={"eps": "1/16"})
    return model


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return save_model(trained(), tmp_path / "toy.digits")


def test_the_round_trip_is_exact(folder: Path) -> None:
    model = trained()
    save_model(model, folder)
    back = read_model(folder)
    assert back.weights_hash == model.weights_hash and back.info == model.info
    pixels = torch.rand(4, 1, 8, 8)
    prompts = ["a", "b", "c"]
    torch.testing.assert_close(
        back(pixels, back.node_points(prompts, steps_above_leaf=1)),
        model(pixels, model.node_points(prompts, steps_above_leaf=1)),
        rtol=0,
        atol=0,
    )


def test_only_what_differs_is_stored(folder: Path) -> None:
    stored = load_file(folder / DELTA_FILE)
    assert {k for k in stored if k.startswith("clip.")} == {"clip.visual.head.proj.weight", "clip.text_projection"}
    assert (folder / DELTA_FILE).stat().st_size < 200_000


def edit(folder: Path, **fields: Any) -> None:
    path = folder / MODEL_FILE
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


def spoil_tensor(folder: Path, **tensors: torch.Tensor) -> None:
    named = {k.replace("__", "."): v for k, v in tensors.items()}
    save_file(load_file(folder / DELTA_FILE) | named, folder / DELTA_FILE)


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda f: (f / DELTA_FILE).write_bytes(b""), "not a readable safetensors file"),
        (lambda f: (f / DELTA_FILE).write_bytes((f / DELTA_FILE).read_bytes()[:500]), "not a readable safetensors"),
        (lambda f: (f / DELTA_FILE).write_bytes(pickle.dumps({"a": 1})), "not a readable safetensors file"),
        (lambda f: (f / DELTA_FILE).write_bytes(b"<html>404</html>" * 100), "not a readable safetensors file"),
        (lambda f: (f / DELTA_FILE).unlink(), "not found"),
        (lambda f: (f / MODEL_FILE).unlink(), "not found"),
        (lambda f: (f / MODEL_FILE).write_text("[" * 100_000), "not readable as JSON"),
        (lambda f: (f / MODEL_FILE).write_text('{"format": 2}'), "'format' should be 1"),
        (lambda f: edit(f, name="../../evil"), "field 'name'"),
        (lambda f: edit(f, backbone="local-dir:/etc"), "--backbone"),
        (lambda f: edit(f, backbone="tiny_clop-v1"), "did you mean 'tiny_clip-v1'"),
        (lambda f: edit(f, backbone_hash="sha256:0"), "backbone_hash differs"),
        (lambda f: edit(f, weights_hash="sha256:0"), "weights_hash differs"),
        (lambda f: edit(f, head={"kind": "elliptic"}), "kind = 'elliptic'"),
        (lambda f: spoil_tensor(f, clip__nothing=torch.zeros(1)), "no part of tiny_clip-v1"),
        (lambda f: spoil_tensor(f, clip__text_projection=torch.zeros(2, 2)), "it should be (88, 128)"),
        (lambda f: spoil_tensor(f, head__tau=torch.tensor(float("nan"))), "NaN or infinity"),
        (lambda f: spoil_tensor(f, head__tau=torch.tensor(0.5)), "weights_hash differs"),
    ],
)
def test_damage_is_refused_in_one_line(folder: Path, spoil: Any, said: str) -> None:
    spoil(folder)
    with pytest.raises(InputError) as caught:
        read_model(folder)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_pickle_in_disguise_is_never_run(folder: Path, tmp_path: Path) -> None:
    marker = tmp_path / "owned"

    class Payload:
        def __reduce__(self) -> tuple[Any, ...]:
            return (marker.touch, ())

    (folder / DELTA_FILE).write_bytes(pickle.dumps(Payload()))
    with pytest.raises(InputError):
        read_model(folder)
    assert not marker.exists()


def test_a_backbone_in_a_folder_is_named_by_the_user(tmp_path: Path) -> None:
    from hierbench.models.backbones import load_backbone
    from hierbench.paths import data_dir

    source = f"local-dir:{data_dir() / 'weights' / 'tiny_clip-v1'}"
    model = load_backbone(source)
    model.info = ModelInfo("mine", "toy", "", source)
    save_model(model, tmp_path / "mine")
    assert load_model(str(tmp_path / "mine"), backbone=source).name == "mine"


def test_unknown_models_are_answered_with_near_ones() -> None:
    with pytest.raises(UnknownNameError, match="did you mean 'clip'"):
        load_model("clop")


def test_a_damaged_backbone_names_the_file(tmp_path: Path) -> None:
    from hierbench.models.backbones import CONFIG_FILE, WEIGHTS_FILE, load_backbone
    from hierbench.paths import data_dir

    source = data_dir() / "weights" / "tiny_clip-v1"
    with pytest.raises(InputError, match=CONFIG_FILE):
        load_backbone(f"local-dir:{tmp_path}")
    (tmp_path / CONFIG_FILE).write_bytes((source / CONFIG_FILE).read_bytes())
    (tmp_path / WEIGHTS_FILE).write_bytes((source / WEIGHTS_FILE).read_bytes()[:1000])
    with pytest.raises(InputError, match=WEIGHTS_FILE):
        load_backbone(f"local-dir:{tmp_path}")
    state = load_file(source / WEIGHTS_FILE)
    state.pop("logit_scale")
    save_file(state, tmp_path / WEIGHTS_FILE)
    with pytest.raises(InputError, match="lacks 'logit_scale'"):
        load_backbone(f"local-dir:{tmp_path}")
