"""The models hierbench ships, by name; nothing here loads a tensor."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from hierbench.errors import InputError
from hierbench.models.storage import MODEL_FILE, read_description
from hierbench.paths import data_dir
from hierbench.registry import Registry, UnknownNameError

UNDEFENDED = "clip"
"""The model of defence ``none``: a protocol's backbone as it is."""


@dataclass(frozen=True)
class ModelSpec:
    """A model by name; ``folder`` is None for the undefended backbone."""

    name: str
    defence: str
    variant: str
    backbone: str | None
    trained_on: str | None
    folder: Path | None
    summary: str = ""


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


def resolve_model(name: str, variant: str | None = None) -> ModelSpec:
    """Return the entry a name means: itself, the protocol's variant of a bare defence name, or a model folder.

    >>> resolve_model("clip").defence
    'none'
    """
    if name in MODELS:
        return MODELS.get(name)
    if variant is not None and f"{name}.{variant}" in MODELS:
        return MODELS.get(f"{name}.{variant}")
    if "/" in name or "\\" in name or Path(name).is_dir():
        return spec_from_folder(Path(name))
    others = [m for m in MODELS.names() if m.startswith(f"{name}.")]
    if others:
        raise InputError(f"model {name!r} has no variant {variant!r}; it has {', '.join(others)}")
    raise UnknownNameError(f"unknown model {name!r}: {MODELS.suggest(name)}")


def match_models(pattern: str, variant: str | None = None) -> list[ModelSpec]:
    """Return the entries a wildcard pattern matches; bare defence names count as the protocol's variant."""
    if not any(mark in pattern for mark in "*?["):
        return [resolve_model(pattern, variant)]
    return [MODELS.get(name) for name in MODELS.match(pattern)]
