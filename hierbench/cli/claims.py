"""``hierbench claims``: published claims against records."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hierbench.cli.table import Format, Records, write


def add_to(app: typer.Typer) -> None:
    """Add the command."""
    app.command("claims")(claims)


def claims(
    file: Annotated[str, typer.Argument(metavar="CLAIMS", help="A claims file, or the name of one brought along.")],
    records: Records = None,
    form: Annotated[Format, typer.Option("--format", help="How it is written.")] = Format.RICH,
    standalone: Annotated[bool, typer.Option("--standalone", help="LaTeX that compiles as it is.")] = False,
    out: Annotated[Path | None, typer.Option(help="File to write. [standard output]")] = None,
) -> None:
    """Say which published claims the records show, with every paired test behind the answer.

    A claim is a set of differences that should be above 0; it held only if each was, in every one of three seeds or
    more, with Holm's correction over the whole file.
    """
    from hierbench.evaluation.request import RESULTS_FOLDER
    from hierbench.reporting.claims.file import find_claims, read_claims
    from hierbench.reporting.claims.report import claims_report

    report = claims_report(read_claims(find_claims(file)), records or [Path(RESULTS_FOLDER)])
    write(report, form, out, standalone=standalone)
