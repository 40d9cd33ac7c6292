"""``hierbench compare``: two models on the same samples."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hierbench.cli.table import AIMED, CLASSES, Classes, Format, IntervalStyle, Records, write


def add_to(app: typer.Typer) -> None:
    """Add the command."""
    app.command("compare")(compare)


def compare(
    a: Annotated[str, typer.Argument(metavar="A", help="A model of the records, or a record's file.")],
    b: Annotated[str, typer.Argument(metavar="B", help="The other one.")],
    records: Records = None,
    protocol: Annotated[str | None, typer.Option(help="Protocol; these may be wildcards, or several: a,b.")] = None,
    dataset: Annotated[str | None, typer.Option(help="Dataset.")] = None,
    tree: Annotated[str | None, typer.Option(help="Class tree.")] = None,
    attack: Annotated[str | None, typer.Option(help="Attack. [all that both models met]")] = None,
    scoring: Annotated[str | None, typer.Option(help="What scores the verdicts: rollup or direct. [rollup]")] = None,
    eps: Annotated[str | None, typer.Option(help="Radius, such as 4/255.")] = None,
    template: Annotated[str | None, typer.Option(help="Prompt template, or a wildcard.")] = None,
    depth: Annotated[str | None, typer.Option(help="Depths, such as 1 or 1,3. [all]")] = None,
    aimed: Annotated[bool, typer.Option("--aimed/--worst", help=AIMED)] = False,
    classes: Annotated[Classes, typer.Option(help=CLASSES)] = Classes.ALL,
    every: Annotated[bool, typer.Option("--every-attack", help="Use attacks that one of them alone met, too.")] = False,
    intervals: Annotated[
        IntervalStyle | None, typer.Option(help="Wilson 95 %, or ± half of it. [of the differences alone]")
    ] = None,
    form: Annotated[Format, typer.Option("--format", help="How it is written.")] = Format.RICH,
    standalone: Annotated[bool, typer.Option("--standalone", help="LaTeX that compiles as it is.")] = False,
    out: Annotated[Path | None, typer.Option(help="File to write. [standard output]")] = None,
) -> None:
    """Test two models against each other, depth by depth, on the samples they share.

    Difference with a paired bootstrap interval, exact McNemar test with Holm's correction over the depths shown, and
    the smallest difference that could have been found. What cannot be compared is refused.
    """
    from hierbench.evaluation.request import RESULTS_FOLDER
    from hierbench.reporting.build import with_intervals
    from hierbench.reporting.classes import named_after, over_classes
    from hierbench.reporting.collect import Selection
    from hierbench.reporting.compare import compare_report, side
    from hierbench.reporting.options import read_scoring
    from hierbench.reporting.standings import Shown

    folders = records or [Path(RESULTS_FOLDER)]
    selection = Selection(protocol=protocol, dataset=dataset, tree=tree, attack=attack, eps=eps, template=template)
    sides = [side(word, folders, selection) for word in (a, b)]
    narrowed = over_classes([*sides[0], *sides[1]], classes.value)
    first, second = (narrowed.of(found) for found in sides)
    shown = Shown(read_scoring(scoring), aimed)
    report = compare_report(first, second, shown, depth=depth, every=every)
    report = named_after(report, narrowed, classes.value)
    if intervals is not None:
        report = with_intervals(report, intervals.value)
    write(report, form, out, standalone=standalone)
