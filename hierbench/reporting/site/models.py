"""What the page of a model shows: its rows, curves, transfer tables, records and where they come from."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from hierbench.board.card import AttackCard
from hierbench.board.ledger import SCORINGS, Entry, Ground, Placed
from hierbench.evaluation.records import Flag, Record
from hierbench.evaluation.scores import PARTS
from hierbench.reporting.labels import attack_labels, ball
from hierbench.reporting.rows import is_grey, scoring_of
from hierbench.reporting.site.charts import Chart, Series, make_chart
from hierbench.reporting.site.figures import SCORING_WORDS, Figure, figure, percent
from hierbench.reporting.site.names import model_page
from hierbench.reporting.site.protocols import GroundView, ProtocolView, without_radius
from hierbench.reporting.site.row import Row, count_flags, eps_value


@dataclass(frozen=True)
class Curves:
    """The charts of the grounds that differ in their radius alone, under one scoring."""

    dataset: str
    tree: str
    split: str
    scoring: str
    charts: tuple[Chart, ...]


@dataclass(frozen=True)
class HeatCell:
    """One attacked depth scored at another."""

    figure: Figure
    heat: int
    """0 (all images survive) to 10 (none does)."""
    detail: str


@dataclass(frozen=True)
class HeatAttack:
    """One attack: the depth it was aimed at, and how it scored at each."""

    name: str
    lines: tuple[tuple[str, tuple[HeatCell, ...]], ...]


@dataclass(frozen=True)
class HeatTable:
    """Attack x score depth on one ground, under one scoring."""

    scoring: str
    clean: tuple[HeatCell, ...]
    attacks: tuple[HeatAttack, ...]


@dataclass(frozen=True)
class Results:
    """The model's rows on grounds that differ in their radius alone, the smallest radius first."""

    rows: tuple[tuple[GroundView, Row], ...]

    @property
    def ground(self) -> Ground:
        """A ground, for what is the same in all."""
        return self.rows[0][0].ground

    @property
    def parts(self) -> tuple[str, ...]:
        """Which of trained, known and unseen any row has."""
        present = {part for _, row in self.rows for found in row.seen.values() for part in found}
        return tuple(part for part in PARTS if part in present)

    @property
    def kinds(self) -> tuple[tuple[str, str], ...]:
        """Field and heading of the kinds of attack that any row has apart."""
        named = (("autoattack", "AutoAttack"), ("text", "text"), ("both", "image + text"))
        return tuple((field, text) for field, text in named if any(getattr(row, field) for _, row in self.rows))


@dataclass(frozen=True)
class RecordLine:
    """One record with its files in the site."""

    placed: Placed
    label: str
    ball: str
    leaf: Figure
    command: str


@dataclass(frozen=True)
class Credit:
    """Images that others made against the model."""

    card: AttackCard
    records: int


@dataclass(frozen=True)
class ModelView:
    """Everything on a model's page."""

    entry: Entry
    protocol: ProtocolView
    href: str
    rows: tuple[tuple[GroundView, Row], ...]
    results: tuple[Results, ...]
    curves: tuple[Curves, ...]
    heats: tuple[tuple[Row, tuple[HeatTable, ...]], ...]
    """By ground, a table a scoring."""
    records: tuple[RecordLine, ...]
    flags: tuple[tuple[Flag, int], ...]
    credits: tuple[Credit, ...]
    environment: tuple[tuple[str, tuple[tuple[str, int], ...]], ...]
    """Field, then each value with its number of records."""
    shipped: bool
    """The weights are part of hierbench."""

    @property
    def record(self) -> Record:
        """A record, for what all share."""
        return self.entry.placed[0].record


def model_views(protocol: ProtocolView, entries: Iterable[Entry]) -> list[ModelView]:
    """Return the pages of a protocol's models, in the order of their names."""
    of_entry: dict[tuple[str, str], list[tuple[GroundView, Row]]] = {}
    for view in protocol.grounds:
        for row in view.rows:
            of_entry.setdefault((row.entry.model, row.entry.weights_hash), []).append((view, row))
    own = sorted((e for e in entries if e.protocol == protocol.name), key=lambda e: (e.model, e.weights_hash))
    return [_view(protocol, entry, of_entry[entry.model, entry.weights_hash]) for entry in own]


