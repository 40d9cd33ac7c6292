"""Models as rows, clean and robust accuracy in pairs of columns, ranked, with what chance gives above them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import fmean

from hierbench.board.ledger import Ground, Placed, Standing
from hierbench.evaluation.records import Record
from hierbench.reporting.layouts import proportion_value
from hierbench.reporting.ranks import Line, ranked
from hierbench.reporting.standings import DepthFigures, Shown, attack_names, figures, names_of
from hierbench.reporting.table import Table, Value

GREY = "grey or italic: clean direct accuracy is under 50 % at this depth; such figures are ranked all the same"
RANKS = "bold: best, underlined: second of the models measured, column by column"
PAIR = ("clean", "robust")
BLANK = Value("")
Key = tuple[str, str]
"""A model: its name and its weights."""


@dataclass(frozen=True)
class Column:
    """A pair of columns: one dataset or one depth."""

    heading: str
    cells: dict[Key, tuple[Value, Value]]
    """Clean and robust by model."""
    reference: tuple[float | None, float | None] = (None, None)
    """Accuracy by chance and of the most frequent node."""


def key_of(standing: Standing) -> Key:
    """Return which model a standing is of."""
    return standing.entry.model, standing.entry.weights_hash


def first_record(standing: Standing) -> Record:
    """Return a record for what all records of a standing share."""
    return standing.placed[0].record


def records_of(standings: Sequence[Standing]) -> list[Record]:
    """Return every record of some standings."""
    return [placed.record for standing in standings for placed in standing.placed]


def column_of(heading: str, found: dict[Key, DepthFigures]) -> Column:
    """Return the column of some models' figures at one place."""
    cells = {key: (proportion_value(f.clean), proportion_value(f.robust, grey=f.grey)) for key, f in found.items()}
    chances: set[float | None] = {f.chance for f in found.values()}
    majorities = {f.majority for f in found.values()}
    return Column(heading, cells, (_only(chances), _only(majorities)))


def _only(values: set[float | None]) -> float | None:
    return next(iter(values)) if len(values) == 1 else None


def mean_column(columns: Sequence[Column]) -> Column:
    """Return the unweighted mean of the columns for the models that have a figure in each, without an interval."""
    cells = {}
    for key in columns[0].cells:
        if all(key in column.cells for column in columns):
            pairs = [column.cells[key] for column in columns]
            cells[key] = (_mean([clean for clean, _ in pairs]), _mean([robust for _, robust in pairs]))
    return Column("mean", cells)


def _mean(values: Sequence[Value]) -> Value:
    contents = [value.content for value in values if isinstance(value.content, float)]
    grey = any(value.grey for value in values)
    return Value(fmean(contents) if len(contents) == len(values) else None, "share", grey=grey)


def grid(title: str, columns: Sequence[Column], standings: Sequence[Standing], *, block: str = "") -> Table:
    """Return models x columns; ``block`` heads the models, which are one comparable block."""
    names, odd = names_of(standings), {key for keys in odd_sets(standings).values() for key in keys}
    rows: list[Line] = []
    for key in dict.fromkeys(map(key_of, standings)):
        missing = (Value(None, "share"), Value(None, "share"))
        pairs = (value for column in columns for value in column.cells.get(key, missing))
        rows.append((Value(names[key], mark="*" if key in odd else ""), *pairs))
    rows = ranked(rows)
    width = 1 + 2 * len(columns)
    above = [(Value(block), *[BLANK] * (width - 1))] if block else []
    headings = ("model", *(what for _ in columns for what in PAIR))
    groups = ("", *(column.heading for column in columns for _ in PAIR))
    return Table(title, headings, (*above, *rows), groups=groups, intervals="none")


def reference_lines(columns: Sequence[Column]) -> list[Line]:
    """Return what chance and the most frequent node give, under the clean columns."""
    lines = []
    for number, name in enumerate(("chance", "majority")):
        values = ((Value(column.reference[number], "share"), BLANK) for column in columns)
        lines.append((Value(name), *(value for pair in values for value in pair)))
    return lines


