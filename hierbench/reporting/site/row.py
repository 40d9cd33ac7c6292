"""A model's row on one ground: figures pooled over its records, and what they rest on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Literal

from hierbench.board.card import AttackCard
from hierbench.board.kinds import kind_of
from hierbench.board.ledger import SCORINGS, DepthStanding, Entry, Ground, Placed, Standing
from hierbench.evaluation.records import Flag, Record
from hierbench.evaluation.scores import PARTS, proportion
from hierbench.reporting.classes import known_images
from hierbench.reporting.labels import attack_labels
from hierbench.reporting.rows import is_grey
from hierbench.reporting.site.figures import Figure, figure
from hierbench.reporting.site.names import short_hash

APGD = frozenset({"apgd-ce", "apgd-t"})
AUTOATTACK = APGD | {"fab-t", "square"}
"""Components by which an attack is of AutoAttack's class: the two that do nearly all of its work, and all four."""


@dataclass(frozen=True)
class DepthFigures:
    """One depth of a row under one scoring."""

    depth: int
    nodes: int
    chance: float
    majority: float
    clean: Figure
    worst: Figure | None
    relative: float | None
    pale: bool


@dataclass(frozen=True)
class AttackNote:
    """One attack of a row's worst case."""

    label: str
    scoring: str
    credit: AttackCard | None
    custom: bool


@dataclass(frozen=True)
class Row:
    """One model on one ground."""

    entry: Entry
    ground: Ground
    samples: int
    depths: Mapping[str, tuple[DepthFigures, ...]]
    """By scoring, coarsest first; empty where the model has no such scoring."""
    seen: Mapping[str, Mapping[str, Figure]]
    """By scoring, then trained, known or unseen: worst case at the leaves."""
    autoattack: Mapping[str, Figure]
    """By scoring: worst case at the leaves over attacks of AutoAttack's class alone."""
    text: Mapping[str, Figure]
    both: Mapping[str, Figure]
    """By scoring: worst case at the leaves over attacks on texts, and on images and texts."""
    unaided: Mapping[str, Figure]
    """By scoring: worst case at the leaves without others' images; empty where nobody gave any."""
    attacks: tuple[AttackNote, ...]
    names: tuple[str, ...]
    """Names of the image attacks in the worst case."""
    forwards: int
    seconds: float
    date: str
    flags: tuple[tuple[Flag, int], ...]
    """Each distinct flag with the number of its records."""
    custom: Literal["", "some", "all"]
    unused: int
    """Records that failed a check: they are in no figure."""
    placed: tuple[Placed, ...]

    @property
    def first(self) -> Record:
        """A record of the row, for what does not depend on the attack."""
        return self.placed[0].record

    @property
    def warned(self) -> int:
        """How many flags are more than notes."""
        return sum(flag.level != "note" for flag, _ in self.flags)

    @property
    def leaf(self) -> int:
        """D: the leaves' depth."""
        return len(self.first.depths)


def ground_id(ground: Ground) -> str:
    """Return a short name of a ground, the same in every build."""
    return short_hash(*(str(getattr(ground, name)) for name in Ground.__dataclass_fields__))


def ground_order(ground: Ground, datasets: Sequence[str], samples: int) -> tuple[object, ...]:
    """Return the key that orders grounds: as the protocol orders data sets, by tree, most images first, by radius."""
    place = datasets.index(ground.dataset) if ground.dataset in datasets else len(datasets)
    radius = (ground.norm, eps_value(ground.eps))
    return (place, ground.dataset, ground.tree, ground.split, -samples, *radius, ground_id(ground))


def eps_value(eps: str) -> float:
    """Return a radius as a number; a fraction that divides by zero counts as none."""
    try:
        return float(Fraction(eps))
    except ZeroDivisionError:
        return 0.0


def is_autoattack(record: Record, wanted: frozenset[str] = APGD) -> bool:
    """Say whether a record holds AutoAttack's components, aimed at the leaves."""
    attack = record.identity.attack
    names = {component.partition("/")[0] for component in attack.components}
    return wanted <= names and (attack.pooled or len(record.depths) in attack.depths)


