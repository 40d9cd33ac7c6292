"""One writer at a time: a lock that the operating system frees when its holder ends, however it ends."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from hierbench.errors import InputError


@contextmanager
def sole_writer(lock: Path, of: Path, *, kind: str = "folder") -> Iterator[None]:
    """Hold the lock file ``lock`` (made with its folder, removed at the end) while the block runs.

    A second holder raises ``InputError`` at once, naming what is written (``of``, a folder or another ``kind``), and so
    does a place that cannot be written.
    """
    from filelock import FileLock, Timeout

    held = FileLock(lock, timeout=0)
    try:
        lock.parent.mkdir(parents=True, exist_ok=True)
        held.acquire()
    except Timeout:
        raise InputError(f"--out: another run is writing {of}; wait for it or name another {kind}") from None
    except OSError as error:
        raise InputError(f"--out: cannot write in {lock.parent} ({error.strerror or error})") from None
    try:
        yield
    finally:
        with contextlib.suppress(OSError):  # where an open file cannot be removed it stays, and does no harm
            lock.unlink()
        held.release()
