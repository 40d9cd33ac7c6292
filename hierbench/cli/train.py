"""``hierbench train``."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from hierbench.cli.common import console, read_settings


def add_to(app: typer.Typer) -> None:
    """Add the command."""
    app.command("train")(train)


def train(
    defence: Annotated[str | None, typer.Option(help="Its name, or FILE.py:CLASS. [the recipe's]")] = None,
    recipe: Annotated[
        str | None, typer.Option(help="Recipe: its name, or a .toml file. [VARIANT/DEFENCE, if there is one]")
    ] = None,
    dataset: Annotated[str | None, typer.Option(help="Dataset to train on. [the protocol's]")] = None,
    backbone: Annotated[
        str | None, typer.Option(help="Backbone to start from, such as ViT-B-32-quickgelu/openai. [the protocol's]")
    ] = None,
    tree: Annotated[list[str] | None, typer.Option(help="Trees, or wildcards; several make a forest.")] = None,
    eps: Annotated[str | None, typer.Option(help="Radius of the inner attack. [the protocol's]")] = None,
    norm: Annotated[str | None, typer.Option(help="linf or l2. [the recipe's]")] = None,
    variant: Annotated[str | None, typer.Option(help="Second half of the model's name. [the protocol's]")] = None,
    shots: Annotated[int | None, typer.Option(help="Images of each class to train on. [all]")] = None,
    train_scope: Annotated[
        str | None, typer.Option(help="projection, blocks:n, visual or both. [what the method says]")
    ] = None,
    shuffle_tree: Annotated[
        int | None, typer.Option(help="Permute the trees' leaves by this seed: the control of tree-aware methods.")
    ] = None,
    set_: Annotated[
        list[str] | None, typer.Option("--set", help="A setting of the defence or the recipe: name=value.")
    ] = None,
    limit: Annotated[int | None, typer.Option(help="Train on the first n images only.")] = None,
    seen: Annotated[
        str | None, typer.Option(help="Class split whose unseen classes take no part. [the recipe's]")
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of every random draw.")] = 0,
    protocol: Annotated[str | None, typer.Option(help="Protocol that fixes what is not said.")] = None,
    device: Annotated[str | None, typer.Option(help="cpu, cuda, ... [cuda if there is one]")] = None,
    out: Annotated[Path | None, typer.Option(help="Folder of the model. [./hierbench-models/NAME]")] = None,
    data_root: Annotated[Path | None, typer.Option(help="Folder of the image data. [HIERBENCH_DATA_ROOT]")] = None,
    restart: Annotated[bool, typer.Option("--restart", help="Ignore a checkpoint in the folder.")] = False,
) -> None:
    """Fine-tune a backbone with a defence, on known classes only; goes on from a checkpoint.

    On several GPUs: torchrun --nproc-per-node N -m hierbench train ...
    """
    from hierbench.cli.bars import phase_bars
    from hierbench.sweep.training import TrainRequest, run_training

    given: dict[str, object] = {"shots": shots, "train_scope": train_scope, "shuffle_tree": shuffle_tree}
    request = TrainRequest(
        defence=defence,
        recipe=recipe,
        dataset=dataset,
        backbone=backbone,
        trees=tuple(tree or ()),
        eps=eps,
        norm=norm,
        variant=variant,
        seen=seen,
        settings=read_settings(set_ or []) | {name: value for name, value in given.items() if value is not None},
        limit=limit,
        seed=seed,
        protocol=protocol,
        device=device,
        out=out,
        data_root=data_root,
        resume=not restart,
    )
    with phase_bars() as report, _asked_to_stop() as asked:
        folder = run_training(request, report=report, should_stop=lambda: bool(asked))
    if folder is not None:
        console().print(f"model: {folder}", soft_wrap=True)


@contextmanager
def _asked_to_stop() -> Iterator[list[int]]:
    """Yield a list that the first Ctrl-C fills, so that a step ends and a checkpoint is written; a second one kills."""
    asked: list[int] = []
    before = signal.getsignal(signal.SIGINT)

    def ask(number: int, _: object) -> None:
        asked.append(number)
        signal.signal(signal.SIGINT, before)

    signal.signal(signal.SIGINT, ask)
    try:
        yield asked
    finally:
        signal.signal(signal.SIGINT, before)
