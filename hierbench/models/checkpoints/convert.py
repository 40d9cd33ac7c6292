"""A checkpoint as a model folder of the project's own: safetensors of what differs from its backbone."""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import replace
from pathlib import Path

from hierbench.errors import HierbenchError, InputError
from hierbench.models.checkpoints.names import AUTO
from hierbench.models.checkpoints.read import UNSTATED, read_checkpoint
from hierbench.models.storage import check_name, save_model


def convert(
    path: Path,
    folder: Path,
    *,
    backbone: str,
    layout: str = AUTO,
    name: str | None = None,
    defence: str = UNSTATED,
    trained_on: str | None = None,
) -> str:
    """Write a checkpoint as a model folder, whole or not at all; return its weights hash, that of the checkpoint.

    No number is rounded, so the folder is evaluated exactly as the file. ``folder`` must not exist yet, or be empty.
    Raises ``InputError`` for that, for a name that no model may have, and for whatever ``read_checkpoint`` refuses.
    """
    for flag, word in (("--name", name), ("--defence", defence)):
        if word is not None:
            check_name(flag, word)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(f"--out: {folder} is there already; name a folder that is not, or an empty one")
    model = read_checkpoint(path, backbone=backbone, layout=layout, name=name)
    model.info = replace(model.info, defence=defence, trained_on=trained_on)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}.") as place:
            made = save_model(model, Path(place) / "model", half=False)
            if folder.exists():
                folder.rmdir()
            shutil.move(made, folder)
    except OSError as error:
        raise HierbenchError(f"cannot write {folder}: {error.strerror or error}") from error
    return model.weights_hash
