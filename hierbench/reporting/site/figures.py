"""One figure of a page, with everything that has to be reachable from it."""

from __future__ import annotations

from dataclasses import dataclass, replace

from hierbench.evaluation.records import Proportion

SCORING_WORDS = {"rollup": "roll-up", "direct": "direct"}


@dataclass(frozen=True)
class Figure:
    """An accuracy in [0, 1] with its Wilson 95 % interval."""

    value: float
    low: float
    high: float
    count: int
    of: int
    pale: bool = False
    """The model hardly knows these nodes when clean (METHODS.md section 4)."""
    best: bool = False
    """The highest of its column."""
    note: str = ""
    """What it rests on, where that is not the column's own attacks."""

    @property
    def text(self) -> str:
        """The figure in percent, with one decimal."""
        return percent(self.value)

    @property
    def interval(self) -> str:
        """The interval in percent."""
        return f"{percent(self.low)}–{percent(self.high)}"

    @property
    def title(self) -> str:
        """The figure in words."""
        said = f"{self.count:,} of {self.of:,} images; Wilson 95 % interval {percent(self.low)} to {percent(self.high)}"
        if self.pale:
            said += "; pale: clean direct accuracy is under 50 %"
        return f"{said}; {self.note}" if self.note else said

    def best_of_column(self) -> Figure:
        """Return the same figure, marked."""
        return replace(self, best=True)


def figure(share: Proportion | None, *, pale: bool = False, note: str = "") -> Figure | None:
    """Return a record's proportion as a figure; None stays None."""
    if share is None:
        return None
    return Figure(share.value, share.low, share.high, share.count, share.of, pale, note=note)


def percent(value: float) -> str:
    """Return a share in percent with one decimal.

    >>> percent(0.4312)
    '43.1'
    """
    return f"{100 * value:.1f}"


def duration(seconds: float) -> str:
    """Return a time in words.

    >>> duration(8.4), duration(95), duration(8040)
    ('8 s', '1.6 min', '2.2 h')
    """
    if seconds < 60:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.1f} min" if seconds < 3600 else f"{seconds / 3600:.1f} h"


def amount(count: int) -> str:
    """Return a count in short.

    >>> amount(950), amount(41_800), amount(5_556_982)
    ('950', '41.8 k', '5.6 M')
    """
    for unit, size in (("G", 10**9), ("M", 10**6), ("k", 10**3)):
        if count >= size:
            return f"{count / size:.1f} {unit}"
    return str(count)
