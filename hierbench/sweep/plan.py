"""Plan files: models x data sets x attacks x eps as TOML, expanded into cells."""

from __future__ import annotations

import fnmatch
import itertools
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NoReturn

from hierbench.errors import InputError
from hierbench.evaluation.protocol import PROTOCOLS, Protocol
from hierbench.evaluation.request import Request
from hierbench.evaluation.storage import digest_json
from hierbench.models.catalogue import shared_model_name
from hierbench.paths import data_dir
from hierbench.registry import UnknownNameError
from hierbench.sweep.trained import KEYS, PlannedTraining, planned

MAX_CELLS = 100_000
_TOP = {"name": str, "description": str, "protocol": str, "cells": list, "train": list}
_AXES: Mapping[str, type] = {
    "models": str, "datasets": str, "trees": str, "attacks": str, "eps": str, "scorings": str, "seeds": int,
}  # fmt: skip
_SINGLE: Mapping[str, type] = {
    "limit": int, "split": str, "norm": str, "depths": list, "settings": dict, "store_images": str, "template": str,
    "batch_size": int, "severity_samples": int, "search_precision": str, "compile": bool, "engine": str,
    "rank_preservation": bool,
}  # fmt: skip
_KINDS = {str: "a string", int: "a whole number", list: "a list", dict: "a table", bool: "true or false"}


@dataclass(frozen=True)
class PlannedCell:
    """One cell of a plan: what ``hierbench eval`` would be asked."""

    request: Request

    @property
    def key(self) -> str:
        """Eight characters that name the cell among those of its results folder."""
        return digest_json(self.request.given()).removeprefix("sha256:")[:8]

    @property
    def title(self) -> str:
        """The cell in words, without what its protocol says anyway."""
        r = self.request
        words = [shared_model_name(r.model), str(r.dataset), str(r.attack)]
        words += [] if r.eps is None else [f"eps {r.eps}"]
        words += [] if r.scoring is None else [r.scoring]
        words += [] if r.tree is None else [f"tree {r.tree}"]
        words += [] if r.split is None else [f"split {r.split}"]
        words += [] if r.limit is None else [f"n {r.limit}"]
        words += [] if r.seed is None else [f"seed {r.seed}"]
        words += [f"{name} {value}" for name, value in r.settings.items()]
        return " ".join(words)


@dataclass(frozen=True)
class SweepPlan:
    """A plan file with its cells in order, each once."""

    name: str
    protocol: Protocol
    cells: tuple[PlannedCell, ...]
    path: Path
    trainings: tuple[PlannedTraining, ...] = ()
    """Models of the cells that are trained first, in order, each once."""


def find_plan(text: str) -> Path:
    """Return a plan's file: a path, or the name of one that hierbench brings along."""
    shipped = data_dir() / "leaderboard" / "plans" / f"{text}.toml"
    path = Path(text)
    if path.suffix == ".toml" or path.name != text or path.exists():
        return path
    if not shipped.is_file():
        names = ", ".join(sorted(plan.stem for plan in shipped.parent.glob("*.toml")))
        raise InputError(f"plan {text!r}: no such plan; give a .toml file, or one of {names}")
    return shipped


def read_plan(
    path: Path,
    *,
    out: Path | None = None,
    models: Path | None = None,
    device: str | None = None,
    data_root: Path | None = None,
) -> SweepPlan:
    """Read a plan and expand it; anything wrong raises ``InputError`` naming the file and the key.

    Each table of ``[[cells]]`` is a product: a list of models, of data sets and of attacks, and where they are given
    of trees, eps, scorings and seeds. Models and attacks may be wildcards. What is not said is the protocol's.
    """
    content = _content(path)
    reader = _Reader(path)
    reader.table("", content, {**_TOP}, needed=("protocol", "cells"))
    try:
        protocol = PROTOCOLS.get(content["protocol"])
    except UnknownNameError as error:
        reader.refuse("protocol", str(error))
    reader.trainings(content.get("train", []), models=models, device=device, data_root=data_root)
    base = Request(protocol=protocol.name, out=out, device=device, data_root=data_root)
    cells: dict[str, PlannedCell] = {}
    for number, table in enumerate(content["cells"]):
        for request in reader.product(f"cells[{number}]", table, protocol, base):
            cell = PlannedCell(request)
            cells.setdefault(cell.key, cell)
            if len(cells) > MAX_CELLS:
                reader.refuse(f"cells[{number}]", f"the plan has more than {MAX_CELLS} cells")
    if not cells:
        reader.refuse("cells", "needs at least one table")
    trainings = tuple(reader.trained.values())
    return SweepPlan(str(content.get("name", path.stem)), protocol, tuple(cells.values()), path, trainings)


