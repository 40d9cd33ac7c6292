"""The text tower of a transformer is asked once for each prompt of an evaluation, and the record says how often."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import open_clip
import pytest
import torch
from safetensors.torch import save_file

import hierbench
from hierbench.datasets.catalogue import DATASETS, get_spec
from hierbench.hierarchy.catalogue import load_forest, load_hierarchy
from hierbench.models.load import load_model

CONFIG = {
    "model_cfg": {
        "embed_dim": 12,
        "vision_cfg": {"image_size": 32, "layers": 2, "width": 16, "head_width": 8, "patch_size": 16},
        "text_cfg": {"context_length": 16, "vocab_size": 49408, "width": 8, "heads": 2, "layers": 1},
    },
    "preprocess_cfg": {"mean": [0.5, 0.5, 0.5], "std": [0.25, 0.25, 0.25]},
}
DEVICES = [
    "cpu",
    pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")),
]


@pytest.fixture(scope="module")
def vit(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("vit")
    (folder / "open_clip_config.json").write_text(json.dumps(CONFIG))
    torch.manual_seed(0)
    clip = open_clip.create_model(f"local-dir:{folder}", load_weights=False)
    save_file(clip.state_dict(), folder / "open_clip_model.safetensors")
    return f"local-dir:{folder}"


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Rows that any text tower is given, call by call."""
    from hierbench.models import zeroshot

    calls: list[int] = []
    original = zeroshot.hidden_features

    def counted(clip: Any, tokens: torch.Tensor) -> torch.Tensor:
        calls.append(len(tokens))
        return original(clip, tokens)

    monkeypatch.setattr(zeroshot, "hidden_features", counted)
    return calls


def nodes_of(tree: str) -> int:
    return sum(len(level) for level in load_hierarchy("digits", tree).levels)


def evaluate(vit: str, folder: Path, **given: Any) -> Any:
    return hierbench.evaluate(
        model=vit, dataset="digits", attack="superclass_pgd", limit=8, batch_size=4, settings={"steps": 3}, out=folder,
        **given,
    )  # fmt: skip


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("scoring", ["rollup", "direct"])
def test_an_evaluation_encodes_every_nodes_prompt_once(
    vit: str, asked: list[int], tmp_path: Path, scoring: str, device: str
) -> None:
    record = evaluate(vit, tmp_path, tree="strokes", scoring=scoring, device=device)
    assert len(record.depths) == 3
    assert record.cost.forwards > 0
    assert record.cost.text_forwards == sum(asked) == nodes_of("strokes") == 16


@pytest.mark.parametrize("device", DEVICES)
def test_an_ensemble_costs_as_many_text_forwards_as_it_has_prompts(
    vit: str, asked: list[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, device: str
) -> None:
    from dataclasses import replace

    three = ("a photo of a {}.", "the number {}.", "{noun} on paper.")
    monkeypatch.setitem(DATASETS._entries, "digits", replace(get_spec("digits"), ensemble=three))
    record = evaluate(vit, tmp_path, tree="strokes", scoring="direct", template="ensemble", device=device)
    assert record.cost.text_forwards == sum(asked) == 3 * nodes_of("strokes")


@pytest.mark.parametrize("device", DEVICES)
def test_the_trees_of_a_forest_share_what_is_encoded(vit: str, asked: list[int], device: str) -> None:
    from hierbench.models.binding import bind, level_prompts

    trees = load_forest("digits", ("*",), get_spec("digits").class_ids).trees
    assert len(trees) > 1
    model = load_model(vit, device=device)
    template = get_spec("digits").template
    for tree in trees:
        bind(model, tree, template=template)
    different = {text for tree in trees for level in level_prompts(tree, template) for text in level}
    assert model.text_forwards == sum(asked) == len(different)
    assert len(different) < sum(nodes_of(tree.tree) for tree in trees)


def test_training_on_a_forest_encodes_each_prompt_once(vit: str, asked: list[int], tmp_path: Path) -> None:
    from typer.testing import CliRunner

    from hierbench.cli.app import app
    from hierbench.defences.nodes import training_nodes

    words = ["train", "--recipe", "digits/hier_aft", "--backbone", vit, "--tree", "*", "--limit", "32"]
    words += ["--device", "cpu", "--out", str(tmp_path / "model")]
    settings = {"steps": 3, "batch_size": 16, "prepare_images": 16, "validation_images": 0}
    done = CliRunner().invoke(app, [*words, *(w for n, v in settings.items() for w in ("--set", f"{n}={v}"))])
    assert done.exit_code == 0, done.output
    spec = get_spec("digits")
    nodes = training_nodes(load_forest("digits", ("*",), spec.class_ids), template=spec.template)
    assert sum(asked) == len(nodes.prompts)
