"""``hierbench board``: verifies packages and builds the site."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hierbench.cli.common import console
from hierbench.errors import ExitCode, InputError

if TYPE_CHECKING:
    from hierbench.board.verify.findings import Report


def add_to(app: typer.Typer) -> None:
    """Add the command and its kinds."""
    board = typer.Typer(help="Verify what is on the board or wants to be, and build its site.", no_args_is_help=True)
    board.command("verify")(verify)
    board.command("build")(build)
    app.add_typer(board, name="board")


def verify(
    folders: Annotated[
        list[Path] | None, typer.Argument(help="Packages, or a board. [everything on the project's]")
    ] = None,
    weights: Annotated[Path | None, typer.Option(help="The model's folder, for one package.")] = None,
    board: Annotated[Path | None, typer.Option(help="Board that they are part of or want to join.")] = None,
    data_root: Annotated[Path | None, typer.Option(help="Folder of the image data. [HIERBENCH_DATA_ROOT]")] = None,
    quick: Annotated[bool, typer.Option("--quick", help="Leave weights alone, even those that are shipped.")] = False,
) -> int:
    """Verify packages: files, hashes, figures, samples, images, and with the weights their verdicts and rules.

    Exit code 3 if one does not hold, 2 if one cannot be read as a package.
    """
    from hierbench.board.verify.known import KnownBoard
    from hierbench.board.verify.run import Means, board_folder, find_packages
    from hierbench.board.verify.run import verify as check

    joined = board if board is not None else board_folder()
    found = [package for folder in folders or [joined] for package in find_packages(folder)]
    if weights is not None and len(found) != 1:
        raise InputError(f"--weights: belongs to one package, and {len(found)} were given")
    if weights is not None and not weights.is_dir():
        raise InputError(f"--weights: {weights} is not a folder; give one that hierbench train wrote")
    root = None if data_root is None else str(data_root)
    means = Means(KnownBoard(joined), weights=weights, data_root=root, offline=quick)
    reports = [check(package, means) for package in found]
    for report in reports:
        print_report(report)
    codes = {report.exit_code for report in reports}
    return next((code for code in (ExitCode.BAD_INPUT, ExitCode.UNTRUSTED) if code in codes), ExitCode.DONE)


def print_report(report: Report) -> None:
    """Print what a verification found, one line a finding."""
    out = console()
    for finding in report.findings:
        out.print(f"refused: {finding.line}", soft_wrap=True)
    if report.verified:
        out.print(f"verified: {report.folder} ({report.what})", soft_wrap=True)
    for what, why in report.unchecked.items():
        out.print(f"  not checked: {what}, because {why}", soft_wrap=True)


def build(
    out: Annotated[Path, typer.Option(help="Folder to write the pages to.")] = Path("hierbench-site"),
    board: Annotated[Path | None, typer.Option(help="Board to show. [the project's]")] = None,
) -> None:
    """Write the board's pages: static, and readable from a file."""
    from hierbench.board.verify.run import board_folder
    from hierbench.reporting.site import build_site

    pages = build_site(board if board is not None else board_folder(), out)
    console().print(f"site: {out} ({len(pages)} files)", soft_wrap=True)
