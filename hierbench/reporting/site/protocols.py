"""What the page of a protocol shows: one table a ground, and the way from one ground to another."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from hierbench.board.ledger import SCORINGS, Board, Ground
from hierbench.evaluation.protocol import PROTOCOLS, Protocol, load_protocol_file
from hierbench.evaluation.scores import PARTS
from hierbench.reporting.site.names import slug
from hierbench.reporting.site.row import Row, eps_value, ground_id, ground_order, make_row


@dataclass(frozen=True)
class GroundView:
    """One ground with its rows, the most robust at the leaves first."""

    ground: Ground
    id: str
    rows: tuple[Row, ...]

    @property
    def samples(self) -> int:
        """Number of scored samples."""
        return self.rows[0].samples

    @property
    def first(self) -> Row:
        """A row, for what is the same in all."""
        return self.rows[0]

    @property
    def parts(self) -> tuple[str, ...]:
        """Which of trained, known and unseen any row has."""
        present = {part for row in self.rows for parts in row.seen.values() for part in parts}
        return tuple(part for part in PARTS if part in present)

    @property
    def has_text(self) -> bool:
        """Whether any row has an attack on texts."""
        return any(row.text for row in self.rows)

    @property
    def has_both(self) -> bool:
        """Whether any row has an attack on images and texts."""
        return any(row.both for row in self.rows)

    @property
    def only_custom(self) -> bool:
        """Whether nothing here was run as the protocol says."""
        return all(row.custom == "all" for row in self.rows)


@dataclass(frozen=True)
class PickerRow:
    """Grounds that differ in their radius alone."""

    ground: Ground
    samples: int
    cells: Mapping[tuple[str, str], GroundView]
    """By norm and eps."""


@dataclass(frozen=True)
class Picker:
    """Radii across, everything else down."""

    radii: tuple[tuple[str, str], ...]
    rows: tuple[PickerRow, ...]


@dataclass(frozen=True)
class ProtocolView:
    """A protocol with what was measured under it."""

    name: str
    version: int
    protocol: Protocol | None
    """None where its file is not at hand."""
    grounds: tuple[GroundView, ...]
    models: int
    records: int
    latest: str
    """Date of the newest record; empty without one."""

    @property
    def slug(self) -> str:
        """Stem of the page's name."""
        return slug(self.name)

    @property
    def title(self) -> str:
        """What it is called."""
        return self.protocol.title if self.protocol is not None else self.name

    @property
    def first_shown(self) -> str:
        """The ground that is shown unless the reader says otherwise: the first one at its data set's default radius."""
        of = {} if self.protocol is None else {d.name: d for d in self.protocol.datasets}
        for view in self.grounds:
            dataset = of.get(view.ground.dataset)
            if dataset is not None and dataset.default_eps == view.ground.eps and not view.only_custom:
                return view.id
        return next((view.id for view in self.grounds if not view.only_custom), "")

    @property
    def has_seen(self) -> bool:
        """Whether any ground tells trained, known and unseen classes apart."""
        return any(view.parts for view in self.grounds)

    @property
    def has_custom(self) -> bool:
        """Whether any row is custom throughout."""
        return any(row.custom == "all" for view in self.grounds for row in view.rows)

    @property
    def picker(self) -> Picker:
        """The grounds that were run as the protocol says."""
        return make_picker([view for view in self.grounds if not view.only_custom])

    @property
    def custom_picker(self) -> Picker:
        """The grounds of custom records."""
        return make_picker([view for view in self.grounds if view.only_custom])


def protocol_views(board: Board) -> tuple[ProtocolView, ...]:
    """Return the protocols of the board's folder and of its records: those with records first, then by name."""
    known = _protocol_files(board.folder)
    names = {*known, *(entry.protocol for entry in board.entries)}
    views = [_view(board, name, known.get(name)) for name in sorted(names)]
    return tuple(sorted(views, key=lambda view: (not view.records, view.name)))


def make_picker(views: Sequence[GroundView]) -> Picker:
    """Arrange grounds by what they share but the radius."""
    radii = sorted({(v.ground.norm, v.ground.eps) for v in views}, key=lambda r: (r[0], eps_value(r[1]), r[1]))
    rows: dict[Ground, dict[tuple[str, str], GroundView]] = {}
    for view in views:
        rows.setdefault(without_radius(view.ground), {})[view.ground.norm, view.ground.eps] = view
    return Picker(
        tuple(radii),
        tuple(PickerRow(ground, next(iter(cells.values())).samples, cells) for ground, cells in rows.items()),
    )


def without_radius(ground: Ground) -> Ground:
    """Return a ground whose radius does not count."""
    return replace(ground, norm="", eps="0")


def budget_of(protocol: Protocol) -> str:
    """Return the settings that a protocol fixes of its attacks, in words."""
    said = [
        f"{attack}: " + ", ".join(f"{name} {value}" for name, value in settings.items())
        for attack, settings in protocol.attacks.parameters.items()
    ]
    return "; ".join(said) or "each attack's own"


def _protocol_files(folder: Path) -> dict[str, Protocol]:
    paths = sorted((folder / "protocols").glob("*.toml"))
    if paths:
        return {protocol.name: protocol for protocol in map(load_protocol_file, paths)}
    return dict(PROTOCOLS.items())


def _view(board: Board, name: str, protocol: Protocol | None) -> ProtocolView:
    grounds: dict[Ground, list[Row]] = {}
    entries = [entry for entry in board.entries if entry.protocol == name]
    for standing in board.standings(name):
        grounds.setdefault(standing.ground, []).append(make_row(standing))
    order = [dataset.name for dataset in protocol.datasets] if protocol is not None else []
    views = [
        GroundView(ground, ground_id(ground), _marked(sorted(grounds[ground], key=_most_robust_first)))
        for ground in sorted(grounds, key=lambda ground: ground_order(ground, order, grounds[ground][0].samples))
    ]
    records = [placed.record for entry in entries for placed in entry.placed]
    version = protocol.version if protocol is not None else max(r.identity.protocol.version for r in records)
    latest = max((r.created[:10] for r in records), default="")
    return ProtocolView(name, version, protocol, tuple(views), len(entries), len(records), latest)


def _most_robust_first(row: Row) -> tuple[object, ...]:
    depths = row.depths["rollup"]
    worst = depths[-1].worst if depths else None
    return (row.custom == "all", -1.0 if worst is None else -worst.value, row.entry.model, row.entry.weights_hash)


def _marked(rows: Sequence[Row]) -> tuple[Row, ...]:
    """Mark the best worst case of every column among rows that may be compared; a pale one is the best of nothing."""
    marked = list(rows)
    for scoring in SCORINGS:
        for place in range(max((len(row.depths[scoring]) for row in rows), default=0)):
            values = [
                found.worst.value
                for row in rows
                if row.custom != "all" and place < len(row.depths[scoring])
                if (found := row.depths[scoring][place]).worst is not None
            ]
            if len(values) < 2:
                continue
            marked = [_mark(row, scoring, place, max(values)) for row in marked]
    return tuple(marked)


def _mark(row: Row, scoring: str, place: int, best: float) -> Row:
    depths = row.depths[scoring]
    if row.custom == "all" or place >= len(depths):
        return row
    found = depths[place]
    if found.worst is None or found.pale or found.worst.value != best:
        return row
    won = replace(found, worst=found.worst.best_of_column())
    return replace(row, depths={**row.depths, scoring: (*depths[:place], won, *depths[place + 1 :])})
