"""A coroutine run to its end from any place: a script, or a notebook whose event loop is already running."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from typing import Any


def run_to_the_end(work: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Run ``work()``; under a running event loop on a loop of its own in another thread, which an interrupt cancels."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        asyncio.run(work())
        return
    loop = asyncio.new_event_loop()

    def apart() -> None:
        with asyncio.Runner(loop_factory=lambda: loop) as runner:
            runner.run(work())

    with ThreadPoolExecutor(1) as thread:
        under_way = thread.submit(apart)
        try:
            under_way.result()
        except KeyboardInterrupt:
            loop.call_soon_threadsafe(lambda: [task.cancel() for task in asyncio.all_tasks(loop)])
            raise
