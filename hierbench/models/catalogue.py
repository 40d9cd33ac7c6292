"""The models hierbench ships, by name; nothing here loads a tensor."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from hierbench.errors import InputError
from hierbench.models.backbones import BACKBONES, HUB, LOCAL, is_backbone, parse_backbone, shared_name
from hierbench.models.checkpoints.names import SUFFIXES
from hierbench.models.storage import MODEL_FILE, read_description
from hierbench.paths import data_dir
from hierbench.registry import Registry, UnknownNameError

UNDEFENDED = "clip"
"""The model of defence ``none``: a protocol's backbone as it is."""


@dataclass(frozen=True)
class ModelSpec:
    """A model by name; ``folder`` is None for an undefended backbone and for a checkpoint file."""

    name: str
    defence: str
    variant: str
    backbone: str | None
    trained_on: str | None
    folder: Path | None
    summary: str = ""
    checkpoint: Path | None = None
    """Somebody else's weights file; what it was trained from is said beside it."""


def spec_from_folder(folder: Path) -> ModelSpec:
    """Return the entry of a model folder."""
    content = read_description(folder)
    trained = content.get("trained_on")
    eps = (content.get("settings") or {}).get("eps")
    return ModelSpec(
        name=content["name"],
        defence=content["defence"],
        variant=str(content.get("variant") or ""),
        backbone=content["backbone"],
        trained_on=trained,
        folder=folder,
        summary=f"{content['defence']} on {trained}" + (f", eps {eps}" if eps else ""),
    )


def _fill(registry: Registry[ModelSpec]) -> None:
    registry.add(UNDEFENDED, ModelSpec(UNDEFENDED, "none", "", None, None, None, "the protocol's backbone, undefended"))
    for path in sorted((data_dir() / "weights").glob(f"*/{MODEL_FILE}")):
        entry = spec_from_folder(path.parent)
        registry.add(entry.name, entry)


MODELS: Registry[ModelSpec] = Registry("model", fill=_fill)


def shared_model_name(name: str) -> str:
    """Return a model's name for files that travel: of a folder or a file of the user's its last part.

    >>> shared_model_name("tecoa"), shared_model_name("/home/me/models/mine"), shared_model_name("ViT-B-32/random")
    ('tecoa', 'mine', 'ViT-B-32/random')
    """
    if is_backbone(name):
        return shared_name(name)
    last = Path(name).name
    return last if last not in ("", "..") else Path(name).resolve().name


def resolve_model(name: str, variant: str | None = None) -> ModelSpec:
    """Return the entry a name means.

    In this order: a model of the registry, the protocol's variant of a bare defence name, a model folder, a checkpoint
    file, an undefended backbone in any form of ``load_backbone``. Anything else is an ``InputError``.

    >>> resolve_model("clip").defence, resolve_model("ViT-B-32/random").backbone
    ('none', 'ViT-B-32/random')
    """
    if name in MODELS:
        return MODELS.get(name)
    if variant is not None and f"{name}.{variant}" in MODELS:
        return MODELS.get(f"{name}.{variant}")
    if not name.startswith((LOCAL, HUB)) and name not in BACKBONES:
        path = Path(name)
        if path.is_dir():
            return spec_from_folder(path)
        if path.is_file() or name.endswith(SUFFIXES):
            return _spec_from_file(path)
    if is_backbone(name):
        parse_backbone(name)
        return ModelSpec(_called(name), "none", "", name, None, None, f"backbone {name}, undefended")
    if "/" in name or "\\" in name:
        return spec_from_folder(Path(name))
    others = [m for m in MODELS.names() if m.startswith(f"{name}.")]
    if others:
        raise InputError(f"model {name!r} has no variant {variant!r}; it has {', '.join(others)}")
    raise UnknownNameError(
        f"unknown model {name!r}: {MODELS.suggest(name)} (a folder, a checkpoint file, or a backbone such as "
        "ViT-B-32-quickgelu/openai will do too)"
    )


def _spec_from_file(path: Path) -> ModelSpec:
    if not path.is_file():
        raise InputError(f"--model: {path} is not there; a checkpoint is a file, a model of hierbench's a folder")
    return ModelSpec(path.name, "unstated", "", None, None, None, f"checkpoint {path.name}", checkpoint=path)


def _called(backbone: str) -> str:
    """Return the name of an undefended backbone as a model: its own, of a folder the last part of its path."""
    return Path(backbone.removeprefix(LOCAL)).resolve().name if backbone.startswith(LOCAL) else backbone


def match_models(pattern: str, variant: str | None = None) -> list[ModelSpec]:
    """Return the entries a wildcard pattern matches; bare defence names count as the protocol's variant."""
    if not any(mark in pattern for mark in "*?[") or Path(pattern).exists():
        return [resolve_model(pattern, variant)]
    return [MODELS.get(name) for name in MODELS.match(pattern)]
