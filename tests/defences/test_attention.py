"""Attention maps: tokens of every kind of tower, and the map's formula, against NumPy in float64."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from open_clip.modified_resnet import ModifiedResNet
from open_clip.timm_model import TimmModel
from open_clip.transformer import VisionTransformer
from torch import Tensor, nn

from hierbench.defences.attention import (
    DenseFeatures,
    TokenNorm,
    attention_maps,
    bilinear_weights,
    dense_features,
    map_distance,
)
from hierbench.errors import InputError

Array = npt.NDArray[np.float64]
WIDTH = 8
SIDE = {"vit": 16, "timm": 32, "resnet": 128}
KINDS = tuple(SIDE)
NORMS: tuple[TokenNorm, ...] = ("released", "per_token")


def make_tower(kind: str, *, seed: int = 0, **options: Any) -> Any:
    """A small tower with random weights and batch-norm statistics that ends at 4 x 4 positions."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        if kind == "vit":
            defaults = {"image_size": 16, "patch_size": 4, "width": 16, "layers": 2, "heads": 2, "mlp_ratio": 2}
            tower: Any = VisionTransformer(**{**defaults, "output_dim": WIDTH, **options})
        elif kind == "timm":
            defaults = {"model_name": "hierbench_resnet32", "embed_dim": WIDTH, "image_size": 32}
            tower = TimmModel(**{**defaults, "pool": "avg", "proj": "linear", **options})
        else:
            tower = ModifiedResNet([1, 1, 1, 1], WIDTH, heads=4, image_size=128, width=4, **options)
        for module in tower.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.running_mean.normal_(0, 0.2)
                module.running_var.uniform_(0.5, 2)
                nn.init.uniform_(module.weight, 0.5, 1.5)
                nn.init.normal_(module.bias, 0, 0.2)
            if isinstance(module, nn.LayerNorm):
                nn.init.uniform_(module.weight, 0.5, 1.5)
                nn.init.normal_(module.bias, 0, 0.2)
            if isinstance(module, nn.Linear) and module.bias is not None:
                nn.init.normal_(module.bias, 0, 0.2)
    return tower.eval().requires_grad_(False)


def inputs_for(kind: str, count: int = 3, *, seed: int = 1) -> Tensor:
    return torch.randn(count, 3, SIDE[kind], SIDE[kind], generator=torch.Generator().manual_seed(seed))


def unit_rows(count: int, *, seed: int = 2) -> Tensor:
    rows = torch.randn(count, WIDTH, generator=torch.Generator().manual_seed(seed))
    return rows / rows.norm(dim=1, keepdim=True)


def numpy(x: Tensor) -> Array:
    return x.detach().double().numpy()


def reference_tokens(tower: Any, inputs: Tensor) -> tuple[Array, int]:
    """Tokens [B, N, E] and how many stand before the positions, by another way through the tower."""
    tower, inputs = copy.deepcopy(tower).double(), inputs.detach().double()
    if isinstance(tower, VisionTransformer):
        last = {"indices": 1, "normalize_intermediates": True, "output_fmt": "NLC", "output_extra_tokens": True}
        found = tower.forward_intermediates(inputs, **last)
        rows = np.concatenate(
            [numpy(found["image_intermediates_prefix"][0]), numpy(found["image_intermediates"][0])], axis=1
        )
        return np.einsum("bnc,ce->bne", rows, numpy(tower.proj)), 1
    if isinstance(tower, ModifiedResNet):
        found = tower.forward_intermediates(inputs, indices=[4], intermediates_only=True)
        features = numpy(found["image_intermediates"][0])
        pool = tower.attnpool
        layers = [(numpy(layer.weight), numpy(layer.bias)) for layer in (pool.v_proj, pool.c_proj)]
    else:
        features = numpy(tower.trunk.forward_features(inputs))
        layers = [(numpy(tower.head.proj.weight), np.zeros(WIDTH))]
    batch, _, height, width = features.shape
    out = np.empty((batch, height * width, WIDTH))
    for image in range(batch):
        for y in range(height):
            for x in range(width):
                place = features[image, :, y, x]
                for weight, bias in layers:
                    place = weight @ place + bias
                out[image, y * width + x] = place
    return out, 0


