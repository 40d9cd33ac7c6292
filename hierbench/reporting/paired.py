"""Two models on the same samples, depth by depth: what differs, by how much, and what could have been seen."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from hierbench.board.ledger import Standing
from hierbench.evaluation.records import Proportion
from hierbench.evaluation.scores import proportion
from hierbench.evaluation.statistics import (
    McNemar,
    PairedDifference,
    holm,
    mcnemar,
    paired_bootstrap,
    smallest_detectable_difference,
)
from hierbench.evaluation.verdicts import Bools
from hierbench.reporting.grid import first_record
from hierbench.reporting.rows import is_grey
from hierbench.reporting.standings import Shown, broken_at, check_verdicts, clean_broken_at

Figure = Literal["clean", "robust"]
FIGURES: tuple[Figure, ...] = ("clean", "robust")


@dataclass(frozen=True)
class Paired:
    """One figure of two models at one depth, over the same samples."""

    figure: Figure
    depth: int
    nodes: int
    first: Proportion
    second: Proportion
    difference: PairedDifference
    """first - second."""
    test: McNemar
    p_holm: float
    """The p value after Holm's correction over the depths shown of this figure."""
    detectable: float | None
    """Smallest difference that the test finds with a power of 80 %, given how often the two disagree; None: none."""
    grey: bool
    """One of the two is under 50 % clean at this depth."""


def right_at(standing: Standing, shown: Shown, figure: Figure, depth: int) -> Bools | None:
    """Return [n]: right at a depth, clean or under every attack that counts; None where that was not measured."""
    made = clean_broken_at if figure == "clean" else broken_at
    broken = made(standing, shown, depth)
    return None if broken is None else ~broken


def pair(first: Standing, second: Standing, shown: Shown, depths: Sequence[int] = ()) -> tuple[Paired, ...]:
    """Return the paired comparison at every depth where both were measured (no ``depths``: all), clean first.

    The two must stand on one ground, see ``comparable``. Missing or changed verdicts raise ``InputError``.
    """
    check_verdicts(first)
    check_verdicts(second)
    found: list[Paired] = []
    for figure in FIGURES:
        made = []
        for entry, other in zip(first_record(first).depths, first_record(second).depths, strict=True):
            a, b = (right_at(s, shown, figure, entry.depth) for s in (first, second))
            if a is None or b is None or (depths and entry.depth not in depths):
                continue
            made.append((entry, a, b, mcnemar(a, b), is_grey(entry) or is_grey(other)))
        corrected = holm([test.p_value for *_, test, _ in made])
        for (entry, a, b, test, grey), p_holm in zip(made, corrected, strict=True):
            share = float(np.mean(a != b))
            detectable = smallest_detectable_difference(len(a), share)
            found.append(
                Paired(
                    figure=figure,
                    depth=entry.depth,
                    nodes=entry.nodes,
                    first=proportion(a),
                    second=proportion(b),
                    difference=paired_bootstrap(a, b),
                    test=test,
                    p_holm=p_holm,
                    detectable=detectable if detectable < 1.0 else None,
                    grey=grey and figure == "robust",
                )
            )
    return tuple(found)
