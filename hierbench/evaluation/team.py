"""One cell in several processes: they share the journal, and whoever is free takes the next unit nobody has.

A unit is whole in the journal or not there, and its content does not depend on who computed it, so neither the number
of processes nor the loss of one changes a verdict. A unit being computed is held by a lock that the operating system
frees when its holder ends, however it ends.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from hierbench.evaluation.cell import Cell, Chunk, Effort, StepReport
from hierbench.evaluation.journal import SUFFIX, Journal, UnitKey
from hierbench.evaluation.observer import Observer
from hierbench.evaluation.storage import make_folder
from hierbench.evaluation.verdicts import AttackVerdicts, CleanVerdicts, Columns
from hierbench.processes import join_group

POLL_SECONDS = 0.1

Anything = TypeVar("Anything")
Compute = Callable[[Chunk, int], tuple[Columns, Effort]]


@dataclass(frozen=True)
class Team:
    """This process's place among those that evaluate a cell together."""

    rank: int = 0
    size: int = 1

    @property
    def leads(self) -> bool:
        """Whether this one writes the record and talks to the user."""
        return self.rank == 0

    def told(self, value: Anything) -> Anything:
        """Return the leader's value."""
        if self.size == 1:
            return value
        import torch

        said = [value]
        torch.distributed.broadcast_object_list(said, src=0)
        return said[0]

    def meet(self) -> None:
        """Wait until every process is here."""
        if self.size > 1:
            import torch

            torch.distributed.barrier()


def join_team() -> Team:
    """Return this process's team: those that ``torchrun`` started, or itself alone."""
    return Team(*join_group("gloo"))  # what is exchanged is a word or two, whatever the device


@dataclass
class SharedUnits:
    """One process's work on a cell whose units several share."""

    cell: Cell
    journal: Journal
    team: Team
    observer: Observer
    keys: dict[int, str] = field(default_factory=dict)
    """Hash of each chunk seen so far: its pixels are not loaded a second time to ask for a unit."""

    def work(self) -> None:
        """Compute every unit that no other process has, phase by phase, until all are in the journal."""
        clean: dict[int, CleanVerdicts] = {}
        for index in self._finish("clean", 0, lambda chunk, index: self.cell.victim.clean(chunk)):
            arrays = self.journal.read(self.key("clean", 0, index))
            if arrays is None:  # damaged: the leader mends it when it gathers
                clean[index] = self.cell.victim.clean(self.cell.chunk(index))[0]
            else:
                clean[index] = CleanVerdicts.from_arrays(arrays)
        for depth in self.cell.identity.attack.depths:
            progress = _Progress(self, depth)

            def attack(chunk: Chunk, index: int, *, depth: int = depth, progress: _Progress = progress) -> Any:
                return self.cell.victim.attack(chunk, clean[index], depth, progress.within(index))

            for index in self._finish(self.cell.attack_phase, depth, attack):
                progress.unit_done(index)

    def _finish(self, phase: str, depth: int, compute: Compute) -> Iterator[int]:
        """Yield the chunks of a phase as they are done, by this process or another one."""
        count = self.cell.num_chunks
        own = deque((self.team.rank * count // self.team.size + i) % count for i in range(count))
        refused = 0
        while own:
            index = own.popleft()
            key = self.key(phase, depth, index)
            if not self.journal.has(key):
                with self._claim(key) as mine:
                    if mine and not self.journal.has(key):
                        verdicts, effort = compute(self.cell.chunk(index), index)
                        self.journal.write(key, {**verdicts.to_arrays(), **effort.to_arrays()})
                if not mine:
                    own.append(index)
                    refused += 1
                    if refused >= len(own):  # all that is left is in other hands
                        time.sleep(POLL_SECONDS)
                        refused = 0
                    continue
            refused = 0
            yield index

    def key(self, phase: str, depth: int, index: int) -> UnitKey:
        """Return the key of a unit."""
        if index not in self.keys:
            self.keys[index] = self.cell.chunk(index).content_hash()
        return UnitKey(phase, depth, index, self.keys[index])

    @contextmanager
    def _claim(self, key: UnitKey) -> Iterator[bool]:
        from filelock import FileLock, Timeout

        make_folder(self.journal.folder)
        lock = FileLock(self.journal.path(key).with_suffix(".claim"), timeout=0)
        try:
            lock.acquire()
        except Timeout:
            yield False
            return
        try:
            yield True
        finally:
            lock.release()


class _Progress:
    """What the leader's user sees of one depth: samples done by anyone, survivors as far as this process knows them."""

    def __init__(self, work: SharedUnits, depth: int) -> None:
        self.work = work
        self.depth = depth
        self.total = len(work.cell.images.ids)
        self.done = 0
        self.survivors = 0
        self.within_chunk = (0, 0)

    def within(self, index: int) -> StepReport:
        """Return what hears of the chunk that this process works on."""

        def report(done: int, survivors: int, passes: int) -> None:
            self.within_chunk = (done, survivors)
            self._tell(passes)

        return report

    def unit_done(self, index: int) -> None:
        """Count a chunk that is in the journal."""
        arrays = self.work.journal.read(self.work.key(self.work.cell.attack_phase, self.depth, index))
        self.within_chunk = (0, 0)
        if arrays is not None:
            attacked = AttackVerdicts.from_arrays(arrays)
            broken = self._broken(attacked)
            self.done += len(attacked.predicted)
            self.survivors += int(np.count_nonzero(~broken[:, self.depth - 1]))
        self._tell(0)

    def _broken(self, attacked: AttackVerdicts) -> NDArray[np.bool_]:
        direct = self.work.cell.identity.attack.scoring == "direct" and attacked.broken_direct is not None
        found = attacked.broken_direct if direct else attacked.broken_rollup
        return np.asarray(found)

    def _tell(self, passes: int) -> None:
        done, survivors = self.within_chunk
        self.work.observer.attack(
            self.depth, done=self.done + done, total=self.total, survivors=self.survivors + survivors, passes=passes
        )


def units_in(journal: Journal) -> int:
    """Return how many finished units a journal's folder holds."""
    return sum(1 for _ in journal.folder.glob(f"*{SUFFIX}"))
