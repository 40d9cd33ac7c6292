"""What training can be confined to: exactly those parameters move, on the towers open_clip builds."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import open_clip
import pytest
import torch
from open_clip.timm_model import TimmModel
from standin import digits_forest, small_images

from hierbench.attacks.threat import ThreatModel
from hierbench.defences.training.settings import TrainingSettings
from hierbench.defences.training.trainer import TrainResult, train
from hierbench.defences.training.weights import select_weights
from hierbench.errors import InputError
from hierbench.models.backbones import load_backbone
from hierbench.models.heads import CosineHead
from hierbench.models.pixels import PixelInput
from hierbench.models.scopes import last_blocks, projection_parameters, text_parameters
from hierbench.models.storage import read_model, save_model
from hierbench.models.zeroshot import ModelInfo, ZeroShotModel

TEMPLATE = "a photo of {noun}."
VISION: dict[str, dict[str, Any]] = {
    "vit": {"layers": 3, "width": 16, "head_width": 8, "patch_size": 16},
    "resnet": {"layers": [1, 2, 1, 1], "width": 8, "head_width": 64, "patch_size": None},
}


def random_model(kind: str, *, own_text_tower: bool = False) -> ZeroShotModel:
    """A tiny open_clip model with random weights: 32 x 32 pixels, 12 shared dimensions, two text blocks."""
    torch.manual_seed(0)
    vision = {"image_size": 32, **VISION[kind]}
    text = {"context_length": 16, "vocab_size": 49408, "width": 8, "heads": 2, "layers": 2}
    build: Any = open_clip.CustomTextCLIP if own_text_tower else open_clip.CLIP
    clip = build(embed_dim=12, vision_cfg=vision, text_cfg=text).eval().requires_grad_(False)
    return ZeroShotModel(
        info=ModelInfo(name="clip", defence="none", variant="", backbone="random"),
        clip=clip,
        tokenizer=open_clip.SimpleTokenizer(context_length=16),
        pixels=PixelInput(32, (0.5, 0.5, 0.5), (0.25, 0.25, 0.25)),
        head=CosineHead(logit_scale=3.0),
    )


def build(kind: str) -> ZeroShotModel:
    return load_backbone("tiny_clip-v1") if kind == "tiny" else random_model(kind)


def run(model: ZeroShotModel, out: Path, scope: str, name: str = "tecoa", **options: Any) -> TrainResult:
    recipe = {"steps": 2, "batch_size": 6, "learning_rate": 1e-2, "prepare_images": 20, "train_scope": scope}
    return train(
        name,
        model=model,
        images=small_images(count=20),
        forest=digits_forest("strokes"),
        template=TEMPLATE,
        threat=ThreatModel("linf", Fraction(8, 255)),
        out_dir=out,
        training=TrainingSettings(**{**recipe, **options.pop("recipe", {})}),
        **options,
    )


TINY, VIT, RESNET = "clip.visual.trunk.stages.", "clip.visual.transformer.resblocks.", "clip.visual.layer"
TEXT = (
    "clip.positional_embedding",
    "clip.token_embedding.",
    "clip.transformer.",
    "clip.ln_final.",
    "clip.text_projection",
)
EXPECTED = {
    ("tiny", "projection"): ("clip.visual.head.proj.",),
    ("tiny", "blocks:1"): (f"{TINY}4.", "clip.visual.head.proj."),
    ("tiny", "blocks:3"): (f"{TINY}2.", f"{TINY}3.", f"{TINY}4.", "clip.visual.head.proj."),
    ("tiny", "visual"): ("clip.visual.",),
    ("tiny", "both"): ("clip.visual.", *TEXT),
    ("vit", "projection"): ("clip.visual.proj",),
    ("vit", "blocks:2"): (f"{VIT}1.", f"{VIT}2.", "clip.visual.ln_post.", "clip.visual.proj"),
    ("vit", "visual"): ("clip.visual.",),
    ("vit", "both"): ("clip.visual.", *TEXT),
    ("resnet", "projection"): ("clip.visual.attnpool.",),
    ("resnet", "blocks:2"): (f"{RESNET}3.0.", f"{RESNET}4.0.", "clip.visual.attnpool."),
    ("resnet", "blocks:4"): (f"{RESNET}2.0.", f"{RESNET}2.1.", f"{RESNET}3.", f"{RESNET}4.", "clip.visual.attnpool."),
    ("resnet", "visual"): ("clip.visual.",),
}


@pytest.mark.parametrize(("kind", "scope"), EXPECTED)
def test_exactly_the_scope_moves(tmp_path: Path, kind: str, scope: str) -> None:
    model = build(kind)
    before = {name: t.clone() for name, t in model.state_dict().items()}
    result = run(model, tmp_path, scope)
    parameters = {name for name, _ in model.named_parameters()}
    wanted = {name for name in parameters if name.startswith(EXPECTED[kind, scope])}
    moved = {name for name, t in model.state_dict().items() if not torch.equal(t, before[name])}
    assert moved == wanted
    assert result.record["run"]["trained_parameters"] == sum(before[name].numel() for name in wanted)
    assert result.record["given"]["training"]["train_scope"] == scope
    assert not any(p.requires_grad for p in model.parameters())


def test_the_head_and_the_text_projection_stay_the_methods_choice(tmp_path: Path) -> None:
    model = random_model("vit")
    result = run(model, tmp_path / "hier", "projection", "hier_aft")
    assert result.record["run"]["trains"] == ["visual", "text_projection", "head"]
    result = run(random_model("vit"), tmp_path / "tecoa", "projection")
    assert result.record["run"]["trains"] == ["visual"]


@pytest.mark.parametrize("kind", ["tiny", "vit", "resnet"])
def test_more_blocks_than_there_are_is_refused(tmp_path: Path, kind: str) -> None:
    count = {"tiny": 5, "vit": 3, "resnet": 5}[kind]
    with pytest.raises(InputError, match=f"train_scope: blocks:99 of an image tower with {count} blocks"):
        run(build(kind), tmp_path, "blocks:99")
    assert len(last_blocks(build(kind).visual, count)) > len(last_blocks(build(kind).visual, count - 1))


@pytest.mark.parametrize("scope", ["projection", "blocks:1"])
def test_a_tower_without_a_projection_is_refused(tmp_path: Path, scope: str) -> None:
    model = random_model("vit")
    model.visual.proj = None
    with pytest.raises(InputError, match="train_scope: an image tower of type VisionTransformer has no projection"):
        select_weights(model, ("visual",), train_scope=scope)


def test_blocks_of_an_unknown_tower_are_refused() -> None:
    tower = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(4, 4))
    with pytest.raises(InputError, match="the blocks of an image tower of type Sequential are not known"):
        last_blocks(tower, 1)


def names_of(tower: torch.nn.Module, found: list[torch.nn.Parameter]) -> set[str]:
    assert len({id(p) for p in found}) == len(found)
    names = {id(p): name for name, p in tower.named_parameters()}
    return {names[id(p)] for p in found}


def starting(tower: torch.nn.Module, *prefixes: str) -> set[str]:
    return {name for name, _ in tower.named_parameters() if name.startswith(prefixes)}


@pytest.mark.parametrize(
    ("trunk", "projection", "last"),
    [
        ("test_vit", "head.proj", ("trunk.blocks.5", "trunk.norm.", "head.proj")),
        ("test_convnext", "head.proj", ("trunk.stages.3.blocks.1", "trunk.head.", "head.proj")),
        ("test_resnet", "head.proj", ("trunk.layer4.0", "head.proj")),
    ],
)
def test_towers_of_timm(trunk: str, projection: str, last: tuple[str, ...]) -> None:
    tower = TimmModel(trunk, 12, image_size=160)
    assert names_of(tower, projection_parameters(tower)) == starting(tower, projection) != set()
    assert names_of(tower, last_blocks(tower, 1)) == starting(tower, *last)
    with pytest.raises(InputError, match="blocks:99"):
        last_blocks(tower, 99)


def test_a_norm_before_the_blocks_is_not_behind_them() -> None:
    tower = TimmModel("test_vit", 12, image_size=160)
    tower.trunk.norm_pre = torch.nn.LayerNorm(64)
    assert not any("norm_pre" in name for name in names_of(tower, last_blocks(tower, 2)))


def test_a_timm_tower_that_ends_with_its_own_classifier() -> None:
    tower = TimmModel("test_vit", 12, image_size=160, pool="token", proj="")
    assert names_of(tower, projection_parameters(tower)) == {"trunk.head.weight", "trunk.head.bias"}
    assert starting(tower, "trunk.head.", "trunk.norm.") < names_of(tower, last_blocks(tower, 1))
    with pytest.raises(InputError, match="no projection of its own"):
        projection_parameters(TimmModel("test_vit", 12, image_size=160, pool="token", proj="none"))


def test_attention_pooling_is_behind_the_blocks() -> None:
    config = {"layers": 2, "width": 16, "head_width": 8, "patch_size": 16, "image_size": 32, "attentional_pool": True}
    config |= {"attn_pooler_heads": 2, "attn_pooler_queries": 4}
    text = {"context_length": 16, "vocab_size": 100, "width": 8, "heads": 2, "layers": 1}
    tower = open_clip.CLIP(embed_dim=12, vision_cfg=config, text_cfg=text).visual
    want = starting(tower, "transformer.resblocks.1.", "attn_pool.", "ln_post.") | {"proj"}
    assert names_of(tower, last_blocks(tower, 1)) == want


@pytest.mark.parametrize("own", [False, True])
def test_the_text_tower_is_all_that_encodes_prompts_but_its_projection(own: bool) -> None:
    model = random_model("vit", own_text_tower=own)
    found = {id(p) for p in text_parameters(model.clip)}
    model.requires_grad_(True)
    reached = torch.autograd.grad(
        (model.encode_text(["a cat", "a very long name of a dog"]) @ model.text_projection).square().sum(),
        list(model.parameters()),
        allow_unused=True,
    )
    used = {id(p) for p, gradient in zip(model.parameters(), reached, strict=True) if gradient is not None}
    assert used - {id(model.text_projection)} == found and id(model.text_projection) not in found


def test_both_towers_move_and_evaluation_uses_the_moved_ones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, untouched = load_backbone("tiny_clip-v1"), load_backbone("tiny_clip-v1")
    prompts = [f"a photo of {leaf.noun}." for leaf in digits_forest().trees[0].leaves]
    asked: list[bool] = []
    encode = ZeroShotModel.encode_text

    def spy(self: ZeroShotModel, given: Any) -> Any:
        asked.append(torch.is_grad_enabled())
        return encode(self, given)

    monkeypatch.setattr(ZeroShotModel, "encode_text", spy)
    run(model, tmp_path / "run", "both")
    assert asked == [False, True] * 2  # attack and weights' step of each of two steps
    model.info = ModelInfo("moved", "tecoa", "", model.backbone)
    unsaved = model.node_points(prompts, steps_above_leaf=0)
    assert float((unsaved - untouched.node_points(prompts, steps_above_leaf=0)).abs().max()) > 1e-2
    torch.testing.assert_close(unsaved, model.head.points(encode(model, prompts) @ model.text_projection, 0))
    save_model(model, tmp_path / "model")
    back = read_model(tmp_path / "model")
    points = back.node_points(prompts, steps_above_leaf=0)
    torch.testing.assert_close(points, model.node_points(prompts, steps_above_leaf=0), rtol=0, atol=0)
    pixels = torch.rand(4, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(back(pixels, points), model(pixels, points), rtol=0, atol=0)


def test_training_both_towers_resumes_in_the_same_bits(tmp_path: Path) -> None:
    class StoppedError(Exception):
        pass

    def stop(where: Any) -> None:
        if where.step == 3:
            raise StoppedError

    recipe: dict[str, Any] = {
        "steps": 5,
        "checkpoint_steps": 1,
        "accumulate": 2,
        "ema_decay": 0.8,
        "precision": "bf16",
        "validation_images": 10,
        "validation_points": 5,
        "validation_steps": 1,
        "shots": 2,
    }
    options: dict[str, Any] = {"recipe": recipe, "validation": small_images(count=20, seed=4)}
    whole = run(random_model("vit"), tmp_path / "whole", "both", "hier_aft", **options)
    with pytest.raises(StoppedError):
        run(random_model("vit"), tmp_path / "killed", "both", "hier_aft", progress=stop, **options)
    resumed = run(random_model("vit"), tmp_path / "killed", "both", "hier_aft", **options)
    assert resumed.model.weights_hash == whole.model.weights_hash
    assert resumed.record["run"]["curve"] == whole.record["run"]["curve"]
    assert resumed.record["run"]["validation"] == whole.record["run"]["validation"]
    assert whole.record["run"]["trains"] == ["visual", "text", "text_projection", "head"]
