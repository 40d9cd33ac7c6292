"""From a model's name to the model."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hierbench.errors import InputError
from hierbench.models.backbones import load_backbone
from hierbench.models.catalogue import ModelSpec, resolve_model
from hierbench.models.storage import read_model

if TYPE_CHECKING:
    from hierbench.models.zeroshot import ZeroShotModel

DEFAULT_BACKBONE = "tiny_clip-v1"


def load_model(
    name: str | ModelSpec,
    *,
    variant: str | None = None,
    backbone: str | None = None,
    device: str = "cpu",
) -> ZeroShotModel:
    """Return a model in eval mode, fp32, with frozen weights.

    ``name`` is a model of the registry, a bare defence name (then ``variant`` completes it), or a folder
    that ``hierbench train`` wrote. ``backbone`` says which one an undefended ``clip`` is (the default:
    ``tiny_clip-v1``), and where the folder is that a model was trained from, if it was a folder. Errors are
    ``InputError``: an unknown name, a damaged file, tensors of another model.
    """
    entry = name if isinstance(name, ModelSpec) else resolve_model(name, variant)
    if entry.folder is None:
        model = load_backbone(backbone or DEFAULT_BACKBONE)
    else:
        model = read_model(entry.folder, backbone=backbone)
    try:
        model.to(device)
    except (RuntimeError, AssertionError) as error:
        raise InputError(f"--device {device}: {str(error).splitlines()[0]}") from None
    return model
