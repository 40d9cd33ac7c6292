"""Running the jobs of a plan with a line for each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hierbench.cli.bars import phase_bars
from hierbench.cli.common import console
from hierbench.errors import InputError
from hierbench.sweep.run import CellJob, Job
from hierbench.sweep.trained import TrainingJob

if TYPE_CHECKING:
    from hierbench.evaluation.observer import Observer


@dataclass(frozen=True)
class Runner:
    """Does jobs one after the other here, or several at a time in processes of their own."""

    folder: Path
    executor: str
    processes: int
    parameters: Mapping[str, Any]
    quiet: bool

    def run(self, jobs: Sequence[Job]) -> int:
        """Do the jobs and return how many failed; one that fails does not keep the others from being done."""
        total, count = len(jobs), 0

        def said(job: Job, error: str | None, remark: str = "") -> None:
            nonlocal count
            count += 1
            outcome = f"failed: {error}" if error else f"done{remark}"
            console().print(f"[{count}/{total}] {job.title}: {outcome}", soft_wrap=True)

        if self.executor == "local":
            from hierbench.sweep.cluster import run_local

            return run_local(jobs, self.folder, processes=self.processes, parameters=self.parameters, done=said)
        if self.processes > 1 or self.parameters:
            raise InputError("--jobs and --set go with --executor local or slurm")
        failed = 0
        observer = self._observer()
        for job in jobs:
            error, remark = None, ""
            try:
                if isinstance(job, CellJob):
                    remark = "  failed a trust check" if job.run(observer).checks.failed else ""
                elif isinstance(job, TrainingJob):
                    with phase_bars() as report:
                        job.run(report)
            except Exception as problem:  # noqa: BLE001 - one broken cell must not cost the night's others
                error = " ".join(str(problem).split()) or type(problem).__name__
                failed += 1
            said(job, error, remark)
        return failed

    def _observer(self) -> Observer:
        from hierbench.evaluation.observer import Observer
        from hierbench.reporting.progress import RichProgress

        return Observer() if self.quiet else RichProgress(console(stderr=True))
