"""The zero-shot classifier against open_clip itself, and what it keeps."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import torch

from hierbench.datasets.spec import fill_template
from hierbench.hierarchy.catalogue import load_hierarchy
from hierbench.models.binding import bind
from hierbench.models.load import load_model
from hierbench.models.pixels import PixelInput
from hierbench.models.zeroshot import ZeroShotModel


@pytest.fixture(scope="module")
def clip() -> ZeroShotModel:
    return load_model("clip")


def test_logits_are_open_clips_own(clip: ZeroShotModel) -> None:
    prompts = [
        "This is a photo of a cat.",
        "a dog",
        "This is a photo of a very long name of a thing that nobody knows.",
    ]
    pixels = torch.rand(5, 3, 32, 32)
    tokens = clip.tokenizer(prompts)
    image = clip.clip.encode_image((pixels - 0.5) / 0.25, normalize=True)
    text = clip.clip.encode_text(tokens, normalize=True)
    expected = clip.clip.logit_scale.exp() * image @ text.T
    got = clip(pixels, clip.node_points(prompts, steps_above_leaf=0))
    torch.testing.assert_close(got, expected, atol=1e-4, rtol=1e-5)


def test_a_prompt_is_encoded_once() -> None:
    model = load_model("clip")
    model.text_hidden(["one", "two", "one"])
    assert model.text_forwards == 2
    again = model.text_hidden(["two", "three"])
    assert model.text_forwards == 3
    torch.testing.assert_close(again[0], model.text_hidden(["two"])[0])


def test_columns_are_leaves_then_levels(clip: ZeroShotModel) -> None:
    tree = load_hierarchy("digits", "strokes")
    bound = bind(clip, tree, template="This is a picture of {noun}.")
    pixels = torch.rand(3, 1, 8, 8)
    logits = bound(pixels)
    assert logits.shape == (3, bound.layout.width) == (3, 10 + 2 + 4)
    for depth in tree.depths:
        prompts = [fill_template(bound.template, n.name, n.noun) for n in tree.level(depth).nodes]
        own = clip(pixels, clip.node_points(prompts, steps_above_leaf=tree.num_depths - depth))
        torch.testing.assert_close(logits[:, bound.layout.direct_columns(depth)], own)
    leaves_only = bind(clip, tree, template=bound.template, direct=False)
    torch.testing.assert_close(leaves_only(pixels), logits[:, :10])


def test_pixels_pass_untouched_at_their_own_size() -> None:
    block = PixelInput(32, (0.5, 0.4, 0.3), (0.2, 0.3, 0.4))
    pixels = torch.rand(2, 3, 32, 32)
    mean, std = np.array([0.5, 0.4, 0.3]).reshape(1, 3, 1, 1), np.array([0.2, 0.3, 0.4]).reshape(1, 3, 1, 1)
    np.testing.assert_allclose(block(pixels).numpy(), (pixels.numpy() - mean) / std, rtol=1e-5, atol=1e-6)
    grey = block(torch.rand(2, 1, 8, 8))
    assert grey.shape == (2, 3, 32, 32)


def test_the_gradient_reaches_the_pixel_grid(clip: ZeroShotModel) -> None:
    bound = bind(clip, load_hierarchy("digits"), template="This is a picture of {noun}.")
    pixels = torch.rand(2, 1, 8, 8, requires_grad=True)
    (gradient,) = torch.autograd.grad(bound(pixels)[:, 0].sum(), pixels)
    assert gradient.shape == (2, 1, 8, 8) and (gradient != 0).float().mean() > 0.9


def test_the_hash_is_of_everything_the_answer_depends_on() -> None:
    model, other = load_model("clip"), load_model("clip")
    assert model.weights_hash == other.weights_hash
    with torch.no_grad():
        next(other.visual.parameters()).view(-1)[0] += 1e-3
    assert model.weights_hash != other.weights_hash
    other = load_model("clip")
    with torch.no_grad():
        other.head.logit_scale += 1e-3
    assert model.weights_hash != other.weights_hash
    other = load_model("clip")
    other.pixels = PixelInput(32, (0.5, 0.5, 0.5), (0.26, 0.25, 0.25))
    assert model.weights_hash != other.weights_hash


@pytest.mark.parametrize("order", ["import hierbench, open_clip", "import open_clip, hierbench"])
def test_open_clip_knows_the_backbone(order: str) -> None:
    code = (
        f"{order}\n"
        "model = open_clip.create_model('tiny_clip-v1', load_weights=False)\n"
        "print(type(model.visual.trunk).__name__, open_clip.get_tokenizer('tiny_clip-v1').context_length)"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.split() == ["TinyResNet", "32"]


def test_importing_hierbench_is_light() -> None:
    code = "import sys, hierbench; print([m for m in ('torch', 'pandas', 'open_clip', 'pydantic') if m in sys.modules])"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.strip() == "[]"


def test_open_clip_loads_the_folder_by_itself(clip: ZeroShotModel) -> None:
    import open_clip

    from hierbench.paths import data_dir

    folder = data_dir() / "weights" / "tiny_clip-v1"
    model, preprocess = open_clip.create_model_from_pretrained(f"local-dir:{folder}")
    same = model.eval().state_dict()
    assert all(torch.equal(same[k].float(), v) for k, v in clip.clip.state_dict().items())
    assert "Normalize" in str(preprocess)


def test_the_last_feature_map_keeps_positions(clip: ZeroShotModel) -> None:
    features = clip.visual.trunk.forward_features(torch.rand(1, 3, 32, 32))
    assert features.shape == (1, 192, 4, 4)
