"""``verify``: one package, the project's own records, or the whole board."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from hierbench.board.card import ATTACK_FILE, CARD_FILE, AttackCard, Card
from hierbench.board.verify import figures, grounds, images, orderings
from hierbench.board.verify.figures import Cell
from hierbench.board.verify.findings import Report
from hierbench.board.verify.known import KnownBoard
from hierbench.board.verify.package import IMAGES, check_package
from hierbench.board.verify.reading import read_cell
from hierbench.board.verify.weights import against_weights, weights_at_hand
from hierbench.datasets.catalogue import get_spec
from hierbench.errors import HierbenchError, InputError
from hierbench.evaluation.protocol import PROTOCOLS
from hierbench.paths import data_dir


@dataclass(frozen=True)
class Means:
    """What a verification has at hand."""

    board: KnownBoard
    """The board that a package is, or wants to be, part of."""
    weights: Path | None = None
    data_root: str | None = None
    offline: bool = field(default=False)
    """Leave the weights alone even where they are at hand."""


def board_folder() -> Path:
    """Return the board of this installation or checkout."""
    return data_dir() / "leaderboard"


def find_packages(folder: Path) -> list[Path]:
    """Return the folders to verify under a folder: packages with a card, and folders of records without one.

    ``InputError`` if it is none and holds none.
    """
    if not folder.is_dir():
        raise InputError(f"{folder}: not a folder; give a package, or a board with records/, submissions/ or attacks/")
    found = {path.parent for name in (CARD_FILE, ATTACK_FILE) for path in folder.rglob(name)}
    for level in ("submissions/*/*", "attacks/*/*/*"):  # a package that lost its card is still one
        found |= {path for path in folder.glob(level) if path.is_dir()}
    if not found and (folder.parent.parent.name == "submissions" or folder.parent.parent.parent.name == "attacks"):
        found = {folder}
    own = folder / "records" if (folder / "records").is_dir() else None
    found |= set() if own is None else {path for path in own.glob("*/*") if path.is_dir()}
    if not found and any(folder.glob("*.json")):
        found = {folder}
    if not found:
        raise InputError(f"{folder}: holds no package ({CARD_FILE}, {ATTACK_FILE}) and no record")
    return sorted(found)


def verify(folder: Path, means: Means) -> Report:
    """Verify one package or folder of records: everything that can be, and say what could not be.

    The package is never changed, nothing in it is run, and no path in it is followed. Findings are in the report;
    an ``InputError`` is about what was asked for, not about the package.
    """
    report = Report(folder)
    carded = _is_package(folder)
    card = check_package(report) if carded else None
    if carded and card is None:
        return report
    paths = sorted(p for p in folder.glob("*.json") if p.name not in (CARD_FILE, ATTACK_FILE) and p.name[:1] != ".")
    cells = [cell for path in paths if (cell := read_cell(report, path, card)) is not None]
    report.what = _what(cells, len(paths))
    if not paths:
        report.refuse(folder, "holds no record", malformed=True)
    for cell in cells:
        _check_cell(report, cell, card, means)
    for where, reason in orderings.rising_with_eps(cells):
        report.refuse(where, reason)
    if card is not None:
        _check_card(report, card, cells, paths, means)
    if card is not None and not report.findings:
        _check_weights(report, card, cells, means)
    elif card is None:
        report.unchecked["verdicts on the weights"] = "the project's own records lie without their images"
    else:
        report.unchecked["weights"] = "the package is refused without them"
    return report


def _is_package(folder: Path) -> bool:
    """A folder of records without a card is believed to be the project's own only where those lie."""
    return folder.absolute().parent.parent.name != "records" or any(
        (folder / name).exists() for name in (CARD_FILE, ATTACK_FILE)
    )


def _what(cells: Sequence[Cell], of: int) -> str:
    samples = sum(len(cell.verdicts.sample_ids) for cell in cells)
    kept = sum(len(c.images.ids) * len(c.record.identity.attack.depths) for c in cells if c.images is not None)
    return f"{len(cells)} of {of} records, {samples} samples, {kept} stored images"


def _check_cell(report: Report, cell: Cell, card: Card | AttackCard | None, means: Means) -> None:
    record, root = cell.record, means.data_root
    before = len(report.findings)
    for path, reason in orderings.orderings(cell):
        report.refuse(path, reason)
    known = PROTOCOLS if card is None and record.identity.protocol.custom else None
    samples = None
    if record.identity.protocol.name in PROTOCOLS:
        samples = grounds.expected_samples(record, means.board.samples, root)
        if samples is None:
            name = record.identity.dataset.name
            report.unchecked[f"revision and sample list of {name}"] = "neither its data nor a record of the project's"
    if known is None:  # the project may keep records of other settings; nobody else's row may be one
        for path, reason in grounds.ground(cell, samples):
            report.refuse(path, reason)
    for path, reason in figures.figures(cell):
        report.refuse(path, reason)
    if cell.images is not None:
        for path, reason in images.alone(cell, cell.images):
            report.refuse(path, reason)
        if len(report.findings) == before:
            _check_pixels(report, cell, root)


