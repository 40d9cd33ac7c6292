"""Records cut down to the images of some classes: those that training may use, or those that it may not."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Literal, get_args

import numpy as np

from hierbench.board.ledger import Placed
from hierbench.datasets.catalogue import DATASETS, get_spec
from hierbench.datasets.sampling import list_hash
from hierbench.datasets.seen import load_seen
from hierbench.errors import HierbenchError, InputError
from hierbench.evaluation import scores
from hierbench.evaluation.records import Record
from hierbench.evaluation.verdicts import Bools, Ints, Verdicts
from hierbench.hierarchy.catalogue import load_hierarchy
from hierbench.hierarchy.tree import Hierarchy
from hierbench.reporting.standings import check_verdict_file
from hierbench.reporting.table import Report, Table

Classes = Literal["all", "seen", "unseen"]


@dataclass(frozen=True)
class Part(Placed):
    """A record over some of its samples: scores and counts are theirs; cost, checks and files stay the whole run's."""

    whole: Placed = field(kw_only=True, compare=False, repr=False)
    rows: Ints = field(kw_only=True, compare=False, repr=False)

    @cached_property
    def verdicts(self) -> Verdicts:
        """The verdicts of these samples."""
        return self.whole.verdicts.over(self.rows)


@dataclass(frozen=True)
class Narrowed:
    """Records over some classes, and what a table of them has to say."""

    placed: tuple[Placed, ...]
    notes: tuple[tuple[str, str], ...] = ()
    """(data set, sentence): whose images count there, or why none do."""

    def of(self, placed: Sequence[Placed]) -> list[Placed]:
        """Return what became of some of the records, without those that are left out."""
        made = {found.path: found for found in self.placed}
        return [made[found.path] for found in placed if found.path in made]

    def notes_of(self, *shown: object) -> list[str]:
        """Return the sentences on the data sets that are named in what is shown, and on those that are left out."""
        words = " ".join(map(str, shown))
        present = {found.record.identity.dataset.name for found in self.placed}
        named = {name for name in present if re.search(rf"(?<!\w){re.escape(name)}(?!\w)", words)}
        return [said for name, said in self.notes if name in named or name not in present]


def known_classes(record: Record) -> Bools | None:
    """Return [classes]: may training use the class? None where no committed split speaks of the record's data set."""
    name, split = record.identity.dataset.name, record.identity.seen_split
    if name not in DATASETS or split is None:
        return None
    try:
        loaded = load_seen(split.name)
    except HierbenchError:
        return None
    if loaded.content_hash != split.hash or not loaded.speaks_of(name):
        return None
    return np.array(loaded.known_mask(name), dtype=np.bool_)


def known_images(placed: Placed) -> Bools | None:
    """Return [n]: may training use the sample's class? None where that is unknown, or a label is no class."""
    known, labels = known_classes(placed.record), placed.verdicts.labels
    if known is None or not np.issubdtype(labels.dtype, np.integer):
        return None
    return known[labels] if np.all((labels >= 0) & (labels < len(known))) else None


def over_classes(placed: Iterable[Placed], classes: Classes) -> Narrowed:
    """Return the records over the images of these classes alone; every class stays a candidate.

    Their figures are made again from the verdicts beside them. A data set without such classes is left out with a note;
    if all are, and where a record and its verdicts do not fit each other, or its tree is not at hand, ``InputError``
    says so. Records that failed their checks stay as they are: no figure of theirs is shown.
    """
    if classes not in get_args(Classes):
        raise InputError(f"--classes: {classes!r} is none of {', '.join(get_args(Classes))}")
    placed = tuple(placed)
    if classes == "all":
        return Narrowed(placed)
    lacking = dict(_lacking(placed, classes))
    kept = tuple(found for found in placed if found.record.identity.dataset.name not in lacking)
    if not kept:
        raise InputError(f"--classes {classes}: {'; '.join(lacking.values())}")
    notes = [(name, f"left out: {reason}") for name, reason in lacking.items()]
    made = tuple(found if found.record.checks.failed else _part(found, classes) for found in kept)
    return Narrowed(made, (*_sentences(made, classes), *notes))


def named_after(report: Report, narrowed: Narrowed, classes: Classes) -> Report:
    """Return a report whose tables say which classes' images count: title, label and notes."""
    if classes == "all":
        return report
    return Report(tuple(_named_after(table, narrowed, classes) for table in report.tables), report.rows)


def _named_after(table: Table, narrowed: Narrowed, classes: Classes) -> Table:
    return replace(
        table,
        title=f"{table.title}, {classes} classes",
        label=table.label and f"{table.label}-{classes}",
        notes=(*table.notes, *narrowed.notes_of(table.title, table.groups, table.columns, table.notes)),
    )


def _lacking(placed: Sequence[Placed], classes: Classes) -> Iterator[tuple[str, str]]:
    """Yield (data set, why) for those that have no class of these."""
    for record in {found.record.identity.dataset.name: found.record for found in placed}.values():
        name, known = record.identity.dataset.name, known_classes(record)
        if known is None:
            yield name, f"no class split says which classes of {name} were seen"
        elif not np.any(known == (classes == "seen")):
            yield name, f"no class of {name} is {classes} (split {_split(record)})"


