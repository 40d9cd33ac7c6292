"""Models as rows, attacks as columns: what each leaves at one depth; a table for each sample list and radius."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction

import numpy as np

from hierbench.board.kinds import kind_of
from hierbench.board.ledger import Ground, Placed, Standing
from hierbench.errors import InputError
from hierbench.evaluation.scores import proportion
from hierbench.reporting.comparable import PROTOCOL, check_comparable
from hierbench.reporting.grid import BLANK, GREY, RANKS, below_majority, first_record, records_of, remarks
from hierbench.reporting.labels import attack_labels
from hierbench.reporting.layouts import proportion_value
from hierbench.reporting.methods import standing_row
from hierbench.reporting.ranks import Line, ranked
from hierbench.reporting.rows import is_grey
from hierbench.reporting.standings import (
    DepthFigures,
    Shown,
    broken_at,
    check_verdicts,
    clean_broken_at,
    names_of,
    standings_of,
)
from hierbench.reporting.table import Report, Row, Table, Value

KINDS = ("image", "both", "text")
ALL = "all on images"


def methods_attacks_report(placed: Sequence[Placed], shown: Shown, *, depth: int | None = None) -> Report:
    """Return models x attacks at one depth (None: the leaves), and the worst case over those that change images.

    Attacks on images come first, then those on images and texts, then those on texts. Records of one protocol;
    those of other sample lists, radii, data sets, trees or prompts stand in tables of their own.
    """
    kept = [found for found in placed if not found.record.checks.failed]
    failed = [f"left out: {p.record.identity.model.name} under {p.record.identity.attack.name} failed a trust check"
              for p in placed if p.record.checks.failed]  # fmt: skip
    if not kept:
        raise InputError(f"--records: no figure may be used ({'; '.join(failed)})")
    standings = standings_of(kept)
    check_comparable(records_of(standings), PROTOCOL)
    tables: list[Table] = []
    rows: list[Row] = []
    for ground in sorted({s.ground for s in standings}, key=lambda g: _order(g, standings)):
        members = [s for s in standings if s.ground == ground]
        table, lines = _table(members, shown, depth, failed)
        if len({s.ground.template for s in standings}) > 1:
            table = replace(table, title=f"{table.title}, prompts {ground.template!r}")
        if any(other.label == table.label for other in tables):
            table = replace(table, label=f"{table.label}-{len(tables) + 1}")
        tables += [table] if lines else []
        rows += lines
    if not rows:
        raise InputError(f"--depth: no record was scored by {shown.scoring} at depth {depth or 'leaf'}")
    return Report(tuple(tables), tuple(rows))


def _order(ground: Ground, standings: Sequence[Standing]) -> tuple[str, Fraction, int, str, str]:
    samples = next(s.samples for s in standings if s.ground == ground)
    place = f"{ground.dataset}/{ground.tree}/{ground.norm}"
    return place, Fraction(ground.eps), -samples, ground.template, ground.sample_list_hash


def _table(
    standings: Sequence[Standing], shown: Shown, depth: int | None, failed: Sequence[str]
) -> tuple[Table, list[Row]]:
    among = [placed for standing in standings for placed in standing.placed]
    named = _headings(among)
    kinds = {heading: kind_of(found.record) for heading, found in zip(named, among, strict=True)}
    heading_of = {found.path: heading for heading, found in zip(named, among, strict=True)}
    attacks = sorted(kinds, key=lambda name: (KINDS.index(kinds[name]), name))
    on_images = [name for name in attacks if kinds[name] == "image"]
    names, rows, lines = names_of(standings), [], []
    reference: tuple[float | None, float | None] = (None, None)
    for standing in standings:
        check_verdicts(standing)
        parts = {name: tuple(p for p in standing.placed if heading_of[p.path] == name) for name in attacks}
        if len(on_images) > 1:
            parts[ALL] = tuple(p for name in on_images for p in parts[name])
        found = {name: _figures(Standing(standing.entry, standing.ground, part), shown, depth)
                 for name, part in parts.items() if part}  # fmt: skip
        known = {name: figures for name, figures in found.items() if figures is not None}
        if not known:
            continue
        clean = next(iter(known.values()))
        reference = clean.chance, clean.majority
        values = (proportion_value(known[name].robust, grey=clean.grey) if name in known else Value(None, "share")
                  for name in parts)  # fmt: skip
        lines.append((Value(names[standing.entry.model, standing.entry.weights_hash]), proportion_value(clean.clean),
                      *values))  # fmt: skip
        for name, figures in known.items():
            part = Standing(standing.entry, standing.ground, parts[name])
            rows.append({**standing_row(part, shown, figures), "column": name})
    columns = ("model", "clean", *attacks, *([ALL] if len(on_images) > 1 else []))
    return _written(standings, shown, depth, columns, lines, reference, failed), rows


def _headings(placed: Sequence[Placed]) -> list[str]:
    """Return a heading for each record's attack: its name, and what tells it apart from others of that name."""
    records = [found.record for found in placed]
    labels = attack_labels(records)
    found = []
    for label, record in zip(labels, records, strict=True):
        attack = record.identity.attack
        alike = [r.identity.attack for r, other in zip(records, labels, strict=True) if other == label]
        parts: list[str] = [attack.scoring] if len({a.scoring for a in alike}) > 1 else []
        if len({a.depths for a in alike}) > 1:
            parts.append(f"at {', '.join(map(str, attack.depths))}")
        found.append(f"{label}, {' '.join(parts)}" if parts else label)
    return found