def _content(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"plan {path}: {error.strerror or error}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"plan {path}: not valid TOML: {error}") from None


class _Reader:
    def __init__(self, path: Path) -> None:
        self.path = path
        self.trained: dict[str, PlannedTraining] = {}

    def trainings(self, tables: Sequence[Any], **places: Any) -> None:
        """Read the ``[[train]]`` tables; their models can be named in the cells."""
        for number, table in enumerate(tables):
            where = f"train[{number}]"
            self.table(where, table, KEYS, needed=("recipe",))
            try:
                found = planned(table, **places)
            except InputError as error:
                self.refuse(where, str(error))
            for training in found:
                if training.name in self.trained:
                    self.refuse(where, f"model {training.name} is trained twice; give one of them another variant")
                self.trained[training.name] = training

    def refuse(self, key: str, reason: str) -> NoReturn:
        raise InputError(f"plan {self.path}: {key}: {reason}")

    def table(self, where: str, table: Any, known: Mapping[str, type], needed: Sequence[str]) -> None:
        if not isinstance(table, dict):
            self.refuse(where, "must be a table")
        prefix = f"{where}." if where else ""
        for key, value in table.items():
            if key not in known:
                self.refuse(prefix + key, f"unknown key; known are {', '.join(known)}")
            if not isinstance(value, known[key]) or (isinstance(value, bool) and known[key] is not bool):
                self.refuse(prefix + key, f"must be {_KINDS[known[key]]}, not {value!r}")
        for key in needed:
            if key not in table:
                self.refuse(prefix + key, "missing")

    def product(self, where: str, table: Any, protocol: Protocol, base: Request) -> Iterator[Request]:
        known = dict.fromkeys(_AXES, list) | dict(_SINGLE)
        self.table(where, table, known, needed=("models", "attacks"))
        axes = {name: self._axis(where, name, table.get(name)) for name in _AXES}
        axes["models"] = self._models(where, axes["models"], protocol)
        axes["attacks"] = self._attacks(where, axes["attacks"])
        axes["datasets"] = self._datasets(where, axes["datasets"], protocol)
        single = {name: table[name] for name in _SINGLE if name in table}
        if "depths" in single:
            if not all(isinstance(d, int) and not isinstance(d, bool) for d in single["depths"]):
                self.refuse(f"{where}.depths", "must be a list of whole numbers")
            single["depths"] = tuple(single["depths"])
        names = ("dataset", "model", "attack", "eps", "scoring", "tree", "seed")
        order = ("datasets", "models", "attacks", "eps", "scorings", "trees", "seeds")
        for values in itertools.product(*(axes[name] for name in order)):
            yield replace(base, **single, **dict(zip(names, values, strict=True)))

    def _axis(self, where: str, name: str, values: Any) -> list[Any]:
        if values is None:
            return [None]
        kind = _AXES[name]
        if not values or not all(isinstance(v, kind) and not isinstance(v, bool) for v in values):
            self.refuse(f"{where}.{name}", f"must be a list of at least one entry, each {_KINDS[kind]}")
        if len(set(values)) != len(values):
            self.refuse(f"{where}.{name}", "names an entry twice")
        return list(values)

    def _models(self, where: str, patterns: Sequence[str], protocol: Protocol) -> list[str]:
        from hierbench.models.catalogue import match_models

        try:
            return list(dict.fromkeys(m.name for p in patterns for m in self._folder_or(p, match_models, protocol)))
        except InputError as error:
            self.refuse(f"{where}.models", str(error))

    def _folder_or(self, pattern: str, match: Any, protocol: Protocol) -> list[Any]:
        if "/" in pattern or "\\" in pattern:  # a folder keeps its path: its name alone would not find it again
            return [_Named(pattern)]
        own = [t for name, t in self.trained.items() if fnmatch.fnmatchcase(name, pattern)]
        named: list[Any] = [_Named(str(training.folder)) for training in own]
        try:
            shipped: list[Any] = [m for m in match(pattern, protocol.variant) if m.name not in self.trained]
        except InputError:
            if not named:
                raise
            shipped = []
        return [*shipped, *named]

    def _attacks(self, where: str, patterns: Sequence[str]) -> list[str]:
        from hierbench.attacks.catalogue import ATTACKS

        try:
            return list(dict.fromkeys(name for pattern in patterns for name in ATTACKS.match(pattern)))
        except InputError as error:
            self.refuse(f"{where}.attacks", str(error))

    def _datasets(self, where: str, names: Sequence[str | None], protocol: Protocol) -> list[str]:
        from hierbench.datasets.catalogue import get_spec

        if list(names) == [None]:
            return [entry.name for entry in protocol.datasets]
        try:
            return [get_spec(str(name)).name for name in names]
        except InputError as error:
            self.refuse(f"{where}.datasets", str(error))


@dataclass(frozen=True)
class _Named:
    name: str
