"""``hierbench pretrain``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hierbench.cli.common import console


def add_to(app: typer.Typer) -> None:
    """Add the command."""
    app.command("pretrain")(pretrain)


def pretrain(
    out: Annotated[Path, typer.Option(help="Folder of the new backbone.")],
    architecture: Annotated[str, typer.Option(help="Which architecture.")] = "tiny_clip-v1",
    seen: Annotated[str, typer.Option(help="Class split: its unseen classes are in no training image.")] = "seen-v1",
    seed: Annotated[int, typer.Option(help="Seed of every random draw.")] = 0,
    data_root: Annotated[Path | None, typer.Option(help="Folder of the image data. [HIERBENCH_DATA_ROOT]")] = None,
) -> None:
    """Train a small backbone from scratch: its text tower on WordNet nouns, then both towers on images."""
    from hierbench.cli.bars import phase_bars
    from hierbench.pretraining.run import run

    with phase_bars() as report:
        run(out=out, architecture=architecture, seen=seen, seed=seed, root=data_root, report=report)
    console().print(f"backbone: {out}", soft_wrap=True)