def majority_notes(columns: Sequence[Column]) -> list[str]:
    """Say how many robust figures lie below what ignoring the image gives there; nothing if none does."""
    counted = [_below([robust for _, robust in c.cells.values()], c.reference[1]) for c in columns]
    return _said_below(sum(below for below, _ in counted), sum(of for _, of in counted))


def below_majority(robust: Sequence[Value], majority: float | None) -> list[str]:
    """Say the same of robust figures that stand beside one majority."""
    return _said_below(*_below(robust, majority))


def _below(robust: Sequence[Value], majority: float | None) -> tuple[int, int]:
    figures = [value.content for value in robust if isinstance(value.content, float) and majority is not None]
    return sum(figure < (majority or 0) for figure in figures), len(figures)


def _said_below(below: int, of: int) -> list[str]:
    return [f"{below} of {of} robust figures lie below majority: always naming the most frequent node keeps more"] * (
        below > 0
    )


def stacked(tables: Sequence[Table], above: Sequence[Line], notes: Sequence[str], label: str) -> Table:
    """Return the blocks of some tables under one heading, with lines above them."""
    rows, rules = list(above), []
    for table in tables:
        rules += [len(rows)] if rows else []
        rows += table.rows
    return replace(tables[0], rows=tuple(rows), rules=tuple(rules), notes=tuple(notes), label=label)


def grid_notes(standings: Sequence[Standing], shown: Shown) -> list[str]:
    """Return what stands under such a table: ranks, what robust means, every attack in it, warnings."""
    names = names_of(standings)
    among = [placed for standing in standings for placed in standing.placed]
    odd = odd_sets(standings)
    notes = [RANKS] if len(names) > 1 else []
    notes.append(f"robust: {shown.words()}")
    several = len({s.ground.dataset for s in standings}) > 1
    for ground in dict.fromkeys(s.ground for s in standings):
        sets = {key_of(s): attack_names(s.placed, among) for s in standings if s.ground == ground}
        where = f" on {ground.dataset}" if several else ""
        if odd[ground]:
            said = "; ".join(f"{names[key]}: {', '.join(found)}" for key, found in sets.items())
            notes.append(f"attacks{where}: {said}")
        else:
            notes.append(f"attacks{where}: {', '.join(next(iter(sets.values())))}")
    if any(odd.values()):
        notes.append("*: met other attacks than most here; a worst case over more attacks is lower by itself")
    if any(f.grey for s in standings for f in figures(s, shown)):
        notes.append(GREY)
    return list(dict.fromkeys([*notes, *remarks(among, names)]))


def remarks(placed: Sequence[Placed], names: dict[Key, str]) -> list[str]:
    """Return the warnings of some records, and the settings in which they are not their protocol's."""
    notes = []
    for record in (p.record for p in placed):
        identity = record.identity
        name = names[identity.model.name, identity.model.weights_hash]
        notes += [f"{name}: warning: {f.message} ({f.code})" for f in record.checks.flags if f.level == "warning"]
        if identity.protocol.custom:
            said = "; ".join(identity.protocol.deviations)
            notes.append(f"custom, not of protocol {identity.protocol.name}: {identity.attack.name} ({said})")
    return list(dict.fromkeys(notes))


def odd_sets(standings: Sequence[Standing]) -> dict[Ground, set[Key]]:
    """Return for each ground the models that met other attacks there than most."""
    among = [placed for standing in standings for placed in standing.placed]
    odd: dict[Ground, set[Key]] = {}
    for ground in dict.fromkeys(s.ground for s in standings):
        sets = {key_of(s): attack_names(s.placed, among) for s in standings if s.ground == ground}
        usual = Counter(sets.values()).most_common(1)[0][0]
        odd[ground] = {key for key, found in sets.items() if found != usual}
    return odd
