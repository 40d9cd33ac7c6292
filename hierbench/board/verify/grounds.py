"""The ground a record stands on: its protocol, images, tree and attack are those of everybody else's rows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from hierbench.board.verify.figures import Cell, differing
from hierbench.datasets.catalogue import get_spec
from hierbench.datasets.sampling import SAMPLING_RULE, list_hash
from hierbench.errors import HierbenchError, InputError
from hierbench.evaluation import scores, trust
from hierbench.evaluation.identity import AttackIdentity
from hierbench.evaluation.protocol import PROTOCOLS, Protocol
from hierbench.evaluation.records import Record
from hierbench.evaluation.request import Plan, Request, make_plan

if TYPE_CHECKING:
    from hierbench.datasets.images import ImageSet


@dataclass(frozen=True)
class Samples:
    """Which images a protocol scores, and who says so."""

    revision: str | None
    list_hash: str
    source: str


ListKey = tuple[str, str, str, int | None]
"""Protocol, data set, split and, of a list that is shorter than the protocol's own, its length."""


@lru_cache(maxsize=8)
def images_at_hand(name: str, split: str, limit: int | None, without: str | None, root: str | None) -> ImageSet | None:
    """Return a data set's images, or None where they are not at hand."""
    from hierbench.datasets.load import load_images
    from hierbench.paths import data_root

    if get_spec(name).base_name != "digits" and (root is None and data_root() is None):
        return None
    try:
        return load_images(name, split=split, limit=limit, without=without, root=root)
    except InputError:
        return None


def images_of(record: Record, limit: int, root: str | None) -> ImageSet | None:
    """Return the first images of the list that a record's protocol scores, or None where they are not at hand."""
    data = record.identity.dataset
    entry = PROTOCOLS.get(record.identity.protocol.name).dataset(data.name)
    return images_at_hand(data.name, data.split, limit, entry.without if entry else None, root)


def expected_samples(record: Record, known: Mapping[ListKey, Record], root: str | None) -> Samples | None:
    """Return what the protocol scores: by the project's own records, else by the data at hand, else None."""
    identity = record.identity
    own = known.get(key_of(record))
    if own is not None:
        data = own.identity.dataset
        return Samples(data.revision, data.sample_list_hash, "the project's own records")
    entry = PROTOCOLS.get(identity.protocol.name).dataset(identity.dataset.name)
    if entry is None:
        return None
    split = entry.split or get_spec(entry.name).evaluation_split
    images = images_at_hand(entry.name, split, shorter_list(record) or entry.limit, entry.without, root)
    return None if images is None else Samples(images.revision, images.sample_hash, "the data at hand")


def key_of(record: Record) -> ListKey:
    """Return what the sample list of a record depends on."""
    identity = record.identity
    return identity.protocol.name, identity.dataset.name, identity.dataset.split, shorter_list(record)


def shorter_list(record: Record) -> int | None:
    """Return the length of a record's sample list if its protocol allows that one beside its own, else None."""
    identity = record.identity
    known = identity.protocol.name in PROTOCOLS
    entry = PROTOCOLS.get(identity.protocol.name).dataset(identity.dataset.name) if known else None
    return record.verdicts.rows if entry is not None and record.verdicts.rows in entry.limits else None


def ground(cell: Cell, samples: Samples | None) -> Iterator[tuple[Path, str]]:
    """Yield (file, reason) for everything in a record that is not the protocol's."""
    record, identity = cell.record, cell.record.identity
    listed = list_hash(cell.verdicts.sample_ids, cell.verdicts.labels)
    if listed != identity.dataset.sample_list_hash:
        reason = "sample_id, label: not the list of the record (identity.dataset.sample_list_hash): a sample is "
        yield cell.verdicts_path, reason + "missing, added or another one"
    if identity.protocol.name not in PROTOCOLS:
        yield cell.path, f"identity.protocol.name: {identity.protocol.name!r} is not in `hierbench list protocols`"
        return
    protocol = PROTOCOLS.get(identity.protocol.name)
    if (protocol.content_hash, protocol.version) != (identity.protocol.hash, identity.protocol.version):
        yield cell.path, f"identity.protocol.hash: {protocol.name} says something else here than where this was run"
        return
    yield from ((cell.path, reason) for reason in (*_protocol(cell, protocol), *_data(record, samples)))
    yield from ((cell.path, reason) for reason in _trust(record))
    yield from ((cell.path, reason) for reason in _seen(cell))


