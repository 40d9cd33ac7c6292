"""``hierbench table``: tables from records, without running anything."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hierbench.cli.common import console

if TYPE_CHECKING:
    from hierbench.reporting.table import Report


class Format(StrEnum):
    """How a table is written."""

    RICH = "rich"
    CSV = "csv"
    LATEX = "latex"
    MARKDOWN = "markdown"


class Layout(StrEnum):
    """What a table shows."""

    DEPTHS = "depths"
    TRANSFER = "transfer"
    SEEN = "seen"
    MODELS = "models"
    METHODS_DATASETS = "methods-datasets"
    METHODS_DEPTHS = "methods-depths"
    METHODS_SEEN = "methods-seen"
    METHODS_ATTACKS = "methods-attacks"
    METHODS_EPS = "methods-eps"
    METHODS_TEMPLATES = "methods-templates"
    ATTACK_SCORE = "attack-score"
    ABLATION = "ablation"


class Classes(StrEnum):
    """Whose images count."""

    ALL = "all"
    SEEN = "seen"
    UNSEEN = "unseen"


class IntervalStyle(StrEnum):
    """Which intervals stand beside the figures."""

    NONE = "none"
    WILSON = "wilson"
    PM = "pm"


LAYOUTS = """depths, transfer, seen: tables a record; models: a row a record. For papers, the worst case over a model's
records: methods-datasets, -depths, -eps, -templates, -seen (by class split), -attacks (attack by attack), ablation;
attack-score: attacked x scored."""
AIMED = "Robust: per sample the worst over every attack and attacked depth, or over those aimed at the depth shown."

CLASSES = "Images of classes that training may use, or of those that it may not (zero-shot)."


Records = Annotated[
    list[Path] | None, typer.Option(help="Folder or file of records; may be given several times. [./hierbench-results]")
]


def add_to(app: typer.Typer) -> None:
    """Add the command."""
    app.command("table")(table)


def table(
    layout: Annotated[Layout, typer.Option(help=LAYOUTS)] = Layout.DEPTHS,
    form: Annotated[Format, typer.Option("--format", help="How it is written.")] = Format.RICH,
    records: Records = None,
    protocol: Annotated[str | None, typer.Option(help="Protocol; these may be wildcards, or several: a,b.")] = None,
    model: Annotated[str | None, typer.Option(help="Model, or defence.")] = None,
    dataset: Annotated[str | None, typer.Option(help="Dataset.")] = None,
    tree: Annotated[str | None, typer.Option(help="Class tree.")] = None,
    attack: Annotated[str | None, typer.Option(help="Attack.")] = None,
    scoring: Annotated[
        str | None, typer.Option(help="rollup or direct: which records; for papers, what scores them. [rollup]")
    ] = None,
    eps: Annotated[str | None, typer.Option(help="Radius, such as 4/255.")] = None,
    template: Annotated[str | None, typer.Option(help="Prompt template, or a wildcard.")] = None,
    depth: Annotated[
        str | None, typer.Option(help="leaf, all, 1 or 1,3. [methods-depths: all; the others: leaf]")
    ] = None,
    aimed: Annotated[bool, typer.Option("--aimed/--worst", help=AIMED)] = False,
    classes: Annotated[Classes, typer.Option(help=CLASSES)] = Classes.ALL,
    baseline: Annotated[str | None, typer.Option(help="Model that an ablation compares with. [the first]")] = None,
    intervals: Annotated[
        IntervalStyle | None, typer.Option(help="Wilson 95 %, or ± half of it. [as the layout has room]")
    ] = None,
    reported: Annotated[bool, typer.Option("--reported", help="Add figures that papers reported, marked.")] = False,
    reported_from: Annotated[Path | None, typer.Option(help="Their file. [leaderboard/reported_results.csv]")] = None,
    standalone: Annotated[bool, typer.Option("--standalone", help="LaTeX that compiles as it is.")] = False,
    out: Annotated[Path | None, typer.Option(help="File to write. [standard output]")] = None,
) -> None:
    """Print the tables of records again. Records that cannot be compared are refused in one table."""
    from hierbench.evaluation.request import RESULTS_FOLDER
    from hierbench.reporting.build import make_report
    from hierbench.reporting.collect import Selection

    selection = Selection(
        protocol=protocol,
        model=model,
        dataset=dataset,
        tree=tree,
        attack=attack,
        scoring=scoring,
        eps=eps,
        template=template,
    )
    report = make_report(
        layout.value,
        records or [Path(RESULTS_FOLDER)],
        selection,
        depth=depth,
        aimed=aimed,
        classes=classes.value,
        baseline=baseline,
        reported=reported or reported_from is not None,
        reported_from=reported_from,
        intervals=None if intervals is None else intervals.value,
        flat=form is Format.CSV,
    )
    write(report, form, out, standalone=standalone)


def write(report: Report, form: Format, out: Path | None, *, standalone: bool = False) -> None:
    """Print a report, or write it to a file."""
    from hierbench.errors import InputError
    from hierbench.evaluation.storage import atomic_write
    from hierbench.reporting import formats

    if standalone and form is not Format.LATEX:
        raise InputError(f"--standalone: {form.value} has no documents; use it with --format latex")
    if form is Format.RICH:
        if out is not None:
            raise InputError("--out: rich is for the terminal; write csv, latex or markdown")
        console().print(formats.render_rich(report))
        return
    text = formats.render_text(report, form.value, document=standalone)
    if out is None:
        typer.echo(text, nl=False)
    else:
        atomic_write(out, text.encode())
