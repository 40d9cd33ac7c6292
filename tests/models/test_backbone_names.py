"""Backbones by name: what each form means, what is refused as ambiguous, and what their records say."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import huggingface_hub
import open_clip
import pytest
import torch
from open_clip import factory
from open_clip.pretrained import _PRETRAINED

from hierbench.errors import InputError
from hierbench.evaluation.cell import cell_name
from hierbench.evaluation.stored import read_record
from hierbench.models import facts, fetching
from hierbench.models.backbones import load_backbone, parse_backbone
from hierbench.models.catalogue import resolve_model
from hierbench.models.load import load_model
from hierbench.models.published import PUBLISHED
from hierbench.paths import data_dir

SHIPPED = "sha256:905001c707618b4517bc4137292f182bd3a75339294410f152c8960edfed80e6"


@pytest.fixture
def no_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetching, "_reachable", lambda: False)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that stands in for the Hub: ORG/NAME/FILE."""
    monkeypatch.setattr(fetching, "_reachable", lambda: True)

    def download(repository: str, name: str, *, revision: str | None, local_files_only: bool) -> str:
        source = tmp_path / "hub" / repository / name
        if not source.is_file():
            raise FileNotFoundError(f"404: {repository} has no {name}")
        cached = tmp_path / "cache" / repository.replace("/", "--") / "snapshots" / (revision or "c0ffee") / name
        cached.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, cached)
        return str(cached)

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    return tmp_path / "hub"


@pytest.fixture
def architecture(config: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> str:
    """An architecture that open_clip knows with and without QuickGELU, and whose tag was trained with it."""
    plain, quick = config["model_cfg"], {**config["model_cfg"], "quick_gelu": True}
    monkeypatch.setitem(factory._MODEL_CONFIGS, "test-tiny", plain)
    monkeypatch.setitem(factory._MODEL_CONFIGS, "test-tiny-quickgelu", quick)
    tag = {"hf_hub": "lab/test-tiny/", "url": "", "quick_gelu": True, "mean": (0.1, 0.2, 0.3), "std": (0.4, 0.5, 0.6)}
    monkeypatch.setitem(_PRETRAINED, "test-tiny", {"base": tag})
    monkeypatch.setitem(_PRETRAINED, "test-tiny-quickgelu", {"base": tag})
    return "test-tiny-quickgelu"


def test_a_tag_is_fetched_loaded_and_said(
    hub: Path, architecture: str, config: dict[str, Any], make_backbone: Callable[..., str]
) -> None:
    config["model_cfg"]["quick_gelu"] = True
    folder = make_backbone(hub / "lab" / "test-tiny", config, seed=7)
    model, same = load_model(f"{architecture}/base"), load_backbone(folder)
    assert model.name == model.backbone == f"{architecture}/base" and model.info.defence == "none"
    for name, tensor in same.clip.state_dict().items():
        assert torch.equal(tensor, model.clip.state_dict()[name])
    found = facts.towers(model)
    assert found["activation"] == "quickgelu" and found["weights"] == "Hub commit c0ffee"
    assert (found["image_size"], found["context_length"], found["precision"]) == (32, 16, "float32")
    assert (found["mean"], found["std"]) == ([0.1, 0.2, 0.3], [0.4, 0.5, 0.6]), "the tag's, not the default's"


def test_a_tag_and_an_architecture_that_disagree_on_quickgelu_are_refused(architecture: str) -> None:
    with pytest.raises(InputError, match=f"with QuickGELU and test-tiny is built without it; say {architecture}/base"):
        load_backbone("test-tiny/base")
    with pytest.raises(InputError, match=r"RN50 is built without it; say RN50-quickgelu/openai"):
        load_backbone("RN50/openai")
    with pytest.raises(InputError, match=r"is built with it; say ViT-B-32/laion2b_s34b_b79k"):
        load_backbone("ViT-B-32-quickgelu/laion2b_s34b_b79k")


def test_the_hub_is_read_like_a_folder(hub: Path, config: dict[str, Any], make_backbone: Callable[..., str]) -> None:
    same = load_backbone(make_backbone(hub / "lab" / "robust", config, seed=3))
    model = load_model("hf-hub:lab/robust")
    assert model.weights_hash == same.weights_hash and model.info.weights == "Hub commit c0ffee"
    assert load_model("hf-hub:lab/robust@abc123").info.weights == "Hub commit abc123"
    (hub / "lab" / "robust" / "open_clip_model.safetensors").unlink()
    torch.save(same.clip.state_dict(), hub / "lab" / "robust" / "open_clip_pytorch_model.bin")
    shutil.rmtree(hub.parent / "cache")
    assert load_model("hf-hub:lab/robust").weights_hash == same.weights_hash, "a pickled copy, read without running it"


def test_a_published_model_that_lost_its_quickgelu_is_refused(
    hub: Path, config: dict[str, Any], make_backbone: Callable[..., str]
) -> None:
    make_backbone(hub / "chs20" / "fare2-clip", config)
    with pytest.raises(InputError, match="builds gelu, its weights were trained with quickgelu"):
        load_backbone("hf-hub:chs20/fare2-clip")


@pytest.mark.parametrize("name", ["ViT-B-32-quickgelu/openai", "hf-hub:chs20/fare2-clip"])
def test_without_a_network_one_line_says_what_to_bring(name: str, no_network: None) -> None:
    with pytest.raises(InputError) as caught:
        load_model(name)
    said = str(caught.value)
    assert name in said and "could not be fetched (no network here" in said and "--backbone local-dir:FOLDER" in said
    assert "\n" not in said


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("ViT-B-32x/openai", "did you mean 'ViT-B-32"),
        ("ViT-B-32-quickgelu/openay", "has no tag 'openay'; it has openai"),
        ("hf-hub:only-a-name", "comes ORG/NAME"),
        ("hf-hub:../../etc", "comes ORG/NAME"),
        ("ViT-B-32", "a backbone is ARCHITECTURE/TAG"),
        ("local-dir:/nowhere", "open_clip_config.json is missing"),
    ],
)
def test_what_is_no_backbone_is_answered_with_what_is(name: str, said: str) -> None:
    with pytest.raises(InputError) as caught:
        load_backbone(name)
    assert said in str(caught.value) and "\n" not in str(caught.value)


