"""The records of a package: read, and held against the card and each other."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hierbench.board.card import AttackCard, Card
from hierbench.board.verify.figures import FROM_OUTSIDE, Cell
from hierbench.board.verify.findings import Report
from hierbench.board.verify.package import IMAGES
from hierbench.board.verify.parquet import open_verdicts, unsound
from hierbench.datasets.catalogue import DATASETS, get_spec
from hierbench.errors import HierbenchError, InputError
from hierbench.evaluation.records import Record
from hierbench.evaluation.replay.file import StoredImages, open_images
from hierbench.evaluation.storage import digest_file
from hierbench.evaluation.stored import read_record
from hierbench.hierarchy.catalogue import load_hierarchy
from hierbench.hierarchy.tree import Hierarchy

MAX_RECORD = 8 * 2**20
_MARKUP = re.compile(r"[<\\$`]")


def read_cell(report: Report, path: Path, card: Card | AttackCard | None) -> Cell | None:
    """Return a record with its verdicts and images; None, with a finding, if one of them cannot be relied on."""
    before = len(report.findings)
    try:
        if path.stat().st_size > MAX_RECORD:
            raise InputError(f"{path}: larger than {MAX_RECORD} bytes, which no record is")
        record = read_record(path)
    except HierbenchError as error:
        report.refuse_error(path, error)
        return None
    for reason in (*_strange_text(record), *_names(record, path, card)):
        report.refuse(path, reason, malformed=True)
    for reason in () if card is None else _not_of_the_card(record, card):
        report.refuse(path, reason)
    if len(report.findings) > before:
        return None
    hierarchy, reason = known_tree(record)
    if hierarchy is None:
        report.refuse(path, reason)
        return None
    return _with_verdicts(report, path, record, hierarchy, None if card is None else path.parent)


def _with_verdicts(
    report: Report, path: Path, record: Record, hierarchy: Hierarchy, folder: Path | None
) -> Cell | None:
    parquet = path.with_name(record.verdicts.file)
    try:
        if not parquet.is_file() or parquet.is_symlink():
            raise InputError(f"{parquet}: is missing; {path.name} names it (verdicts.file)")
        if digest_file(parquet) != record.verdicts.sha256:
            report.refuse(parquet, f"is not the file of {path.name} (verdicts.sha256 differs): a verdict was edited")
            return None
        verdicts = open_verdicts(parquet, record)
    except HierbenchError as error:
        report.refuse_error(parquet, error)
        return None
    reasons = unsound(verdicts, record)
    for reason in reasons:
        report.refuse(parquet, reason, malformed=True)
    if reasons:
        return None
    images, wanted = None, None if folder is None else folder / f"{record.identity.cell}{IMAGES}"
    if wanted is not None and wanted.is_file():
        images = _images(report, wanted)
        if images is None:
            return None
    return Cell(path, record, verdicts, hierarchy, images)


def _images(report: Report, path: Path) -> StoredImages | None:
    try:
        return open_images(path)
    except HierbenchError as error:
        report.refuse_error(path, error)
        return None


def known_tree(record: Record) -> tuple[Hierarchy | None, str]:
    """Return the tree of a record if it is the one of this installation, else why not."""
    theirs, data = record.identity.hierarchy, record.identity.dataset
    if data.name not in DATASETS:
        return None, f"identity.dataset.name: {data.name!r} is not in `hierbench list datasets`"
    spec = get_spec(data.name)
    try:
        tree = load_hierarchy(spec.tree_dataset, theirs.name, classes=spec.class_ids)
    except InputError as error:
        return None, f"identity.hierarchy.name: {error}"
    if tree.content_hash != theirs.hash:
        return None, f"identity.hierarchy.hash: the tree {theirs.name} of {data.name} is another one here"
    nodes = tuple(len(level) for level in tree.levels)
    if (tree.num_leaves, nodes) != (theirs.leaves, theirs.nodes_per_depth):
        return None, f"identity.hierarchy.nodes_per_depth: the tree has {nodes} over {tree.num_leaves} leaves"
    return tree, ""


def _names(record: Record, path: Path, card: Card | AttackCard | None) -> Iterator[str]:
    identity = record.identity
    if path.stem != identity.cell:
        yield f"identity.cell: {identity.cell!r} is not the file's name"
    if record.verdicts.file != f"{identity.cell}.parquet":
        yield f"verdicts.file: should be {identity.cell}.parquet, not {record.verdicts.file!r}"
    if len(set(identity.attack.depths)) != len(identity.attack.depths) or max(identity.attack.depths) > len(
        record.depths
    ):
        yield f"identity.attack.depths: {identity.attack.depths} are not depths of its tree"
    outside = identity.attack.name.startswith(FROM_OUTSIDE)
    if card is not None and outside != isinstance(card, AttackCard):
        yield f"identity.attack.name: {identity.attack.name!r} does not belong in this kind of package"


def _not_of_the_card(record: Record, card: Card | AttackCard) -> Iterator[str]:
    identity = record.identity
    pairs = [
        ("protocol.name", identity.protocol.name, card.protocol),
        ("model.name", identity.model.name, card.model),
        (
            "model.weights_hash",
            identity.model.weights_hash,
            card.weights.weights_hash if isinstance(card, Card) else card.weights_hash,
        ),
    ]
    if isinstance(card, Card):
        pairs.append(("model.backbone", identity.model.backbone, card.weights.backbone))
    for field, theirs, ours in pairs:
        if theirs != ours:
            yield f"identity.{field}: {theirs[:80]!r}, and the card says {ours[:80]!r}"


def _strange_text(record: Record) -> Iterator[str]:
    """Yield each text that a page, a paper or a terminal must not show: markup, control characters."""
    for where, text in _texts("", record.model_dump(mode="json")):
        if not text.isprintable():
            yield f"{where}: holds characters that cannot be printed"
        elif found := _MARKUP.search(text):
            yield f"{where}: holds {found[0]}, which belongs to HTML or LaTeX"


def _texts(where: str, value: Any) -> Iterator[tuple[str, str]]:
    if isinstance(value, str):
        yield where.lstrip("."), value
    elif isinstance(value, dict):
        for key, inner in value.items():
            yield f"{where} (a key)".lstrip("."), str(key)
            yield from _texts(f"{where}.{key}" if str(key).isprintable() else where, inner)
    elif isinstance(value, (list, tuple)):
        for index, inner in enumerate(value):
            yield from _texts(f"{where}.{index}", inner)
