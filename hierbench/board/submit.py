"""A submission: what a protocol wants of a model, evaluated where it is missing, and packed."""

from __future__ import annotations

import fnmatch
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from hierbench.board.card import Card, PackedFile, Weights
from hierbench.board.pack import pack
from hierbench.errors import InputError
from hierbench.evaluation.protocol import PROTOCOLS, Protocol
from hierbench.evaluation.request import Request

if TYPE_CHECKING:
    from hierbench.evaluation.cell import Cell
    from hierbench.evaluation.observer import Observer
    from hierbench.models.zeroshot import ZeroShotModel

SAMPLES = 64
"""Adversarial images of each run that are packed unless told otherwise."""


@dataclass(frozen=True)
class Words:
    """What the submitter says; None: what the model says of itself."""

    authors: tuple[str, ...]
    title: str | None = None
    paper: str | None = None
    code: str | None = None
    trained_on: str | None = None
    licence: str | None = None
    weights_url: str | None = None
    note: str | None = None
    rand: bool = False


@dataclass(frozen=True)
class Wanted:
    """One cell of a protocol."""

    dataset: str
    attack: str

    @property
    def words(self) -> str:
        """As a card spells it."""
        return f"{self.dataset} {self.attack}"

    @property
    def keeps_images(self) -> bool:
        """Attacks on text leave no image that could be judged alone."""
        from hierbench.attacks.text.specs import is_text_attack

        return not is_text_attack(self.attack)


@dataclass(frozen=True)
class Selected:
    """The cells of a protocol that are submitted, and those that are not."""

    protocol: Protocol
    cells: tuple[Wanted, ...]
    left_out: tuple[Wanted, ...] = field(default=())


def select_cells(protocol: Protocol, datasets: Sequence[str], attacks: Sequence[str]) -> Selected:
    """Return the cells that a protocol wants of a submission, or those of the named data sets and attacks (wildcards).

    An attack may be any of the protocol's; what is wanted and not chosen is left out, and said to be.
    A name that matches nothing is an ``InputError`` naming the flag.
    """
    names = {"--dataset": [d.name for d in protocol.datasets], "--attack": list(protocol.attacks.names)}
    for flag, patterns in (("--dataset", datasets), ("--attack", attacks)):
        for pattern in patterns:
            if not fnmatch.filter(names[flag], pattern):
                known = ", ".join(names[flag])
                raise InputError(f"{flag}: {pattern!r} is none of {protocol.name}'s, which are {known}")
    wanted = tuple(Wanted(dataset, a) for dataset in names["--dataset"] for a in protocol.attacks.required)
    offered = [Wanted(dataset, a) for dataset in names["--dataset"] for a in names["--attack"]] if attacks else wanted
    chosen = tuple(c for c in offered if _taken(c.dataset, datasets) and _taken(c.attack, attacks))
    return Selected(protocol, chosen, tuple(c for c in wanted if c not in chosen))


def _taken(name: str, patterns: Sequence[str]) -> bool:
    return not patterns or any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)


def find_protocol(name: str) -> Protocol:
    """Return a protocol by name; an unknown one is an ``InputError`` with the nearest."""
    return PROTOCOLS.get(name)


def load_submitted(name: str, protocol: Protocol) -> ZeroShotModel:
    """Return the model that a name or a folder means under a protocol."""
    from hierbench.models.catalogue import UNDEFENDED, resolve_model
    from hierbench.models.load import load_model

    entry = resolve_model(UNDEFENDED if name == "none" else name, protocol.variant)
    return load_model(entry, backbone=protocol.backbone if entry.name == UNDEFENDED else None)


def prepare(wanted: Wanted, protocol: Protocol, model: ZeroShotModel, options: Mapping[str, Any]) -> Cell:
    """Return the cell of a model, ready to run; ``options`` are the request's ``device``, ``out``, ``data_root``."""
    from hierbench.evaluation.prepare import prepare_cell

    request = Request(
        model=model.name,
        dataset=wanted.dataset,
        attack=wanted.attack,
        protocol=protocol.name,
        store_images="8bit" if wanted.keeps_images else None,
        **options,
    )
    cell = prepare_cell(request, model=model)
    deviations = cell.identity.protocol.deviations
    if deviations:
        raise InputError(f"--protocol: {protocol.name} does not fit {model.name}: {deviations[0]}")
    return cell


