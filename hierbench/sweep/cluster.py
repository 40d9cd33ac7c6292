"""Cells and trainings as jobs of their own: processes on this machine, or SLURM, both through submitit."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from hierbench.errors import InputError
from hierbench.sweep.run import Job

JOBS_FOLDER = ".sweep/jobs"
POLL_SECONDS = 0.5
MINUTES = {"local": 60 * 24 * 365, "slurm": 240}
"""How long a job may take unless ``timeout_min`` says; submitit's own are 2 and 5, which few cells end in."""
TIMEOUTS = 100
"""How often a job that took too long is queued again: it goes on from its journal."""


class Preemptible:
    """Runs a job as submitit calls it; one that is preempted is queued again and goes on where it was."""

    def __call__(self, job: Job) -> str:
        """Do the job and return the name of what it made."""
        return job.finish()

    def checkpoint(self, job: Job) -> Any:
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
        timeouts = {f"{kind}_max_num_timeout": TIMEOUTS}
        made = submitit.AutoExecutor(folder=folder / JOBS_FOLDER, cluster=kind, **timeouts)
        made.update_parameters(**{"timeout_min": MINUTES[kind], **parameters})
    except (RuntimeError, NameError, TypeError, ValueError, AssertionError) as error:
        raise InputError(f"--executor {kind}: {' '.join(str(error).split())[:300]}") from None
    return made


def run_local(
    jobs: Sequence[Job],
    folder: Path,
    *,
    processes: int,
    parameters: Mapping[str, Any],
    done: Callable[[Job, str | None], None],
) -> int:
    """Run jobs in at most ``processes`` processes at a time and return how many failed.

    Ctrl-C ends the running ones; what they have done stays in their journals.
    """
    made = executor(folder, kind="local", parameters=parameters)
    waiting, running, failed = list(jobs), dict[str, tuple[Job, Any]](), 0
    try:
        while waiting or running:
            while waiting and len(running) < processes:
                job = waiting.pop(0)
                running[job.key] = (job, made.submit(Preemptible(), job))
            for key, (job, queued) in list(running.items()):
                if not queued.done():
                    continue
                error = queued.exception()
                failed += error is not None
                done(job, None if error is None else _last_line(error))
                del running[key]
            time.sleep(POLL_SECONDS)
    finally:
        for _, queued in running.values():
            queued.cancel(check=False)
    return failed


def submit_slurm(jobs: Sequence[Job], folder: Path, *, parallel: int, parameters: Mapping[str, Any]) -> list[str]:
    """Queue jobs as one SLURM array and return the ids of its jobs; ``parallel`` bounds how many run at once."""
    made = executor(folder, kind="slurm", parameters={"slurm_array_parallelism": parallel, **parameters})
    return [str(queued.job_id) for queued in made.map_array(Preemptible(), list(jobs))]


def _last_line(error: BaseException) -> str:
    lines = [line for line in str(error).splitlines() if line.strip()]
    return lines[-1].strip() if lines else type(error).__name__
