"""``hierbench table``: tables from records, without running anything."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from hierbench.cli.common import console


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


def add_to(app: typer.Typer) -> None:
    """Add the command."""
    app.command("table")(table)


def table(
    layout: Annotated[
        Layout, typer.Option(help="depths: a table a record; transfer; seen; models: one row a record.")
    ] = Layout.DEPTHS,
    form: Annotated[Format, typer.Option("--format", help="How it is written.")] = Format.RICH,
    records: Annotated[Path | None, typer.Option(help="Folder or file of records. [./hierbench-results]")] = None,
    protocol: Annotated[str | None, typer.Option(help="Protocol; these may be wildcards.")] = None,
    model: Annotated[str | None, typer.Option(help="Model, or defence.")] = None,
    dataset: Annotated[str | None, typer.Option(help="Dataset.")] = None,
    tree: Annotated[str | None, typer.Option(help="Class tree.")] = None,
    attack: Annotated[str | None, typer.Option(help="Attack.")] = None,
    scoring: Annotated[str | None, typer.Option(help="rollup or direct.")] = None,
    eps: Annotated[str | None, typer.Option(help="Radius, such as 4/255.")] = None,
    out: Annotated[Path | None, typer.Option(help="File to write. [standard output]")] = None,
) -> None:
    """Print the tables of records again. Records that cannot be compared are refused in one table."""
    from hierbench.errors import InputError
    from hierbench.evaluation.request import RESULTS_FOLDER
    from hierbench.evaluation.storage import atomic_write
    from hierbench.reporting import formats, layouts
    from hierbench.reporting.collect import Selection, collect_records
    from hierbench.reporting.comparable import check_comparable

    selection = Selection(
        protocol=protocol, model=model, dataset=dataset, tree=tree, attack=attack, scoring=scoring, eps=eps
    )
    found = collect_records(records or Path(RESULTS_FOLDER), selection)
    if layout is Layout.MODELS or form is Format.CSV:
        check_comparable(found)
    make = {
        Layout.DEPTHS: layouts.depth_report,
        Layout.TRANSFER: layouts.transfer_report,
        Layout.SEEN: layouts.seen_report,
        Layout.MODELS: layouts.models_report,
    }[layout]
    report = make(found)
    if not report.rows:
        raise InputError(f"--layout {layout.value}: these records do not hold it")
    if form is Format.RICH:
        if out is not None:
            raise InputError("--out: rich is for the terminal; write csv, latex or markdown")
        console().print(formats.render_rich(report))
        return
    text = formats.render_text(report, form.value)
    if out is None:
        typer.echo(text, nl=False)
    else:
        atomic_write(out, text.encode())