def make_row(standing: Standing) -> Row:
    """Return the row of a standing; its verdicts are read once and let go afterwards."""
    fresh = replace(standing, placed=tuple(replace(p) for p in standing.placed))  # without verdicts that were kept
    used = tuple(p for p in fresh.placed if not p.record.checks.failed)
    images = _only(fresh, [p for p in used if kind_of(p.record) == "image"])
    strong = _only(fresh, [p for p in images.placed if is_autoattack(p.record)]) if images.placed else images
    own = [p for p in images.placed if p.credit is None]
    records = [p.record for p in standing.placed]
    custom = [r.identity.protocol.custom for r in records]
    return Row(
        entry=standing.entry,
        ground=standing.ground,
        samples=standing.samples,
        depths={scoring: _depths(fresh, images, scoring) for scoring in SCORINGS},
        seen={scoring: _seen(images, scoring) for scoring in SCORINGS},
        autoattack=_leaf(strong, _autoattack_note(strong)),
        text=_leaf(_only(fresh, [p for p in used if kind_of(p.record) == "text"])),
        both=_leaf(_only(fresh, [p for p in used if kind_of(p.record) == "both"])),
        unaided=_leaf(_only(fresh, own)) if len(own) < len(images.placed) else {},
        attacks=_attacks(images.placed),
        names=images.attacks,
        forwards=sum(r.cost.forwards for r in records),
        seconds=sum(r.cost.seconds for r in records),
        date=max(r.created for r in records)[:10],
        flags=count_flags(records),
        custom="all" if all(custom) else "some" if any(custom) else "",
        unused=len(fresh.placed) - len(used),
        placed=standing.placed,
    )


def count_flags(records: Sequence[Record]) -> tuple[tuple[Flag, int], ...]:
    """Return each distinct flag with its number of records, the gravest first."""
    levels = ("failed", "warning", "note")
    found: dict[Flag, int] = {}
    for record in records:
        for flag in record.checks.flags:
            found[flag] = found.get(flag, 0) + 1
    return tuple(sorted(found.items(), key=lambda item: (levels.index(item[0].level), item[0].code, item[0].message)))


def _only(standing: Standing, placed: Sequence[Placed]) -> Standing:
    return replace(standing, placed=tuple(placed))


def _depths(whole: Standing, images: Standing, scoring: str) -> tuple[DepthFigures, ...]:
    worst: dict[int, DepthStanding] = {d.depth: d for d in images.depths(scoring)} if images.placed else {}
    found = []
    for entry in whole.scored:
        scores = entry.rollup if scoring == "rollup" else entry.direct
        if scores is None:
            return ()
        pale, at = is_grey(entry), worst.get(entry.depth)
        found.append(
            DepthFigures(
                depth=entry.depth,
                nodes=entry.nodes,
                chance=scores.chance,
                majority=entry.majority,
                clean=_known(figure(scores.clean)),
                worst=None if at is None else figure(at.worst, pale=pale),
                relative=None if at is None else at.relative,
                pale=pale,
            )
        )
    return tuple(found)


def _known(found: Figure | None) -> Figure:
    assert found is not None
    return found


def _leaf(standing: Standing, note: str = "") -> dict[str, Figure]:
    """Return the worst case at the leaves by scoring; empty without records."""
    found: dict[str, Figure] = {}
    for scoring in SCORINGS if standing.placed else ():
        depths = standing.depths(scoring)
        if depths:
            names = note or ", ".join(standing.attacks)
            found[scoring] = _known(figure(depths[-1].worst, pale=is_grey(standing.scored[-1]), note=names))
    return found


def _autoattack_note(standing: Standing) -> str:
    if not standing.placed:
        return ""
    full = any(is_autoattack(p.record, AUTOATTACK) for p in standing.placed)
    components = "all four components" if full else "apgd-ce and apgd-t, not fab-t and square"
    return f"{', '.join(standing.attacks)}: {components}"


def _seen(standing: Standing, scoring: str) -> dict[str, Figure]:
    """Return the worst case at the leaves by what the model has seen of the classes.

    Records name the parts but not their classes; those come from the committed split, and count only if they give the
    very numbers of images that the record has.
    """
    record = next((p.record for p in standing.placed if p.record.seen), None)
    if record is None or record.seen is None:
        return {}
    broken = standing.broken(scoring)
    seen = known_images(standing.placed[0])
    if broken is None or seen is None:
        return {}
    pale, found = is_grey(standing.scored[-1]), {}
    for part in record.seen:
        chosen = seen == (part.part != "unseen")
        if int(chosen.sum()) != part.depths[-1].clean_rollup.of:
            return {}
        share = proportion(~broken[chosen, -1])
        found[part.part] = _known(figure(share, pale=pale, note=f"{part.classes} {part.part} classes"))
    return {part: found[part] for part in PARTS if part in found}


def _attacks(placed: Sequence[Placed]) -> tuple[AttackNote, ...]:
    labels = attack_labels([p.record for p in placed])
    notes = [
        AttackNote(label, p.record.identity.attack.scoring, p.credit, p.record.identity.protocol.custom)
        for label, p in zip(labels, placed, strict=True)
    ]
    return tuple(dict.fromkeys(notes))
