"""Finding records in a folder."""

from __future__ import annotations

import fnmatch
from collections.abc import Sequence
from dataclasses import dataclass, fields
from fractions import Fraction
from pathlib import Path

from hierbench.board.card import ATTACK_FILE, CARD_FILE
from hierbench.board.ledger import PARTS
from hierbench.errors import InputError
from hierbench.evaluation.records import Record
from hierbench.evaluation.stored import read_record, record_paths


@dataclass(frozen=True, kw_only=True)
class Selection:
    """Which records are wanted: names may be wildcards, several stand with commas between, None takes all.

    A template may have commas of its own, so that only one can be asked for.
    """

    protocol: str | None = None
    model: str | None = None
    dataset: str | None = None
    tree: str | None = None
    attack: str | None = None
    scoring: str | None = None
    eps: str | None = None
    template: str | None = None

    def __post_init__(self) -> None:
        for field in fields(self):
            asked = getattr(self, field.name)
            if asked is not None and not all(_patterns(field.name, asked)):
                raise InputError(f"--{field.name}: {asked!r} has an empty name; names stand with commas between: a,b")

    def takes(self, record: Record) -> bool:
        """Return whether a record is wanted; a bare defence takes all of its variants."""
        for name, values in _names(record).items():
            asked = getattr(self, name)
            if asked is not None and not any(_meant(values, pattern) for pattern in _patterns(name, asked)):
                return False
        return self.eps is None or _same_eps(self.eps, record.identity.attack.eps)

    def check(self, taken: Sequence[Record]) -> None:
        """Raise ``InputError`` naming the first of several names that none of the wanted records has."""
        for field in fields(self):
            asked = getattr(self, field.name)
            for pattern in _patterns(field.name, asked) if asked is not None and field.name != "eps" else ():
                if not any(_meant(_names(record)[field.name], pattern) for record in taken):
                    raise InputError(f"--{field.name}: none of the {len(taken)} records found is of {pattern!r}")

    def words(self) -> str:
        """Say what was asked for."""
        said = [f"--{f.name} {getattr(self, f.name)}" for f in fields(self) if getattr(self, f.name) is not None]
        return " ".join(said) or "any"


def _names(record: Record) -> dict[str, tuple[str, ...]]:
    """Return what a record may be asked for by."""
    identity = record.identity
    return {
        "protocol": (identity.protocol.name,),
        "model": (identity.model.name, identity.model.defence),
        "dataset": (identity.dataset.name,),
        "tree": (identity.hierarchy.name,),
        "attack": (identity.attack.name,),
        "scoring": (identity.attack.scoring,),
        "template": (identity.dataset.template,),
    }


def _patterns(name: str, asked: str) -> list[str]:
    return [asked] if name == "template" else [part.strip() for part in asked.split(",")]


def _meant(values: tuple[str, ...], pattern: str) -> bool:
    return any(fnmatch.fnmatchcase(value, pattern) for value in values)


Folders = Path | Sequence[Path]
"""Where records are looked for: a folder, a file, or several of them."""


def as_folders(folders: Folders) -> tuple[Path, ...]:
    """Return the folders, each of which must be there: else ``InputError``."""
    found = (folders,) if isinstance(folders, Path) else tuple(dict.fromkeys(folders))
    if not found:
        raise InputError("--records: names no folder")
    for folder in found:
        if not folder.exists():
            raise InputError(f"--records: {folder} does not exist; 'hierbench eval' makes ./hierbench-results")
    return found


def nothing_found(folders: Folders, selection: Selection, there: int) -> InputError:
    """Return the error of a search that found no wanted record among those that are there."""
    named = ", ".join(map(str, as_folders(folders)))
    return InputError(f"--records: no record under {named} for {selection.words()} ({there} records are there)")


def _files(folder: Path) -> list[Path]:
    """Return the files of records under a folder; of a board those of its parts."""
    if folder.is_file():
        return [folder]
    parts = [folder / part for part in PARTS if (folder / part).is_dir()]
    paths = [path for part in parts or [folder] for path in record_paths(part)]
    return [path for path in paths if path.name not in (CARD_FILE, ATTACK_FILE)]


def collect_records(folders: Folders, selection: Selection) -> list[Record]:
    """Return the wanted records of some folders, by path; none, or a damaged one, raises ``InputError``.

    A record that lies in several folders counts once.
    """
    found = as_folders(folders)
    paths = [path for folder in found for path in _files(folder)]
    found_records = [record for record in map(read_record, paths) if selection.takes(record)]
    wanted = {(r.identity.model_dump_json(), r.created, r.verdicts.sha256): r for r in found_records}
    records = list(wanted.values())
    if not records:
        raise nothing_found(folders, selection, len(paths))
    selection.check(records)
    return records


def _same_eps(asked: str, eps: str) -> bool:
    try:
        return Fraction(asked) == Fraction(eps)
    except (ValueError, ZeroDivisionError):
        raise InputError(f"--eps: {asked!r} is not a fraction such as 4/255") from None
