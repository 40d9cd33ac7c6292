"""Protocols: named, versioned files that say what is held fixed so that results can be compared."""

from __future__ import annotations

import fnmatch
import re
import tomllib
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, NoReturn

from hierbench.attacks.precision_names import SEARCH_PRECISIONS, SearchPrecision
from hierbench.datasets.excluded import load_exclusion
from hierbench.errors import InputError
from hierbench.evaluation.storage import digest_json
from hierbench.paths import data_dir
from hierbench.registry import Registry

DEFAULT_PROTOCOL = "digits-v1"
NORMS = ("linf", "l2")
SCORINGS = ("rollup", "direct")

Value = str | int | float | bool


@dataclass(frozen=True)
class ProtocolDataset:
    """One data set of a protocol, and the threat model's radius on it."""

    name: str
    default_eps: str
    """Radius used when none is named, as an exact fraction."""
    eps: tuple[str, ...]
    """All radii of the protocol."""
    tree: str | None = None
    """Tree scored by default; None is the data set's default tree."""
    split: str | None = None
    """None is the data set's evaluation split."""
    limit: int | None = None
    """First n samples of the stratified list; None is all of them."""
    limits: tuple[int, ...] = ()
    """Shorter lists that are the protocol's too, each a ground of its own: figures on one are not those on another."""
    template: str | None = None
    """Prompt template; None is the data set's own."""
    without: str | None = None
    """List under ``leaderboard/left_out`` of samples that are not scored; see ``datasets.excluded``."""


@dataclass(frozen=True)
class ProtocolAttacks:
    """Attacks of a protocol and their budget."""

    names: tuple[str, ...]
    default: str
    """What ``hierbench eval`` runs unless told otherwise: quick."""
    headline: str
    """What a model's standing rests on: strong."""
    required: tuple[str, ...]
    """What a submission to the board brings at least, the headline among it."""
    norm: str
    parameters: Mapping[str, Mapping[str, Value]]
    """Settings by attack name, which may be a wildcard; a setting that an attack does not have passes it by."""
    search_precision: SearchPrecision = "fp32"
    """The coarsest arithmetic that a search on images may run in; verdicts are float32's whatever it is."""

    def fixed(self, attack: str, known: Collection[str]) -> dict[str, Value]:
        """Return the settings that the protocol fixes of an attack with the ``known`` parameters.

        An attack that is none of the protocol's has none: another one's steps are not the same thing.
        """
        if attack not in self.names:
            return {}
        tables = [table for name, table in self.parameters.items() if fnmatch.fnmatchcase(attack, name)]
        return {name: value for table in tables for name, value in table.items() if name in known}


@dataclass(frozen=True)
class Protocol:
    """What a protocol file says."""

    name: str
    version: int
    title: str
    description: str
    backbone: str
    variant: str
    """Models are ``<defence>.<variant>``: what a bare defence name stands for."""
    train_dataset: str
    train_eps: str
    train_settings: Mapping[str, Value]
    """The recipe its models are trained by, where it differs from the trainer's defaults."""
    datasets: tuple[ProtocolDataset, ...]
    attacks: ProtocolAttacks
    scorings: tuple[str, ...]
    """Scorings of the protocol, the default one first."""
    seed: int
    batch_size: int
    severity_samples: int
    seen_split: str | None
    """File under ``leaderboard/splits`` that names the unseen classes."""
    content_hash: str

    def dataset(self, name: str) -> ProtocolDataset | None:
        """Return the protocol's entry of a data set, or None."""
        return next((entry for entry in self.datasets if entry.name == name), None)


def _fill(registry: Registry[Protocol]) -> None:
    for path in sorted((data_dir() / "leaderboard" / "protocols").glob("*.toml")):
        protocol = load_protocol_file(path)
        registry.add(protocol.name, protocol)


PROTOCOLS: Registry[Protocol] = Registry("protocol", fill=_fill)