def test_random_weights_are_drawn_from_a_seed_and_said_to_be(architecture: str) -> None:
    torch.manual_seed(1)
    before = torch.get_rng_state()
    one, same, other = (load_model(f"{architecture}/{tag}") for tag in ("random", "random-0", "random-1"))
    assert torch.equal(torch.get_rng_state(), before), "the caller's draws are the caller's"
    assert one.weights_hash == same.weights_hash != other.weights_hash
    assert facts.towers(one)["weights"] == "random, never trained, seed 0"
    assert one.backbone == f"{architecture}/random"


def test_quickgelu_is_part_of_the_weights_hash(architecture: str) -> None:
    quick, plain = load_backbone("test-tiny-quickgelu/random"), load_backbone("test-tiny/random")
    for name, tensor in plain.clip.state_dict().items():
        assert torch.equal(tensor, quick.clip.state_dict()[name])
    assert (quick.activation, plain.activation) == ("quickgelu", "gelu")
    assert quick.weights_hash != plain.weights_hash


def test_hashes_and_cells_from_before_activations_were_said_stay() -> None:
    model = load_backbone("tiny_clip-v1")
    assert model.weights_hash == SHIPPED and model.activation == "image relu, text gelu"
    records = sorted((data_dir() / "leaderboard" / "records" / "digits-v1" / "clip").glob("*.json"))
    identity = read_record(records[0]).identity
    said = identity.model.model_copy(update={"activation": model.activation})
    silent = identity.model.model_copy(update={"activation": None})
    names = {cell_name(identity.model_copy(update={"model": m}), seed=0, batch_size=8) for m in (said, silent)}
    assert len(names) == 1


def test_activations_are_read_from_the_towers() -> None:
    def small(**model: Any) -> Any:
        vision = {"image_size": 32, "layers": [1, 1, 1, 1], "width": 8, "head_width": 64, "patch_size": None}
        text = {"context_length": 8, "vocab_size": 64, "width": 8, "heads": 2, "layers": 1}
        return open_clip.CLIP(embed_dim=8, vision_cfg=vision, text_cfg=text, **model)

    assert facts.activation(small()) == "image relu, text gelu"
    assert facts.activation(small(quick_gelu=True)) == "image relu, text quickgelu"
    assert facts.hidden_activation(small()) is None, "as in hashes from before"
    assert facts.hidden_activation(small(quick_gelu=True)) == "image relu, text quickgelu"
    assert facts.activation(torch.nn.Sequential(torch.nn.GELU(approximate="tanh"))) == "image none, text gelu_tanh"


@pytest.mark.parametrize(("name", "entry"), list(PUBLISHED.items()))
def test_every_published_model_has_a_name_open_clip_can_follow(name: str, entry: Any) -> None:
    parsed = parse_backbone(name)
    assert resolve_model(name).backbone == name and entry.hub_id and entry.published_protocol and entry.confirmation
    if parsed.kind == "tag":
        config = open_clip.get_pretrained_cfg(parsed.place, parsed.detail)
        assert config["hf_hub"].rstrip("/") == entry.hub_id
        assert bool(config.get("quick_gelu")) == (entry.activation == "quickgelu")
        built = open_clip.get_model_config(parsed.place)
        assert built["vision_cfg"]["image_size"] == entry.image_size
        assert bool(built.get("quick_gelu")) == (entry.activation == "quickgelu")


def test_a_folder_or_a_file_comes_before_a_backbone_of_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert resolve_model("RN50/openai").backbone == "RN50/openai"
    (tmp_path / "RN50").mkdir()
    (tmp_path / "RN50" / "openai").touch()
    assert resolve_model("RN50/openai").checkpoint == Path("RN50/openai")
