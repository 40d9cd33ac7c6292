"""Every layout in use is told apart by its keys and answers exactly as the model that was saved."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from hierbench.errors import InputError
from hierbench.models.checkpoints.names import LAYOUTS
from hierbench.models.checkpoints.read import model_name
from hierbench.models.load import load_model

Write = Callable[[str], Path]
NAMED = {"safetensors": "visual", "full": "data-parallel", "full as OpenAI has it": "full"}


def test_every_layout_answers_as_the_model_that_was_saved(
    every_layout: str, tuned: Any, write: Write, answer: Any
) -> None:
    path = write(every_layout)
    model = load_model(str(path), backbone=tuned.backbone)
    expected = tuned.expected(every_layout)
    torch.testing.assert_close(answer(model), answer(expected), rtol=0, atol=0)
    assert model.weights_hash == expected.weights_hash
    source = model.info.checkpoint
    assert source is not None and source.layout == NAMED.get(every_layout, every_layout.split(" ")[0])
    assert source.container == {"t": "safetensors"}.get(path.suffix[-6:-5], source.container)
    assert source.sha256 == f"sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}"
    assert source.stored_as == "float32"
    assert (model.name, model.info.backbone, model.info.defence) == ("tuned", tuned.backbone, "unstated")
    assert model.backbone == "local-dir:small"
    assert model.info.backbone_hash != model.weights_hash
    assert not any(parameter.requires_grad for parameter in model.parameters()) and not model.training


def test_every_layout_can_be_named_and_no_other_passes(layout_of_six: str, tuned: Any, write: Write) -> None:
    path = write(layout_of_six)
    found = load_model(str(path), backbone=tuned.backbone).info.checkpoint
    assert found is not None
    load_model(str(path), backbone=tuned.backbone, weights_layout=found.layout)
    for other in set(LAYOUTS) - {found.layout}:
        with pytest.raises(InputError, match=f"--weights-layout {other}: its keys are those of layout {found.layout}"):
            load_model(str(path), backbone=tuned.backbone, weights_layout=other)


def test_half_precision_is_taken_as_it_is_stored_and_said(tuned: Any, tmp_path: Path, answer: Any) -> None:
    state = {name: tensor.half() for name, tensor in tuned.model.clip.visual.state_dict().items()}
    save_file(state, tmp_path / "half.safetensors")
    model = load_model(str(tmp_path / "half.safetensors"), backbone=tuned.backbone)
    assert model.info.checkpoint is not None and model.info.checkpoint.stored_as == "float16"
    for name, tensor in model.clip.visual.state_dict().items():
        assert tensor.dtype == torch.float32 and torch.equal(tensor, state[name].float())


def test_a_logit_scale_of_one_entry_fits_one_of_none(tuned: Any, tmp_path: Path) -> None:
    state = tuned.both.clip.state_dict()
    state["logit_scale"] = state["logit_scale"].reshape(1)
    torch.save(state, tmp_path / "full.pt")
    assert load_model(str(tmp_path / "full.pt"), backbone=tuned.backbone).weights_hash == tuned.both.weights_hash


def test_a_file_with_both_towers_needs_nothing_of_the_backbone_but_its_architecture(tmp_path: Path) -> None:
    donor = load_model("clip")
    torch.save({"state_dict": donor.clip.state_dict()}, tmp_path / "both.pt")
    model = load_model(str(tmp_path / "both.pt"), backbone="tiny_clip-v1/random")
    for name, tensor in donor.clip.state_dict().items():
        assert torch.equal(model.clip.state_dict()[name], tensor)
    assert model.info.weights is None, "none of the random weights is left"


def test_buffers_that_count_are_loaded_as_whole_numbers(tmp_path: Path) -> None:
    donor = load_model("tecoa.digits")
    torch.save(donor.clip.visual.state_dict(), tmp_path / "tecoa.pth.tar")
    model = load_model(str(tmp_path / "tecoa.pth.tar"), backbone="tiny_clip-v1")
    assert any(not tensor.is_floating_point() for tensor in model.clip.visual.state_dict().values())
    for name, tensor in donor.clip.visual.state_dict().items():
        assert torch.equal(model.clip.visual.state_dict()[name], tensor)
    assert model.name == "tecoa"


def test_a_checkpoint_without_its_backbone_is_ambiguous(write: Write) -> None:
    with pytest.raises(InputError, match="does not say its architecture; give --backbone"):
        load_model(str(write("visual")))


@pytest.mark.parametrize(
    ("file", "name"),
    [
        ("model_best.pth.tar", "model_best"),
        ("fare 4 (1).pt", "fare-4-1"),
        ("....pt", "checkpoint"),
        ("eps=0.01.safetensors", "eps-0.01"),
    ],
)
def test_a_model_is_called_after_its_file(file: str, name: str) -> None:
    assert model_name(Path("/somewhere") / file) == name
