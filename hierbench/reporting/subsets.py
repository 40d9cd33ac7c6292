"""Figures over some of a standing's samples: those of some classes, or those that several sample lists share."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np

from hierbench.board.ledger import Standing
from hierbench.datasets.sampling import list_hash
from hierbench.errors import InputError
from hierbench.evaluation.scores import proportion
from hierbench.evaluation.verdicts import Bools, Ints
from hierbench.reporting.comparable import MUST_AGREE, check_comparable
from hierbench.reporting.grid import first_record, records_of
from hierbench.reporting.paired import Figure, right_at
from hierbench.reporting.rows import is_grey
from hierbench.reporting.standings import DepthFigures, Shown, check_verdicts


@dataclass(frozen=True)
class SharedSamples:
    """The samples that every record of a comparison scored."""

    ids: tuple[str, ...]
    """In the order of the shortest list."""
    counts: tuple[int, ...]
    """Lengths of the lists they are shared by, longest first; one if the lists are the same."""

    @property
    def narrowed(self) -> bool:
        """Whether a list was cut down to what the others have."""
        return self.counts != (len(self.ids),)

    def rows(self, standing: Standing) -> Ints:
        """Return where the shared samples lie in a standing's list, in one order for all standings."""
        places = {sample: row for row, sample in enumerate(standing.placed[0].verdicts.sample_ids)}
        return np.array([places[sample] for sample in self.ids], dtype=np.int64)

    def hash(self, standing: Standing) -> str:
        """Return the content hash of the shared list, with the labels that a standing has."""
        return list_hash(self.ids, standing.placed[0].verdicts.labels[self.rows(standing)])

    def words(self) -> str:
        """Say how many there are, and of which lists."""
        lists = " and ".join(map(str, self.counts))
        return f"over the {len(self.ids)} images that all records share, of lists of {lists}"


def shared_samples(standings: Sequence[Standing], *, share: str, may_differ: Collection[str] = ()) -> SharedSamples:
    """Return what the standings' sample lists have in common.

    Nothing in common, or a difference in more than the lists and what ``may_differ``, raises ``InputError``.
    """
    fields = tuple(field for field in MUST_AGREE if field[0] not in ("sample list", *may_differ))
    check_comparable(records_of(standings), fields, share=share)
    for standing in standings:
        check_verdicts(standing)
    lists = {s.ground.sample_list_hash: s.placed[0].verdicts.sample_ids for s in standings}
    everywhere = frozenset.intersection(*map(frozenset, lists.values()))
    ids = tuple(sample for sample in min(lists.values(), key=len) if sample in everywhere)
    if not ids:
        raise InputError(f"these records cannot {share}: no image was scored in all of them")
    return SharedSamples(ids, tuple(sorted(map(len, lists.values()), reverse=True)))


def right_over(standing: Standing, shown: Shown, figure: Figure, depth: int, rows: Bools | Ints) -> Bools | None:
    """Return [m]: right at a depth, for some of a standing's samples; None where that was not measured."""
    right = right_at(standing, shown, figure, depth)
    return None if right is None else right[rows]


def figures_over(standing: Standing, shown: Shown, depth: int, rows: Bools | Ints) -> DepthFigures | None:
    """Return a standing's figures at a depth over some of its samples, or None where it was not scored so.

    ``rows``: which of its samples count, a mask [n] or their places. The most frequent node of these is not known:
    ``majority`` is None.
    """
    entry = first_record(standing).depths[depth - 1]
    scores = entry.rollup if shown.scoring == "rollup" else entry.direct
    clean = right_over(standing, shown, "clean", depth, rows)
    if scores is None or clean is None:
        return None
    robust = right_over(standing, shown, "robust", depth, rows)
    return DepthFigures(
        depth=depth,
        nodes=entry.nodes,
        chance=scores.chance,
        majority=None,
        clean=proportion(clean),
        robust=None if robust is None else proportion(robust),
        grey=is_grey(entry),
    )
