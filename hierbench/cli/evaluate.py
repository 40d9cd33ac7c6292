"""``hierbench eval``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hierbench.cli.common import console, read_numbers, read_settings
from hierbench.cli.convert import BACKBONE_HELP, LAYOUT_HELP
from hierbench.errors import ExitCode
from hierbench.models.checkpoints.names import AUTO

if TYPE_CHECKING:
    from hierbench.evaluation.records import Record
    from hierbench.evaluation.request import Request
    from hierbench.evaluation.team import Team


def add_to(app: typer.Typer) -> None:
    """Add the command."""
    app.command("eval")(evaluate)


def evaluate(
    model: Annotated[
        str, typer.Option(help="Model, a wildcard such as 'hier_*', a model folder, a backbone or a checkpoint file.")
    ] = "clip",
    backbone: Annotated[str | None, typer.Option(help=BACKBONE_HELP)] = None,
    weights_layout: Annotated[str, typer.Option(help=LAYOUT_HELP)] = AUTO,
    attack: Annotated[str | None, typer.Option(help="Attack, or a wildcard.")] = None,
    dataset: Annotated[str | None, typer.Option(help="Dataset.")] = None,
    tree: Annotated[str | None, typer.Option(help="Class tree of the dataset.")] = None,
    depth: Annotated[list[str] | None, typer.Option(help="Depths to attack: 1 is the coarsest. [all]")] = None,
    scoring: Annotated[str | None, typer.Option(help="rollup or direct: whose verdict stops the attack.")] = None,
    eps: Annotated[str | None, typer.Option(help="Radius, such as 4/255.")] = None,
    norm: Annotated[str | None, typer.Option(help="linf or l2.")] = None,
    limit: Annotated[int | None, typer.Option(help="First n samples of the stratified list.")] = None,
    split: Annotated[str | None, typer.Option(help="Split of the dataset.")] = None,
    template: Annotated[
        str | None, typer.Option(help="Prompt with {noun} (with article) or {} (bare name), or ensemble.")
    ] = None,
    steps: Annotated[int | None, typer.Option(help="Gradient steps of the attack.")] = None,
    restarts: Annotated[int | None, typer.Option(help="Random starts of the attack.")] = None,
    set_: Annotated[list[str] | None, typer.Option("--set", help="Another setting of the attack: name=value.")] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of every random draw.")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Images in a forward.")] = None,
    severity_samples: Annotated[int | None, typer.Option(help="Samples searched to the full budget.")] = None,
    engine: Annotated[
        str | None, typer.Option(help="Whose loop runs AutoAttack and its components: hierbench or pyautoattack.")
    ] = None,
    search_precision: Annotated[
        str | None, typer.Option(help="fp32, tf32 or bf16 in the search; verdicts are always fp32.")
    ] = None,
    compile_: Annotated[
        bool, typer.Option("--compile", help="Compile the model for the search: pays in long searches.")
    ] = False,
    protocol: Annotated[str | None, typer.Option(help="Protocol that fixes what is not said.")] = None,
    device: Annotated[str | None, typer.Option(help="cpu, cuda, cuda:1, ... [cuda if there is one]")] = None,
    out: Annotated[Path | None, typer.Option(help="Folder of the results. [./hierbench-results]")] = None,
    data_root: Annotated[Path | None, typer.Option(help="Folder of the image data. [HIERBENCH_DATA_ROOT]")] = None,
    store_images: Annotated[
        str | None, typer.Option(help="8bit or float: keep the adversarial images, for hierbench replay.")
    ] = None,
    rank_preservation: Annotated[
        bool, typer.Option("--rank-preservation", help="Compare the attacked top five with the backbone's clean ones.")
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="Run a finished cell again.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="Print the place of the record only.")] = False,
) -> int:
    """Attack a model at every depth of a class tree, and print what is left.

    What is not said is the protocol's. A finished cell is read, an interrupted one goes on where it stopped.
    On several GPUs: torchrun --nproc-per-node N -m hierbench eval ...
    """
    from hierbench.attacks.catalogue import ATTACKS
    from hierbench.evaluation.protocol import choose_protocol
    from hierbench.evaluation.request import Request
    from hierbench.models.catalogue import match_models

    chosen = choose_protocol(protocol, dataset)
    settings = read_settings(set_ or [])
    settings |= {name: value for name, value in (("steps", steps), ("restarts", restarts)) if value is not None}
    depths = read_numbers("--depth", depth or [])
    models = [model] if not _is_pattern(model) else [entry.name for entry in match_models(model, chosen.variant)]
    attacks = [None] if attack is None else ATTACKS.match(attack)
    requests = [
        Request(
            model=one_model,
            backbone=backbone,
            weights_layout=None if weights_layout == AUTO else weights_layout,
            dataset=dataset,
            tree=tree,
            attack=one_attack,
            eps=eps,
            norm=norm,
            scoring=scoring,
            depths=depths,
            limit=limit,
            split=split,
            template=template,
            settings=settings,
            seed=seed,
            batch_size=batch_size,
            severity_samples=severity_samples,
            engine=engine,
            search_precision=search_precision,
            compile=compile_ or None,
            protocol=protocol,
            device=device,
            out=out,
            data_root=data_root,
            store_images=store_images,
            rank_preservation=rank_preservation or None,
        )
        for one_model in models
        for one_attack in attacks
    ]
    from hierbench.evaluation.team import join_team

    team = join_team()
    trusted = [_run(request, team, force=force, quiet=quiet) for request in requests]
    return ExitCode.DONE if all(trusted) else ExitCode.UNTRUSTED


def _is_pattern(name: str) -> bool:
    return any(mark in name for mark in "*?[") and not Path(name).exists()


def _run(request: Request, team: Team, *, force: bool, quiet: bool) -> bool:
    """Evaluate one cell, print it, and return whether it can be trusted; of a team the first process prints."""
    from hierbench.evaluation.observer import Observer
    from hierbench.evaluation.prepare import prepare_cell
    from hierbench.evaluation.replay.file import images_path
    from hierbench.evaluation.runner import run_cell
    from hierbench.reporting.progress import RichProgress

    cell = prepare_cell(request)
    observer = Observer() if quiet or not team.leads else RichProgress(console(stderr=True))
    record = run_cell(cell, force=force, observer=observer, team=team)
    if not team.leads:
        return not record.checks.failed
    if not quiet:
        show_record(record)
    if cell.store_images is not None and not quiet:
        kept = images_path(cell.folder, cell.identity.cell, cell.store_images)
        console().print(f"images: {kept}", soft_wrap=True)
    console().print(f"record: {cell.record_path}" if not quiet else str(cell.record_path), soft_wrap=True)
    return not record.checks.failed


def show_record(record: Record) -> None:
    """Print the tables of one record."""
    from hierbench.reporting.formats import render_rich
    from hierbench.reporting.layouts import depth_report, seen_report, transfer_report

    out = console()
    out.print(render_rich(depth_report([record])))
    if len(record.depths) > 1:
        out.print(render_rich(transfer_report([record], carry_over=False)))
    if record.seen and len(record.seen) > 1:
        out.print(render_rich(seen_report([record])))