def choose_protocol(name: str | None, dataset: str | None) -> Protocol:
    """Return the protocol of that name, else the first one with the data set, else the first for images of its kind.

    ``digits-v1`` comes first, the others in the order of their names. Images of a kind have as many channels as those
    the protocol's defences train on: a photograph without a protocol of its own is no digit. A protocol whose backbone
    hierbench does not ship, such as those of the literature, is chosen by its name alone.
    """
    from hierbench.datasets.catalogue import get_spec

    if name is not None:
        return PROTOCOLS.get(name)
    default = PROTOCOLS.get(DEFAULT_PROTOCOL)
    if dataset is None:
        return default
    candidates = [default, *ready_protocols()]
    listed = next((p for p in candidates if p.dataset(dataset) is not None), None)
    if listed is not None:
        return listed
    channels = get_spec(dataset).grid[2]
    return next((p for p in candidates if get_spec(p.train_dataset).grid[2] == channels), default)


def ready_protocols() -> list[Protocol]:
    """Return the protocols whose backbone hierbench ships, by name: those that may be meant without being named."""
    from hierbench.models.backbones import BACKBONES

    return [protocol for _, protocol in PROTOCOLS.items() if protocol.backbone in BACKBONES]


def load_protocol_file(path: Path) -> Protocol:
    """Read one protocol; anything wrong in it raises ``InputError`` naming the file and the key."""
    try:
        text = path.read_text(encoding="utf-8")
        content = tomllib.loads(text)
    except FileNotFoundError:
        raise InputError(f"protocol {path}: no such file") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"protocol {path}: not valid TOML: {error}") from None
    return _Reader(path, content).protocol()


def parse_fraction(text: str) -> Fraction:
    """Return an exact fraction from ``4/255`` or ``0.02``; ``ValueError`` if it is neither."""
    if not re.fullmatch(r"\d+/\d+|\d+(\.\d+)?", text):
        raise ValueError(f"{text!r} is not a fraction such as 4/255")
    try:
        return Fraction(text)
    except ZeroDivisionError:
        raise ValueError(f"{text!r} divides by zero") from None


