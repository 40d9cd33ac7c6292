"""The board's folders read as entries, and the standings that follow from them.

``records/<protocol>/<model>/`` are the project's own, ``submissions/<protocol>/<model>/`` came with a card,
``attacks/<protocol>/<model>/<name>/`` hold images that others made against a listed model, with the record of what the
model said to them. Nothing is believed here that ``hierbench board verify`` did not look at before it was merged.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal, TypeVar

import numpy as np
from pydantic import ValidationError

from hierbench.board.card import ATTACK_FILE, CARD_FILE, AttackCard, Card
from hierbench.errors import InputError
from hierbench.evaluation.records import DepthScores, Proportion, Record
from hierbench.evaluation.scores import proportion
from hierbench.evaluation.stored import read_record, record_paths
from hierbench.evaluation.verdicts import Bools, Verdicts, read_verdicts

SCORINGS: tuple[Literal["rollup", "direct"], ...] = ("rollup", "direct")
PARTS = ("records", "submissions", "attacks")
"""The folders of a board; one of them makes a folder a board."""
MAX_CARD_BYTES = 2**20

AnyCard = TypeVar("AnyCard", Card, AttackCard)


@dataclass(frozen=True)
class Placed:
    """A record, where it lies, and whom it is credited to if others made its images."""

    record: Record
    path: Path
    credit: AttackCard | None = None

    @cached_property
    def verdicts(self) -> Verdicts:
        """The verdicts beside it."""
        return read_verdicts(self.path.with_name(self.record.verdicts.file))


@dataclass(frozen=True)
class Ground:
    """What two figures must share to be compared: protocol, images, tree, threat model."""

    protocol: str
    version: int
    dataset: str
    split: str
    revision: str | None
    sample_list_hash: str
    template: str
    tree: str
    tree_hash: str
    norm: str
    eps: str

    @classmethod
    def of(cls, record: Record) -> Ground:
        """Return the ground a record stands on."""
        identity = record.identity
        return cls(
            protocol=identity.protocol.name,
            version=identity.protocol.version,
            dataset=identity.dataset.name,
            split=identity.dataset.split,
            revision=identity.dataset.revision,
            sample_list_hash=identity.dataset.sample_list_hash,
            template=identity.dataset.template,
            tree=identity.hierarchy.name,
            tree_hash=identity.hierarchy.hash,
            norm=identity.attack.norm,
            eps=identity.attack.eps,
        )


@dataclass(frozen=True)
class DepthStanding:
    """One depth under one scoring: clean, and per sample the worst over every attack of the standing."""

    depth: int
    nodes: int
    chance: float
    clean: Proportion
    worst: Proportion
    relative: float | None
    """worst / clean; None where clean is 0."""


@dataclass(frozen=True)
class Standing:
    """One model on one ground: the worst case over all its records there, others' images included."""

    entry: Entry
    ground: Ground
    placed: tuple[Placed, ...]

    @property
    def samples(self) -> int:
        """Number of scored samples."""
        return self.placed[0].record.counts.scored

    @property
    def attacks(self) -> tuple[str, ...]:
        """Names of the attacks in the worst case."""
        return tuple(dict.fromkeys(p.record.identity.attack.name for p in self.placed))

    @property
    def credits(self) -> tuple[AttackCard, ...]:
        """Whose images besides the entry's own are in the worst case."""
        return tuple(p.credit for p in self.placed if p.credit is not None)

    def broken(self, scoring: str) -> Bools | None:
        """Return [n, D]: broken by any attack of the standing, or when clean; None without that scoring."""
        parts = [
            found
            for p in self.placed
            for depth in p.verdicts.attacked
            if (found := p.verdicts.attack_broken(depth, scoring)) is not None
        ]
        return np.logical_or.reduce(parts) if parts else None

    def depths(self, scoring: str) -> tuple[DepthStanding, ...]:
        """Return the standing at every depth, coarsest first; empty without that scoring."""
        broken = self.broken(scoring)
        if broken is None:
            return ()
        found = []
        for entry in self.placed[0].record.depths:
            scores = entry.rollup if scoring == "rollup" else entry.direct
            if scores is None:
                return ()
            worst = proportion(~broken[:, entry.depth - 1])
            relative = worst.count / scores.clean.count if scores.clean.count else None
            found.append(DepthStanding(entry.depth, entry.nodes, scores.chance, scores.clean, worst, relative))
        return tuple(found)

    @property
    def scored(self) -> tuple[DepthScores, ...]:
        """The depths of its first record, for what does not depend on the attack."""
        return self.placed[0].record.depths


