"""Models on disk: a ``model.json`` and the tensors that differ from the backbone, as safetensors."""

from __future__ import annotations

import json
import math
import re
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hierbench.errors import InputError

if TYPE_CHECKING:
    from torch import Tensor

    from hierbench.models.zeroshot import ModelInfo, ZeroShotModel

MODEL_FILE = "model.json"
DELTA_FILE = "delta.safetensors"
FORMAT = 1
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.+-]{0,99}\Z")
_SETTINGS_LIMIT = 1 << 20


def save_model(model: ZeroShotModel, folder: Path, *, half: bool = True, extra: dict[str, Any] | None = None) -> Path:
    """Write a model as what differs from its backbone; returns the folder.

    ``half`` stores fp16, and the model in memory is rounded alike, so that it is evaluated exactly as
    stored. Both files are written beside their place and renamed: a killed save leaves the old ones.
    """
    import torch
    from safetensors.torch import save_file

    from hierbench.models.backbones import load_backbone

    base = load_backbone(model.info.backbone)
    model.info = replace(model.info, backbone_hash=base.weights_hash)
    if half:
        _round_to_half(model)
        model.forget_text()
    reference = {f"clip.{k}": v for k, v in base.clip.state_dict().items()}
    own = {f"clip.{k}": v for k, v in model.clip.state_dict().items()}
    changed = {k: v for k, v in own.items() if not torch.equal(v.cpu(), reference[k].cpu())}
    changed |= {f"head.{k}": v for k, v in model.head.state_dict().items()}
    tensors = {}
    for key, value in changed.items():
        plain = value.detach().cpu().contiguous().clone()
        tensors[key] = plain.half() if half and plain.is_floating_point() and key.startswith("clip.") else plain
    folder.mkdir(parents=True, exist_ok=True)
    description = {
        "format": FORMAT,
        **asdict(model.info),
        "backbone": model.backbone,
        "weights_hash": model.weights_hash,
        "head": model.head.config(),
        **(extra or {}),
    }
    part = folder / f"{DELTA_FILE}.part"
    save_file(tensors, str(part))
    text = folder / f"{MODEL_FILE}.part"
    text.write_text(json.dumps(description, indent=1, allow_nan=False) + "\n", encoding="utf-8")
    part.replace(folder / DELTA_FILE)
    text.replace(folder / MODEL_FILE)
    return folder


def _round_to_half(model: ZeroShotModel) -> None:
    import torch

    with torch.no_grad():
        for tensor in model.clip.state_dict().values():
            if tensor.is_floating_point():
                tensor.copy_(tensor.half().to(tensor.dtype))


def read_description(folder: Path) -> dict[str, Any]:
    """Return the checked content of ``model.json``; anything wrong is an ``InputError`` naming file and field."""
    path = folder / MODEL_FILE
    try:
        if path.stat().st_size > _SETTINGS_LIMIT:
            raise InputError(f"{path}: larger than 1 MiB, which no model description is")
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"{path}: not found; a model folder holds {MODEL_FILE} and {DELTA_FILE}") from None
    except (OSError, UnicodeDecodeError, ValueError, RecursionError) as error:
        raise InputError(f"{path}: not readable as JSON ({type(error).__name__})") from None
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise InputError(f"{path}: field 'format' should be {FORMAT}")
    for field in ("name", "defence", "backbone", "backbone_hash", "weights_hash"):
        if not isinstance(content.get(field), str):
            raise InputError(f"{path}: field {field!r} should be text")
    for field in ("name", "defence"):
        check_name(f"{path}: field {field!r}", content[field])
    if not isinstance(content.get("head"), dict):
        raise InputError(f"{path}: field 'head' should be an object")
    return content


def check_name(where: str, name: str) -> None:
    """Refuse a name that a model folder may not have; ``where`` is the field or flag it came from."""
    if not _NAME.match(name):
        raise InputError(f"{where} should be letters, digits, '_', '.', '+' or '-'")