def reference_agreement(tokens: Array, leading: int, direction: Array, token_norm: str) -> Array:
    """One image: tokens [N, E] and a direction [E] to the agreement of each position [P]."""
    if token_norm == "released":
        scaled = tokens / np.sqrt((tokens**2).sum(axis=0))
    else:
        scaled = np.stack([row / np.sqrt((row**2).sum()) for row in tokens])
    return np.array([float(np.dot(row, direction)) for row in scaled[leading:]])


def reference_min_max(agreement: Array) -> Array:
    low, high = agreement.min(), agreement.max()
    return np.zeros_like(agreement) if high == low else (agreement - low) / (high - low)


def reference_resized(small: Array, size: tuple[int, int]) -> Array:
    """Bilinear: centres of pixels, the border continued."""
    height, width = small.shape
    out = np.empty(size)
    for i in range(size[0]):
        for j in range(size[1]):
            y = min(max((i + 0.5) * height / size[0] - 0.5, 0.0), height - 1.0)
            x = min(max((j + 0.5) * width / size[1] - 0.5, 0.0), width - 1.0)
            top, left = int(np.floor(y)), int(np.floor(x))
            low, right = min(top + 1, height - 1), min(left + 1, width - 1)
            dy, dx = y - top, x - left
            upper = (1 - dx) * small[top, left] + dx * small[top, right]
            lower = (1 - dx) * small[low, left] + dx * small[low, right]
            out[i, j] = (1 - dy) * upper + dy * lower
    return out


def reference_distance(first: Array, second: Array, size: tuple[int, int]) -> float:
    gap = reference_resized(first, size).ravel() - reference_resized(second, size).ravel()
    return float(np.sqrt((gap**2).sum()))


# -- tokens -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_the_embedding_is_the_towers_own_to_the_bit(kind: str) -> None:
    tower, inputs = make_tower(kind), inputs_for(kind)
    assert torch.equal(dense_features(tower, inputs).embedding, tower(inputs))
    tower.train()
    for module in tower.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eval()
    assert torch.equal(dense_features(tower, inputs).embedding, tower(inputs))


@pytest.mark.parametrize("kind", KINDS)
def test_tokens_are_the_projected_positions(kind: str) -> None:
    tower, inputs = make_tower(kind), inputs_for(kind)
    found = dense_features(tower, inputs)
    want, leading = reference_tokens(tower, inputs)
    assert found.grid == (4, 4) and found.tokens.shape == (3, 16 + leading, WIDTH)
    np.testing.assert_allclose(numpy(found.tokens), want, atol=2e-5 * np.abs(want).max())


def test_the_class_token_stands_first_and_is_the_embedding() -> None:
    found = dense_features(make_tower("vit"), inputs_for("vit"))
    torch.testing.assert_close(found.tokens[:, 0], found.embedding)


def test_positions_of_a_mean_pooled_tower_average_to_the_embedding() -> None:
    found = dense_features(make_tower("timm"), inputs_for("timm"))
    torch.testing.assert_close(found.tokens.mean(dim=1), found.embedding)


def test_the_tower_runs_once_and_keeps_no_hook() -> None:
    for kind, part in (("vit", "transformer"), ("timm", "trunk.stem"), ("resnet", "layer4")):
        tower, inputs = make_tower(kind), inputs_for(kind)
        calls: list[int] = []
        counter = tower.get_submodule(part).register_forward_hook(lambda *_, calls=calls: calls.append(1))
        dense_features(tower, inputs)
        counter.remove()
        assert len(calls) == 1
        assert not any(module._forward_hooks or module._forward_pre_hooks for module in tower.modules())


def test_rows_come_before_columns_on_a_grid_that_is_not_square() -> None:
    tower = make_tower("timm")
    inputs = torch.randn(2, 3, 32, 48, generator=torch.Generator().manual_seed(0))
    found = dense_features(tower, inputs)
    want, _ = reference_tokens(tower, inputs)
    assert found.grid == (4, 6)
    np.testing.assert_allclose(numpy(found.tokens), want, atol=2e-5 * np.abs(want).max())


