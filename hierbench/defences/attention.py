"""Text-guided attention maps: how far each position of an image agrees with a text feature (METHODS.md 5.4).

TGA-ZSR (NeurIPS 2024) holds these maps near those of the original model; SAFT's released path does the same.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import linear, normalize

from hierbench.defences.losses import frozen_tower
from hierbench.defences.settings import DefenceSettings
from hierbench.errors import InputError

if TYPE_CHECKING:
    from hierbench.defences.base import LogValues
    from hierbench.models.zeroshot import ZeroShotModel

MIN_SIDE = 4
"""Positions a side below which a map says nothing."""

PUBLISHED_SIDE = 224
"""Side of the maps that the published weights were chosen for."""

TokenNorm = Literal["released", "per_token"]


@dataclass(frozen=True, kw_only=True)
class AttentionSettings(DefenceSettings):
    """Settings of the two attention terms; the released code's values [C].

    An L2 norm over H x H pixels grows with H, so both weights are multiplied by 224/H, with H the side of the image
    tower's input: as given they belong to 224 x 224 maps (METHODS.md 5.4 [D]).
    """

    adversarial_weight: float = 0.08
    """a, of the distance between A_f(x') and A_f0(x) [P][C]."""
    clean_weight: float = 0.05
    """b, of the distance between A_f(x) and A_f0(x) [P][C]; the paper's AutoAttack table has 0.009 [P]."""
    token_norm: TokenNorm = "released"
    """``released``: each channel over the tokens, class token included, as the code does [C], probably unintended;
    ``per_token``: each token over its channels [D]."""

    def check(self) -> None:
        """See ``Settings.check``."""
        super().check()
        for name in ("adversarial_weight", "clean_weight"):
            self.require(getattr(self, name) >= 0, name, "it should be 0 or more")


@dataclass(frozen=True)
class DenseFeatures:
    """An image tower's embedding and its tokens, all in the shared space, from one forward pass."""

    embedding: Tensor
    """float [B, E]: what ``ZeroShotModel.embed`` returns for these images."""
    tokens: Tensor
    """float [B, N, E]: the class token if there is one, then the h * w positions row by row."""
    grid: tuple[int, int]
    """(h, w)."""


def dense_features(tower: nn.Module, inputs: Tensor) -> DenseFeatures:
    """Run an image tower once and return its embedding with its projected tokens.

    ``inputs`` [B, 3, H, W] have been through ``model.pixels``. A vision transformer's tokens are taken behind
    ``ln_post`` and the projection. Attention pooling projects each location by its value and output projections, with
    no position added; any other tower sends each location through all that it has behind its feature map. A tower
    without a projection, one whose positions are not known, and one with fewer than 4 x 4 of them raise
    ``InputError``. METHODS.md 5.4.
    """
    from open_clip.modified_resnet import ModifiedResNet
    from open_clip.timm_model import TimmModel
    from open_clip.transformer import VisionTransformer

    if isinstance(tower, VisionTransformer):
        embedding, tokens, grid = _transformer(tower, inputs)
    elif isinstance(tower, ModifiedResNet):
        embedding, tokens, grid = _modified_resnet(tower, inputs)
    elif isinstance(tower, TimmModel):
        embedding, tokens, grid = _timm(tower, inputs)
    else:
        raise InputError(
            f"backbone: an image tower of type {type(tower).__name__} has no positions that attention maps know; "
            "open_clip's vision transformers, residual networks and timm towers with a feature map have"
        )
    if min(grid) < MIN_SIDE:
        raise InputError(
            f"backbone: its image tower ends at {grid[0]} x {grid[1]} positions, and attention maps need "
            f"{MIN_SIDE} x {MIN_SIDE} or more"
        )
    return DenseFeatures(_full_precision(embedding), _full_precision(tokens), grid)


def _transformer(tower: Any, inputs: Tensor) -> tuple[Tensor, Tensor, tuple[int, int]]:
    if tower.proj is None:
        raise _no_projection(tower)
    if tower.attn_pool is not None:
        raise InputError("backbone: a vision transformer with an attention pooler has no projected positions")
    out, hidden = _with_output_of(tower.transformer, tower, inputs)
    tokens = tower.ln_post(hidden) @ tower.proj
    height, width = (int(side) for side in tower.grid_size)
    if tokens.shape[1] != 1 + height * width:
        raise InputError(
            f"backbone: its image tower kept {tokens.shape[1] - 1} of {height * width} positions; "
            "attention maps need a tower without patch dropout"
        )
    return (out[0] if isinstance(out, tuple) else out), tokens, (height, width)


def _modified_resnet(tower: Any, inputs: Tensor) -> tuple[Tensor, Tensor, tuple[int, int]]:
    pool = tower.attnpool
    if not (hasattr(pool, "v_proj") and hasattr(pool, "c_proj")):
        raise _no_projection(tower)
    embedding, features = _with_output_of(tower.layer4, tower, inputs)
    tokens = pool.c_proj(pool.v_proj(features.flatten(2).transpose(1, 2)))
    return embedding, tokens, (features.shape[2], features.shape[3])


def _timm(tower: Any, inputs: Tensor) -> tuple[Tensor, Tensor, tuple[int, int]]:
    trunk, head = tower.trunk, tower.head
    if trunk.num_classes == 0 and not any(True for _ in head.parameters()):
        raise _no_projection(tower)
    features = trunk.forward_features(inputs)
    if features.ndim != 4 or features.shape[1] != trunk.num_features:
        raise InputError(
            f"backbone: a timm tower of type {type(trunk).__name__} gives features {tuple(features.shape)}; attention "
            f"maps need [B, {trunk.num_features}, h, w]"
        )
    embedding = head(trunk.forward_head(features))
    batch, channels, height, width = features.shape
    pool = getattr(head, "pool", None)
    if pool is None:
        # Each location as an image of one position: pooling leaves it as it is, everything behind projects it.
        places = features.permute(0, 2, 3, 1).reshape(batch * height * width, channels, 1, 1)
        tokens = head(trunk.forward_head(places)).reshape(batch, height * width, -1)
    else:
        rows = features.flatten(2).transpose(1, 2)
        tokens = pool.proj(_values(pool, rows))
        for module in list(head)[1:]:
            tokens = module(tokens)
    return embedding, tokens, (height, width)


def _values(pool: Any, rows: Tensor) -> Tensor:
    """Return the value projection of timm's attention pooling, whose three projections may be one layer."""
    fused = getattr(pool, "qkv", None)
    if fused is None:
        value: Tensor = pool.v(rows)
        return value
    _, _, weight = fused.weight.chunk(3)
    return linear(rows, weight, None if fused.bias is None else fused.bias.chunk(3)[2])


def _with_output_of(part: nn.Module, tower: nn.Module, inputs: Tensor) -> tuple[Any, Tensor]:
    """Run a tower and return what it gives and what one of its parts gave on the way."""
    held: list[Tensor] = []
    hook = part.register_forward_hook(lambda _module, _inputs, output: held.append(output))
    try:
        out = tower(inputs)
    finally:
        hook.remove()
    return out, held[-1]


def _no_projection(tower: nn.Module) -> InputError:
    return InputError(
        f"backbone: its image tower ({type(tower).__name__}) has no projection into the shared space, which attention "
        "maps need"
    )


def attention_maps(features: DenseFeatures, direction: Tensor, *, token_norm: TokenNorm) -> Tensor:
    """Return the map A of each image under its own text direction, [B, h, w] in [0, 1]. METHODS.md 5.4.

    ``direction`` [B, E]: the normalised text feature of each image's true class. The mean of several stands for the
    mean of their maps before the min-max, which is linear in the text. A constant map is zeros.
    """
    with torch.autocast(features.tokens.device.type, enabled=False):
        height, width = features.grid
        tokens = normalize(features.tokens, dim=1 if token_norm == "released" else 2)
        positions = tokens[:, -height * width :]
        agreement = positions @ _full_precision(direction).to(tokens.dtype).unsqueeze(-1)
        return _min_max(agreement.squeeze(-1)).reshape(-1, height, width)


def _min_max(values: Tensor) -> Tensor:
    """Scale each row of ``values`` [B, P] to [0, 1]; a row that is constant but for rounding becomes zeros."""
    low, high = values.amin(dim=1, keepdim=True), values.amax(dim=1, keepdim=True)
    spread = high - low
    constant = spread <= 16 * torch.finfo(values.dtype).eps * torch.maximum(low.abs(), high.abs())
    scaled = (values - low) / torch.where(constant, torch.ones_like(spread), spread)
    return torch.where(constant, torch.zeros_like(scaled), scaled)


def map_distance(first: Tensor, second: Tensor, *, size: tuple[int, int]) -> Tensor:
    """Return the L2 distance of maps [B, h, w] brought to ``size`` (H, W) bilinearly, one an image [B].

    Its gradient where the maps are equal is 0.
    """
    # Interpolation is linear, so the difference is interpolated. As products with two small matrices its gradient is
    # summed in a fixed order; that of torch's own interpolation is not on CUDA.
    difference = first - second
    with torch.autocast(difference.device.type, enabled=False):
        rows = bilinear_weights(difference.shape[1], size[0]).to(difference)
        columns = bilinear_weights(difference.shape[2], size[1]).to(difference)
        distance: Tensor = torch.linalg.vector_norm((rows @ difference @ columns.T).flatten(1), dim=1)
        return distance


def bilinear_weights(source: int, target: int) -> Tensor:
    """Return the weights of linear interpolation of ``source`` samples at ``target`` ones, float64 [target, source].

    Samples lie at the centres of equal cells and the outermost are continued, as in torch's bilinear mode.

    >>> bilinear_weights(2, 4).tolist()
    [[1.0, 0.0], [0.75, 0.25], [0.25, 0.75], [0.0, 1.0]]
    """
    place = ((torch.arange(target, dtype=torch.float64) + 0.5) * source / target - 0.5).clamp(0, source - 1)
    distance = (place[:, None] - torch.arange(source, dtype=torch.float64)[None]).abs()
    return (1 - distance).clamp(min=0)


class AttentionGuide:
    """The two attention terms, with the original model they compare with. METHODS.md 5.4."""

    def __init__(self, model: ZeroShotModel, settings: AttentionSettings) -> None:
        """Keep f0; one blank image says whether the tower has usable positions (else ``InputError``)."""
        self.settings = settings
        self.original = frozen_tower(model)
        with torch.no_grad():
            side = model.pixels.size
            dense_features(self.original, model.pixels(torch.zeros(1, 3, side, side, device=model.device)))

    def terms(
        self, model: ZeroShotModel, adversarial: DenseFeatures, clean_pixels: Tensor, direction: Tensor
    ) -> tuple[Tensor, LogValues]:
        """Return a mean||A_f(x') - A_f0(x)|| + b mean||A_f(x) - A_f0(x)|| with both weights times 224/H, and its parts.

        ``adversarial`` are the features of x', ``clean_pixels`` [B, c, h, w] is x, ``direction`` [B, E] as in
        ``attention_maps``. The parts are logged as distances before any weight.
        """
        settings = self.settings
        inputs = model.pixels(clean_pixels)
        size = (inputs.shape[-2], inputs.shape[-1])
        share = PUBLISHED_SIDE / size[0]
        with torch.no_grad():
            original = self._maps(dense_features(self.original, inputs), direction)
        moved = map_distance(self._maps(adversarial, direction), original, size=size).mean()
        total = share * settings.adversarial_weight * moved
        log = {"attention_adversarial": moved.detach()}
        if settings.clean_weight > 0:
            clean = self._maps(dense_features(model.visual, inputs), direction)
            kept = map_distance(clean, original, size=size).mean()
            total = total + share * settings.clean_weight * kept
            log["attention_clean"] = kept.detach()
        return total, log

    def _maps(self, features: DenseFeatures, direction: Tensor) -> Tensor:
        return attention_maps(features, direction, token_norm=self.settings.token_norm)


def _full_precision(x: Tensor) -> Tensor:
    """Return half-precision numbers as fp32, any other as they are."""
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x
