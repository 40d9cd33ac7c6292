"""Text features before the projection, from any open_clip text tower of the CLIP family."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from hierbench.errors import InputError


def text_tower(clip: nn.Module) -> Any:
    """Return the module that owns the token embedding: the model itself, or its ``text`` part."""
    tower = getattr(clip, "text", clip)
    if not hasattr(tower, "token_embedding"):
        raise InputError(
            f"backbone: text towers of type {type(tower).__name__} are not supported; "
            "open_clip's own transformer towers are"
        )
    return tower


def projection(clip: nn.Module) -> nn.Parameter:
    """Return the text projection W as a parameter of shape [P, E] (feature = h @ W)."""
    weight = getattr(text_tower(clip), "text_projection", None)
    if isinstance(weight, nn.Parameter):
        return weight
    raise InputError("backbone: its text tower has no plain projection matrix, which Hier-AFT trains")


def hidden_features(clip: nn.Module, tokens: Tensor) -> Tensor:
    """Return the pooled text feature h before the projection: tokens [N, T] to fp32 [N, P].

    Padding behind the longest sentence is cut off: towers with a causal mask cannot see it.
    """
    from open_clip.transformer import text_global_pool

    tower = text_tower(clip)
    pool = getattr(tower, "text_pool_type", None) or getattr(tower, "pool_type", "argmax")
    mask = getattr(tower, "attn_mask", None)
    if mask is not None and pool == "argmax":
        length = int(tokens.argmax(dim=-1).max()) + 1
        tokens = tokens[:, :length]
        mask = mask[:length, :length]
    x = tower.token_embedding(tokens)
    x = x + tower.positional_embedding[: tokens.shape[1]]
    x = tower.transformer(x, attn_mask=mask)
    x = tower.ln_final(x)
    pooled: Tensor = text_global_pool(x, tokens, pool, eos_token_id=getattr(tower, "text_eos_id", None))
    return pooled.to(torch.float32)
