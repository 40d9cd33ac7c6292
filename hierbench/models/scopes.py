"""Parts of the towers that training can be confined to, for the towers open_clip builds."""

from __future__ import annotations

from typing import Any

from torch import nn

from hierbench.errors import InputError
from hierbench.models.text import text_tower


def text_parameters(clip: nn.Module) -> list[nn.Parameter]:
    """Return the text tower's parameters without its projection and, where the tower is the model, the rest of it."""
    tower = text_tower(clip)
    found = [tower.positional_embedding] if isinstance(tower.positional_embedding, nn.Parameter) else []
    for module in (tower.token_embedding, tower.transformer, tower.ln_final):
        found += list(module.parameters())
    return found


def projection_parameters(visual: nn.Module) -> list[nn.Parameter]:
    """Return the parameters that map the image tower's last features into the shared space.

    A tower without any is an ``InputError``.
    """
    matrix = getattr(visual, "proj", None)
    if isinstance(matrix, nn.Parameter):
        return [matrix]
    for name in ("attnpool", "head", "proj"):
        module = getattr(visual, name, None)
        if isinstance(module, nn.Module) and (found := list(module.parameters())):
            return found
    # A timm tower without a projection in front of it ends with its own classifier, as wide as the shared space.
    classifier = getattr(getattr(visual, "trunk", None), "get_classifier", None)
    if callable(classifier) and (found := list(classifier().parameters())):
        return found
    raise InputError(f"train_scope: an image tower of type {type(visual).__name__} has no projection of its own")


def last_blocks(visual: nn.Module, count: int) -> list[nn.Parameter]:
    """Return the parameters of the last ``count`` blocks and of all behind them: norms, pooling, the projection.

    More blocks than the tower has, and a tower whose blocks are not known, are an ``InputError``.
    """
    blocks = _blocks(visual)
    if count > len(blocks):
        raise InputError(f"train_scope: blocks:{count} of an image tower with {len(blocks)} blocks")
    trunk = getattr(visual, "trunk", visual)
    # The towers register their parts in the order images pass them.
    parts = list(trunk.children())
    last = max(place for place, part in enumerate(parts) if any(module is blocks[-1] for module in part.modules()))
    found = [p for module in blocks[-count:] + parts[last + 1 :] for p in module.parameters()]
    return list(dict.fromkeys(found + projection_parameters(visual)))


def _blocks(visual: nn.Module) -> list[nn.Module]:
    """Return the residual blocks in the order images pass them."""
    trunk: Any = getattr(visual, "trunk", visual)
    transformer = getattr(trunk, "transformer", None)
    for owner, name in ((transformer, "resblocks"), (trunk, "blocks")):
        found = getattr(owner, name, None)
        if isinstance(found, nn.ModuleList | nn.Sequential):
            return list(found)
    stages = getattr(trunk, "stages", None)
    if stages is None:
        stages = [s for i in range(1, 5) if isinstance(s := getattr(trunk, f"layer{i}", None), nn.Module)]
    blocks: list[nn.Module] = []
    for stage in stages:
        inner = getattr(stage, "blocks", stage)
        blocks += list(inner) if isinstance(inner, nn.ModuleList | nn.Sequential) else [inner]
    if not blocks:
        raise InputError(f"train_scope: the blocks of an image tower of type {type(visual).__name__} are not known")
    return blocks
