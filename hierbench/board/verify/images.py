"""Stored images: of the record's own samples, inside box and ball, and at one with the record's verdicts."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from hierbench.board.verify.figures import Cell, rollup_broken
from hierbench.evaluation.replay.cut import first_rows
from hierbench.evaluation.replay.file import StoredImages
from hierbench.evaluation.replay.form import LEVELS

if TYPE_CHECKING:
    from hierbench.datasets.images import ImageSet

BLOCK = 512
ROUNDED = 0.02
"""Share of stored images that may break a depth which the attack's own image, before it was rounded to 8 bits, did
not."""


def alone(cell: Cell, stored: StoredImages) -> Iterator[tuple[Path, str]]:
    """Yield (file, reason) for what can be seen without data and weights."""
    for reason in _heading(cell, stored):
        yield stored.path, reason
        return
    count = len(stored.ids)
    verdicts = cell.verdicts
    if stored.ids != verdicts.sample_ids[:count] or not np.array_equal(stored.labels, verdicts.labels[:count]):
        yield stored.path, f"ids, labels: not the first {count} samples of {cell.verdicts_path.name}"
        return
    yield from ((stored.path, reason) for reason in _against_verdicts(cell, stored))
    yield from ((stored.path, reason) for reason in _deltas(cell, stored))


def _heading(cell: Cell, stored: StoredImages) -> Iterator[str]:
    heading, record = stored.heading, cell.record
    if stored.form != "8bit":
        yield f"heading.form: {stored.form}; a package holds 8bit images"
    if heading.identity != record.identity:
        yield f"heading.identity: not that of {cell.path.name}"
    if heading.verdicts_sha256 != record.verdicts.sha256:
        yield f"heading.verdicts_sha256: images of another run than {cell.verdicts_path.name}"
    if cell.shown and heading.rows is not None:
        yield f"heading.rows: an external attack needs every sample, not the first {heading.rows}"


def _against_verdicts(cell: Cell, stored: StoredImages) -> Iterator[str]:
    count, tree = len(stored.ids), cell.hierarchy.leaf_to_node
    clean = first_rows(cell.verdicts.clean, count)
    names = ("predicted", "broken_rollup", "broken_direct")
    for name in names:
        if not _equal(getattr(stored.clean, name), getattr(clean, name)):
            yield f"clean.{name}: not the clean verdicts of {cell.verdicts_path.name}"
            return
    for depth, attack in cell.verdicts.attacked.items():
        kept, said = stored.judged(depth), first_rows(attack, count)
        wrong = (kept.broken_rollup != rollup_broken(kept.predicted, stored.labels, tree)).any(axis=1)
        if wrong.any():
            yield f"d{depth}.broken_rollup: not what d{depth}.predicted says of {_first(stored, wrong)}"
        for name in names if cell.shown else ():
            if not _equal(getattr(kept, name), getattr(said, name)):
                yield f"d{depth}.{name}: not the verdicts of {cell.verdicts_path.name}"
                return
        for name in ("broken_rollup", "broken_direct"):
            now, then, before = (getattr(part, name) for part in (kept, said, clean))
            if now is None or then is None or before is None:
                continue
            hidden = (now & ~(then | before)).any(axis=1)
            if hidden.sum() > int(ROUNDED * count):
                reason = f"{int(hidden.sum())} stored images break the model where {cell.verdicts_path.name} says right"
                yield f"d{depth}.{name}: {reason} ({_first(stored, hidden)})"


def _equal(one: np.ndarray | None, other: np.ndarray | None) -> bool:
    return (one is None and other is None) or (one is not None and other is not None and np.array_equal(one, other))


def _deltas(cell: Cell, stored: StoredImages) -> Iterator[str]:
    """Look at the differences alone: their reach is known without the clean images."""
    eps = stored.threat.eps * LEVELS
    for depth in stored.identity.attack.depths:
        searched = cell.verdicts.attacked[depth].searched
        for start in range(0, len(stored.ids), BLOCK):
            rows = stored.deltas(depth, start, min(start + BLOCK, len(stored.ids))).astype(np.int64)
            flat = rows.reshape(len(rows), -1)
            far = np.abs(flat).max(axis=1) > int(eps)
            if stored.threat.norm == "l2":
                far = (flat**2).sum(axis=1) > int(eps**2)
            if far.any():
                yield f"d{depth}.delta: {_first(stored, far, start)} is outside the {stored.threat.norm} ball of eps"
                return
            moved = (flat != 0).any(axis=1) & ~searched[start : start + len(rows)]
            if moved.any() and not cell.shown:
                yield f"d{depth}.delta: {_first(stored, moved, start)} was not attacked, and its image differs"
                return


def against_data(stored: StoredImages, images: ImageSet) -> Iterator[tuple[Path, str]]:
    """Yield what is wrong with each attacked depth against the clean images at hand: sample, pixels, box, ball."""
    from hierbench.evaluation.replay.form import decode, outside, pixel_digests

    count = len(stored.ids)
    if stored.ids != images.ids[:count] or not np.array_equal(stored.labels, images.labels[:count]):
        yield stored.path, f"ids: not the first {count} samples of {images.spec.name} {images.split}"
        return
    for start in range(0, count, BLOCK):
        stop = min(start + BLOCK, count)
        clean = images.pixels(np.arange(start, stop))
        other = (pixel_digests(clean) != stored.digests[start:stop]).any(axis=1)
        if other.any():
            yield stored.path, f"clean.digest: {_first(stored, other, start)} has other pixels in {images.spec.name}"
            return
        for depth in stored.identity.attack.depths:
            shown = decode(stored.deltas(depth, start, stop), clean, form=stored.form)
            for place, reason in enumerate(outside(shown, clean, stored.threat)):
                if reason:
                    yield stored.path, f"d{depth}.delta: the image of sample {stored.ids[start + place]!r} {reason}"
                    return


def _first(stored: StoredImages, mask: np.ndarray, start: int = 0) -> str:
    return f"sample {stored.ids[start + int(np.flatnonzero(mask)[0])]!r}"