def test_channels_last_towers_give_the_same_tokens() -> None:
    tower, inputs = make_tower("timm"), inputs_for("timm")
    plain = dense_features(tower, inputs).tokens
    tower.to(memory_format=torch.channels_last)
    torch.testing.assert_close(dense_features(tower, inputs).tokens, plain)


def test_what_a_timm_trunk_has_behind_its_map_is_part_of_the_projection() -> None:
    """ConvNeXt normalises behind its pooling."""
    tower = make_tower("timm", model_name="test_convnext", image_size=160, pool="")
    norm = tower.trunk.head.norm
    inputs = torch.randn(2, 3, 160, 160, generator=torch.Generator().manual_seed(0))
    found = dense_features(tower, inputs)
    features = numpy(copy.deepcopy(tower).double().trunk.forward_features(inputs.double()))
    rows = features.transpose(0, 2, 3, 1).reshape(2, 25, -1)
    rows = (rows - rows.mean(-1, keepdims=True)) / np.sqrt(rows.var(-1, keepdims=True) + norm.eps)
    want = (rows * numpy(norm.weight) + numpy(norm.bias)) @ numpy(tower.head.proj.weight).T
    assert found.grid == (5, 5) and torch.equal(found.embedding, tower(inputs))
    np.testing.assert_allclose(numpy(found.tokens), want, atol=1e-4 * np.abs(want).max())


@pytest.mark.parametrize("pool", ["abs_attn", "rot_attn"])
@pytest.mark.parametrize("proj", ["", "linear"])
def test_timms_attention_pooling_projects_each_location_by_its_values(pool: str, proj: str) -> None:
    tower, inputs = make_tower("timm", pool=pool, proj=proj), inputs_for("timm")
    found = dense_features(tower, inputs)
    inner = tower.head.pool
    features = numpy(copy.deepcopy(tower).double().trunk.forward_features(inputs.double()))
    rows = features.transpose(0, 2, 3, 1).reshape(3, 16, -1)
    width = rows.shape[-1]
    values = rows @ numpy(inner.qkv.weight)[2 * width :].T + numpy(inner.qkv.bias)[2 * width :]
    want = values @ numpy(inner.proj.weight).T + numpy(inner.proj.bias)
    if proj:
        want = want @ numpy(tower.head.proj.weight).T
    assert torch.equal(found.embedding, tower(inputs))
    np.testing.assert_allclose(numpy(found.tokens), want, atol=2e-5 * np.abs(want).max())


class OwnTower(nn.Module):
    """What nobody knows the positions of."""


def refused_cases() -> list[tuple[str, Any, int, str]]:
    bare = make_tower("vit")
    bare.proj = None
    unpooled = make_tower("resnet")
    unpooled.attnpool = nn.Flatten()
    return [
        ("transformer without projection", bare, 16, "VisionTransformer. has no projection into the shared space"),
        ("pooling without projection", unpooled, 128, "ModifiedResNet. has no projection into the shared space"),
        ("timm without projection", make_tower("timm", proj="none"), 32, "TimmModel. has no projection"),
        ("transformer of 3 x 3", make_tower("vit", image_size=12), 12, "ends at 3 x 3 positions.*4 x 4 or more"),
        ("feature map of 3 x 3", make_tower("timm"), 24, "ends at 3 x 3 positions"),
        ("pooled queries", make_tower("vit", attentional_pool=True, attn_pooler_heads=2), 16, "attention pooler"),
        ("tokens of timm", make_tower("timm", model_name="test_vit", pool="token"), 160, "VisionTransformer gives"),
        ("another class", OwnTower(), 16, "type OwnTower has no positions"),
        ("patch dropout", make_tower("vit", patch_dropout=0.5).train(), 16, "kept 8 of 16 positions"),
    ]


@pytest.mark.parametrize("case", range(9))
def test_towers_without_usable_positions_are_refused_in_one_line(case: int) -> None:
    _, tower, side, words = refused_cases()[case]
    with pytest.raises(InputError, match=words) as found:
        dense_features(tower, torch.zeros(2, 3, side, side))
    assert "\n" not in str(found.value)


