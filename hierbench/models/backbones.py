"""Backbones: an architecture with its pre-trained weights, loaded through open_clip."""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hierbench.errors import HierbenchError, InputError
from hierbench.paths import data_dir
from hierbench.registry import Registry

if TYPE_CHECKING:
    from hierbench.models.zeroshot import ZeroShotModel

WEIGHTS_FILE = "open_clip_model.safetensors"
CONFIG_FILE = "open_clip_config.json"


@dataclass(frozen=True)
class BackboneSpec:
    """A backbone by name; ``source`` is what open_clip loads (here always a folder in its ``local-dir:`` layout)."""

    name: str
    summary: str
    folder: Path

    @property
    def record(self) -> Path:
        """The record its training wrote."""
        return self.folder / "record.json"


def _fill(registry: Registry[BackboneSpec]) -> None:
    for config in sorted((data_dir() / "weights").glob(f"*/{CONFIG_FILE}")):
        if (config.parent / WEIGHTS_FILE).is_file():
            name = config.parent.name
            registry.add(name, BackboneSpec(name, f"open_clip model shipped in weights/{name}", config.parent))


BACKBONES: Registry[BackboneSpec] = Registry("backbone", fill=_fill)


def load_clip(folder: Path) -> tuple[Any, Any, Any]:
    """Return (open_clip model fp32 in eval mode, tokenizer, PixelInput) from a ``local-dir:`` folder.

    Raises ``InputError`` naming the file that is missing, damaged or of another shape. Reads safetensors only.
    """
    from safetensors import SafetensorError, safe_open

    from hierbench.models.pixels import PixelInput

    for name in (CONFIG_FILE, WEIGHTS_FILE):
        if not (folder / name).is_file():
            raise InputError(f"backbone: {folder / name} is missing; the folder needs {CONFIG_FILE} and {WEIGHTS_FILE}")
    import open_clip

    try:
        config = json.loads((folder / CONFIG_FILE).read_text(encoding="utf-8"))
        model_config, preprocess = config["model_cfg"], config["preprocess_cfg"]
        context_length = int(model_config["text_cfg"]["context_length"])
        size = model_config["vision_cfg"]["image_size"]
        pixels = PixelInput(int(size), tuple(preprocess["mean"]), tuple(preprocess["std"]))
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"backbone: {folder / CONFIG_FILE} is not an open_clip configuration ({error})") from None
    try:
        with safe_open(str(folder / WEIGHTS_FILE), framework="pt") as tensors:
            state = {key: tensors.get_tensor(key).float() for key in tensors.keys()}  # noqa: SIM118 (not a dict)
    except (SafetensorError, OSError) as error:
        raise InputError(f"backbone: {folder / WEIGHTS_FILE} is not a readable safetensors file ({error})") from None
    level = logging.getLogger().level
    logging.getLogger().setLevel(logging.ERROR)  # open_clip announces on the root logger that weights are random
    try:
        clip = open_clip.create_model(f"local-dir:{folder}", load_weights=False)
        tokenizer = open_clip.get_tokenizer(f"local-dir:{folder}", context_length=context_length)
    except (RuntimeError, ValueError, TypeError, KeyError) as error:
        raise InputError(f"backbone: open_clip cannot build {folder / CONFIG_FILE} ({error})") from None
    finally:
        logging.getLogger().setLevel(level)
    load_strictly(clip, state, where=folder / WEIGHTS_FILE)
    return clip.eval(), tokenizer, pixels


def load_strictly(module: Any, state: dict[str, Any], *, where: Path) -> None:
    """Load tensors into a module; a missing, unexpected or misshapen one raises ``InputError`` naming it."""
    own = module.state_dict()
    missing = sorted(set(own) - set(state))
    unexpected = sorted(set(state) - set(own))
    if missing or unexpected:
        first = f"lacks {missing[0]!r}" if missing else f"has {unexpected[0]!r}, which the model lacks"
        raise InputError(f"{where}: {first} ({len(missing)} missing, {len(unexpected)} unexpected)")
    for name, tensor in state.items():
        if own[name].shape != tensor.shape:
            raise InputError(f"{where}: {name} is {tuple(tensor.shape)}; the model wants {tuple(own[name].shape)}")
    module.load_state_dict(state)


def load_backbone(name: str) -> ZeroShotModel:
    """Return a backbone as the undefended model ``clip``: its own towers, cosine head at its own logit scale.

    ``name`` is a backbone of the registry or ``local-dir:<folder>``.
    """
    from hierbench.models.heads import CosineHead
    from hierbench.models.zeroshot import ModelInfo, ZeroShotModel

    folder = Path(name.removeprefix("local-dir:")) if name.startswith("local-dir:") else BACKBONES.get(name).folder
    clip, tokenizer, pixels = load_clip(folder)
    scale = getattr(clip, "logit_scale", None)
    if scale is None:
        raise HierbenchError(f"backbone {name}: it has no logit scale")
    head = CosineHead(logit_scale=float(scale.detach()))
    info = ModelInfo(name="clip", defence="none", variant="", backbone=name)
    for parameter in clip.parameters():
        parameter.requires_grad_(False)
    return ZeroShotModel(info=info, clip=clip, tokenizer=tokenizer, pixels=pixels, head=head)
