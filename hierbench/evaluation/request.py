"""What a caller asks for, and what it becomes under a protocol: no model, no image, no torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

from hierbench.attacks.precision_names import SEARCH_PRECISIONS, SearchPrecision
from hierbench.errors import InputError
from hierbench.evaluation.protocol import NORMS, SCORINGS, Protocol, ProtocolDataset, choose_protocol

if TYPE_CHECKING:
    from hierbench.attacks.catalogue import AttackSpec, Value
    from hierbench.hierarchy.tree import Hierarchy

RESULTS_FOLDER = "hierbench-results"


@dataclass(frozen=True, kw_only=True)
class Request:
    """What was said; None everywhere else means the protocol's value."""

    model: str = "clip"
    backbone: str | None = None
    """What a checkpoint file was trained from, or which backbone ``clip`` is."""
    weights_layout: str | None = None
    """How the tensors of a checkpoint file lie; None finds it out."""
    dataset: str | None = None
    tree: str | None = None
    attack: str | None = None
    eps: str | float | Fraction | None = None
    norm: str | None = None
    scoring: str | None = None
    depths: tuple[int, ...] | None = None
    limit: int | None = None
    split: str | None = None
    template: str | None = None
    """A prompt with ``{noun}`` or ``{}``, or ``ensemble`` for the data set's ensemble of them."""
    settings: Mapping[str, object] = field(default_factory=dict)
    """Attack settings by name, such as ``{"steps": 50}``."""
    seed: int | None = None
    batch_size: int | None = None
    severity_samples: int | None = None
    engine: str | None = None
    search_precision: str | None = None
    """fp32, tf32 or bf16: what the search computes in."""
    compile: bool | None = None
    """Compile the model for the search's passes; verdicts are the plain model's."""
    protocol: str | None = None
    device: str | None = None
    out: str | Path | None = None
    data_root: str | Path | None = None
    store_images: str | None = None
    """``8bit`` or ``float``: keep the adversarial images beside the record."""
    rank_preservation: bool | None = None
    """Compare the attacked top five leaves with the undefended backbone's clean ones."""

    def given(self) -> dict[str, Any]:
        """Return what was said, as plain values for the record; what decides no figure is left out."""
        said: dict[str, Any] = {}
        for entry in fields(self):
            value = getattr(self, entry.name)
            if value is None or entry.name in ("settings", "out", "data_root", "store_images"):
                continue
            if isinstance(value, tuple):
                value = list(value)
            said[entry.name] = value if isinstance(value, (int, float, str, list)) else str(value)
        said |= {f"settings.{name}": _plain(value) for name, value in self.settings.items()}
        return said


@dataclass(frozen=True)
class Plan:
    """A request with every blank filled."""

    protocol: Protocol
    entry: ProtocolDataset
    """The protocol's words on the data set; its own defaults where the protocol does not list it."""
    dataset: str
    split: str
    limit: int | None
    template: str
    """A template, or ``ensemble``: see ``DatasetSpec.templates``."""
    attack: AttackSpec
    settings: dict[str, Value]
    norm: Literal["linf", "l2"]
    eps: Fraction
    scoring: Literal["rollup", "direct"]
    depths: tuple[int, ...]
    seed: int
    batch_size: int
    severity_samples: int
    search_precision: SearchPrecision
    deviations: tuple[str, ...]
    """Fields the protocol fixes and the request changed, in words."""


def choose_hierarchy(request: Request) -> Hierarchy:
    """Return the tree a request means, with its classes checked against the data set's."""
    from hierbench.datasets.catalogue import get_spec
    from hierbench.hierarchy.catalogue import load_hierarchy

    protocol = choose_protocol(request.protocol, request.dataset)
    dataset = request.dataset or protocol.datasets[0].name
    entry = protocol.dataset(dataset)
    tree = request.tree or (entry.tree if entry else None)
    spec = get_spec(dataset)
    return load_hierarchy(spec.tree_dataset, tree, classes=spec.class_ids)