# -- maps -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("token_norm", NORMS)
@pytest.mark.parametrize("kind", KINDS)
def test_maps_follow_the_formula(kind: str, token_norm: TokenNorm) -> None:
    tower, inputs, direction = make_tower(kind), inputs_for(kind), unit_rows(3)
    maps = attention_maps(dense_features(tower, inputs), direction, token_norm=token_norm)
    tokens, leading = reference_tokens(tower, inputs)
    assert maps.shape == (3, 4, 4) and maps.dtype == torch.float32
    for image in range(3):
        agreement = reference_agreement(tokens[image], leading, numpy(direction)[image], token_norm)
        np.testing.assert_allclose(
            numpy(maps[image]), reference_min_max(agreement).reshape(4, 4), atol=2e-3 if kind == "resnet" else 2e-4
        )


def made_up(*, leading: int = 1, grid: tuple[int, int] = (4, 5), count: int = 2) -> DenseFeatures:
    generator = torch.Generator().manual_seed(5)
    tokens = torch.randn(
        count, leading + grid[0] * grid[1], WIDTH, generator=generator, dtype=torch.float64, requires_grad=True
    )
    return DenseFeatures(tokens[:, 0], tokens, grid)


@pytest.mark.parametrize("token_norm", NORMS)
@pytest.mark.parametrize("leading", [0, 1])
def test_maps_of_made_up_tokens_are_exact(leading: int, token_norm: TokenNorm) -> None:
    features, direction = made_up(leading=leading), unit_rows(2).double()
    maps = attention_maps(features, direction, token_norm=token_norm)
    for image in range(2):
        agreement = reference_agreement(numpy(features.tokens[image]), leading, numpy(direction[image]), token_norm)
        np.testing.assert_allclose(numpy(maps[image]), reference_min_max(agreement).reshape(4, 5), atol=1e-12)
    assert torch.equal(maps.flatten(1).amin(1), torch.zeros(2, dtype=torch.float64))
    torch.testing.assert_close(maps.flatten(1).amax(1), torch.ones(2, dtype=torch.float64))


def test_a_mean_direction_is_the_mean_of_the_maps_before_the_min_max() -> None:
    features = made_up()
    several = torch.stack([unit_rows(2, seed=s).double() for s in range(3)])
    maps = attention_maps(features, several.mean(dim=0), token_norm="released")
    for image in range(2):
        tokens = numpy(features.tokens[image])
        each = [reference_agreement(tokens, 1, numpy(row[image]), "released") for row in several]
        np.testing.assert_allclose(
            numpy(maps[image]), reference_min_max(np.mean(each, axis=0)).reshape(4, 5), atol=1e-12
        )


@pytest.mark.parametrize("token_norm", NORMS)
def test_a_constant_map_is_zeros_and_has_a_finite_gradient(token_norm: TokenNorm) -> None:
    row = torch.randn(1, 1, WIDTH, generator=torch.Generator().manual_seed(3))
    tokens = row.repeat(2, 17, 1).requires_grad_(True)
    maps = attention_maps(DenseFeatures(tokens[:, 0], tokens, (4, 4)), unit_rows(2), token_norm=token_norm)
    assert torch.equal(maps, torch.zeros(2, 4, 4))
    (gradient,) = torch.autograd.grad(maps.sum(), tokens)
    assert bool(torch.isfinite(gradient).all())
    black = torch.zeros(1, 16, WIDTH, requires_grad=True)
    maps = attention_maps(DenseFeatures(black[:, 0], black, (4, 4)), unit_rows(1), token_norm=token_norm)
    assert torch.equal(maps, torch.zeros(1, 4, 4))
    (gradient,) = torch.autograd.grad(maps.sum(), black)
    assert bool(torch.isfinite(gradient).all())


