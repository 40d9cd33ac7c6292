"""Running the cells of a plan one after the other, here; a cell that fails is noted and the others go on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from hierbench.errors import HierbenchError
from hierbench.sweep.plan import PlannedCell
from hierbench.sweep.state import write_note

if TYPE_CHECKING:
    from hierbench.evaluation.observer import Observer
    from hierbench.evaluation.records import Record

Done = Callable[[PlannedCell, "Record | None", str | None], None]
"""Hears of each cell: its record, or in one line why there is none."""


@dataclass(frozen=True)
class CellJob:
    """One cell as a job of its own, for this process or another one."""

    cell: PlannedCell
    folder: Path

    def run(self, observer: Observer | None = None) -> Record:
        """Evaluate the cell and leave a note on it; a finished one is read, an interrupted one goes on."""
        from hierbench.evaluation.prepare import prepare_cell
        from hierbench.evaluation.runner import run_cell

        write_note(self.folder, self.cell)
        try:
            prepared = prepare_cell(self.cell.request)
            record = run_cell(prepared, observer=observer)
        except Exception as error:
            text = str(error) if isinstance(error, HierbenchError) else f"{type(error).__name__}: {error}"
            write_note(self.folder, self.cell, error=" ".join(text.split())[:500])
            raise
        write_note(self.folder, self.cell, record=prepared.record_path)
        return record


def run_here(cells: Sequence[PlannedCell], folder: Path, *, done: Done, observer: Observer | None = None) -> int:
    """Run cells in order and return how many failed; only ``KeyboardInterrupt`` and its like end the row early."""
    failed = 0
    for cell in cells:
        record, error = None, None
        try:
            record = CellJob(cell, folder).run(observer)
        except Exception as problem:  # noqa: BLE001 - one broken cell must not cost the night's others
            error = " ".join(str(problem).split()) or type(problem).__name__
            failed += 1
        done(cell, record, error)
    return failed