def _view(protocol: ProtocolView, entry: Entry, rows: Sequence[tuple[GroundView, Row]]) -> ModelView:
    from hierbench.models.catalogue import MODELS

    placed = [p for _, row in rows for p in row.placed]
    labels = attack_labels([p.record for p in placed])
    records = [p.record for p in placed]
    credits = Counter(p.credit for p in placed if p.credit is not None)
    return ModelView(
        entry=entry,
        protocol=protocol,
        href=f"models/{model_page(entry.protocol, entry.model, entry.weights_hash)}",
        rows=tuple(rows),
        results=tuple(map(Results, _groups(rows))),
        curves=tuple(_curves(rows)),
        heats=tuple((row, tables) for _, row in rows if (tables := _heats(row))),
        records=tuple(_line(p, label, entry) for p, label in zip(placed, labels, strict=True)),
        flags=count_flags(records),
        credits=tuple(Credit(card, count) for card, count in credits.items()),
        environment=_environment(records),
        shipped=entry.card is None and entry.model in MODELS,
    )


def _groups(rows: Sequence[tuple[GroundView, Row]]) -> list[tuple[tuple[GroundView, Row], ...]]:
    """Put the grounds that differ in their radius alone together; each norm is a group of its own."""
    groups: dict[object, list[tuple[GroundView, Row]]] = {}
    for view, row in rows:
        groups.setdefault((without_radius(view.ground), view.ground.norm), []).append((view, row))
    return [tuple(sorted(group, key=lambda pair: eps_value(pair[0].ground.eps))) for group in groups.values()]


def _curves(rows: Sequence[tuple[GroundView, Row]]) -> Iterable[Curves]:
    for group in _groups(rows):
        for scoring in SCORINGS:
            measured = [row for _, row in group if row.depths[scoring] and row.depths[scoring][-1].worst is not None]
            if measured:
                ground = measured[0].ground
                charts = [chart for make in (_over_depth, _over_eps) if (chart := make(measured, scoring)) is not None]
                yield Curves(ground.dataset, ground.tree, ground.split, scoring, tuple(charts))


def _over_depth(rows: Sequence[Row], scoring: str) -> Chart | None:
    first = rows[0].depths[scoring]
    if len(first) < 2:
        return None
    series = [Series("clean", tuple((float(d.depth), d.clean) for d in first))]
    for row in rows:
        points = tuple((float(d.depth), d.worst) for d in row.depths[scoring] if d.worst is not None)
        series.append(Series(f"eps {row.ground.eps}", points))
    ticks = [(float(d.depth), f"{d.depth} ({d.nodes})") for d in first]
    chance = [(float(d.depth), d.chance) for d in first]
    return make_chart("Over depth", "depth, 1 coarsest (nodes)", series, ticks, chance)


def _over_eps(rows: Sequence[Row], scoring: str) -> Chart:
    first, series = rows[0].depths[scoring], []
    for place, found in enumerate(first):
        points = [(0.0, found.clean)]
        for row in rows:
            worst = row.depths[scoring][place].worst
            if worst is not None and eps_value(row.ground.eps) > 0:
                points.append((eps_value(row.ground.eps), worst))
        series.append(Series("leaves" if place == len(first) - 1 else f"depth {found.depth}", tuple(points)))
    ticks = {0.0: "0"} | {eps_value(row.ground.eps): row.ground.eps for row in rows}
    return make_chart("Over eps", f"eps ({rows[0].ground.norm})", series, sorted(ticks.items()))


def _heats(row: Row) -> tuple[HeatTable, ...]:
    return tuple(table for scoring in SCORINGS if (table := _heat(row, scoring)) is not None)


