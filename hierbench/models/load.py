"""From a model's name to the model."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hierbench.errors import InputError
from hierbench.models.backbones import load_backbone
from hierbench.models.catalogue import ModelSpec, resolve_model
from hierbench.models.checkpoints.names import AUTO
from hierbench.models.storage import read_model

if TYPE_CHECKING:
    from hierbench.models.zeroshot import ZeroShotModel

DEFAULT_BACKBONE = "tiny_clip-v1"


def load_model(
    name: str | ModelSpec,
    *,
    variant: str | None = None,
    backbone: str | None = None,
    weights_layout: str = AUTO,
    device: str = "cpu",
) -> ZeroShotModel:
    """Return a model in eval mode, fp32, with frozen weights.

    ``name`` is a model of the registry, a bare defence name (then ``variant`` completes it), a folder that
    ``hierbench train`` or ``hierbench convert`` wrote, a backbone in any form of ``load_backbone``, or a checkpoint
    file. ``backbone`` says which one an undefended ``clip`` is (the default: ``tiny_clip-v1``), what a checkpoint was
    trained from, and where the folder is that a model was trained from, if it was a folder. ``weights_layout`` is how
    a checkpoint's tensors lie: one of ``checkpoints.names.LAYOUTS``, or found out by their names. Errors are
    ``InputError``: an unknown name, a damaged or hostile file, tensors of another model.
    """
    entry = name if isinstance(name, ModelSpec) else resolve_model(name, variant)
    if entry.checkpoint is not None:
        from hierbench.models.checkpoints.read import read_checkpoint

        model = read_checkpoint(entry.checkpoint, backbone=backbone, layout=weights_layout)
    elif weights_layout != AUTO:
        raise InputError(f"--weights-layout: model {entry.name} is no checkpoint file; leave it out")
    elif entry.folder is not None:
        model = read_model(entry.folder, backbone=backbone)
    elif entry.backbone is not None:
        model = load_backbone(entry.backbone, called=entry.name)
    else:
        model = load_backbone(backbone or DEFAULT_BACKBONE)
    try:
        model.to(device)
    except (RuntimeError, AssertionError) as error:
        raise InputError(f"--device {device}: {str(error).splitlines()[0]}") from None
    return model