def info_of(content: dict[str, Any]) -> ModelInfo:
    """Return the model's own description from ``model.json``."""
    from hierbench.models.zeroshot import CheckpointSource, ModelInfo

    return ModelInfo(
        name=content["name"],
        defence=content["defence"],
        variant=str(content.get("variant") or ""),
        backbone=content["backbone"],
        trained_on=content.get("trained_on"),
        seen=content.get("seen"),
        settings=dict(content.get("settings") or {}),
        guards={str(k): float(v) for k, v in dict(content.get("guards") or {}).items()},
        guard_flags=tuple(str(flag) for flag in content.get("guard_flags") or ()),
        backbone_hash=content["backbone_hash"],
        weights=None if content.get("weights") is None else str(content["weights"]),
        checkpoint=None if content.get("checkpoint") is None else CheckpointSource(**content["checkpoint"]),
    )


def read_model(folder: Path, *, backbone: str | None = None) -> ZeroShotModel:
    """Return the model of a folder: its backbone, with the stored tensors in place of the backbone's.

    ``backbone`` says where to find it when it is a folder of the user's, or when a local copy stands in for the Hub's:
    a path in ``model.json`` is never followed. Checks the backbone's hash, every tensor's name and shape, and the hash
    of the result; the files are never unpickled.
    """
    import torch
    from safetensors import SafetensorError, safe_open

    from hierbench.models.backbones import load_backbone
    from hierbench.models.heads import head_from_config

    content = read_description(folder)
    try:
        info = info_of(content)
    except (TypeError, ValueError):
        raise InputError(
            f"{folder / MODEL_FILE}: fields 'settings', 'guards', 'guard_flags' and 'checkpoint' are not as written"
        ) from None
    if info.backbone.startswith("local-dir:") and backbone is None:
        raise InputError(
            f"{folder / MODEL_FILE}: its backbone is a folder; name that with --backbone local-dir:<folder>"
        )
    local = backbone is not None and any(name.startswith("local-dir:") for name in (info.backbone, backbone))
    model = load_backbone(backbone if local and backbone else info.backbone)
    if model.weights_hash != content["backbone_hash"]:
        raise InputError(f"{folder / MODEL_FILE}: made from another {info.backbone} (backbone_hash differs)")
    path = folder / DELTA_FILE
    try:
        with safe_open(str(path), framework="pt") as stored:
            tensors: dict[str, Tensor] = {key: stored.get_tensor(key) for key in stored.keys()}  # noqa: SIM118
    except FileNotFoundError:
        raise InputError(f"{path}: not found; a model folder holds {MODEL_FILE} and {DELTA_FILE}") from None
    except (SafetensorError, OSError) as error:
        raise InputError(f"{path}: not a readable safetensors file ({error})") from None
    head = head_from_config(content["head"])
    places = {f"clip.{k}": v for k, v in model.clip.state_dict().items()}
    places |= {f"head.{k}": v for k, v in head.state_dict().items()}
    for key, value in tensors.items():
        if key not in places:
            raise InputError(f"{path}: tensor {key!r} is no part of {info.backbone} or its head")
        if places[key].shape != value.shape:
            raise InputError(f"{path}: {key} is {tuple(value.shape)}; it should be {tuple(places[key].shape)}")
        if value.is_floating_point() and not math.isfinite(float(value.float().abs().max() if value.numel() else 0.0)):
            raise InputError(f"{path}: {key} holds NaN or infinity")
        with torch.no_grad():
            places[key].copy_(value)
    missing = [k for k in places if k.startswith("head.") and k not in tensors]
    if missing:
        raise InputError(f"{path}: lacks {missing[0]!r}")
    if backbone is not None and info.backbone.startswith("local-dir:"):
        info = replace(info, backbone=backbone)
    model.info, model.head = info, head
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    model.eval()
    if model.weights_hash != content["weights_hash"]:
        raise InputError(f"{folder}: the tensors are not those of {MODEL_FILE} (weights_hash differs)")
    return model
