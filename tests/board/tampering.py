"""What the tests of tampered packages share."""

from __future__ import annotations

import os
from collections.abc import Callable

BAD_INPUT, UNTRUSTED = 2, 3


def refused(said: tuple[int, str], code: int, file: str, reason: str) -> None:
    """One line names the file and the reason, and the exit code is the one of its kind."""
    found, text = said
    lines = [line for line in text.splitlines() if line.startswith(("refused: ", "hierbench: error: "))]
    assert any(file in line and reason in line for line in lines), text
    assert found == code, text


def set_(*path: str | int, to: object) -> Callable[[dict], None]:
    def change(record: dict) -> None:
        inner = record
        for part in path[:-1]:
            inner = inner[part]  # type: ignore[index]
        inner[path[-1]] = to  # type: ignore[index]

    return change


class Harm:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, ("harmed",)
