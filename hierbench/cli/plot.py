"""``hierbench plot``: pictures made from records."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hierbench.cli.common import console
from hierbench.cli.table import AIMED, CLASSES, Classes, Records

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from hierbench.board.ledger import Placed
    from hierbench.reporting.classes import Narrowed
    from hierbench.reporting.standings import Shown

Protocol = Annotated[str | None, typer.Option(help="Protocol; these may be wildcards, or several: a,b.")]
Model = Annotated[str | None, typer.Option(help="Model, or defence.")]
Dataset = Annotated[str | None, typer.Option(help="Dataset.")]
Tree = Annotated[str | None, typer.Option(help="Class tree.")]
Attack = Annotated[str | None, typer.Option(help="Attack.")]
Eps = Annotated[str | None, typer.Option(help="Radius, such as 4/255.")]
Template = Annotated[str | None, typer.Option(help="Prompt template, or a wildcard.")]
Scoring = Annotated[str | None, typer.Option(help="What scores the verdicts: rollup or direct. [rollup]")]
OfClasses = Annotated[Classes, typer.Option("--classes", help=CLASSES)]
Aimed = Annotated[bool, typer.Option("--aimed/--worst", help=AIMED)]
Depth = Annotated[str | None, typer.Option(help="One depth, such as 1. [leaf]")]
Out = Annotated[Path, typer.Option(help="Picture to write: .pdf, .svg or .png.")]
Width = Annotated[float, typer.Option(help="Inches; 3.3 is one column of a paper.")]


def add_to(app: typer.Typer) -> None:
    """Add the command and its kinds."""
    plot = typer.Typer(help="Draw pictures from records.", no_args_is_help=True)
    for kind in (depths, eps, transfer, plane, training, claims):
        plot.command()(kind)
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
    _say(draw_curves(curves, out))


def claims(
    file: Annotated[str, typer.Argument(metavar="CLAIMS", help="A claims file, or the name of one brought along.")],
    records: Records = None,
    width: Annotated[float, typer.Option(help="Inches; 6.8 is two columns of a paper.")] = 6.8,
    out: Out = Path("claims.pdf"),
) -> None:
    """Draw the differences that a claims file is about, by seed, with their verdicts."""
    from hierbench.evaluation.request import RESULTS_FOLDER
    from hierbench.reporting.claims.file import find_claims, read_claims
    from hierbench.reporting.claims.report import judged_records
    from hierbench.reporting.plots.claims import draw_claims

    judged, _ = judged_records(read_claims(find_claims(file)), records or [Path(RESULTS_FOLDER)])
    _say(draw_claims(judged, out, width=width))


def depths(
    records: Records = None,
    protocol: Protocol = None,
    model: Model = None,
    dataset: Dataset = None,
    tree: Tree = None,
    attack: Attack = None,
    eps: Eps = None,
    template: Template = None,
    scoring: Scoring = None,
    aimed: Aimed = False,
    classes: OfClasses = Classes.ALL,
    width: Width = 3.3,
    out: Out = Path("depths.pdf"),
) -> None:
    """Draw robust accuracy over depth, a line a model, with its clean accuracy and Wilson bands."""
    from hierbench.reporting.options import read_scoring
    from hierbench.reporting.plots.lines import draw_depths
    from hierbench.reporting.standings import Shown

    found = _gather(records, protocol, model, dataset, tree, attack, eps, template, classes)
    shown = Shown(read_scoring(scoring), aimed)
    _say(draw_depths(found.placed, shown, out, width=width), _caption(found, shown))


def eps(
    records: Records = None,
    protocol: Protocol = None,
    model: Model = None,
    dataset: Dataset = None,
    tree: Tree = None,
    attack: Attack = None,
    template: Template = None,
    scoring: Scoring = None,
    depth: Depth = None,
    aimed: Aimed = False,
    classes: OfClasses = Classes.ALL,
    width: Width = 3.3,
    out: Out = Path("eps.pdf"),
) -> None:
    """Draw robust accuracy over eps at one depth, from records at several; eps 0 is the clean accuracy."""
    from hierbench.reporting.options import read_scoring
    from hierbench.reporting.plots.lines import at_one_place, draw_eps
    from hierbench.reporting.standings import Shown

    gathered = _gather(records, protocol, model, dataset, tree, attack, None, template, classes)
    shown = Shown(read_scoring(scoring), aimed)
    found = at_one_place(gathered.placed, shown, depth=_depth(depth, gathered.placed))
    _say(draw_eps(found, shown, out, width=width), [*found.notes(shown), *_of_classes(gathered)])


def transfer(
    records: Records = None,
    protocol: Protocol = None,
    model: Model = None,
    dataset: Dataset = None,
    tree: Tree = None,
    attack: Attack = None,
    eps: Eps = None,
    template: Template = None,
    scoring: Scoring = None,
    classes: OfClasses = Classes.ALL,
    width: Width = 3.3,
    out: Out = Path("transfer.pdf"),
) -> None:
    """Draw attacked depth x scored depth as heat maps with their numbers, one a record."""
    from hierbench.reporting.options import read_scoring
    from hierbench.reporting.plots.transfer import draw_transfer

    found = _gather(records, protocol, model, dataset, tree, attack, eps, template, classes)
    _say(draw_transfer(found.placed, read_scoring(scoring), out, width=width), _of_classes(found))


def plane(
    records: Records = None,
    protocol: Protocol = None,
    model: Model = None,
    dataset: Dataset = None,
    tree: Tree = None,
    attack: Attack = None,
    eps: Eps = None,
    template: Template = None,
    scoring: Scoring = None,
    depth: Depth = None,
    aimed: Aimed = False,
    classes: OfClasses = Classes.ALL,
    width: Width = 3.3,
    out: Out = Path("plane.pdf"),
) -> None:
    """Draw clean against robust accuracy at one depth, a point a model with its intervals."""
    from hierbench.reporting.options import read_scoring
    from hierbench.reporting.plots.plane import draw_plane
    from hierbench.reporting.standings import Shown

    found = _gather(records, protocol, model, dataset, tree, attack, eps, template, classes)
    shown = Shown(read_scoring(scoring), aimed)
    picture = draw_plane(found.placed, shown, out, depth=_depth(depth, found.placed), width=width)
    _say(picture, _caption(found, shown))


def _gather(
    records: list[Path] | None,
    protocol: str | None,
    model: str | None,
    dataset: str | None,
    tree: str | None,
    attack: str | None,
    eps: str | None,
    template: str | None,
    classes: Classes,
) -> Narrowed:
    from hierbench.evaluation.request import RESULTS_FOLDER
    from hierbench.reporting.classes import over_classes
    from hierbench.reporting.collect import Selection
    from hierbench.reporting.standings import gather

    wanted = Selection(
        protocol=protocol, model=model, dataset=dataset, tree=tree, attack=attack, eps=eps, template=template
    )
    return over_classes(gather(records or [Path(RESULTS_FOLDER)], wanted), classes.value)


def _depth(word: str | None, found: Sequence[Placed]) -> int | None:
    from hierbench.errors import InputError
    from hierbench.reporting.options import read_depth

    depth, leaf = read_depth(word), found[0].record.depths[-1].depth
    if depth is not None and depth > leaf:
        raise InputError(f"--depth: the tree has depths 1 to {leaf}, not {depth}")
    return depth


def _caption(found: Narrowed, shown: Shown) -> list[str]:
    """Return what the caption of a picture of these records should say."""
    from hierbench.reporting.grid import grid_notes
    from hierbench.reporting.standings import standings_of, trusted

    kept, left_out = trusted(found.placed)
    return [*grid_notes(standings_of(kept), shown), *_of_classes(found), *left_out]


def _of_classes(found: Narrowed) -> list[str]:
    return [said for _, said in found.notes]


def _say(path: Path, notes: Iterable[str] = ()) -> None:
    """Name the picture, and below it what its caption should say."""
    from hierbench.reporting.grid import GREY, RANKS
    from hierbench.reporting.table import printable

    console().print(f"picture: {path}", soft_wrap=True)
    for note in notes:
        if note not in (RANKS, GREY):
            console().print(f"  {printable(note)}", soft_wrap=True)
