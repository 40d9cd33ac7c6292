"""``hierbench plot``: pictures made from records."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hierbench.cli.common import console


def add_to(app: typer.Typer) -> None:
    """Add the command and its kinds."""
    plot = typer.Typer(help="Draw pictures from records.", no_args_is_help=True)
    plot.command("training")(training)
    app.add_typer(plot, name="plot")


def training(
    runs: Annotated[list[str], typer.Argument(help="Models, or folders that hierbench train wrote.")],
    out: Annotated[Path, typer.Option(help="Picture to write: .svg, .pdf or .png.")] = Path("training.svg"),
) -> None:
    """Draw learning curves: training loss, and accuracy on watched images, clean and under attack."""
    from hierbench.models.catalogue import MODELS
    from hierbench.reporting.curves import draw_curves, read_curve

    folders = [MODELS.get(run).folder if run in MODELS else Path(run) for run in runs]
    curves = [
        read_curve(folder if folder is not None else Path(run)) for folder, run in zip(folders, runs, strict=True)
    ]
    console().print(f"picture: {draw_curves(curves, out)}", soft_wrap=True)