def make_plan(request: Request, hierarchy: Hierarchy) -> Plan:
    """Fill a request's blanks from its protocol; anything impossible raises ``InputError`` naming the flag."""
    from hierbench.attacks.catalogue import ATTACKS
    from hierbench.attacks.named.external import by_engine
    from hierbench.attacks.text.specs import is_text_attack
    from hierbench.datasets.catalogue import check_split, get_spec

    protocol = choose_protocol(request.protocol, request.dataset)
    dataset = request.dataset or protocol.datasets[0].name
    spec = get_spec(dataset)
    listed = protocol.dataset(dataset)
    entry = listed or ProtocolDataset(name=dataset, default_eps=protocol.train_eps, eps=(protocol.train_eps,))
    changed = _Deviations()
    if listed is None:
        changed.note("dataset", "one of " + ", ".join(d.name for d in protocol.datasets), dataset)
    attack = by_engine(ATTACKS.get(request.attack or protocol.attacks.default), request.engine or "hierbench")
    if attack.name not in protocol.attacks.names:
        changed.note("attack", "one of " + ", ".join(protocol.attacks.names), attack.name)
    norm = request.norm or protocol.attacks.norm
    if norm not in NORMS:
        raise InputError(f"--norm: {norm!r} is none of {', '.join(NORMS)}")
    changed.compare("norm", protocol.attacks.norm, norm)
    eps = read_eps(request.eps if request.eps is not None else entry.default_eps, norm=norm)
    if eps not in {Fraction(e) for e in entry.eps}:
        changed.note("eps", "one of " + ", ".join(entry.eps), spell_eps(eps))
    scoring = request.scoring or protocol.scorings[0]
    if scoring not in SCORINGS:
        raise InputError(f"--scoring: {scoring!r} is none of {', '.join(SCORINGS)}")
    if scoring not in protocol.scorings:
        changed.note("scoring", "one of " + ", ".join(protocol.scorings), scoring)
    fixed = protocol.attacks.fixed(attack.name, {parameter.name for parameter in attack.parameters})
    settings = attack.settings({**fixed, **request.settings})
    for name, value in attack.settings(fixed).items():
        changed.compare(name, value, settings[name])
    usual = attack.default_depths(hierarchy.num_depths, cast(Literal["rollup", "direct"], scoring))
    depths = _check_depths(request.depths, hierarchy) or usual
    if attack.pools(cast(Literal["rollup", "direct"], scoring)) and depths != usual:
        raise InputError(f"--depth: {attack.name} pools all depths under rollup: leave it out, or use --scoring direct")
    if attack.leaf_only and depths != usual:
        raise InputError(f"--depth: {attack.name} is defined at the leaves alone, depth {hierarchy.num_depths}")
    changed.compare("depths", usual, depths)
    default_tree = entry.tree
    if default_tree is not None:
        changed.compare("tree", default_tree, hierarchy.tree)
    elif not hierarchy.default:
        changed.note("tree", "the default tree", hierarchy.tree)
    split = check_split(spec, request.split or entry.split or spec.evaluation_split)
    changed.compare("split", entry.split or spec.evaluation_split, split)
    limit = request.limit if request.limit is not None else entry.limit
    if limit is not None and limit < 1:
        raise InputError(f"--limit: {limit} is not a number of samples; give 1 or more")
    if limit not in entry.limits:
        changed.compare("limit", entry.limit, limit)
    template = request.template or entry.template or spec.template
    if len(spec.templates(template)) > 1 and (is_text_attack(attack.name) or attack.name == "semantic_ensemble"):
        raise InputError(f"--template: {attack.name} edits or replaces one prompt a class, {template} has several")
    changed.compare("template", entry.template or spec.template, template)
    numbers = {
        name: _whole(name, getattr(request, name), getattr(protocol, name), least)
        for name, least in (("seed", 0), ("batch_size", 1), ("severity_samples", 0))
    }
    for name, value in numbers.items():
        changed.compare(name, getattr(protocol, name), value)
    if request.compile and attack.runner is not None:
        raise InputError(f"--compile: {attack.name} does not run on hierbench's image search; leave it out")
    precision = _search_precision(request.search_precision, attack, protocol)
    if SEARCH_PRECISIONS.index(precision) > SEARCH_PRECISIONS.index(protocol.attacks.search_precision):
        changed.note("search_precision", protocol.attacks.search_precision, precision)
    return Plan(
        protocol=protocol,
        entry=entry,
        dataset=dataset,
        split=split,
        limit=limit,
        template=template,
        attack=attack,
        settings=settings,
        norm=cast(Literal["linf", "l2"], norm),
        eps=eps,
        scoring=cast(Literal["rollup", "direct"], scoring),
        depths=depths,
        search_precision=precision,
        deviations=tuple(changed.found),
        **numbers,
    )


