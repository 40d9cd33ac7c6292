"""``hierbench submit``: a model, or images against one, packed for the board."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hierbench.cli.common import console
from hierbench.errors import ExitCode, InputError

if TYPE_CHECKING:
    from hierbench.board.submit import Words
    from hierbench.evaluation.observer import Observer


def add_to(app: typer.Typer) -> None:
    """Add the command."""
    app.command("submit")(submit)


def submit(
    model: Annotated[str | None, typer.Option(help="Model, or a folder that hierbench train wrote.")] = None,
    protocol: Annotated[str, typer.Option(help="Protocol to be compared under.")] = "digits-v1",
    title: Annotated[str | None, typer.Option(help="What it is called in print. [the defence]")] = None,
    author: Annotated[list[str] | None, typer.Option(help="Who made it; may be given again.")] = None,
    paper: Annotated[str | None, typer.Option(help="https address.")] = None,
    code: Annotated[str | None, typer.Option(help="https address.")] = None,
    trained_on: Annotated[str | None, typer.Option(help="Its training data, in words. [as its file says]")] = None,
    licence: Annotated[str | None, typer.Option(help="Licence of the weights.")] = None,
    weights_url: Annotated[str | None, typer.Option(help="https address of the model's folder.")] = None,
    note: Annotated[str | None, typer.Option(help="A remark for readers.")] = None,
    rand: Annotated[bool, typer.Option("--rand", help="Its forward draws at random.")] = False,
    dataset: Annotated[list[str] | None, typer.Option(help="These datasets only; the card says so.")] = None,
    attack: Annotated[list[str] | None, typer.Option(help="These attacks only; the card says so.")] = None,
    samples: Annotated[int, typer.Option(help="Adversarial images of each run to pack.", min=1)] = 64,
    attack_images: Annotated[Path | None, typer.Option(help="Adversarial images of yours: see --against.")] = None,
    against: Annotated[str | None, typer.Option(help="Listed model that --attack-images are against.")] = None,
    name: Annotated[str | None, typer.Option(help="Short name of the attack that made them.")] = None,
    eps: Annotated[str | None, typer.Option(help="Their radius. [the protocol's]")] = None,
    records: Annotated[Path | None, typer.Option(help="Folder of the results. [./hierbench-results]")] = None,
    out: Annotated[Path, typer.Option(help="Folder to put the package under.")] = Path("hierbench-board"),
    board: Annotated[Path | None, typer.Option(help="Board it is to join. [the project's]")] = None,
    device: Annotated[str | None, typer.Option(help="cpu, cuda, cuda:1, ... [cuda if there is one]")] = None,
    data_root: Annotated[Path | None, typer.Option(help="Folder of the image data. [HIERBENCH_DATA_ROOT]")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be evaluated, and stop.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="Print place and verification only.")] = False,
) -> int:
    """Evaluate what a protocol wants of a model and is missing, pack it for the board, and verify the package.

    With --attack-images and --against: pack adversarial images against a model that is on the board.
    """
    from hierbench.board.submit import Words
    from hierbench.evaluation.observer import Observer
    from hierbench.evaluation.request import RESULTS_FOLDER
    from hierbench.reporting.progress import RichProgress

    observer = Observer() if quiet else RichProgress(console(stderr=True))
    options = {"out": records or Path(RESULTS_FOLDER), "device": device, "data_root": data_root}
    words = Words(
        authors=tuple(author or ()),
        title=title,
        paper=paper,
        code=code,
        trained_on=trained_on,
        licence=licence,
        weights_url=weights_url,
        note=note,
        rand=rand,
    )
    if (attack_images is None) != (against is None):
        raise InputError("--attack-images: goes with --against, the listed model that they are against")
    if attack_images is not None and against is not None:
        if model is not None:
            raise InputError("--model: leave it out; --against names the model that is attacked")
        folder = _attack(attack_images, against, protocol, words, name, eps, dataset or [], options, out, observer)
        return _verified(folder, board, data_root, weights=None, model=against, quiet=quiet)
    if model is None:
        raise InputError("--model: name a model, or the folder that hierbench train wrote")
    packed = _model(
        model,
        protocol,
        words,
        (dataset or [], attack or []),
        options,
        out,
        observer,
        samples=samples,
        dry_run=dry_run,
    )
    if packed is None:
        return ExitCode.DONE
    weights = Path(model) if Path(model).is_dir() else None
    return _verified(packed, board, data_root, weights=weights, model=packed.name, quiet=quiet)


def _model(
    model: str,
    protocol: str,
    words: Words,
    wanted: tuple[list[str], list[str]],
    options: dict[str, Any],
    out: Path,
    observer: Observer,
    *,
    samples: int,
    dry_run: bool,
) -> Path | None:
    from hierbench.board import submit as board

    selected = board.select_cells(board.find_protocol(protocol), *wanted)
    loaded = board.load_submitted(model, selected.protocol)
    if not dry_run:
        board.check_words(selected, loaded, words)
    cells = [board.prepare(cell, selected.protocol, loaded, options) for cell in selected.cells]
    if dry_run:
        for cell, prepared in zip(selected.cells, cells, strict=True):
            state = "there" if board.finished(prepared) else "to be evaluated"
            console().print(f"{cell.words}: {state} ({prepared.record_path})", soft_wrap=True)
        for cell in selected.left_out:
            console().print(f"{cell.words}: left out", soft_wrap=True)
        return None
    board.check_rules(cells, selected.protocol, rand=words.rand)
    for prepared in cells:
        board.evaluate_missing(prepared, observer)
    return board.pack_submission(out, selected, loaded, cells, words, samples=samples)


def _attack(
    file: Path,
    against: str,
    protocol: str,
    words: Words,
    name: str | None,
    eps: str | None,
    datasets: list[str],
    options: dict[str, Any],
    out: Path,
    observer: Observer,
) -> Path:
    from hierbench.board import external
    from hierbench.board.submit import find_protocol
    from hierbench.evaluation.prepare import prepare_cell
    from hierbench.evaluation.request import Request
    from hierbench.evaluation.runner import run_cell

    if name is None:
        raise InputError("--name: give the attack a short name of lower-case letters, digits, '_', '.', '+' or '-'")
    if not words.authors:
        raise InputError("--author: name at least one; the option may be given again")
    if len(datasets) > 1:
        raise InputError("--dataset: one file holds the images of one data set")
    chosen = find_protocol(protocol)
    fields = {
        "name": name,
        "title": words.title or name,
        "authors": words.authors,
        "paper": words.paper,
        "code": words.code,
        "note": words.note,
    }
    external.check_fields(fields)
    request = Request(
        model=against,
        dataset=datasets[0] if datasets else chosen.datasets[0].name,
        eps=eps,
        protocol=chosen.name,
        **options,
    )
    cell = prepare_cell(request)
    if cell.identity.protocol.deviations:
        raise InputError(f"--against: outside {chosen.name}: {cell.identity.protocol.deviations[0]}")
    foreign = external.open_foreign(file, cell.images, external.threat_of(cell))
    cell = external.external_cell(cell, foreign, name)
    run_cell(cell, observer=observer)
    return external.pack_external(out, cell, fields)


def _verified(
    folder: Path, board: Path | None, data_root: Path | None, *, weights: Path | None, model: str, quiet: bool
) -> int:
    from hierbench.board.verify.known import KnownBoard
    from hierbench.board.verify.run import Means, board_folder, verify
    from hierbench.cli.board import print_report

    joined = board if board is not None else board_folder()
    root = None if data_root is None else str(data_root)
    report = verify(folder, Means(KnownBoard(joined), weights=weights, data_root=root))
    console().print(f"package: {folder}", soft_wrap=True)
    print_report(report)
    if report.verified and not quiet:
        place = "/".join(folder.parts[-3:] if folder.parent.parent.name == "submissions" else folder.parts[-4:])
        for line in (
            "to put it on the board, in a clone of your fork of hierbench:",
            f"  git switch -c {model.replace('/', '-').strip('.-') or 'submission'}-board",
            f"  mkdir -p leaderboard/{Path(place).parent} && cp -r {folder} leaderboard/{Path(place).parent}/",
            "  git add leaderboard && git commit -m 'Submit to the board' && git push -u origin HEAD",
            "and open a pull request; a workflow there verifies it again",
        ):
            console().print(line, soft_wrap=True)
    return report.exit_code
