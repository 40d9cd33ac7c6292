"""Cells as jobs of their own: processes on this machine, or SLURM, both through submitit."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from hierbench.errors import InputError
from hierbench.sweep.plan import PlannedCell
from hierbench.sweep.run import CellJob

JOBS_FOLDER = ".sweep/jobs"
POLL_SECONDS = 0.5


class Preemptible:
    """Runs a cell's job as submitit calls it; one that is preempted is queued again and goes on from its journal."""

    def __call__(self, job: CellJob) -> str:
        """Evaluate the cell and return its name."""
        return job.run().identity.cell

    def checkpoint(self, job: CellJob) -> Any:
        """Return what to queue when the job has to make room."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self, job)


def executor(folder: Path, *, kind: str, parameters: Mapping[str, Any]) -> Any:
    """Return submitit's executor for ``local`` processes or ``slurm``; wrong parameters raise ``InputError``."""
    try:
        import submitit
    except ImportError:
        raise InputError("--executor: local and slurm need submitit: pip install 'hierbench[cluster]'") from None
    try:
        made = submitit.AutoExecutor(folder=folder / JOBS_FOLDER, cluster=kind)
        made.update_parameters(**parameters)
    except (RuntimeError, NameError, TypeError, ValueError, AssertionError) as error:
        raise InputError(f"--executor {kind}: {' '.join(str(error).split())[:300]}") from None
    return made


def run_local(
    cells: Sequence[PlannedCell],
    folder: Path,
    *,
    processes: int,
    parameters: Mapping[str, Any],
    done: Callable[[PlannedCell, str | None], None],
) -> int:
    """Run cells in at most ``processes`` processes at a time and return how many failed.

    Ctrl-C ends the running ones; what they have done stays in their journals.
    """
    made = executor(folder, kind="local", parameters=parameters)
    waiting, running, failed = list(cells), dict[str, tuple[PlannedCell, Any]](), 0
    try:
        while waiting or running:
            while waiting and len(running) < processes:
                cell = waiting.pop(0)
                running[cell.key] = (cell, made.submit(Preemptible(), CellJob(cell, folder)))
            for key, (cell, job) in list(running.items()):
                if not job.done():
                    continue
                error = job.exception()
                failed += error is not None
                done(cell, None if error is None else _last_line(error))
                del running[key]
            time.sleep(POLL_SECONDS)
    finally:
        for _, job in running.values():
            job.cancel(check=False)
    return failed


def submit_slurm(
    cells: Sequence[PlannedCell], folder: Path, *, parallel: int, parameters: Mapping[str, Any]
) -> list[str]:
    """Queue cells as one SLURM array and return the ids of its jobs; ``parallel`` bounds how many run at once."""
    made = executor(folder, kind="slurm", parameters={"slurm_array_parallelism": parallel, **parameters})
    jobs = made.map_array(Preemptible(), [CellJob(cell, folder) for cell in cells])
    return [str(job.job_id) for job in jobs]


def _last_line(error: BaseException) -> str:
    lines = [line for line in str(error).splitlines() if line.strip()]
    return lines[-1].strip() if lines else type(error).__name__
