"""Figures that papers reported, beside measured ones: marked, with their protocol and source, and never ranked."""

from __future__ import annotations

import csv
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from pathlib import Path

from hierbench.errors import InputError
from hierbench.paths import data_dir
from hierbench.reporting.ranks import Line
from hierbench.reporting.table import Row, Table, Value

FILE = "reported_results.csv"
MAX_BYTES = 16 << 20
COLUMNS = (
    "method", "protocol", "backbone", "trained_on", "dataset", "metric", "eps", "value", "source", "note",
)  # fmt: skip
SAME_DATASET = {
    "cars": "stanfordcars", "pets": "oxfordpets", "flowers": "flowers102", "fgvc": "fgvcaircraft",
}  # fmt: skip
"""What the file calls a dataset, and our name without its signs."""


@dataclass(frozen=True)
class Reported:
    """One figure of a paper; ``value`` is a share in [0, 1], ``eps`` empty for clean accuracy."""

    method: str
    protocol: str
    backbone: str
    trained_on: str
    dataset: str
    metric: str
    eps: str
    value: float
    source: str
    note: str

    @property
    def defence(self) -> str | None:
        """The defence it is a figure of, ``none`` for the undefended; None for a part of an ablation."""
        name, _, rest = self.method.partition(" ")
        if rest and not rest.startswith("("):
            return None
        return "none" if name == "clip" else name

    def is_of(self, dataset: str) -> bool:
        """Return whether it is a figure on one of our datasets, whatever the pixel grid."""
        theirs = _plain(self.dataset)
        return SAME_DATASET.get(theirs, theirs) == _plain(dataset.partition("@")[0])


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())


def read_reported(path: Path | None = None) -> tuple[Reported, ...]:
    """Read the figures; None: the file beside the leaderboard. What is wrong raises ``InputError`` naming the line."""
    path = path or data_dir() / "leaderboard" / FILE
    try:
        if path.stat().st_size > MAX_BYTES:
            raise InputError(f"{path}: larger than 16 MiB")
        with path.open(encoding="utf-8", newline="") as handle:
            reader = csv.DictReader(handle)
            if reader.fieldnames is None or set(COLUMNS) - set(reader.fieldnames):
                raise InputError(f"{path}: the columns should be {', '.join(COLUMNS)}")
            return tuple(
                _read(path, number, line)
                for number, line in enumerate(reader, start=2)
                if "gain" not in (line["metric"] or "")
            )
    except FileNotFoundError:
        raise InputError(f"{path}: no reported figures there; --reported-from names the file") from None
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path}: {error}") from None


def _read(path: Path, number: int, line: dict[str, str | None]) -> Reported:
    texts = {name: line[name] or "" for name in COLUMNS}
    try:
        value = float(Decimal(texts.pop("value")) / 100)
    except ArithmeticError:
        raise InputError(f"{path}: line {number}: value is not a number") from None
    if not 0.0 <= value <= 1.0:
        raise InputError(f"{path}: line {number}: value should be a percentage, 0 to 100")
    return Reported(value=value, **texts)


def chosen(reported: Sequence[Reported], defences: Collection[str], datasets: Collection[str]) -> list[Reported]:
    """Return the figures of some defences on some datasets."""
    return [r for r in reported if r.defence in defences and any(r.is_of(name) for name in datasets)]


def add_reported(
    table: Table, reported: Sequence[Reported], defences: Collection[str], datasets: Sequence[str]
) -> Table:
    """Return the table with a block of reported figures below the measured ones.

    ``datasets`` names for each pair of columns the dataset whose leaf accuracy it shows, or is empty. A line holds one
    paper's figures of one method, backbone, training set and attack.
    """
    found = chosen(reported, defences, [name for name in datasets if name])
    if not found:
        return replace(
            table, notes=(*table.notes, "reported figures were asked for: there is none of these models here")
        )
    clean = {(*_whose(r), r.dataset): r.value for r in found if r.metric == "clean"}
    lines: dict[tuple[str, ...], dict[str, float]] = {}
    for r in found:
        if r.metric != "clean":
            lines.setdefault((*_whose(r), r.metric, r.eps), {})[r.dataset] = r.value
    for whose in {_whose(r) for r in found} - {key[:-2] for key in lines}:
        lines[(*whose, "", "")] = {}
    sources: dict[str, int] = {}
    rows: list[Line] = []
    for key, robust in sorted(lines.items()):
        whose, (metric, eps) = key[:-2], key[-2:]
        number = sources.setdefault(_source(whose, metric, eps), len(sources) + 1)
        values = []
        for name in datasets:
            theirs = next((r.dataset for r in found if name and r.is_of(name)), "")
            values += [Value(clean.get((*whose, theirs)), "share"), Value(robust.get(theirs), "share")]
        rows.append((Value(whose[0], mark=f" †{number}"), *values))
    heading = (Value("reported:"), *[Value("")] * (len(table.columns) - 1))
    notes = [f"†{number}: {said}" for said, number in sources.items()]
    return replace(
        table,
        rows=(*table.rows, heading, *rows),
        rules=(*table.rules, len(table.rows)),
        notes=(
            *table.notes,
            "†: reported under other protocols, not measured here; neither ranked nor comparable with the rest",
            *notes,
        ),
    )


def reported_rows(
    rows: Sequence[Row], reported: Sequence[Reported], defences: Collection[str], datasets: Collection[str]
) -> list[Row]:
    """Return the long form with the reported figures as further lines, ``source`` says which is which."""
    extra = ("metric", "backbone", "trained_on", "reference")
    made: list[Row] = [{**row, **dict.fromkeys(extra)} for row in rows]
    for r in chosen(reported, defences, datasets):
        line: Row = dict.fromkeys(made[0])
        name = next(d for d in datasets if r.is_of(d))
        line |= {"source": "reported", "protocol": r.protocol, "model": r.method, "defence": r.defence, "dataset": name}
        line |= {"eps": r.eps or None, "clean" if r.metric == "clean" else "robust": r.value}
        line |= {"metric": r.metric, "backbone": r.backbone, "trained_on": r.trained_on, "reference": r.source}
        made.append(line)
    return made


def _whose(r: Reported) -> tuple[str, ...]:
    return r.method, r.protocol, r.backbone, r.trained_on, r.source, r.note


def _source(whose: Sequence[str], metric: str, eps: str) -> str:
    _, protocol, backbone, trained_on, source, note = whose
    attack = f", robust: {metric}" + (f" at {eps}" if eps else "") if metric else ""
    remark = f"; {note}" if note else ""
    return f"protocol {protocol}, {backbone} trained on {trained_on}{attack}; {source}{remark}"