def check_rules(cells: Sequence[Cell], protocol: Protocol, *, rand: bool) -> None:
    """Refuse a model that breaks an acceptance rule, before hours are spent on it."""
    import numpy as np
    import torch

    from hierbench.board.verify import rules

    cell = cells[0]
    victim: Any = cell.victim
    count = min(rules.IMAGES, len(cell.images.ids))
    pixels = cell.images.pixels(np.arange(count)).to(torch.float32) / 255
    labels = torch.from_numpy(np.asarray(cell.images.labels[:count]))
    leaves = victim.layout.num_leaves
    seen = rules.observe(
        lambda given: victim.forward(given)[:, :leaves],
        victim.forward,
        pixels.to(victim.device),
        labels.to(victim.device),
    )
    names = tuple(cell.identity.attack.name for cell in cells)
    variant = "rand" if rand else "standard"
    for reason in rules.breaches(seen, protocol, variant=variant, evaluated=names):
        raise InputError(f"--model: {cell.identity.model.name}: {reason}")


def finished(cell: Cell) -> bool:
    """Say whether a cell needs no evaluation any more."""
    from hierbench.evaluation.replay.gather import finished as record_of

    return record_of(cell) is not None


def evaluate_missing(cell: Cell, observer: Observer | None = None) -> None:
    """Evaluate a cell unless it is finished; an interrupted one goes on. A failed trust check is an ``InputError``."""
    from hierbench.evaluation.runner import run_cell

    record = run_cell(cell, observer=observer)
    for flag in record.checks.flags:
        if flag.level == "failed":
            raise InputError(f"{cell.record_path}: {flag.code}: {flag.message}; this run cannot be submitted")


def pack_submission(
    out: Path, selected: Selected, model: ZeroShotModel, cells: Sequence[Cell], words: Words, *, samples: int
) -> Path:
    """Write the package of finished cells to ``<out>/submissions/<protocol>/<model>/`` and return that folder."""
    from hierbench.evaluation.replay.cut import cut_images
    from hierbench.evaluation.replay.file import images_path

    def fill(folder: Path) -> None:
        for cell in cells:
            for path in (cell.record_path, cell.verdicts_path):
                shutil.copyfile(path, folder / path.name)
            if cell.store_images is not None:
                kept = images_path(cell.folder, cell.identity.cell, cell.store_images)
                cut_images(kept, folder / kept.name, rows=samples)

    def make_card(files: Any) -> Card:
        return make_submission_card(selected, model, words, files)

    folder = out / "submissions" / selected.protocol.name / model.name
    pack(folder, fill, make_card)
    return folder


def make_submission_card(selected: Selected, model: ZeroShotModel, words: Words, files: tuple[PackedFile, ...]) -> Card:
    """Return the card of a submission; a field that it cannot hold is an ``InputError`` naming the flag."""
    try:
        weights = Weights(weights_hash=model.weights_hash, backbone=model.backbone, address=words.weights_url)
    except ValidationError:
        raise InputError("--weights-url: give an https address of letters, digits and /._~%?&=+@:-") from None
    card: Card = read_words(
        Card,
        protocol=selected.protocol.name,
        model=model.name,
        title=words.title or model.info.defence,
        authors=words.authors,
        paper=words.paper,
        code=words.code,
        note=words.note,
        trained_on=words.trained_on or model.info.trained_on or "nothing: the backbone as it is",
        licence=words.licence,
        submitted=today(),
        variant="rand" if words.rand else "standard",
        left_out=tuple(cell.words for cell in selected.left_out),
        weights=weights,
        files=files,
    )
    return card


def check_words(selected: Selected, model: ZeroShotModel, words: Words) -> None:
    """Refuse what a card could not hold, naming the flag, before anything is evaluated."""
    from hierbench.models.catalogue import MODELS

    if not words.authors:
        raise InputError("--author: name at least one; the option may be given again")
    if not words.licence:
        raise InputError("--licence: say under which licence the weights are, such as MIT")
    if words.weights_url is None and model.name not in MODELS:
        raise InputError(f"--weights-url: hierbench does not ship {model.name}; say where its folder can be had")
    file = PackedFile(name="record.json", sha256="sha256:" + "0" * 64, size=1)
    make_submission_card(selected, model, words, (file,))


def today() -> str:
    """Return the date, UTC."""
    return datetime.now(UTC).strftime("%Y-%m-%d")


_FLAGS = {
    "authors": "--author", "title": "--title", "paper": "--paper", "code": "--code", "note": "--note",
    "trained_on": "--trained-on", "licence": "--licence", "weights": "--weights-url", "model": "--model",
    "name": "--name",
}  # fmt: skip


def read_words(kind: Callable[..., Any], **fields: Any) -> Any:
    """Return a card; a field that it cannot hold is an ``InputError`` naming the flag it came from."""
    try:
        return kind(**fields)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        place = str(first["loc"][0]) if first["loc"] else ""
        raise InputError(
            f"{_FLAGS.get(place, place or 'card')}: {first['msg'].removeprefix('Value error, ')}"
        ) from None
