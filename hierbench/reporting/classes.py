"""Records cut down to the images of some classes: those that training may use, or those that it may not."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Literal, cast, get_args

import numpy as np

from hierbench.board.ledger import Placed
from hierbench.datasets.catalogue import DATASETS, get_spec
from hierbench.datasets.sampling import list_hash
from hierbench.datasets.seen import load_seen
from hierbench.errors import HierbenchError, InputError
from hierbench.evaluation import scores
from hierbench.evaluation.records import Record
from hierbench.evaluation.verdicts import Bools, Ints, Verdicts, read_verdicts
from hierbench.hierarchy.catalogue import load_hierarchy
from hierbench.hierarchy.tree import Hierarchy
from hierbench.reporting.standings import check_verdict_file
from hierbench.reporting.table import Report

Classes = Literal["all", "seen", "unseen"]


@dataclass(frozen=True)
class Part(Placed):
    """A record over some of its samples: every figure in it is theirs; cost and checks stay the whole run's."""

    rows: Ints = field(kw_only=True, compare=False)

    @cached_property
    def verdicts(self) -> Verdicts:
        """The verdicts of these samples."""
        return read_verdicts(self.path.with_name(self.record.verdicts.file)).over(self.rows)


def known_classes(record: Record) -> Bools | None:
    """Return [classes]: may training use the class? None where no committed split speaks of the record's data set."""
    name, split = record.identity.dataset.name, record.identity.seen_split
    if name not in DATASETS or split is None:
        return None
    try:
        loaded = load_seen(split.name)
    except HierbenchError:
        return None
    return np.array(loaded.known_mask(name), dtype=np.bool_) if loaded.speaks_of(name) else None


def known_images(placed: Placed) -> Bools | None:
    """Return [n]: may training use the sample's class? None where that is unknown, see ``known_classes``."""
    known, labels = known_classes(placed.record), placed.verdicts.labels
    return None if known is None or (len(labels) and int(labels.max()) >= len(known)) else known[labels]


def over_classes(placed: Iterable[Placed], classes: Classes) -> list[Placed]:
    """Return the records over the images of these classes alone; every class stays a candidate.

    Their figures are made again from the verdicts beside them. A data set without a class split, one that has no image
    of such classes, or a tree that is not at hand raises ``InputError``.
    """
    if classes not in get_args(Classes):
        raise InputError(f"--classes: {classes!r} is none of {', '.join(get_args(Classes))}")
    return list(placed) if classes == "all" else [_part(found, classes) for found in placed]


def classes_notes(placed: Sequence[Placed], classes: Classes) -> list[str]:
    """Say which classes' images count in records, and what the models have seen of them; nothing if all count."""
    if classes == "all":
        return []
    said = []
    records = {found.record.identity.dataset.name: found.record for found in placed}
    for name, record in records.items():
        known = cast(Bools, known_classes(record))
        count, split = int(np.sum(known == (classes == "seen"))), record.identity.seen_split
        named = f"{name}: images of the {count} {classes} classes of {len(known)}"
        said.append(f"{named} (split {'' if split is None else split.name}{_training(placed, name, classes)})")
    return ["; ".join([*said, "all classes are candidates"])]


def named_after(report: Report, placed: Sequence[Placed], classes: Classes) -> Report:
    """Return a report whose tables say which classes' images count: title, label and a note."""
    if classes == "all":
        return report
    notes = classes_notes(placed, classes)
    tables = (
        replace(
            table,
            title=f"{table.title}, {classes} classes",
            label=table.label and f"{table.label}-{classes}",
            notes=(*table.notes, *notes),
        )
        for table in report.tables
    )
    return Report(tuple(tables), report.rows)


def _training(placed: Sequence[Placed], dataset: str, classes: Classes) -> str:
    if classes == "unseen":
        return ", zero-shot"
    parts: dict[str, list[str]] = {"trained": [], "known": []}
    for found in placed:
        if found.record.identity.dataset.name == dataset:
            for part in found.record.seen or ():
                if part.part in parts:
                    parts[part.part].append(found.record.identity.model.name)
    names = {part: sorted(set(models)) for part, models in parts.items()}
    if not names["trained"]:
        return ", known to the backbone, no defence was fine-tuned on them"
    others = f"; of {', '.join(names['known'])} known to the backbone alone" if names["known"] else ""
    return f", the defences were fine-tuned on them{others}"


def _part(placed: Placed, classes: Classes) -> Part:
    check_verdict_file(placed, "there are no figures over some of the classes")
    record, known = placed.record, known_images(placed)
    name = record.identity.dataset.name
    if known is None:
        raise InputError(f"--classes {classes}: no class split says which classes of {name} were seen")
    rows = np.flatnonzero(known == (classes == "seen"))
    if not len(rows):
        raise InputError(f"--classes {classes}: no image of {name} is of such a class (split {_split(record)})")
    made = Part(record, placed.path, placed.credit, rows=rows)
    return Part(_counted(record, made.verdicts, _tree(record), classes), placed.path, placed.credit, rows=rows)


def _counted(record: Record, verdicts: Verdicts, hierarchy: Hierarchy, classes: Classes) -> Record:
    """Return a record with every figure made from these verdicts, on a sample list of its own."""
    pooled, dataset = record.identity.attack.pooled, record.identity.dataset
    clean, attacked = scores.calibration_errors(verdicts)
    renamed = dataset.model_copy(
        update={
            "split": f"{dataset.split}, {classes} classes",
            "sample_list_hash": list_hash(verdicts.sample_ids, verdicts.labels),
        }
    )
    return record.model_copy(
        update={
            "identity": record.identity.model_copy(update={"dataset": renamed}),
            "counts": scores.counts(verdicts, declared=len(verdicts.sample_ids)),
            "depths": scores.depth_scores(verdicts, hierarchy, pooled=pooled),
            "transfer": () if pooled else scores.transfer_cells(verdicts),
            "mistakes": scores.tree_mistakes(verdicts, hierarchy),
            "hca_direct": scores.hca_direct(verdicts),
            "seen": None if record.seen is None else tuple(part for part in record.seen if _is(part.part, classes)),
            "rank_preservation": scores.rank_preservation(verdicts),
            "calibration_error_clean": clean,
            "calibration_error_attacked": attacked,
        }
    )


def _is(part: str, classes: Classes) -> bool:
    return (part == "unseen") == (classes == "unseen")


def _tree(record: Record) -> Hierarchy:
    named, dataset = record.identity.hierarchy, record.identity.dataset.name
    tree = load_hierarchy(get_spec(dataset).tree_dataset, named.name)
    if tree.content_hash != named.hash:
        raise InputError(f"--classes: tree {named.name} of {dataset} is not the one that the record was scored by")
    return tree


def _split(record: Record) -> str:
    return "" if record.identity.seen_split is None else record.identity.seen_split.name