def _search_precision(given: str | None, attack: AttackSpec, protocol: Protocol) -> SearchPrecision:
    """Return what the search computes in, the protocol's unless given; only our own engine's can be chosen."""
    if given is None:
        return "fp32" if attack.runner is not None else protocol.attacks.search_precision
    if given not in SEARCH_PRECISIONS:
        raise InputError(f"--search-precision: {given!r} is none of {', '.join(SEARCH_PRECISIONS)}")
    if attack.runner is not None and given != "fp32":
        raise InputError(f"--search-precision: {attack.name} does not run on hierbench's image search; leave it out")
    return given


def read_eps(value: str | float | Fraction, *, norm: str) -> Fraction:
    """Return a radius as an exact fraction; anything unusable raises ``InputError`` naming ``--eps``."""
    from hierbench.attacks.threat import parse_eps

    if isinstance(value, float) and value == round(value * 255) / 255:
        value = Fraction(round(value * 255), 255)  # 8 / 255 in Python is the nearest float to what is meant
    return parse_eps(value, norm=cast(Literal["linf", "l2"], norm), name="--eps:")


def spell_eps(eps: Fraction) -> str:
    """Return a radius as people write it: in 255ths where that is exact.

    >>> spell_eps(Fraction(8, 255)), spell_eps(Fraction(15, 255)), spell_eps(Fraction(1, 2)), spell_eps(Fraction(0))
    ('8/255', '15/255', '1/2', '0')
    """
    if 0 < eps < 1 and 255 % eps.denominator == 0:
        return f"{eps.numerator * (255 // eps.denominator)}/255"
    return str(eps)


class _Deviations:
    def __init__(self) -> None:
        self.found: list[str] = []

    def note(self, name: str, fixed: object, used: object) -> None:
        self.found.append(f"{name}: {_words(fixed)} -> {_words(used)}")

    def compare(self, name: str, fixed: object, used: object) -> None:
        if fixed != used:
            self.note(name, fixed, used)


def _words(value: object) -> str:
    if value is None:
        return "all"
    return ", ".join(map(str, value)) if isinstance(value, tuple) else str(value)


def _plain(value: object) -> str | int | float | bool:
    return value if isinstance(value, (str, int, float, bool)) else str(value)


def _check_depths(depths: tuple[int, ...] | None, hierarchy: Hierarchy) -> tuple[int, ...] | None:
    for depth in depths or ():
        if depth not in hierarchy.depths:
            reach = f"has depths 1 (coarsest) to {hierarchy.num_depths} (leaves)"
            raise InputError(f"--depth: {depth} does not exist: the tree {hierarchy.dataset}/{hierarchy.tree} {reach}")
    return tuple(sorted(set(depths))) if depths else None


def _whole(name: str, given: int | None, fixed: int, least: int) -> int:
    value = fixed if given is None else given
    if value < least:
        raise InputError(f"--{name.replace('_', '-')}: {value} is too small; give {least} or more")
    return value
