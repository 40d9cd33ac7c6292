"""What a long run tells whoever watches it; the library itself prints nothing."""

from __future__ import annotations

from collections.abc import Sequence


class Observer:
    """Hears how a run goes on; every method may be overridden, none does anything here."""

    def begin(self, title: str, *, samples: int, attacked_depths: Sequence[int]) -> None:
        """Say that a run of ``samples`` samples over these attacked depths has begun."""

    def clean(self, *, done: int, total: int) -> None:
        """Say how many samples went through the clean pass."""

    def attack(self, depth: int, *, done: int, total: int, survivors: int, passes: int) -> None:
        """Say how far the attack at a depth is.

        Samples done of ``total``, those of them that survive at that depth, and image passes (forwards and backwards)
        since the last call.
        """

    def note(self, message: str) -> None:
        """Hear one line for the user, such as a resumed journal."""

    def end(self) -> None:
        """Say that the run is over, however it ended."""
