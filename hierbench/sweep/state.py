"""What has become of each cell: a small note beside the results, believed only as far as its record bears it out."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from hierbench.errors import HierbenchError, InputError
from hierbench.evaluation.records import Record
from hierbench.evaluation.request import RESULTS_FOLDER
from hierbench.evaluation.storage import atomic_write, digest_file, make_folder
from hierbench.evaluation.stored import read_record
from hierbench.models.catalogue import resolve_model
from hierbench.models.storage import read_description
from hierbench.sweep.known import KnownRecords
from hierbench.sweep.notes import NOTES_FOLDER
from hierbench.sweep.plan import PlannedCell, SweepPlan

State = Literal["missing", "begun", "done", "flagged", "failed"]


@dataclass(frozen=True)
class Note:
    """What a run of a cell left behind."""

    title: str
    record: str | None = None
    """Path of the record below the results folder."""
    error: str | None = None


@dataclass(frozen=True)
class CellState:
    """One cell of a plan and how far it is."""

    cell: PlannedCell
    state: State
    record: Record | None = None
    error: str | None = None


def results_folder(plan: SweepPlan) -> Path:
    """Return the folder that the plan's records go to."""
    out = plan.cells[0].request.out
    return Path(RESULTS_FOLDER) if out is None else Path(out)


def look_up(plan: SweepPlan, known: KnownRecords | None = None) -> list[CellState]:
    """Return the state of every cell of a plan, without loading a model or an image.

    ``known``: the records of the plan's results folder, where they have been read for another plan already.
    """
    folder = results_folder(plan)
    known = known or KnownRecords(folder)
    return [cell_state(cell, plan, folder, known) for cell in plan.cells]


def cell_state(cell: PlannedCell, plan: SweepPlan, folder: Path, known: KnownRecords) -> CellState:
    """Return a cell's state: done if its record is whole and of the protocol and weights at hand.

    Where no note says which record that is, it is looked for: a board's records came without notes.
    """
    note = _read_note(_note_path(folder, cell))
    if note is not None and note.record is None:
        return CellState(cell, "failed" if note.error else "begun", error=note.error)
    if note is None:
        found = [record for name, record in known.of(cell.request) if _is_whole(folder / name, record)]
    else:
        record = _whole_record(folder, str(note.record))
        found = [] if record is None else [record]
    for record in found:
        if _is_of_now(record, cell, plan):
            return CellState(cell, "flagged" if record.checks.failed else "done", record)
    return CellState(cell, "missing")


def write_note(folder: Path, cell: PlannedCell, *, record: Path | None = None, error: str | None = None) -> None:
    """Leave a note on a cell: begun (neither), finished, or failed."""
    make_folder(folder / NOTES_FOLDER)
    said = None if record is None else record.resolve().relative_to(folder.resolve()).as_posix()
    text = json.dumps(asdict(Note(cell.title, said, error)), ensure_ascii=False, indent=1)
    atomic_write(_note_path(folder, cell), text.encode())


def _note_path(folder: Path, cell: PlannedCell) -> Path:
    return folder / NOTES_FOLDER / f"{cell.key}.json"


def _read_note(path: Path) -> Note | None:
    try:
        said: Any = json.loads(path.read_text(encoding="utf-8"))
        return Note(str(said["title"]), said["record"], said["error"])
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError):
        return None  # a damaged note is none: the cell looks for its record itself when it runs


def _whole_record(folder: Path, name: str) -> Record | None:
    path = folder / name
    if not path.resolve().is_relative_to(folder.resolve()):
        return None
    try:
        record = read_record(path)
    except (InputError, OSError):
        return None
    return record if _is_whole(path, record) else None


def _is_whole(path: Path, record: Record) -> bool:
    try:
        return digest_file(path.with_name(record.verdicts.file)) == record.verdicts.sha256
    except OSError:
        return False


def _is_of_now(record: Record, cell: PlannedCell, plan: SweepPlan) -> bool:
    """A protocol or a model that was changed since makes the cell a missing one again."""
    if record.identity.protocol.hash != plan.protocol.content_hash:
        return False
    try:
        folder = resolve_model(cell.request.model, plan.protocol.variant).folder
        weights = None if folder is None else read_description(folder).get("weights_hash")
    except HierbenchError:
        return True  # the model is not here: its record is what there is
    return weights is None or weights == record.identity.model.weights_hash
