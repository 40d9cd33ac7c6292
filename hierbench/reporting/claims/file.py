"""Claims as a TOML file: what the field says, and which differences between two figures would show it."""

from __future__ import annotations

import difflib
import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NoReturn, cast, get_args

from hierbench.datasets.catalogue import get_spec
from hierbench.errors import InputError
from hierbench.evaluation.protocol import PROTOCOLS, SCORINGS
from hierbench.hierarchy.catalogue import load_hierarchy
from hierbench.paths import data_dir
from hierbench.registry import UnknownNameError
from hierbench.reporting.classes import Classes
from hierbench.reporting.reported import read_reported

CLEAN = "none"
"""Attack of a side that is the clean images."""
LEAF: Literal["leaf"] = "leaf"
Depth = int | Literal["leaf"]
ACCURACY, RANKS, SUCCESS, MARGIN = "accuracy", "rank_preservation", "success", "margin"
MEASURES = (ACCURACY, RANKS, SUCCESS, MARGIN)
"""What of a sample is compared: whether it is right; how much of the backbone's top five leaves it keeps; whether the
attack broke it, of those that both sides have right when clean; and, of a model rather than of its records, whether the
clean margin is larger at the leaves than at the coarsest depth (``benchmarks/norms.py`` counts these)."""
SPLITS = get_args(Classes)
"""Classes whose images count; ``seen``: those of the class split that training may use."""


@dataclass(frozen=True, kw_only=True)
class Side:
    """One of the two figures of a contrast: a model under an attack."""

    model: str
    attack: str
    aimed: Depth | None = None
    """Depth the attack was aimed at; None is the worst over all that it was."""
    stopped_by: str
    """Scoring whose verdict stopped the attack."""
    eps: str
    template: str | None = None
    """Prompts of the record; None is the protocol's."""
    tree: str | None = None
    """Class tree of the record; None is the protocol's."""
    depth: Depth | None = None
    """Depth it is scored at, where ``success`` compares two; None is the contrast's."""

    def condition(self) -> str:
        """What is done to the model, in words."""
        if self.attack == CLEAN:
            return "clean"
        aimed = "" if self.aimed is None else f" at {'the leaves' if self.aimed == LEAF else f'depth {self.aimed}'}"
        return self.attack + aimed


@dataclass(frozen=True, kw_only=True)
class Contrast:
    """A difference that the claim says is above 0: ``measure`` of ``first`` less that of ``second``, by sample."""

    dataset: str
    depth: Depth
    scored_by: str
    classes: str
    first: Side
    second: Side
    least: float
    """The difference must be larger than this."""
    measure: str = ACCURACY

    def words(self) -> str:
        """The difference in words: what both sides share is said once."""
        one, other = self.first, self.second
        if self.measure == MARGIN:
            return f"{one.model}: images of larger margin at the leaves than at depth 1 − the others"
        first, second = one.condition(), other.condition()
        shared = "" if one.template is None or one.template != other.template else f', "{one.template}"'
        shared += {RANKS: ", rank preservation", SUCCESS: ", share broken"}.get(self.measure, "")
        if one.tree == other.tree:
            shared += "" if one.tree is None else f", tree {one.tree}"
        else:
            first, second = (f"{said} in {side.tree or 'its tree'}" for said, side in ((first, one), (second, other)))
        if one.model == other.model and one.attack == other.attack and second.startswith(f"{one.attack} at"):
            second = second.removeprefix(one.attack).lstrip()
        if one.model == other.model:
            return f"{one.model}: {first} − {second}{shared}"
        if first == second:
            return f"{one.model} − {other.model}: {first}{shared}"
        return f"{one.model}, {first} − {other.model}, {second}{shared}"

    def scored_at(self, side: Side) -> Depth:
        """Return the depth that a side is scored at."""
        return self.depth if side.depth is None else side.depth


@dataclass(frozen=True, kw_only=True)
class Claim:
    """One published claim."""

    id: str
    statement: str
    source: str
    printed: str
    """What the source prints for it, its figures put in from those reported."""
    otherwise: str
    """A thought on why, where it does not hold."""
    contrasts: tuple[Contrast, ...]


@dataclass(frozen=True, kw_only=True)
class ClaimsFile:
    """Claims that are tested together: Holm's correction is over all of them."""

    name: str
    title: str
    protocol: str
    seeds: tuple[str, ...]
    """What stands behind a model's name for each seed: ``("", "-s1", "-s2")``."""
    claims: tuple[Claim, ...]
    path: Path


def find_claims(text: str) -> Path:
    """Return a claims file: a path, or the name of one that hierbench brings along."""
    path = Path(text)
    if path.suffix == ".toml" or path.name != text or path.exists():
        return path
    shipped = data_dir() / "leaderboard" / "claims" / f"{text}.toml"
    if not shipped.is_file():
        names = ", ".join(sorted(p.stem for p in shipped.parent.glob("*.toml")))
        raise InputError(f"claims {text!r}: no such file; give a .toml file, or one of {names or 'none'}")
    return shipped