class _Reader:
    """Reads a protocol's tables, refusing keys that are missing, unknown or of the wrong kind."""

    def __init__(self, path: Path, content: dict[str, Any]) -> None:
        self.path = path
        self.content = content

    def protocol(self) -> Protocol:
        known = {
            "name": str, "version": int, "title": str, "description": str, "backbone": str, "variant": str,
            "train": dict, "attack": dict, "dataset": list, "scorings": list, "seed": int, "batch_size": int,
            "severity_samples": int, "seen_split": str,
        }  # fmt: skip
        top = self._table("", self.content, known, optional={"seen_split"})
        train = self._table(
            "train", top["train"], {"dataset": str, "eps": str, "settings": dict}, optional={"settings"}
        )
        attack = self._table(
            "attack",
            top["attack"],
            {
                "names": list, "default": str, "headline": str, "norm": str, "parameters": dict, "required": list,
                "search_precision": str,
            },
            optional={"parameters", "required", "search_precision"},
        )  # fmt: skip
        if top["name"] != self.path.stem:
            self._refuse("name", f"{top['name']!r} is not the file's name {self.path.stem!r}")
        if not top["name"].endswith(f"-v{top['version']}"):
            self._refuse("version", f"name {top['name']!r} does not end in -v{top['version']}")
        if attack["norm"] not in NORMS:
            self._refuse("attack.norm", f"{attack['norm']!r} is none of {', '.join(NORMS)}")
        names = self._texts("attack.names", attack["names"])
        for key in ("default", "headline"):
            if attack[key] not in names:
                self._refuse(f"attack.{key}", f"{attack[key]!r} is not among attack.names")
        required = self._texts("attack.required", attack.get("required", [attack["headline"]]))
        if attack["headline"] not in required or any(name not in names for name in required):
            self._refuse("attack.required", "must be some of attack.names, the headline among them")
        parameters = attack.get("parameters", {})
        for name, table in parameters.items():
            where = f"attack.parameters.{name}"
            if not isinstance(table, dict):
                self._refuse(where, "must be a table named after an attack, such as [attack.parameters.leaf_pgd]")
            if not any(fnmatch.fnmatchcase(known_name, name) for known_name in names):
                self._refuse(where, "is none of attack.names")
        precision = attack.get("search_precision", "fp32")
        if precision not in SEARCH_PRECISIONS:
            self._refuse("attack.search_precision", f"{precision!r} is none of {', '.join(SEARCH_PRECISIONS)}")
        scorings = self._texts("scorings", top["scorings"])
        if not scorings or any(scoring not in SCORINGS for scoring in scorings):
            self._refuse("scorings", f"must be one or both of {', '.join(SCORINGS)}")
        self._eps("train.eps", train["eps"])
        datasets = tuple(self._dataset(i, entry) for i, entry in enumerate(top["dataset"]))
        if not datasets or len({d.name for d in datasets}) != len(datasets):
            self._refuse("dataset", "needs at least one entry, each name once")
        return Protocol(
            name=top["name"],
            version=top["version"],
            title=top["title"],
            description=top["description"],
            backbone=top["backbone"],
            variant=top["variant"],
            train_dataset=train["dataset"],
            train_eps=train["eps"],
            train_settings=train.get("settings", {}),
            datasets=datasets,
            attacks=ProtocolAttacks(
                names=names,
                default=attack["default"],
                headline=attack["headline"],
                required=required,
                norm=attack["norm"],
                parameters=parameters,
                search_precision=precision,
            ),
            scorings=scorings,
            seed=top["seed"],
            batch_size=top["batch_size"],
            severity_samples=top["severity_samples"],
            seen_split=top.get("seen_split"),
            content_hash=self._content_hash(),
        )

    def _content_hash(self) -> str:
        """Hash of all that decides a figure: what a submission must bring does not."""
        content = {key: value for key, value in self.content.items() if key not in ("title", "description")}
        attack = {key: value for key, value in content["attack"].items() if key != "required"}
        return digest_json({**content, "attack": attack})

    def _dataset(self, index: int, entry: Any) -> ProtocolDataset:
        where = f"dataset[{index}]"
        if not isinstance(entry, dict):
            self._refuse(where, "is not a table")
        known = {
            "name": str, "default_eps": str, "eps": list, "tree": str, "split": str, "limit": int,
            "limits": list, "template": str, "without": str,
        }  # fmt: skip
        optional = {"tree", "split", "limit", "limits", "template", "without"}
        row = self._table(where, entry, known, optional=optional)
        radii = self._texts(f"{where}.eps", row["eps"])
        for radius in radii:
            self._eps(f"{where}.eps", radius)
        if row["default_eps"] not in radii:
            self._refuse(f"{where}.default_eps", f"{row['default_eps']!r} is not among eps")
        limits = row.get("limits", [])
        if not all(isinstance(n, int) and not isinstance(n, bool) and n > 0 for n in limits):
            self._refuse(f"{where}.limits", "must be a list of whole numbers of at least 1")
        if "without" in row:
            try:
                load_exclusion(row["without"])
            except InputError as error:
                self._refuse(f"{where}.without", str(error))
        return ProtocolDataset(**{**row, "eps": radii, "limits": tuple(limits)})

    def _table(
        self, where: str, table: dict[str, Any], known: Mapping[str, type], optional: set[str] | None = None
    ) -> dict[str, Any]:
        prefix = f"{where}." if where else ""
        for key in table:
            if key not in known:
                self._refuse(prefix + key, f"unknown key; known are {', '.join(known)}")
        for key, kind in known.items():
            if key not in table:
                if optional and key in optional:
                    continue
                self._refuse(prefix + key, "missing")
            if not isinstance(table[key], kind) or (kind is int and isinstance(table[key], bool)):
                self._refuse(prefix + key, f"must be {_KINDS[kind]}, not {table[key]!r}")
            if kind is int and table[key] < 0:
                self._refuse(prefix + key, f"must not be negative, not {table[key]}")
        return dict(table)

    def _texts(self, where: str, values: list[Any]) -> tuple[str, ...]:
        if not all(isinstance(value, str) for value in values):
            self._refuse(where, "must be a list of strings")
        return tuple(values)

    def _eps(self, where: str, text: str) -> None:
        try:
            radius = parse_fraction(text)
        except ValueError as error:
            self._refuse(where, str(error))
        if radius > 1:
            self._refuse(where, f"{text} is more than 1; pixels lie in [0, 1]")

    def _refuse(self, key: str, reason: str) -> NoReturn:
        raise InputError(f"protocol {self.path}: {key}: {reason}")


_KINDS = {str: "a string", int: "a whole number", list: "a list", dict: "a table"}