def _protocol(cell: Cell, protocol: Protocol) -> Iterator[str]:
    """Compare settings with those that the protocol's words become here: a record's ``custom`` is not believed."""
    record, identity = cell.record, cell.record.identity
    attack, data = identity.attack, identity.dataset
    others = [d for d in identity.protocol.deviations if not (cell.shown and d.startswith("attack: "))]
    if others:
        yield f"identity.protocol.deviations: {others[0]}: comparison is inside one protocol only"
        return
    entry = protocol.dataset(data.name)
    if entry is None:
        yield f"identity.dataset.name: {data.name} is not a dataset of {protocol.name}"
        return
    if not cell.shown and attack.name not in protocol.attacks.names:
        yield f"identity.attack.name: {attack.name!r} is not an attack of {protocol.name}"
        return
    request = Request(
        dataset=data.name,
        attack=None if cell.shown else attack.name,
        eps=attack.eps,
        norm=attack.norm,
        scoring=attack.scoring,
        protocol=protocol.name,
        tree=identity.hierarchy.name,
        search_precision=None if cell.shown else search_precision(attack),
    )
    try:
        plan = make_plan(request, cell.hierarchy)
    except HierbenchError as error:
        yield f"identity.attack: {error}"
        return
    if plan.deviations:
        yield f"identity: {plan.deviations[0]}: comparison is inside one protocol only"
    spec = get_spec(data.name)
    yield from differing("identity.dataset.split", data.split, plan.split)
    yield from differing("identity.dataset.template", data.template, plan.template)
    yield from differing("identity.dataset.grid", data.grid, spec.grid)
    yield from differing("identity.dataset.sampling_rule", data.sampling_rule, SAMPLING_RULE)
    yield from differing("environment.seed", record.environment.seed, plan.seed)
    yield from differing("environment.batch_size", record.environment.batch_size, plan.batch_size)
    if (
        Fraction(attack.eps) != Fraction(attack.eps_value).limit_denominator(10**6)
        or float(Fraction(attack.eps)) != attack.eps_value
    ):
        yield f"identity.attack.eps_value: {attack.eps_value} is not {attack.eps}"
    if identity.model.backbone != protocol.backbone:
        yield f"identity.model.backbone: {identity.model.backbone!r}, and {protocol.name} has {protocol.backbone}"
    if identity.model.trained_on not in (None, protocol.train_dataset):
        trained = identity.model.trained_on
        yield f"identity.model.trained_on: {trained!r}, and {protocol.name} trains on {protocol.train_dataset}"
    if not cell.shown:
        yield from _attack(cell, plan)


def search_precision(attack: AttackIdentity) -> str:
    """Return what a record says its search computed in: it says nothing of full precision."""
    return str(attack.parameters.get("search_precision", "fp32"))


def _attack(cell: Cell, plan: Plan) -> Iterator[str]:
    attack = cell.record.identity.attack
    nodes = cell.record.identity.hierarchy.nodes_per_depth
    stated = plan.attack.stated(plan.settings)
    known = {name: attack.parameters.get(name) for name in stated}  # a model may have added facts of its own
    yield from differing("identity.attack.parameters", known, stated)
    components = plan.attack.components(plan.settings, nodes=nodes, depths=plan.depths, scoring=plan.scoring)
    yield from differing("identity.attack.components", attack.components, components)
    yield from differing("identity.attack.depths", attack.depths, plan.depths)
    yield from differing("identity.attack.pooled", attack.pooled, plan.attack.pools(plan.scoring))
    full = plan.severity_samples if plan.attack.searches_in_full(plan.scoring) else 0
    yield from differing("identity.attack.severity_samples", attack.severity_samples, full)


def _data(record: Record, samples: Samples | None) -> Iterator[str]:
    data = record.identity.dataset
    if samples is None:
        return
    if data.revision != samples.revision:
        yield (
            f"identity.dataset.revision: {str(data.revision)[:60]!r}, and {samples.source} have "
            f"{str(samples.revision)[:60]!r}: another version of {data.name}"
        )
    if data.sample_list_hash != samples.list_hash:
        yield f"identity.dataset.sample_list_hash: not the sample list of {data.name} that {samples.source} have"


def _trust(record: Record) -> Iterator[str]:
    for flag in record.checks.flags:
        if flag.level == "failed":
            yield f"checks.flags: {flag.code}: {flag.message}"
    shares = [("checks", record.checks.zero_gradient_share)]
    shares += [(f"checks.per_depth.{c.depth}", c.zero_gradient_share) for c in record.checks.per_depth]
    for where, share in shares:
        if share is not None and share > trust.ZERO_GRADIENTS:
            reason = f"{share:.1%} of the image gradients are exactly zero, {trust.ZERO_GRADIENTS:.0%} are allowed"
            yield f"{where}.zero_gradient_share: {reason}: robustness may be masked"


def _seen(cell: Cell) -> Iterator[str]:
    """Recompute the scores of trained, known and unseen classes apart."""
    from hierbench.datasets.seen import load_seen

    identity, said = cell.record.identity, cell.record.seen
    named = identity.seen_split
    if named is None:
        if said is not None:
            yield "seen: needs identity.seen_split"
        return
    try:
        split = load_seen(named.name)
    except InputError as error:
        yield f"identity.seen_split.name: {error}"
        return
    if split.content_hash != named.hash:
        yield f"identity.seen_split.hash: {split.name} says something else here"
        return
    spec = get_spec(identity.dataset.name)
    found = None
    if spec.base_name in split.unseen:
        trained = identity.model.trained_on
        same = trained is not None and get_spec(trained).base_name == spec.base_name
        known = set(split.known(spec.name))
        parts = {c: ("trained" if same else "known") if c in known else "unseen" for c in spec.class_ids}
        found = scores.seen_parts(cell.verdicts, spec.class_ids, parts, identity.attack.scoring)
    yield from differing("seen", said, found)
