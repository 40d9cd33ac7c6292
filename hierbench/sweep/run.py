"""What a plan does, as jobs: each goes on where it was left, and leaves a note on how far it is beside the results."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from hierbench.errors import HierbenchError
from hierbench.sweep.plan import PlannedCell
from hierbench.sweep.state import write_note

if TYPE_CHECKING:
    from hierbench.evaluation.observer import Observer
    from hierbench.evaluation.records import Record


class Job(Protocol):
    """Something of a plan that one process does from begin to end: a cell, or a training."""

    @property
    def key(self) -> str:
        """What names it among the jobs of its plan."""

    @property
    def title(self) -> str:
        """The job in words."""

    def finish(self) -> str:
        """Do it, going on where it was left, and return the name of what it made."""


@dataclass(frozen=True)
class CellJob:
    """One cell as a job of its own, for this process or another one."""

    cell: PlannedCell
    folder: Path

    @property
    def key(self) -> str:
        """The cell's."""
        return self.cell.key

    @property
    def title(self) -> str:
        """The cell's."""
        return self.cell.title

    def finish(self) -> str:
        """Evaluate the cell, as submitit calls it, and return its name."""
        return self.run().identity.cell

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