def _sentences(placed: Sequence[Placed], classes: Classes) -> Iterator[tuple[str, str]]:
    """Yield (data set, whose images count there and what the models have seen of them)."""
    trusted = [found.record for found in placed if not found.record.checks.failed]
    for name in dict.fromkeys(record.identity.dataset.name for record in trusted):
        records = [record for record in trusted if record.identity.dataset.name == name]
        known = known_classes(records[0])
        total, count = (0, 0) if known is None else (len(known), int(np.sum(known == (classes == "seen"))))
        yield (
            name,
            (
                f"{name}: images of the {count} {classes} classes of {total}, all of them candidates (split "
                f"{_split(records[0])}, {_training(records, classes)})"
            ),
        )


def _training(records: Sequence[Record], classes: Classes) -> str:
    if classes == "unseen":
        return "zero-shot"
    parts = {part: sorted({r.identity.model.name for r in records if any(p.part == part for p in r.seen or ())})
             for part in ("trained", "known")}  # fmt: skip
    if not parts["trained"]:
        return "known to the backbone, no defence was fine-tuned on them"
    others = f"; of {', '.join(parts['known'])} known to the backbone alone" if parts["known"] else ""
    return f"the defences were fine-tuned on them{others}"


def _part(placed: Placed, classes: Classes) -> Part:
    check_verdict_file(placed, "there are no figures over some of the classes")
    path = placed.path.with_name(placed.record.verdicts.file)
    try:
        tree = _tree(placed.record)
        _check_fit(placed, tree)
        known = known_images(placed)
        rows = np.flatnonzero(known == (classes == "seen"))
        if not len(rows):
            raise InputError(f"no image of {placed.record.identity.dataset.name} is of the {classes} classes")
        record = _counted(placed.record, placed.verdicts.over(rows), tree, classes)
    except InputError as error:
        raise InputError(f"--classes {classes}: {placed.path}: {error}") from None
    except (HierbenchError, ValueError, TypeError, LookupError) as error:
        raise InputError(f"--classes {classes}: {path}: its verdicts cannot be read ({error})") from None
    return Part(record, placed.path, placed.credit, whole=placed, rows=rows)


def _check_fit(placed: Placed, tree: Hierarchy) -> None:
    """Raise ``InputError`` unless the verdicts are of as many samples, depths and classes as the record says."""
    record, verdicts = placed.record, placed.verdicts
    if not len(verdicts.sample_ids) == record.verdicts.rows == record.counts.scored:
        raise InputError(f"its verdicts are of {len(verdicts.sample_ids)} samples, not of {record.counts.scored}")
    if not verdicts.num_depths == len(record.depths) == tree.num_depths:
        raise InputError(f"its verdicts have {verdicts.num_depths} depths, the tree has {tree.num_depths}")
    if not verdicts.attacked:
        raise InputError("its verdicts hold no attack")
    numbers = {"labels": (verdicts.labels, 0), "clean predictions": (verdicts.clean.predicted, -1)}
    for depth, attack in verdicts.attacked.items():
        numbers[f"predictions under the attack at depth {depth}"] = (attack.predicted, -1)
        numbers[f"full-budget predictions at depth {depth}"] = (attack.severity_predicted, -1)
    for name, (values, least) in numbers.items():
        whole = np.issubdtype(values.dtype, np.integer)
        if not whole or not np.all((values >= least) & (values < tree.num_leaves)):
            raise InputError(f"its verdicts have {name} that are none of the {tree.num_leaves} classes")


def _counted(record: Record, verdicts: Verdicts, hierarchy: Hierarchy, classes: Classes) -> Record:
    """Return a record with every score made from these verdicts, on a sample list of its own."""
    pooled, dataset = record.identity.attack.pooled, record.identity.dataset
    clean, attacked = scores.calibration_errors(verdicts)
    renamed = dataset.model_copy(
        update={
            "split": f"{dataset.split}, {classes} classes",
            "sample_list_hash": list_hash(verdicts.sample_ids, verdicts.labels),
        }
    )
    parts = tuple(part for part in record.seen or () if (part.part == "unseen") == (classes == "unseen"))
    return record.model_copy(
        update={
            "identity": record.identity.model_copy(update={"dataset": renamed}),
            "counts": scores.counts(verdicts, declared=len(verdicts.sample_ids)),
            "depths": scores.depth_scores(verdicts, hierarchy, pooled=pooled),
            "transfer": () if pooled else scores.transfer_cells(verdicts),
            "mistakes": scores.tree_mistakes(verdicts, hierarchy),
            "hca_direct": scores.hca_direct(verdicts),
            "seen": parts or None,
            "rank_preservation": scores.rank_preservation(verdicts),
            "calibration_error_clean": clean,
            "calibration_error_attacked": attacked,
        }
    )


def _tree(record: Record) -> Hierarchy:
    named, dataset = record.identity.hierarchy, record.identity.dataset.name
    tree = load_hierarchy(get_spec(dataset).tree_dataset, named.name)
    if tree.content_hash != named.hash:
        raise InputError(f"tree {named.name} of {dataset} is not the one that it was scored by")
    return tree


def _split(record: Record) -> str:
    return "" if record.identity.seen_split is None else record.identity.seen_split.name
