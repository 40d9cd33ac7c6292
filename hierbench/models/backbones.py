"""Backbones: an architecture with its pre-trained weights, by name; nothing here loads a tensor until it is asked."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from hierbench.errors import HierbenchError, InputError
from hierbench.paths import data_dir
from hierbench.registry import Registry, UnknownNameError

if TYPE_CHECKING:
    from hierbench.models.zeroshot import ZeroShotModel

WEIGHTS_FILE = "open_clip_model.safetensors"
PICKLED_FILE = "open_clip_pytorch_model.bin"
CONFIG_FILE = "open_clip_config.json"
LOCAL, HUB = "local-dir:", "hf-hub:"
RANDOM = "random, never trained"
"""How the source of such weights begins, wherever it is said."""
FORMS = (
    "ARCHITECTURE/TAG such as ViT-B-32-quickgelu/openai, hf-hub:ORG/NAME, local-dir:FOLDER, ARCHITECTURE/random, "
    "or one of 'hierbench list backbones'"
)
_PART = r"[A-Za-z0-9][A-Za-z0-9_.-]*"
_TAGGED = re.compile(rf"({_PART})/({_PART})\Z")
_ON_HUB = re.compile(rf"({_PART}/{_PART})(?:@([A-Za-z0-9_./-]+))?\Z")
_RANDOM = re.compile(r"random(?:-(\d{1,9}))?\Z")


@dataclass(frozen=True)
class BackboneSpec:
    """A shipped backbone: a folder in the layout that open_clip calls ``local-dir:``."""

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


@dataclass(frozen=True)
class BackboneName:
    """A backbone's name, taken apart; whether open_clip knows the architecture and the tag shows when it is loaded."""

    name: str
    kind: Literal["folder", "hub", "tag", "random"]
    place: str
    """The folder, the Hub repository or the architecture."""
    detail: str | None = None
    """The tag, the Hub revision or the seed."""


def parse_backbone(name: str) -> BackboneName:
    """Return what a backbone's name means; a bare architecture and any other form are an ``InputError``.

    >>> parse_backbone("RN50-quickgelu/openai")
    BackboneName(name='RN50-quickgelu/openai', kind='tag', place='RN50-quickgelu', detail='openai')
    >>> parse_backbone("ViT-B-32/random").kind, parse_backbone("hf-hub:chs20/fare2-clip").place
    ('random', 'chs20/fare2-clip')
    """
    if name.startswith(LOCAL):
        return BackboneName(name, "folder", name.removeprefix(LOCAL))
    if name.startswith(HUB):
        found = _ON_HUB.match(name.removeprefix(HUB))
        if found is None:
            raise InputError(f"backbone {name!r}: after hf-hub: comes ORG/NAME, or ORG/NAME@REVISION")
        return BackboneName(name, "hub", found[1], found[2])
    if name in BACKBONES:
        return BackboneName(name, "folder", str(BACKBONES.get(name).folder))
    tagged = _TAGGED.match(name)
    if tagged is None:
        raise UnknownNameError(f"unknown backbone {name!r}: {BACKBONES.suggest(name)} (a backbone is {FORMS})")
    seed = _RANDOM.match(tagged[2])
    if seed is not None:
        return BackboneName(name, "random", tagged[1], seed[1] or "0")
    return BackboneName(name, "tag", tagged[1], tagged[2])


def shared_name(name: str) -> str:
    """Return a backbone's name for files that travel: a folder loses its place, which means nothing elsewhere.

    Its ``backbone_hash`` says which weights it was.

    >>> shared_name("local-dir:/home/me/runs/clip-s"), shared_name("ViT-B-32/random")
    ('local-dir:clip-s', 'ViT-B-32/random')
    """
    return LOCAL + Path(name.removeprefix(LOCAL)).resolve().name if name.startswith(LOCAL) else name


def is_backbone(name: str) -> bool:
    """Return whether a name has the form of a backbone's; a file or a folder of that name comes first.

    >>> is_backbone("ViT-B-32/random"), is_backbone("./runs/last"), is_backbone("tecoa")
    (True, False, False)
    """
    if name.startswith((LOCAL, HUB)) or name in BACKBONES:
        return True
    return _TAGGED.match(name) is not None and not Path(name).exists()


def load_backbone(name: str, *, called: str = "clip") -> ZeroShotModel:
    """Return a backbone as an undefended model named ``called``: its own towers, cosine head at its own logit scale.

    ``name`` is a shipped backbone, ``ARCHITECTURE/TAG`` of open_clip, ``hf-hub:ORG/NAME``, ``local-dir:FOLDER``, or
    ``ARCHITECTURE/random`` (``random-SEED``; the seed is 0) for weights that were never trained. Weights that are not
    on this disk are fetched. Raises ``InputError`` naming what is missing, damaged, ambiguous or not to be fetched.
    """
    from hierbench.models.heads import CosineHead
    from hierbench.models.towers import load_towers
    from hierbench.models.zeroshot import ModelInfo, ZeroShotModel

    towers = load_towers(parse_backbone(name))
    scale = getattr(towers.clip, "logit_scale", None)
    if scale is None:
        raise HierbenchError(f"backbone {name}: it has no logit scale")
    head = CosineHead(logit_scale=float(scale.detach()))
    info = ModelInfo(name=called, defence="none", variant="", backbone=name, weights=towers.source)
    for parameter in towers.clip.parameters():
        parameter.requires_grad_(False)
    return ZeroShotModel(info=info, clip=towers.clip, tokenizer=towers.tokenizer, pixels=towers.pixels, head=head)
