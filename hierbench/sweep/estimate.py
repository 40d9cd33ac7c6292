"""What a plan will cost, from the records of cells like its own."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import median

from hierbench.evaluation.protocol import Protocol
from hierbench.evaluation.records import Record
from hierbench.models.catalogue import shared_model_name
from hierbench.sweep.plan import PlannedCell

LIKENESS = ("model, data set and attack", "data set and attack", "attack")


@dataclass(frozen=True)
class Estimate:
    """Expected seconds of one cell, and which records they rest on; None where no record has its attack."""

    seconds: float | None
    rests_on: str


def estimate_cell(cell: PlannedCell, protocol: Protocol, records: Iterable[Record]) -> Estimate:
    """Return the median seconds a sample of the records most like the cell, times its samples.

    Alike in model, data set, attack and scoring first, then in fewer of these; the number of samples is the plan's,
    else the protocol's, else that of the records on the data set.
    """
    request = cell.request
    attack = request.attack or protocol.attacks.default
    scoring = request.scoring or protocol.scorings[0]
    same = [r for r in records if r.identity.attack.name == attack and r.identity.attack.scoring == scoring]
    on_data = [r for r in same if r.identity.dataset.name == request.dataset]
    model = shared_model_name(request.model)
    own = [r for r in on_data if model in (r.identity.model.name, r.identity.model.defence)]
    entry = protocol.dataset(str(request.dataset))
    limit = request.limit or (entry.limit if entry else None)
    for likeness, found in zip(LIKENESS, (own, on_data, same), strict=True):
        if found:
            samples = limit or max(r.counts.scored for r in found)
            rate = median(r.cost.seconds / r.counts.scored for r in found)
            return Estimate(rate * samples, f"{len(found)} of the same {likeness}")
    return Estimate(None, "no record of this attack")


def total(estimates: Sequence[Estimate]) -> tuple[float, int]:
    """Return the sum of the known seconds, and how many cells are unknown."""
    known = [e.seconds for e in estimates if e.seconds is not None]
    return sum(known), len(estimates) - len(known)
