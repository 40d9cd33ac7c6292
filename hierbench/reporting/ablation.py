"""Variants of one defence, each with its difference to a baseline on the same samples."""

from __future__ import annotations

from collections.abc import Sequence

from hierbench.board.ledger import Placed, Standing
from hierbench.errors import InputError
from hierbench.evaluation.statistics import paired_bootstrap
from hierbench.reporting.comparable import SAME_GROUND, check_comparable
from hierbench.reporting.grid import GREY, RANKS, Key, first_record, key_of, records_of, remarks
from hierbench.reporting.labels import ball
from hierbench.reporting.layouts import proportion_value
from hierbench.reporting.methods import standing_row
from hierbench.reporting.paired import FIGURES, Figure, right_at
from hierbench.reporting.ranks import Line, ranked
from hierbench.reporting.standings import (
    DepthFigures,
    Shown,
    attack_names,
    check_verdicts,
    figures,
    has_verdicts,
    names_of,
    on_common_attacks,
    standings_of,
    trusted,
)
from hierbench.reporting.table import Report, Row, Table, Value

MAX_CHANGES = 8


def ablation_report(
    placed: Sequence[Placed], shown: Shown, *, depths: Sequence[int] = (), baseline: str | None = None
) -> Report:
    """Return variants x clean and robust at some depths (none: the leaves), with the differences to a baseline.

    The baseline is the model of that name, else the first. Worst cases are over the attacks that every variant met.
    Differences have a paired bootstrap interval where all verdicts lie beside the records.
    """
    kept, left_out = trusted(placed)
    standings = standings_of(kept)
    check_comparable(records_of(standings), SAME_GROUND)
    defences = sorted({r.identity.model.defence for r in records_of(standings)})
    if baseline is None and len(defences) > 1:
        raise InputError(
            f"--layout ablation shows variants of one defence, not of {', '.join(defences)}; --model chooses one, "
            "or --baseline names what the others are compared with"
        )
    standings, notes = on_common_attacks(_ordered(standings, baseline))
    first = first_record(standings[0])
    wanted = list(depths) or [len(first.depths)]
    names = names_of(standings)
    found = {key_of(s): {f.depth: f for f in figures(s, shown)} for s in standings}
    if not all(found.values()):
        raise InputError(f"--scoring: not every record was scored by {shown.scoring}")
    paired = all(map(has_verdicts, standings))
    for standing in standings if paired else ():
        check_verdicts(standing)
    rows: list[Line] = []
    long: list[Row] = []
    base = standings[0]
    for standing in standings:
        line, key = [Value(names[key_of(standing)])], key_of(standing)
        for depth in wanted:
            mine, theirs = found[key][depth], found[key_of(base)][depth]
            gaps = {figure: _gap(standing, base, shown, figure, (mine, theirs), paired) for figure in FIGURES}
            line += [proportion_value(mine.clean), gaps["clean"], proportion_value(mine.robust, grey=mine.grey)]
            line.append(gaps["robust"])
            long.append(_row(standing, shown, mine, base, gaps))
        rows.append(tuple(line))
    identity = first.identity
    where = ", ".join("the leaves" if d == len(first.depths) else f"depth {d}" for d in wanted)
    ground = f"{identity.dataset.name} (tree {identity.hierarchy.name})"
    threat = ball(first, word=" eps")
    title = f"Ablation of {identity.model.defence} on {ground} at {where}, {threat}: accuracy (%)"
    among = [p for s in standings for p in s.placed]
    said = [
        *([RANKS] if len(rows) > 1 else []),
        f"Δ: difference to {names[key_of(base)]} in points"
        + (", with the paired bootstrap 95 % interval" if paired else "; no interval, as verdicts are missing"),
        f"robust: {shown.words()}",
        f"attacks: {', '.join(dict.fromkeys(n for s in standings for n in attack_names(s.placed, among)))}",
        f"protocol {identity.protocol.name}, {first.counts.scored} images of {ground}, {identity.dataset.split}",
        *_changes(standings, names),
        *([GREY] if any(value.grey for row in rows for value in row) else []),
        *notes,
        *remarks(among, names),
        *left_out,
    ]
    headings = ("variant", *(name for _ in wanted for name in ("clean", "Δ", "robust", "Δ")))
    groups = ("", *(f"depth {depth}" for depth in wanted for _ in range(4))) if len(wanted) > 1 else ()
    label = f"ablation-{identity.protocol.name}-{identity.model.defence}"
    table = Table(
        title, headings, tuple(ranked(rows)), tuple(said), groups=groups, label=label, intervals="differences"
    )
    return Report((table,), tuple(long))


def _ordered(standings: Sequence[Standing], baseline: str | None) -> list[Standing]:
    if baseline is None:
        return list(standings)
    named = [s for s in standings if s.entry.model == baseline]
    if len(named) != 1:
        there = ", ".join(dict.fromkeys(s.entry.model for s in standings))
        raise InputError(f"--baseline: {baseline!r} should name one of the models here: {there}")
    return [*named, *(s for s in standings if s is not named[0])]


def _gap(
    standing: Standing,
    base: Standing,
    shown: Shown,
    figure: Figure,
    pair: tuple[DepthFigures, DepthFigures],
    paired: bool,
) -> Value:
    mine, theirs = (getattr(f, figure) for f in pair)
    if standing is base or mine is None or theirs is None:
        return Value(None, "points")
    grey = figure == "robust" and any(f.grey for f in pair)
    if paired:
        masks = (right_at(s, shown, figure, pair[0].depth) for s in (standing, base))
        a, b = masks
        if a is not None and b is not None:
            d = paired_bootstrap(a, b)
            return Value(d.difference, "points", low=d.low, high=d.high, grey=grey)
    return Value(mine.count / mine.of - theirs.count / theirs.of, "points", grey=grey)


def _changes(standings: Sequence[Standing], names: dict[Key, str]) -> list[str]:
    """Return for each variant the training settings in which it is not the baseline."""
    first = first_record(standings[0]).identity.model
    base = first.training or {}
    notes = []
    for standing in standings[1:]:
        model = first_record(standing).identity.model
        own = model.training or {}
        if model.defence != first.defence:
            continue
        changed = [f"{n} {_setting(own.get(n))}" for n in dict.fromkeys([*base, *own]) if own.get(n) != base.get(n)]
        more = f" and {len(changed) - MAX_CHANGES} more" if len(changed) > MAX_CHANGES else ""
        if changed:
            notes.append(f"{names[key_of(standing)]}: {', '.join(changed[:MAX_CHANGES])}{more}")
    return notes


def _setting(value: object) -> str:
    if isinstance(value, list):
        return "+".join(map(str, value))
    return "none" if value is None else str(value)


def _row(standing: Standing, shown: Shown, mine: DepthFigures, base: Standing, gaps: dict[Figure, Value]) -> Row:
    row = standing_row(standing, shown, mine)
    row |= {"baseline": base.entry.model, "baseline_weights_hash": base.entry.weights_hash}
    for figure, gap in gaps.items():
        content = gap.content if isinstance(gap.content, float) else None
        row |= {
            f"{figure}_difference": content,
            f"{figure}_difference_low": gap.low,
            f"{figure}_difference_high": gap.high,
        }
    return row