def read_claims(path: Path) -> ClaimsFile:
    """Read a claims file; anything wrong raises ``InputError`` naming the file and the key."""
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"claims {path}: {error.strerror or error}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"claims {path}: not valid TOML: {error}") from None
    return _Reader(path).claims_file(content)


_TOP = {"name": str, "title": str, "protocol": str, "seeds": list, "claim": list}
_CLAIM = {"id": str, "statement": str, "source": str, "printed": str, "otherwise": str, "contrast": list}
_QUOTE = re.compile(r"\{([^{}|]+)\|([^{}|]+)\|([^{}|]+)\}")
"""A reported figure: ``{method|data set|metric}``."""
_SIDE = {
    "model": str, "attack": str, "aimed": (int, str), "eps": str, "template": str, "tree": str, "stopped_by": str,
    "depth": (int, str),
}  # fmt: skip
_CONTRAST = {
    "datasets": list, "models": list, "depths": list, "scored_by": str, "classes": str, "eps": str, "first": dict,
    "second": dict, "least": (int, float), "measure": str,
}  # fmt: skip


class _Reader:
    def __init__(self, path: Path) -> None:
        self.path = path

    def refuse(self, key: str, reason: str) -> NoReturn:
        raise InputError(f"claims {self.path}: {key}: {reason}")

    def table(self, where: str, table: Any, known: Mapping[str, Any], needed: Sequence[str]) -> None:
        if not isinstance(table, dict):
            self.refuse(where, "must be a table")
        prefix = f"{where}." if where else ""
        for key, value in table.items():
            if key not in known:
                near = difflib.get_close_matches(key, known, n=1)
                self.refuse(prefix + key, f"did you mean {near[0]!r}?" if near else f"known are {', '.join(known)}")
            if not isinstance(value, known[key]) or isinstance(value, bool):
                self.refuse(prefix + key, f"{value!r} is of the wrong kind")
        for key in needed:
            if key not in table:
                self.refuse(prefix + key, "missing")

    def claims_file(self, content: Any) -> ClaimsFile:
        self.table("", content, _TOP, needed=("name", "title", "protocol", "claim"))
        try:
            protocol = PROTOCOLS.get(content["protocol"])
        except UnknownNameError as error:
            self.refuse("protocol", str(error))
        seeds = self.texts("seeds", content.get("seeds", [""]))
        eps = {entry.name: entry.default_eps for entry in protocol.datasets}
        claims = tuple(self.claim(f"claim[{n}]", table, eps) for n, table in enumerate(content["claim"]))
        ids = [claim.id for claim in claims]
        twice = next((name for name in ids if ids.count(name) > 1), None)
        if twice is not None:
            self.refuse("claim", f"id {twice!r} is there twice")
        if not claims:
            self.refuse("claim", "needs at least one table")
        return ClaimsFile(
            name=content["name"],
            title=content["title"],
            protocol=protocol.name,
            seeds=seeds,
            claims=claims,
            path=self.path,
        )

    def claim(self, where: str, table: Any, eps: Mapping[str, str]) -> Claim:
        self.table(where, table, {**_CLAIM, "reported": str}, needed=tuple(_CLAIM))
        contrasts = tuple(
            made
            for number, entry in enumerate(table["contrast"])
            for made in self.contrasts(f"{where}.contrast[{number}]", entry, eps)
        )
        if not contrasts:
            self.refuse(f"{where}.contrast", "needs at least one table")
        texts = {key: table[key] for key in _CLAIM if key != "contrast"}
        texts["printed"] = self.quoted(f"{where}.printed", table["printed"], table.get("reported", ""))
        return Claim(**texts, contrasts=contrasts)

    def quoted(self, where: str, text: str, protocol: str) -> str:
        """Return a text with the figures of ``reported_results.csv`` that it names put in."""

        def figure(named: re.Match[str]) -> str:
            wanted = (protocol, *named.groups())
            found = [r.value for r in read_reported() if (r.protocol, r.method, r.dataset, r.metric) == wanted]
            if len(found) != 1:
                self.refuse(where, f"{named[0]}: {len(found)} such figures are reported under {protocol!r}, not one")
            return f"{100 * found[0]:.2f}"

        return _QUOTE.sub(figure, text)

    def contrasts(self, where: str, table: Any, eps: Mapping[str, str]) -> list[Contrast]:
        if isinstance(table, dict) and table.get("measure") == MARGIN:
            return self.margins(where, table, eps)
        self.table(where, table, _CONTRAST, needed=("datasets", "depths", "first", "second"))
        scored_by = table.get("scored_by", "rollup")
        if scored_by not in SCORINGS:
            self.refuse(f"{where}.scored_by", f"{scored_by!r} is none of {', '.join(SCORINGS)}")
        classes = table.get("classes", "all")
        if classes not in SPLITS:
            self.refuse(f"{where}.classes", f"{classes!r} is none of {', '.join(SPLITS)}")
        least = float(table.get("least", 0.0))
        if not 0 <= least < 1:
            self.refuse(f"{where}.least", f"{least} is no share in [0, 1)")
        measure = table.get("measure", ACCURACY)
        if measure not in MEASURES:
            self.refuse(f"{where}.measure", f"{measure!r} is none of {', '.join(MEASURES)}")
        if measure == RANKS and table["depths"] != [LEAF]:
            self.refuse(f"{where}.depths", f"ranks are those of the leaves: [{LEAF!r}]")
        for key in ("first", "second"):
            self.fits(f"{where}.{key}", table[key], measure)
        models: tuple[str | None, ...] = (
            self.texts(f"{where}.models", table["models"]) if "models" in table else (None,)
        )
        made = []
        for dataset in self.datasets(where, table, eps):
            for model in models:
                base = {"model": model, "eps": table.get("eps", eps[dataset]), "stopped_by": scored_by}
                sides = [self.side(f"{where}.{key}", table[key], base) for key in ("first", "second")]
                for key, side in zip(("first", "second"), sides, strict=True):
                    self.tree(f"{where}.{key}.tree", dataset, side.tree)
                for depth in table["depths"]:
                    made.append(
                        Contrast(
                            dataset=dataset,
                            depth=self.depth(f"{where}.depths", depth),
                            scored_by=scored_by,
                            classes=classes,
                            first=sides[0],
                            second=sides[1],
                            least=least,
                            measure=measure,
                        )
                    )
        return made

    def fits(self, where: str, table: Any, measure: str) -> None:
        """Refuse a side that says what its measure does not ask."""
        side = table if isinstance(table, dict) else {}
        if measure == SUCCESS and side.get("attack") == CLEAN:
            self.refuse(f"{where}.attack", f"{CLEAN!r} breaks nothing; measure {SUCCESS!r} needs an attack")
        if "depth" in side and (measure != SUCCESS or where.endswith("first")):
            self.refuse(f"{where}.depth", f"only the second side of measure {SUCCESS!r} has a depth of its own")

    def margins(self, where: str, table: Any, eps: Mapping[str, str]) -> list[Contrast]:
        """Return the contrasts of a measure of models: they have no sides, attacks or depths of their own."""
        known = {key: _CONTRAST[key] for key in ("datasets", "models", "measure")}
        self.table(where, table, known, needed=("datasets", "models"))
        sides = [
            (dataset, Side(model=model, attack=CLEAN, stopped_by="direct", eps=eps[dataset]))
            for dataset in self.datasets(where, table, eps)
            for model in self.texts(f"{where}.models", table["models"])
        ]
        return [
            Contrast(dataset=dataset, depth=LEAF, scored_by="direct", classes="all", first=side, second=side, least=0.0,
                     measure=table["measure"])
            for dataset, side in sides
        ]  # fmt: skip

    def datasets(self, where: str, table: Any, eps: Mapping[str, str]) -> tuple[str, ...]:
        found = self.texts(f"{where}.datasets", table["datasets"])
        strange = next((name for name in found if name not in eps), None)
        if strange is not None:
            self.refuse(f"{where}.datasets", f"{strange!r} is none of the protocol's: {', '.join(eps)}")
        return found

    def side(self, where: str, table: Any, base: Mapping[str, str | None]) -> Side:
        self.table(where, table, _SIDE, needed=("attack",))
        values = {**base, **table}
        if values["model"] is None:
            self.refuse(f"{where}.model", "missing: name it here, or models for both sides")
        for key in ("aimed", "depth"):
            if key in table:
                values[key] = self.depth(f"{where}.{key}", table[key])
        return Side(**values)

    def tree(self, where: str, dataset: str, name: str | None) -> None:
        """Refuse a tree that the data set has not: no record could ever be of it."""
        try:
            load_hierarchy(get_spec(dataset).tree_dataset, name)
        except InputError as error:
            self.refuse(where, str(error))

    def depth(self, where: str, value: Any) -> Depth:
        if value != LEAF and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
            self.refuse(where, f"{value!r} is no depth: a whole number from 1 on, or {LEAF!r}")
        return cast(Depth, value)

    def texts(self, where: str, values: Any) -> tuple[str, ...]:
        if not isinstance(values, list) or not values or not all(isinstance(value, str) for value in values):
            self.refuse(where, "must be a list of strings, not empty")
        return tuple(values)
