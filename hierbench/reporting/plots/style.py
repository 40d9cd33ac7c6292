"""What all pictures share: colours, marks and type that survive print, and files with the same bytes each time."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hierbench.errors import InputError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FORMATS = ("svg", "pdf", "png")
COLUMN = 3.3
"""Width of one column of a usual paper, in inches."""

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
"""Told apart by colour-blind readers (Okabe and Ito); after these, marks and dashes change."""
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">", "p", "h", "*")
"""With as many colours and marks that share no factor, a pair of them returns after 84 lines only."""
DASHES = ("-", (0, (6, 1.5)), (0, (3, 1, 1, 1)), (0, (1, 1)))

SETTINGS: Any = {
    "svg.hashsalt": "hierbench",
    "pdf.fonttype": 42,  # publishers refuse the other kind
    "font.size": 8,
    "axes.labelsize": 8,
    "axes.titlesize": 8,
    "xtick.labelsize": 7,
    "ytick.labelsize": 7,
    "legend.fontsize": 7,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.6,
    "lines.linewidth": 1.2,
    "lines.markersize": 3.6,
}


@dataclass(frozen=True)
class Look:
    """How one model is drawn in every picture: nothing is told by colour alone."""

    colour: str
    marker: str
    dash: Any

    @classmethod
    def of(cls, number: int) -> Look:
        """Return the look of the model of this number, from 0."""
        return cls(
            COLOURS[number % len(COLOURS)], MARKERS[number % len(MARKERS)], DASHES[number // len(COLOURS) % len(DASHES)]
        )


@contextmanager
def figure(width: float, height: float) -> Iterator[Figure]:
    """Yield an empty figure of this size in inches, set in the project's style."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    if not 1.5 <= width <= 20.0:
        raise InputError(f"--width: {width:g} should be from 1.5 to 20 inches; 3.3 is one column")
    with mpl.rc_context(SETTINGS):
        yield Figure(figsize=(width, height), layout="constrained")


def kind_of(path: Path) -> str:
    """Return the format that a file's ending names; another raises ``InputError``."""
    kind = path.suffix.removeprefix(".").lower()
    if kind not in FORMATS:
        raise InputError(f"--out: {path} should end in {' or '.join('.' + name for name in FORMATS)}")
    return kind


def save(drawn: Figure, path: Path) -> Path:
    """Write a picture, whole or not at all, without a date: the same figures give the same bytes."""
    from hierbench.evaluation.storage import atomic_write

    kind = kind_of(path)
    without: dict[str, dict[str, Any]] = {"svg": {"Date": None}, "pdf": {"CreationDate": None}}
    out = BytesIO()
    drawn.savefig(out, format=kind, dpi=300, metadata=without.get(kind, {}))
    try:
        atomic_write(path, out.getvalue())
    except OSError as error:
        raise InputError(f"--out: cannot write {path} ({error.strerror or error})") from None
    return path


def plain(name: str, limit: int = 40) -> str:
    r"""Return a name as it is shown: printable, not read as mathematics, and short enough for a legend.

    >>> print(plain("a$b"))
    a\$b
    """
    from hierbench.reporting.table import printable

    text = printable(name)
    return (text if len(text) <= limit else f"{text[: limit - 1]}…").replace("$", r"\$")
