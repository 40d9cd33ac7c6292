"""Errors a user can act on, and the exit codes they map to."""

from __future__ import annotations

from enum import IntEnum


class ExitCode(IntEnum):
    """What the process tells the shell."""

    DONE = 0
    FAILED = 1
    BAD_INPUT = 2
    UNTRUSTED = 3
    """Finished, but a trust check failed."""
    INTERRUPTED = 130
    """Stopped by Ctrl-C; the same command goes on where it stopped."""


class HierbenchError(Exception):
    """An error whose message is one line that a user can act on."""

    exit_code: ExitCode = ExitCode.FAILED


class InputError(HierbenchError):
    """Bad input: names the file, field or flag, and what would be right."""

    exit_code = ExitCode.BAD_INPUT