@dataclass(frozen=True)
class Entry:
    """One model of one protocol, by its weights."""

    protocol: str
    model: str
    weights_hash: str
    card: Card | None
    """None: one of the project's own."""
    placed: tuple[Placed, ...]

    @property
    def standings(self) -> tuple[Standing, ...]:
        """The model's standings, one a ground, in the order of their records."""
        grounds: dict[Ground, list[Placed]] = {}
        for placed in self.placed:
            grounds.setdefault(Ground.of(placed.record), []).append(placed)
        return tuple(Standing(self, ground, tuple(found)) for ground, found in grounds.items())


@dataclass(frozen=True)
class Board:
    """Everything that the board's folders hold."""

    folder: Path
    entries: tuple[Entry, ...]

    def standings(self, protocol: str | None = None) -> Iterator[Standing]:
        """Yield the standings of a protocol, or of all."""
        for entry in self.entries:
            if protocol is None or entry.protocol == protocol:
                yield from entry.standings


def read_board(folder: Path) -> Board:
    """Read the board under a folder; a damaged record or card is an ``InputError`` that names its file."""
    if not any((folder / part).is_dir() for part in PARTS):
        missing = "has none of these" if folder.is_dir() else "is not a folder"
        raise InputError(
            f"--board: give a folder with {', '.join(PARTS[:-1])} or {PARTS[-1]} in it; {folder} {missing}"
        )
    placed: dict[tuple[str, str, str], list[Placed]] = {}
    cards: dict[tuple[str, str, str], Card] = {}
    for path in _records(folder / "records"):
        _place(placed, Placed(read_record(path), path))
    for path in sorted((folder / "submissions").glob(f"*/*/{CARD_FILE}")):
        card = read_card(path, Card)
        cards[card.protocol, card.model, card.weights.weights_hash] = card
        for file in _records(path.parent):
            _place(placed, Placed(read_record(file), file))
    for path in sorted((folder / "attacks").glob(f"*/*/*/{ATTACK_FILE}")):
        credit = read_card(path, AttackCard)
        for file in _records(path.parent):
            _place(placed, Placed(read_record(file), file, credit))
    entries = tuple(
        Entry(protocol, model, weights, cards.get((protocol, model, weights)), tuple(found))
        for (protocol, model, weights), found in placed.items()
    )
    return Board(folder, entries)


def read_card(path: Path, kind: type[AnyCard]) -> AnyCard:
    """Read a card; anything wrong is an ``InputError`` naming the file and the field."""
    try:
        if path.stat().st_size > MAX_CARD_BYTES:
            raise InputError(f"{path}: larger than 1 MiB, which no card is")
        return kind.model_validate_json(path.read_bytes())
    except OSError as error:
        raise InputError(f"{path}: {error.strerror or error}") from None
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"]) or "file"
        raise InputError(f"{path}: {where[:80]}: {first['msg'][:200]}") from None


def _records(folder: Path) -> Sequence[Path]:
    named = (CARD_FILE, ATTACK_FILE)
    return [path for path in record_paths(folder) if path.name not in named]


def _place(placed: dict[tuple[str, str, str], list[Placed]], found: Placed) -> None:
    identity = found.record.identity
    key = (identity.protocol.name, identity.model.name, identity.model.weights_hash)
    placed.setdefault(key, []).append(found)
