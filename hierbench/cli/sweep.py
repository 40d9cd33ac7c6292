"""``hierbench sweep``: the cells of a plan file."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hierbench.cli.common import console, read_settings
from hierbench.errors import ExitCode, InputError

if TYPE_CHECKING:
    from hierbench.evaluation.records import Record
    from hierbench.sweep.estimate import Estimate
    from hierbench.sweep.plan import PlannedCell, SweepPlan
    from hierbench.sweep.state import CellState


class Executor(StrEnum):
    """Where cells run."""

    HERE = "here"
    LOCAL = "local"
    SLURM = "slurm"


def add_to(app: typer.Typer) -> None:
    """Add the command."""
    app.command("sweep")(sweep)


def sweep(
    words: Annotated[list[str], typer.Argument(metavar="[status] PLAN", help="A plan file, or a shipped plan's name.")],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the cells and what they will cost.")] = False,
    executor: Annotated[Executor, typer.Option(help="here: one by one; local: processes; slurm: an array.")] = (
        Executor.HERE
    ),
    jobs: Annotated[int, typer.Option(help="Cells at once with local or slurm.")] = 1,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", help="A parameter of submitit: name=value, such as slurm_partition=gpu."),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Folder of the results. [./hierbench-results]")] = None,
    models: Annotated[
        Path | None, typer.Option(help="Folder of the models that the plan trains. [./hierbench-models]")
    ] = None,
    records: Annotated[
        list[Path] | None, typer.Option(help="More folders of records that estimates may rest on.")
    ] = None,
    device: Annotated[str | None, typer.Option(help="cpu, cuda, cuda:1, ... [cuda if there is one]")] = None,
    data_root: Annotated[Path | None, typer.Option(help="Folder of the image data. [HIERBENCH_DATA_ROOT]")] = None,
    quiet: Annotated[bool, typer.Option("--quiet", help="One line a cell, no bars.")] = False,
) -> int:
    """Run what is missing of a plan: trainings first, then models x data sets x attacks x eps, each cell resumable.

    `hierbench sweep status PLAN` shows how far each cell is. A cell that fails is noted, and the others go on.
    """
    from hierbench.cli.sweep_run import Runner
    from hierbench.sweep.plan import find_plan, read_plan
    from hierbench.sweep.run import CellJob, Job
    from hierbench.sweep.state import look_up, results_folder
    from hierbench.sweep.trained import TrainingJob, untrained

    if jobs < 1:
        raise InputError(f"--jobs: {jobs} is not a number of cells; give 1 or more")
    status, name = _words(words)
    plan = read_plan(find_plan(name), out=out, models=models, device=device, data_root=data_root)
    states, folder = look_up(plan), results_folder(plan)
    missing = [s.cell for s in states if s.state not in ("done", "flagged")]
    if status or dry_run:
        if plan.trainings:
            _show_trainings(plan, folder)
        _show(plan, states, _estimates(plan, missing, [folder, *(records or [])]))
        return ExitCode.DONE
    if not missing:
        console().print(f"{plan.name}: all {len(states)} cells are done")
        return _code(states)
    console().print(f"{plan.name}: {len(states) - len(missing)} of {len(states)} cells are done")
    wanted = {cell.request.model for cell in missing}
    first: list[Job] = [TrainingJob(t, folder) for t in untrained(plan.trainings, folder) if str(t.folder) in wanted]
    then: list[Job] = [CellJob(cell, folder) for cell in missing]
    if executor is Executor.SLURM:
        from hierbench.sweep.cluster import submit_slurm

        ids = submit_slurm(first or then, folder, parallel=jobs, parameters=_parameters(set_))
        what = "trainings; give the command again when they are done, for the cells" if first else "cells"
        console().print(
            f"queued {len(ids)} {what}; jobs {ids[0]} to {ids[-1]}; hierbench sweep status {name} tells how far"
        )
        return ExitCode.DONE
    runner = Runner(folder, executor, processes=jobs, parameters=_parameters(set_), quiet=quiet)
    failed = runner.run(first) + runner.run(then)
    return ExitCode.FAILED if failed else _code(look_up(plan))


def _parameters(pairs: list[str] | None) -> dict[str, object]:
    """Return submitit's parameters; what looks like a whole number is one."""
    said = {name: str(value) for name, value in read_settings(pairs or []).items()}
    return {name: int(value) if value.isascii() and value.isdigit() else value for name, value in said.items()}


def _words(words: Sequence[str]) -> tuple[bool, str]:
    if len(words) == 2 and words[0] == "status":
        return True, words[1]
    if len(words) != 1:
        raise InputError("PLAN: give one plan file, or `status` and one plan file")
    return False, words[0]


def _show_trainings(plan: SweepPlan, folder: Path) -> None:
    from rich.text import Text

    from hierbench.reporting.table import printable
    from hierbench.sweep.trained import training_state

    out = console()
    for training in plan.trainings:
        state, error = training_state(training, folder)
        out.print(Text(printable(f"{training.title}: {f'failed: {error}' if error else state}")), soft_wrap=True)


def _estimates(plan: SweepPlan, missing: Sequence[PlannedCell], folders: Sequence[Path]) -> dict[str, Estimate]:
    from hierbench.evaluation.stored import read_record
    from hierbench.sweep.estimate import estimate_cell

    paths = sorted({path for folder in folders if folder.is_dir() for path in folder.glob("*/*/*.json")})
    found: list[Record] = []
    for path in paths:
        try:
            found.append(read_record(path))
        except InputError:  # what is no record tells nothing of what a cell costs
            continue
    return {cell.key: estimate_cell(cell, plan.protocol, found) for cell in missing}


def _show(plan: SweepPlan, states: Sequence[CellState], estimates: dict[str, Estimate]) -> None:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    from hierbench.reporting.rows import scoring_of
    from hierbench.reporting.table import printable
    from hierbench.sweep.estimate import total

    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
    for heading in ("cell", "state", "clean leaf", "worst leaf", "took", "will take"):
        table.add_column(heading, justify="left" if heading in ("cell", "state") else "right")
    for state in states:
        estimate = estimates.get(state.cell.key)
        leaf = None if state.record is None else scoring_of(state.record.depths[-1], state.record)
        cells = (
            state.cell.title,
            f"failed: {state.error}" if state.error else state.state,
            "" if leaf is None else f"{100 * leaf.clean.value:.1f}",
            "" if leaf is None else f"{100 * leaf.worst.value:.1f}",
            "" if state.record is None else _time(state.record.cost.seconds),
            "" if estimate is None else ("?" if estimate.seconds is None else _time(estimate.seconds)),
        )
        table.add_row(*(Text(printable(text)) for text in cells))
    out = console()
    out.print(table)
    done = sum(state.record is not None for state in states)
    seconds, unknown = total(list(estimates.values()))
    words = f"{plan.name}: {done} of {len(states)} cells done"
    if estimates:
        words += f"; the rest will take about {_time(seconds)} by records of cells like them"
        words += f", and {unknown} more that no record tells of" if unknown else ""
    out.print(words, soft_wrap=True)


def _time(seconds: float) -> str:
    minutes = seconds / 60
    return f"{seconds:.0f} s" if minutes < 1 else f"{minutes:.0f} min" if minutes < 90 else f"{minutes / 60:.1f} h"


def _code(states: Sequence[CellState]) -> int:
    return ExitCode.UNTRUSTED if any(state.state == "flagged" for state in states) else ExitCode.DONE
