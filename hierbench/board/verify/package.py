"""The folder of a package: exactly the files that its card names, each of the size and content that it says."""

from __future__ import annotations

import stat
from collections.abc import Mapping
from pathlib import Path

from hierbench.board.card import (
    ATTACK_FILE,
    CARD_FILE,
    MAX_FILE_BYTES,
    MAX_FILES,
    MAX_PACKAGE_BYTES,
    AttackCard,
    Card,
)
from hierbench.board.ledger import read_card
from hierbench.board.verify.findings import Report
from hierbench.errors import InputError
from hierbench.evaluation.storage import digest_file

IMAGES = ".images-8bit.safetensors"
VERDICTS = ".parquet"
RECORD = ".json"


def check_package(report: Report) -> Card | AttackCard | None:
    """Check a package's folder and card, and return the card; None if there is nothing that may be read further.

    Links, sub-folders and sizes are looked at before any file is opened.
    """
    folder = report.folder
    sizes = _plain_files(report)
    if report.findings:
        return None
    names = [name for name in (CARD_FILE, ATTACK_FILE) if name in sizes]
    if len(names) != 1:
        report.refuse(folder, f"needs one of {CARD_FILE} and {ATTACK_FILE}, and has {len(names)}", malformed=True)
        return None
    path = folder / names[0]
    card: Card | AttackCard
    try:
        card = read_card(path, Card) if names[0] == CARD_FILE else read_card(path, AttackCard)
    except InputError as error:
        report.refuse_error(path, error)
        return None
    _check_files(report, path, card, sizes)
    _check_place(report, path, card)
    return None if report.findings else card


def _plain_files(report: Report) -> dict[str, int]:
    """Return the sizes of the files of a folder by name; anything that is not a small plain file is a finding."""
    folder, sizes = report.folder, {}
    if folder.is_symlink():
        report.refuse(folder, "is a symbolic link: nothing behind it is read", malformed=True)
        return {}
    for index, path in enumerate(sorted(folder.iterdir())):
        if index > MAX_FILES + 1:
            report.refuse(folder, f"holds more than {MAX_FILES} files", malformed=True)
            return {}
        state = path.lstat()
        shown = folder / ascii(path.name)[1:-1][:120]
        if stat.S_ISLNK(state.st_mode):
            report.refuse(shown, "is a symbolic link: nothing behind it is read", malformed=True)
        elif stat.S_ISDIR(state.st_mode):
            report.refuse(shown, "is a folder: a package has none", malformed=True)
        elif not stat.S_ISREG(state.st_mode):
            report.refuse(shown, "is no plain file", malformed=True)
        elif state.st_size > MAX_FILE_BYTES:
            reason = f"{state.st_size} bytes: no file of a package has more than {MAX_FILE_BYTES}"
            report.refuse(shown, reason, malformed=True)
        else:
            sizes[path.name] = state.st_size
    if sum(sizes.values()) > MAX_PACKAGE_BYTES:
        report.refuse(folder, f"more than {MAX_PACKAGE_BYTES} bytes together", malformed=True)
    return sizes


def _check_files(report: Report, card_path: Path, card: Card | AttackCard, sizes: Mapping[str, int]) -> None:
    folder, listed = report.folder, {file.name: file for file in card.files}
    for name in sorted(set(sizes) - set(listed) - {card_path.name}):
        report.refuse(folder / ascii(name)[1:-1][:120], f"is not among the files of {card_path.name}", malformed=True)
    for name, file in listed.items():
        path = folder / name
        if name not in sizes:
            report.refuse(path, f"is missing; {card_path.name} lists it", malformed=True)
        elif not name.endswith((IMAGES, VERDICTS, RECORD)) or name in (CARD_FILE, ATTACK_FILE):
            report.refuse(path, f"is no record, verdicts ({VERDICTS}) or images ({IMAGES})", malformed=True)
        elif sizes[name] != file.size:
            report.refuse(path, f"has {sizes[name]} bytes, and {card_path.name} says {file.size}")
        elif digest_file(path) != file.sha256:
            report.refuse(path, f"sha256 is not that of {card_path.name}: the file was changed")


def _check_place(report: Report, path: Path, card: Card | AttackCard) -> None:
    """A package lies where its card says: that is where the board looks for it."""
    place = path.parent.absolute()
    wanted = [("model", card.model), ("protocol", card.protocol)]
    if isinstance(card, AttackCard):
        wanted.insert(0, ("name", card.name))
    for folder, (field, value) in zip((place, *place.parents), wanted, strict=False):
        if folder.name != value:
            report.refuse(path, f"{field}: {value!r}, and the package lies in a folder called {folder.name!r}")