def test_a_map_that_is_constant_but_for_rounding_is_zeros() -> None:
    generator = torch.Generator().manual_seed(3)
    row, sizes = torch.rand(1, 1, WIDTH, generator=generator), torch.rand(1, 16, 1, generator=generator)
    tokens = row * (sizes + 0.1)
    direction = unit_rows(1).abs()
    raw = nn.functional.normalize(tokens, dim=2) @ direction[0]
    assert float(raw.amax() - raw.amin()) > 0
    maps = attention_maps(DenseFeatures(tokens[:, 0], tokens, (4, 4)), direction, token_norm="per_token")
    assert torch.equal(maps, torch.zeros(1, 4, 4))


def test_autocast_narrows_the_tower_and_not_the_map() -> None:
    tower, inputs, direction = make_tower("vit"), inputs_for("vit"), unit_rows(3)
    plain = attention_maps(dense_features(tower, inputs), direction, token_norm="released")
    with torch.autocast("cpu", dtype=torch.bfloat16):
        narrow = dense_features(tower, inputs)
        maps = attention_maps(narrow, direction.bfloat16(), token_norm="released")
        distance = map_distance(maps, plain, size=(16, 16))
    assert narrow.tokens.dtype == narrow.embedding.dtype == maps.dtype == distance.dtype == torch.float32
    assert float((maps - plain).abs().max()) < 0.1


# -- distances --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("source", "target"), [(4, 32), (7, 224), (4, 4), (5, 12), (14, 10), (1, 3)])
def test_bilinear_weights_are_torchs_interpolation(source: int, target: int) -> None:
    small = torch.randn(1, 1, source, source, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    weights = bilinear_weights(source, target)
    want = nn.functional.interpolate(small, (target, target), mode="bilinear")[0, 0]
    torch.testing.assert_close(weights @ small[0, 0] @ weights.T, want, atol=1e-6, rtol=0)
    torch.testing.assert_close(weights.sum(dim=1), torch.ones(target, dtype=torch.float64))


def test_distance_is_of_the_flattened_maps_at_the_input_size() -> None:
    generator = torch.Generator().manual_seed(0)
    first, second = torch.rand(2, 3, 4, 5, generator=generator, dtype=torch.float64)
    got = map_distance(first, second, size=(12, 20))
    for image in range(3):
        want = reference_distance(numpy(first[image]), numpy(second[image]), (12, 20))
        assert float(got[image]) == pytest.approx(want, rel=1e-10)


def test_equal_maps_have_distance_zero_and_a_gradient_of_zero() -> None:
    maps = torch.rand(3, 4, 4, generator=torch.Generator().manual_seed(0))
    other = maps.clone()
    other[2] += 0.1
    maps.requires_grad_(True)
    distance = map_distance(maps, other, size=(32, 32))
    assert distance.detach()[:2].tolist() == [0.0, 0.0] and float(distance.detach()[2]) > 0
    (gradient,) = torch.autograd.grad(distance.sum(), maps)
    assert bool(torch.isfinite(gradient).all())
    assert torch.equal(gradient[:2], torch.zeros(2, 4, 4)) and float(gradient[2].abs().min()) > 0


def test_the_shipped_backbone_has_maps_of_digits() -> None:
    from hierbench.datasets.load import load_images
    from hierbench.models.backbones import load_backbone

    model = load_backbone("tiny_clip-v1")
    images = load_images("digits", limit=20)
    pixels = torch.from_numpy(np.stack([np.asarray(images.array[i]) for i in range(20)])).float() / 255
    prompts = [f"a photo of {c.noun}." for c in images.spec.classes]
    features = nn.functional.normalize(model.text_hidden(prompts) @ model.text_projection, dim=-1).detach()
    direction = features[torch.from_numpy(np.asarray(images.labels))]
    found = dense_features(model.visual, model.pixels(pixels))
    assert found.grid == (4, 4) and torch.equal(found.embedding, model.embed(pixels))
    for token_norm in NORMS:
        maps = attention_maps(found, direction, token_norm=token_norm)
        assert maps.shape == (20, 4, 4) and bool(torch.isfinite(maps).all())
        assert bool((maps.flatten(1).amin(1) == 0).all()) and bool((maps.flatten(1).amax(1) > 0.999).all())
        assert float(maps.flatten(1).std(dim=1).min()) > 0.05
