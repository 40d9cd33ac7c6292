"""The board that a package wants to join: whose rows are there, and which of them it would repeat."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from hierbench.board.card import CARD_FILE, AttackCard, Card
from hierbench.board.ledger import Ground, Placed, read_card
from hierbench.board.verify.figures import Cell
from hierbench.board.verify.grounds import ListKey, key_of
from hierbench.errors import HierbenchError, InputError
from hierbench.evaluation.records import Record
from hierbench.evaluation.stored import read_record

AGREE = 0.99
"""Share of clean predictions that two machines have in common at least."""


@dataclass(frozen=True)
class Row:
    """One model on the board."""

    protocol: str
    model: str
    weights_hash: str
    folder: Path


@dataclass(frozen=True)
class KnownBoard:
    """The board's folders, as far as they can be read: a broken row is the business of its own verification."""

    folder: Path

    @cached_property
    def own(self) -> tuple[Placed, ...]:
        """The project's own records."""
        return tuple(_readable(sorted((self.folder / "records").glob("*/*/*.json"))))

    @cached_property
    def rows(self) -> tuple[Row, ...]:
        """Every model, once a folder."""
        found: dict[Row, None] = {}
        for placed in self.own:
            identity = placed.record.identity
            model = identity.model
            found[Row(identity.protocol.name, model.name, model.weights_hash, placed.path.parent)] = None
        for path in sorted((self.folder / "submissions").glob(f"*/*/{CARD_FILE}")):
            try:
                card = read_card(path, Card)
            except InputError:
                continue
            found[Row(card.protocol, card.model, card.weights.weights_hash, path.parent)] = None
        return tuple(found)

    @cached_property
    def samples(self) -> dict[ListKey, Record]:
        """A record of the project's for each (protocol, dataset, split): it says what is scored."""
        return {key_of(p.record): p.record for p in self.own if not p.record.identity.protocol.custom}

    def repeats(self, card: Card, place: Path) -> Iterator[str]:
        """Yield why a submission would be a second row of something that is there; ``place`` is its own folder."""
        from hierbench.models.catalogue import MODELS

        weights = card.weights.weights_hash
        for row in self.rows:
            if row.protocol != card.protocol or row.folder.resolve() == place.resolve():
                continue
            if row.weights_hash == weights:
                yield f"weights.weights_hash: {row.model} of {row.protocol} is on the board with the same weights"
                return
            if row.model == card.model:
                yield f"model: {card.model} of {row.protocol} is on the board with other weights; choose another name"
                return
        if card.model in MODELS and card.weights.address is not None:
            yield f"model: {card.model} is the name of a model that hierbench ships; choose another name"

    def strikes(self, card: AttackCard, cells: Sequence[Cell], path: Path) -> Iterator[tuple[Path, str]]:
        """Yield why an external attack is none on a listed model."""
        rows = [r for r in self.rows if r.protocol == card.protocol and r.weights_hash == card.weights_hash]
        if not rows or rows[0].model != card.model:
            yield path, f"weights_hash: {card.model} with these weights is not on the board of {card.protocol}"
            return
        listed = [p for row in rows for p in _readable(sorted(row.folder.glob("*.json")))]
        for cell in cells:
            same = [p for p in listed if Ground.of(p.record) == Ground.of(cell.record)]
            if not same:
                yield cell.path, f"identity: {card.model} has no record on this ground (images, tree, eps, prompt)"
                continue
            try:
                equal = np.mean(same[0].verdicts.clean.predicted == cell.verdicts.clean.predicted)
            except HierbenchError:
                continue
            if equal < AGREE:
                reason = f"{1 - equal:.1%} of the clean predictions are not those of {same[0].path.name}"
                yield cell.verdicts_path, f"clean_prediction: {reason}"


def _readable(paths: Sequence[Path]) -> Iterator[Placed]:
    for path in paths:
        if path.name.startswith(".") or path.name == CARD_FILE or path.is_symlink():
            continue
        try:
            yield Placed(read_record(path), path)
        except InputError:
            continue
