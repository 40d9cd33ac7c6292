"""One session of questions to an endpoint: several classes at a time, each until it has its sentences."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from hierbench.datasets.describing.answers import Refused, UnusableAnswer, read_answer
from hierbench.datasets.describing.endpoint import Chat, open_chat
from hierbench.datasets.describing.prompt import Sofar, messages
from hierbench.errors import HierbenchError

if TYPE_CHECKING:
    from hierbench.datasets.describing.run import Describer

MAX_FAILED_CLASSES = 5
"""So many classes without their sentences, and no further one is asked about."""

Report = Callable[[int, int, int], None]
"""Called with (classes done, classes asked about, sentences of all classes)."""


class Asking:
    """The questions that a ``Describer`` has left, and what became of them."""

    def __init__(self, job: Describer, report: Report) -> None:
        self.job = job
        self._report = report
        self._queue: Iterator[int] = iter(())
        self._failures: list[str] = []
        self._stopped: HierbenchError | None = None

    async def run(self) -> None:
        """Ask about every class that lacks sentences, ``concurrency`` of them at a time."""
        left = self.job.left()
        self._queue = iter(left)
        self._tell()
        async with open_chat(self.job.endpoint) as chat:
            await asyncio.gather(*(self._work(chat) for _ in range(min(self.job.request.concurrency, len(left)))))

    def raise_failures(self) -> None:
        """Raise what went wrong, in one line that says where the rest is."""
        job = self.job
        kept = ""
        if job.kept.total:
            kept = f"; {job.kept.total} sentences are kept in {job.journal.path}: the same command asks for the rest"
        if self._stopped is not None:
            error = HierbenchError(f"{self._stopped}{kept}")
            error.exit_code = self._stopped.exit_code
            raise error
        if self._failures:
            others = f" (and so for {len(self._failures) - 1} more)" if len(self._failures) > 1 else ""
            raise HierbenchError(f"{self._failures[0]}{others}{kept}")

    async def _work(self, chat: Chat) -> None:
        """Take classes one by one; where the endpoint fails, answers that are under way are still waited for."""
        for label in self._queue:
            if self._stopped is not None or len(self._failures) >= MAX_FAILED_CLASSES:
                return
            try:
                await self._ask_class(chat, label)
            except HierbenchError as error:
                self._stopped = self._stopped or error
            self._tell()

    async def _ask_class(self, chat: Chat, label: int) -> None:
        job = self.job
        class_id = job.spec.class_ids[label]
        refused: list[Refused] = []
        problem = ""
        for attempt in range(1 + job.request.again):
            if self._stopped is not None:
                return
            text, pictures = job.question(label, Sofar(job.kept.sentences[class_id], refused, problem))
            refused = []
            try:
                answer = read_answer(await chat.ask(messages(text, pictures), attempt=attempt))
            except UnusableAnswer as error:
                problem = str(error)
                continue
            taken, refused = job.kept.offer(class_id, answer)
            if taken:
                job.journal.add(class_id, taken)
            if not job.kept.missing(class_id):
                return
            problem = _what_was_refused(refused) or f"holds {len(answer)} sentences"
            self._tell()
        have = f"{len(job.kept.sentences[class_id])} of {job.kept.count} sentences"
        self._failures.append(
            f"class {class_id!r} has {have} after {1 + job.request.again} answers, of which the last {problem}"
        )

    def _tell(self) -> None:
        left = len(self.job.left())
        self._report(len(self.job.labels) - left, len(self.job.labels), self.job.kept.total)


def _what_was_refused(refused: list[Refused]) -> str:
    if not refused:
        return ""
    one = "a sentence" if len(refused) == 1 else f"{len(refused)} sentences"
    return f"holds {one} that cannot be used: the first {refused[0].reason}"