def _check_pixels(report: Report, cell: Cell, root: str | None) -> None:
    stored, data = cell.images, cell.record.identity.dataset
    if stored is None:
        return
    found = grounds.images_of(cell.record, len(stored.ids), root)
    if found is None:
        report.unchecked[f"stored images against the clean ones of {data.name}"] = "its data are not at hand"
        return
    for path, reason in images.against_data(stored, found):
        report.refuse(path, reason)


def _check_card(
    report: Report, card: Card | AttackCard, cells: Sequence[Cell], paths: list[Path], means: Means
) -> None:
    folder = report.folder
    path = folder / (CARD_FILE if isinstance(card, Card) else ATTACK_FILE)
    named = {f"{p.stem}{end}" for p in paths for end in (".json", ".parquet", IMAGES)}
    for file in card.files:
        if file.name not in named:
            report.refuse(folder / file.name, "belongs to no record of the package", malformed=True)
    if card.protocol not in PROTOCOLS:
        report.refuse(path, f"protocol: {card.protocol!r} is not in `hierbench list protocols`")
        return
    for cell in cells:
        if cell.images is None and not _without_images(cell):
            wanted = cell.path.with_name(cell.path.stem + IMAGES)
            report.refuse(wanted, "is missing: every attack on images stores a sample", malformed=True)
    if isinstance(card, AttackCard):
        for where, reason in means.board.strikes(card, cells, path):
            report.refuse(where, reason)
        return
    for reason in (*means.board.repeats(card, folder), *_lacking(card, cells)):
        report.refuse(path, reason)
    for where, reason in orderings.behind_others(cells, PROTOCOLS.get(card.protocol).attacks.headline):
        report.refuse(where, reason)


def _without_images(cell: Cell) -> bool:
    """Attacks on text judge clean images by other prompts, or attacked ones by prompts that are not kept."""
    from hierbench.attacks.text.specs import is_text_attack

    return is_text_attack(cell.record.identity.attack.name)


def _lacking(card: Card, cells: Sequence[Cell]) -> list[str]:
    """Say where records and ``left_out`` together are not the protocol."""
    protocol = PROTOCOLS.get(card.protocol)
    wanted = {f"{data.name} {attack}" for data in protocol.datasets for attack in protocol.attacks.required}
    radius = {data.name: data.default_eps for data in protocol.datasets}
    there = {
        f"{i.dataset.name} {i.attack.name}"
        for i in (cell.record.identity for cell in cells if grounds.shorter_list(cell.record) is None)
        if i.attack.eps == radius.get(i.dataset.name) and i.attack.scoring == protocol.scorings[0]
    }
    said = set(card.left_out)
    missing, wrong = sorted(wanted - there - said), sorted(said - (wanted - there))
    found = [f"left_out: {missing[0]} is neither there nor said to be left out"] if missing else []
    return found + ([f"left_out: {wrong[0]} is there, or no cell of {protocol.name}"] if wrong else [])


def _check_weights(report: Report, card: Card | AttackCard, cells: list[Cell], means: Means) -> None:
    what = "weights hash, verdicts on the weights, acceptance rules"
    if means.offline:
        report.unchecked[what] = "the weights were not asked for"
        return
    path = report.folder / (CARD_FILE if isinstance(card, Card) else ATTACK_FILE)
    at_hand = weights_at_hand(card, means.weights, PROTOCOLS.get(card.protocol).backbone)
    if at_hand.model is None:
        if isinstance(card, Card) and card.weights.address is None:
            report.refuse(path, f"weights.address: null, and hierbench ships no model {card.model}")
        report.unchecked[what] = at_hand.why
        return
    ready = [cell for cell in cells if _data_at_hand(cell, means.data_root)]
    for cell in cells:
        if cell not in ready:
            name = cell.record.identity.dataset.name
            report.unchecked[f"verdicts on the weights of {name}"] = "its data are not at hand (--data-root)"
    try:
        for where, reason in against_weights(ready, card, path, at_hand.model, means.data_root):
            report.refuse(where, reason)
    except HierbenchError as error:
        report.refuse(path, f"weights: {error}")


def _data_at_hand(cell: Cell, root: str | None) -> bool:
    if get_spec(cell.record.identity.dataset.name).base_name == "digits":
        return True
    return grounds.images_of(cell.record, 1, root) is not None
