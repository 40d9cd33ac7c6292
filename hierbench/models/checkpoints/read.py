"""From a checkpoint file and the backbone it was trained from to a model."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from hierbench.errors import InputError
from hierbench.models.backbones import FORMS, load_backbone
from hierbench.models.checkpoints.container import read_container
from hierbench.models.checkpoints.fit import load_strictly, stored_types
from hierbench.models.checkpoints.layouts import Keys, find_layout
from hierbench.models.checkpoints.names import AUTO
from hierbench.models.heads import CosineHead
from hierbench.models.zeroshot import CheckpointSource

if TYPE_CHECKING:
    from hierbench.models.zeroshot import ZeroShotModel

UNSTATED = "unstated"
"""The defence of a checkpoint of which nobody has said how it was trained."""
SCALE_LIMIT = 20.0
"""Of logit_scale, by whose exponential logits are multiplied: beyond it they overflow into ties."""


def read_checkpoint(path: Path, *, backbone: str | None, layout: str = AUTO, name: str | None = None) -> ZeroShotModel:
    """Return the model a file holds: the backbone, with the file's tensors in place of the backbone's.

    ``backbone`` is what it was trained from: no file says its architecture, let alone its activation. A file with the
    image tower alone keeps the backbone's text tower. Raises ``InputError``, one line, for a file of no layout, with a
    tensor too many, too few, of another shape or of no finite number, and for a missing ``backbone``.
    """
    if backbone is None:
        raise InputError(f"{path}: a checkpoint does not say its architecture; give --backbone: {FORMS}")
    container, content = read_container(path)
    model = load_backbone(backbone, called=name or model_name(path))
    base = model.weights_hash
    keys = Keys(frozenset(model.clip.visual.state_dict()), frozenset(model.clip.state_dict()))
    found = find_layout(content, keys, layout=layout, where=path)
    target, of = (model.clip.visual, f"{backbone}'s image tower") if found.part == "visual" else (model.clip, backbone)
    load_strictly(target, found.tensors, where=path, of=of)
    scale = float(model.clip.logit_scale.detach())
    if scale > SCALE_LIMIT:
        raise InputError(f"{path}: logit_scale is {scale:g}, by whose exponential logits are multiplied; CLIP's is 4.6")
    model.head = CosineHead(logit_scale=scale)
    model.info = replace(
        model.info,
        defence=UNSTATED,
        backbone_hash=base,
        weights=None if found.part == "full" else model.info.weights,  # of the backbone's own nothing is left
        checkpoint=CheckpointSource(
            file=path.name,
            sha256=_digest(path),
            container=container,
            layout=found.layout,
            stored_as=stored_types(found.tensors),
        ),
    )
    return model.eval()


def model_name(path: Path) -> str:
    """Return a model's name for a file: its own, without endings and signs that no name has.

    >>> model_name(Path("runs/tecoa eps=1.pth.tar"))
    'tecoa-eps-1'
    """
    stem = path.name
    while (ending := Path(stem).suffix) and re.fullmatch(r"\.[A-Za-z]{1,11}", ending):
        stem = stem.removesuffix(ending)
    return re.sub(r"[^A-Za-z0-9_.+-]+", "-", stem).strip("-.")[:100] or "checkpoint"


def _digest(path: Path) -> str:
    import hashlib

    with path.open("rb") as handle:
        return f"sha256:{hashlib.file_digest(handle, 'sha256').hexdigest()}"
