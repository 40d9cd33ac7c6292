"""``hierbench convert``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hierbench.cli.common import console
from hierbench.models.checkpoints.names import AUTO, LAYOUTS

BACKBONE_HELP = "What a checkpoint file was trained from; which backbone clip is. [clip: the protocol's]"
LAYOUT_HELP = f"How a checkpoint's tensors lie: {AUTO}, {', '.join(LAYOUTS)}."


def add_to(app: typer.Typer) -> None:
    """Add the command."""
    app.command("convert")(convert)


def convert(
    file: Annotated[Path, typer.Argument(help="Checkpoint: a file of torch.save, or safetensors.")],
    backbone: Annotated[str, typer.Option(help="What it was trained from, such as ViT-B-32-quickgelu/openai.")],
    out: Annotated[Path, typer.Option(help="Folder of the model; it must not exist.")],
    name: Annotated[str | None, typer.Option(help="Name of the model. [the file's]")] = None,
    defence: Annotated[str, typer.Option(help="How it was trained, such as tecoa.")] = "unstated",
    trained_on: Annotated[str | None, typer.Option(help="Dataset it was fine-tuned on.")] = None,
    weights_layout: Annotated[str, typer.Option(help=LAYOUT_HELP)] = AUTO,
) -> None:
    """Turn a checkpoint into a model folder, as safetensors; it is evaluated exactly as the file was.

    Nothing in the file is run, and a tensor too many or too few is refused.
    """
    from hierbench.datasets.catalogue import get_spec
    from hierbench.models.checkpoints.convert import convert as write_model

    if trained_on is not None:
        get_spec(trained_on)  # refuses a name that is none
    weights = write_model(
        file,
        out,
        backbone=backbone,
        layout=weights_layout,
        name=name,
        defence=defence,
        trained_on=trained_on,
    )
    console().print(f"model: {out}\nweights: {weights}", soft_wrap=True)