def _heat(row: Row, scoring: str) -> HeatTable | None:
    """Return the transfer table of a ground under one scoring, or None where nothing was scored so."""
    placed = [p for p in row.placed if any(cell.scoring == scoring for cell in p.record.transfer)]
    if not placed:
        return None
    pale = {entry.depth: is_grey(entry) for entry in row.first.depths}
    attacks = []
    for p, label in zip(placed, attack_labels([p.record for p in placed]), strict=True):
        attack = p.record.identity.attack
        by_depth: dict[int, list[HeatCell]] = {}
        for cell in p.record.transfer:
            if cell.scoring == scoring:
                found = figure(cell.robust, pale=pale[cell.score_depth])
                assert found is not None
                detail = _detail(cell.relative, cell.success_share, cell.implied)
                by_depth.setdefault(cell.attack_depth, []).append(HeatCell(found, _heat_of(found), detail))
        aimed = [("every depth" if attack.pooled else f"depth {d}", tuple(c)) for d, c in sorted(by_depth.items())]
        attacks.append(HeatAttack(f"{label}, stopped by {SCORING_WORDS[attack.scoring]}", tuple(aimed)))
    clean = tuple(HeatCell(d.clean, _heat_of(d.clean), "") for d in row.depths[scoring])
    return HeatTable(scoring, clean, tuple(attacks))


def _heat_of(found: Figure) -> int:
    return round(10 * (1.0 - found.value))


def _detail(relative: float | None, share: object, implied: bool) -> str:
    parts = [] if relative is None else [f"{percent(relative)} % of clean"]
    value = getattr(share, "value", None)
    if isinstance(value, float):
        parts.append(f"{percent(value)} % of the successes carry over")
    if implied:
        parts.append("success here follows from roll-up")
    return "; ".join(parts)


def _line(placed: Placed, label: str, entry: Entry) -> RecordLine:
    record = placed.record
    last = record.depths[-1]
    leaf = figure(scoring_of(last, record).worst, pale=is_grey(last))
    assert leaf is not None
    return RecordLine(placed, label, ball(record), leaf, _command(record, entry))


def _command(record: Record, entry: Entry) -> str:
    """Return the command that evaluates the same cell, names quoted for the shell."""
    identity, attack = record.identity, record.identity.attack
    model = entry.model if entry.card is None or entry.card.weights.address is None else "FOLDER"
    words = [
        "hierbench", "eval", "--model", model, "--protocol", identity.protocol.name,
        "--dataset", identity.dataset.name, "--tree", identity.hierarchy.name,
        "--attack", attack.name, "--scoring", attack.scoring, "--eps", attack.eps,
    ]  # fmt: skip
    return shlex.join(words)


def _environment(records: Sequence[Record]) -> tuple[tuple[str, tuple[tuple[str, int], ...]], ...]:
    fields: dict[str, Counter[str]] = {}

    def note(name: str, value: object) -> None:
        if value is not None:
            fields.setdefault(name, Counter())[str(value)] += 1

    for record in records:
        where = record.environment
        note("hierbench", where.hierbench)
        note("code hash", where.code_hash)
        note("git commit", None if where.git_commit is None else _commit(where.git_commit, where.git_dirty))
        note("device", where.device if where.device_name is None else f"{where.device} ({where.device_name})")
        note("dtype", where.dtype)
        note("threads", where.threads)
        note("seed", where.seed)
        note("batch size", where.batch_size)
        note("processes", where.world_size)
        note("python", where.python)
        note("platform", where.platform)
        for package, version in where.packages.items():
            note(package, version)
    return tuple((name, tuple(sorted(values.items()))) for name, values in fields.items())


def _commit(commit: str, dirty: bool | None) -> str:
    return f"{commit}, with uncommitted changes" if dirty else commit


def settings_of(values: Mapping[str, object] | None) -> list[tuple[str, str]]:
    """Return training settings or guards as text, in the order of the record."""
    return [(name, _setting(value)) for name, value in (values or {}).items()]


def _setting(value: object) -> str:
    if isinstance(value, (list, tuple)):
        return ", ".join(map(_setting, value))
    if isinstance(value, float):
        return f"{value:.6g}"
    return "none" if value is None else str(value)