def _written(
    standings: Sequence[Standing],
    shown: Shown,
    depth: int | None,
    columns: Sequence[str],
    lines: Sequence[Line],
    reference: tuple[float | None, float | None],
    failed: Sequence[str],
) -> Table:
    ground, first = standings[0].ground, first_record(standings[0])
    where = "the leaves" if depth is None else f"depth {depth}"
    title = (
        f"Accuracy (%) on {ground.dataset} at {where} by attack, tree {ground.tree}, {ground.norm} eps {ground.eps}, "
        f"n = {standings[0].samples}"
    )
    grey = any(value.grey for line in lines for value in line)
    above: list[Line] = [
        (Value(name), Value(share, "share"), *[BLANK] * (len(columns) - 2))
        for name, share in zip(("chance", "majority"), reference, strict=True)
    ]
    among = [placed for standing in standings for placed in standing.placed]
    notes = [
        *([RANKS] if len(lines) > 1 else []),
        f"robust: {shown.words()}; attacks on texts and on both are in no worst case of those on images",
        *(["rollup, direct: whose verdict stopped the attack"] if any(", " in name for name in columns) else []),
        f"protocol {first.identity.protocol.name}, {ground.dataset} {ground.split}",
        *([GREY] if grey else []),
        *below_majority([value for line in lines for value in line[2:]], reference[1]),
        *remarks(among, names_of(standings)),
        *failed,
    ]
    label = f"methods-attacks-{first.identity.protocol.name}-{ground.dataset}-{standings[0].samples}"
    return Table(title, tuple(columns), (*above, *ranked(lines)), tuple(notes), label=label, intervals="none")


def _figures(standing: Standing, shown: Shown, depth: int | None) -> DepthFigures | None:
    """Return what a standing's attacks leave at a depth, or None where nothing was aimed or scored so."""
    scored = first_record(standing).depths
    wanted = len(scored) if depth is None else depth
    if wanted > len(scored):
        return None
    entry = scored[wanted - 1]
    scores = entry.rollup if shown.scoring == "rollup" else entry.direct
    clean, broken = clean_broken_at(standing, shown, wanted), broken_at(standing, shown, wanted)
    if scores is None or clean is None or broken is None:
        return None
    return DepthFigures(
        depth=wanted,
        nodes=entry.nodes,
        chance=scores.chance,
        majority=entry.majority,
        clean=scores.clean,
        robust=proportion(np.asarray(~broken)),
        grey=is_grey(entry),
    )
