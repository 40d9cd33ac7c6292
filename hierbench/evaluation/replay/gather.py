"""The images of a run, from its journal into their file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial

from hierbench.errors import HierbenchError
from hierbench.evaluation.cell import Cell
from hierbench.evaluation.journal import Journal, UnitKey
from hierbench.evaluation.records import Record
from hierbench.evaluation.replay.file import Heading, images_path, stored_for, write_images
from hierbench.evaluation.replay.keep import KeptVerdicts
from hierbench.evaluation.stored import finished_record
from hierbench.evaluation.verdicts import Verdicts


def finished(cell: Cell) -> Record | None:
    """Return the record of a finished cell, or None; without the images or the ranks asked for, it is not finished."""
    done = finished_record(cell.record_path)
    if done is None or (cell.ranked and done.rank_preservation is None):
        return None
    if cell.store_images is None:
        return done
    kept = images_path(cell.folder, cell.identity.cell, cell.store_images)
    return done if stored_for(kept, done.verdicts.sha256) else None


def gather_images(
    cell: Cell, journal: Journal, units: Mapping[int, Sequence[UnitKey]], verdicts: Verdicts, verdicts_sha256: str
) -> None:
    """Write a cell's images, a chunk at a time; ``units`` are those that hold them, by attacked depth, in order."""
    if cell.store_images is None:
        return
    limit = cell.arguments.resolved.get("limit")
    heading = Heading(
        form=cell.store_images,
        identity=cell.identity,
        environment=cell.environment,
        limit=limit if isinstance(limit, int) else None,
        verdicts_sha256=verdicts_sha256,
    )
    write_images(
        images_path(cell.folder, cell.identity.cell, cell.store_images),
        heading,
        ids=verdicts.sample_ids,
        labels=verdicts.labels,
        clean=verdicts.clean,
        units={depth: [partial(_kept, journal, key) for key in keys] for depth, keys in units.items()},
    )


def _kept(journal: Journal, key: UnitKey) -> KeptVerdicts:
    arrays = journal.read(key)
    if arrays is None:
        raise HierbenchError(f"journal: {key.describe()} is gone; run the same command again")
    return KeptVerdicts.from_arrays(arrays)
