"""``hierbench board build``: from the board's folder to static pages."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

from hierbench.board.ledger import Board, Placed, read_board
from hierbench.errors import InputError
from hierbench.evaluation.storage import digest_file
from hierbench.reporting.site.datasets import dataset_views
from hierbench.reporting.site.models import ModelView, model_views
from hierbench.reporting.site.names import kept_name
from hierbench.reporting.site.output import MANIFEST, copy_file, site_folder
from hierbench.reporting.site.protocols import protocol_views
from hierbench.reporting.site.reported import reported_groups

STATIC = ("site.css", "site.js")
SOURCES = ("records", "submissions", "attacks")


@dataclass(frozen=True)
class Copied:
    """Where a record's two files lie in the site, relative to its root."""

    json: str
    parquet: str


def build_site(board_folder: Path, out: Path) -> list[Path]:
    """Build the board's pages into ``out`` and return every file of the site.

    ``board_folder`` holds ``records/``, ``submissions/``, ``attacks/``, ``protocols/`` and ``reported_results.csv``,
    each if there is one. The same board gives the same bytes. The site is built whole or not at all; ``out`` may be
    missing, empty or an earlier site, anything else there is refused. A damaged or linked file raises ``InputError``
    naming it.
    """
    board = read_board(board_folder)
    _refuse_inside(board_folder, out)
    with site_folder(out) as folder:
        copied = {placed.path: _copy(board, placed, folder) for placed in _all_placed(board)}
        for name, text in _pages(board, copied):
            target = folder / name
            target.parent.mkdir(exist_ok=True)
            target.write_text(text, encoding="utf-8", newline="\n")
        for name in STATIC:
            (folder / name).write_bytes((files("hierbench.reporting.site") / "static" / name).read_bytes())
    return sorted(path for path in out.rglob("*") if path.is_file())


def _pages(board: Board, copied: dict[Path, Copied]) -> Iterable[tuple[str, str]]:
    """Yield each page's place in the site and its text."""
    from hierbench.reporting.site.render import environment

    templates = environment()
    protocols = protocol_views(board)
    models = [view for protocol in protocols for view in model_views(protocol, board.entries)]
    hrefs = {(view.entry.protocol, view.entry.model, view.entry.weights_hash): view.href for view in models}
    datasets = dataset_views(protocols)
    reported = reported_groups(board.folder)
    every: dict[str, Any] = {"protocols": protocols, "datasets": datasets, "reported": reported, "copied": copied}

    def model_href(entry: Any) -> str:
        return hrefs[entry.protocol, entry.model, entry.weights_hash]

    def page(template: str, root: str, **more: Any) -> str:
        return templates.get_template(template).render(**every, root=root, model_href=model_href, **more)

    yield "index.html", page("index.html", "", here="index", models=models)
    for protocol in protocols:
        yield f"protocols/{protocol.slug}.html", page("protocol.html", "../", here="protocol", view=protocol)
    for view in models:
        yield view.href, page("model.html", "../", here="model", view=view, effects=_effects(view))
    for dataset in datasets:
        yield f"datasets/{dataset.slug}.html", page("dataset.html", "../", here="dataset", view=dataset)
    yield "reported.html", page("reported.html", "", here="reported")


def _effects(view: ModelView) -> list[tuple[Any, Any]]:
    """Return the rows that others' images stand in, with their grounds."""
    return [(ground, row) for ground, row in view.rows if row.unaided]


def _all_placed(board: Board) -> Iterable[Placed]:
    return (placed for entry in board.entries for placed in entry.placed)


def _copy(board: Board, placed: Placed, folder: Path) -> Copied:
    """Copy a record and its verdicts into a folder of their own, named after the record's hash."""
    verdicts = placed.path.with_name(placed.record.verdicts.file)
    root = board.folder.resolve()
    for path in (placed.path, verdicts):
        inside = path.relative_to(board.folder)
        if path.exists() and path.resolve() != root / inside:
            raise InputError(f"{path}: a symbolic link leads there; a board holds files only")
    if not verdicts.is_file() or digest_file(verdicts) != placed.record.verdicts.sha256:
        raise InputError(
            f"{placed.path}: the verdicts beside it are missing or changed; 'hierbench board verify' says more"
        )
    digest = digest_file(placed.path)
    place = f"records/{digest.removeprefix('sha256:')[:16]}"
    names = Copied(
        f"{place}/{kept_name(placed.path.name, '.json', digest)}",
        f"{place}/{kept_name(verdicts.name, '.parquet', placed.record.verdicts.sha256)}",
    )
    copy_file(placed.path, folder / names.json)
    copy_file(verdicts, folder / names.parquet)
    return names


def _refuse_inside(board_folder: Path, out: Path) -> None:
    """A site among the records would be read as part of the board."""
    target, board = out.resolve(), board_folder.resolve()
    for name in SOURCES:
        if target.is_relative_to(board / name):
            raise InputError(
                f"--out: {out} lies inside the board's {name}; name a folder outside, such as ./{MANIFEST[:4]}"
            )
