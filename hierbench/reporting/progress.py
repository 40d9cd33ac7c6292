"""The progress of an evaluation in a terminal: one bar a depth, with survivors, speed and time left."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from hierbench.evaluation.observer import Observer
from hierbench.reporting.table import printable

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import TaskID

SPEED_WINDOW = 10.0
"""Seconds over which the speed is averaged."""


class RichProgress(Observer):
    """Shows a bar for the clean pass and one for each attacked depth; quiet where the console is no terminal."""

    def __init__(self, console: Console) -> None:
        from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

        self.console = console
        self.bars = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=24),
            TextColumn("{task.completed}/{task.total}", markup=False),
            TextColumn("{task.fields[state]}", markup=False),
            TimeElapsedColumn(),
            TextColumn("left", markup=False),
            TimeRemainingColumn(),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self.tasks: dict[int, TaskID] = {}
        self.passes: list[tuple[float, int]] = []

    def begin(self, title: str, *, samples: int, attacked_depths: Sequence[int]) -> None:
        """Start the bars."""
        self.tasks = {0: self.bars.add_task("clean pass", total=samples, state="", start=False)}
        for depth in attacked_depths:
            self.tasks[depth] = self.bars.add_task(f"attack at depth {depth}", total=samples, state="", start=False)
        self.bars.start()

    def clean(self, *, done: int, total: int) -> None:
        """Move the clean bar."""
        self._move(0, done, total, "")

    def attack(self, depth: int, *, done: int, total: int, survivors: int, passes: int) -> None:
        """Move a depth's bar and say how many survive and how many images a second go through the model."""
        self.passes.append((time.monotonic(), passes))
        self._move(depth, done, total, f"{survivors} survive, {self._speed():,.0f} images/s")

    def note(self, message: str) -> None:
        """Print one line above the bars."""
        from rich.text import Text

        self.console.print(Text(printable(message), style="dim"))

    def end(self) -> None:
        """Take the bars away."""
        self.bars.stop()
        for task in self.tasks.values():
            self.bars.remove_task(task)
        self.tasks = {}

    def _move(self, depth: int, done: int, total: int, state: str) -> None:
        task = self.tasks[depth]
        self.bars.start_task(task)
        self.bars.update(task, completed=done, total=total, state=state)

    def _speed(self) -> float:
        now = time.monotonic()
        self.passes = [(at, n) for at, n in self.passes if now - at <= SPEED_WINDOW]
        span = now - self.passes[0][0]
        return sum(n for _, n in self.passes[1:]) / span if span > 0 else 0.0
