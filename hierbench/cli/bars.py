"""Progress bars of trainings."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

from hierbench.cli.common import console

PhaseReport = Callable[[str, int, int, Mapping[str, float]], None]
"""Called with (phase, step, steps, figures by name), as ``sweep.training.Report`` is."""


@contextmanager
def phase_bars() -> Iterator[PhaseReport]:
    """Yield a function that moves one bar a phase, with its figures beside it."""
    from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    out = console(stderr=True)
    bars = Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=24),
        TextColumn("{task.completed}/{task.total}", markup=False),
        TextColumn("{task.fields[figures]}", markup=False),
        TimeElapsedColumn(),
        TextColumn("left", markup=False),
        TimeRemainingColumn(),
        console=out,
        disable=not out.is_terminal,
    )
    tasks: dict[str, TaskID] = {}

    def report(phase: str, step: int, steps: int, figures: Mapping[str, float]) -> None:
        if phase not in tasks:
            tasks[phase] = bars.add_task(phase, total=steps, figures="")
        shown = ", ".join(f"{name} {value:.4g}" for name, value in figures.items())
        bars.update(tasks[phase], completed=step, total=steps, figures=shown)

    with bars:
        yield report
