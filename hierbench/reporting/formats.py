"""The four formats of a report. Names in records may be written by strangers: every format escapes them."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable, Iterator, Sequence
from itertools import groupby
from typing import TYPE_CHECKING

from hierbench.errors import InputError
from hierbench.reporting.latex import escape_latex, needs, standalone, to_latex
from hierbench.reporting.layouts import BOUNDED
from hierbench.reporting.table import Intervals, Report, Row, Scalar, Table, Value, format_value, printable

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
    from rich.table import Table as RichTable
    from rich.text import Text

FORMATS = ("rich", "csv", "latex", "markdown")

__all__ = [
    "FORMATS", "escape_latex", "escape_markdown", "render_rich", "render_text", "to_csv", "to_latex", "to_markdown",
]  # fmt: skip


def render_text(report: Report, form: str, *, document: bool = False) -> str:
    """Return a report as CSV, LaTeX or Markdown text; ``rich`` has no text, see ``render_rich``.

    ``document``: LaTeX that compiles as it is, instead of what is pasted into a paper.
    """
    if form == "csv":
        return to_csv(report.rows)
    if form == "latex":
        body = "\n\n".join(map(to_latex, _labelled(report.tables))) + "\n"
        return standalone(body) if document else needs() + body
    if form == "markdown":
        return "\n\n".join(map(to_markdown, report.tables)) + "\n"
    raise InputError(f"--format: {form!r} is none of {', '.join(FORMATS)}")


def _labelled(tables: Sequence[Table]) -> Iterator[Table]:
    """Yield the tables with labels that no two share."""
    from dataclasses import replace

    for number, table in enumerate(tables, start=1):
        yield table if len(tables) == 1 else replace(table, label=f"{number} {table.label or table.title}")


def render_rich(report: Report) -> RenderableType:
    """Return a report for a terminal: figures in one line where there is room, else over their intervals."""
    from rich.console import Group

    return Group(*(_RichTable(table) for table in report.tables))


class _RichTable:
    """A table that looks how much room it has. Text objects are never read as markup: a name cannot colour or link."""

    def __init__(self, table: Table) -> None:
        self.table = table

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        from rich.measure import Measurement
        from rich.text import Text

        def fits(columns: Sequence[int], *, stacked: bool) -> bool:
            drawn = self._drawn(columns, stacked=stacked)
            return Measurement.get(console, options.update(max_width=1000), drawn).maximum <= options.max_width

        table = self.table
        every = range(len(table.columns))
        stacked = not fits(every, stacked=False)
        shown = [i for i in every if not (stacked and table.columns[i] in table.spare)]
        yield Text(printable(table.title), style="bold")
        for part in self._parts(shown, lambda columns: fits(columns, stacked=stacked)) if stacked else [shown]:
            yield self._drawn(part, stacked=stacked)
        for note in table.notes:
            yield Text(f"  {printable(note)}", style=_note_style(note))
        yield Text("")

    def _parts(self, shown: Sequence[int], fits: Callable[[Sequence[int]], bool]) -> list[list[int]]:
        """Return the columns in parts that fit: whole groups, with the columns before the first group at the left."""
        groups = self.table.groups
        if not any(groups) or fits(shown):
            return [list(shown)]
        first = next(i for i in shown if groups[i])
        left = [i for i in shown if i < first]
        parts: list[list[int]] = [list(left)]
        for _, members in groupby((i for i in shown if i >= first), key=lambda i: groups[i]):
            block = list(members)
            if len(parts[-1]) > len(left) and not fits([*parts[-1], *block]):
                parts.append(list(left))
            parts[-1] += block
        return parts

    def _drawn(self, columns: Sequence[int], *, stacked: bool) -> RichTable:
        from rich import box
        from rich.table import Table as RichTable
        from rich.text import Text

        table = self.table
        groups = table.groups or ("",) * len(table.columns)
        gap = (0, 0) if stacked else (0, 1)
        drawn = RichTable(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=gap, collapse_padding=True)
        for i in columns:
            right = any(row[i].kind != "text" for row in table.rows)
            heading = (
                f"{printable(groups[i])}\n{printable(table.columns[i])}" if any(groups) else printable(table.columns[i])
            )
            drawn.add_column(Text(heading), justify="right" if right else "left", overflow="fold")
        for number, row in enumerate(table.rows):
            if number in table.rules:
                drawn.add_section()
            drawn.add_row(*(_rich(row[i], table.intervals, stacked=stacked) for i in columns))
        return drawn


def _rich(value: Value, intervals: Intervals, *, stacked: bool) -> Text:
    from rich.text import Text

    text = Text(_shown(value, intervals, stacked=stacked), style=_grey(value))
    if value.rank:
        text.stylize("bold" if value.rank == 1 else "underline", 0, len(text.plain.split()[0]))
    return text


def _grey(value: Value) -> str:
    return "bright_black" if value.grey else ""


def _note_style(note: str) -> str:
    if "failed:" in note[:60]:
        return "bold red"
    return "yellow" if "warning:" in note[:60] else "dim"


def _shown(value: Value, intervals: Intervals = "wilson", *, stacked: bool = False) -> str:
    lines = (printable(line) for line in format_value(value, intervals=intervals, stacked=stacked).split("\n"))
    text = "\n".join(lines) if value.kind in ("share", "points") else " ".join(lines)
    return f"{value.mark}{text}" if value.mark == BOUNDED else f"{text}{value.mark}"


def to_markdown(table: Table) -> str:
    """Return a table as GitHub Markdown: best bold, second underlined, grey entries in italics."""
    lines = [f"**{escape_markdown(table.title)}**", ""]
    groups = table.groups or ("",) * len(table.columns)
    headings = (f"{group} {name}".strip() for group, name in zip(groups, table.columns, strict=True))
    lines.append("| " + " | ".join(map(escape_markdown, headings)) + " |")
    numeric = [any(row[i].kind != "text" for row in table.rows) for i in range(len(table.columns))]
    lines.append("|" + "|".join("---:" if right else "---" for right in numeric) + "|")
    for row in table.rows:
        lines.append("| " + " | ".join(_markdown_value(value, table.intervals) for value in row) + " |")
    lines += ["", *(f"- {escape_markdown(note)}" for note in table.notes)]
    return "\n".join(lines)


def _markdown_value(value: Value, intervals: Intervals) -> str:
    text = escape_markdown(_shown(value, intervals))
    if value.rank:
        head, gap, tail = text.partition(" ")
        text = (f"**{head}**" if value.rank == 1 else f"<u>{head}</u>") + gap + tail
    return f"*{text}*" if value.grey and text else text


def escape_markdown(text: str) -> str:
    r"""Return a text that Markdown shows as it is, inside a table cell too.

    >>> print(escape_markdown("a|b <i> [x](y) @me"))
    a\|b &lt;i&gt; \[x\]\(y\) \@me
    """
    plain = printable(text).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return re.sub(r"([\\`*_{}\[\]()#|~$@!])", r"\\\1", plain)


def to_csv(rows: Sequence[Row]) -> str:
    """Return the long form as CSV with a heading; numbers in full, to read back equal; empty: not measured."""
    if not rows:
        return ""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(rows[0])
    writer.writerows([_csv_value(value) for value in row.values()] for row in rows)
    return out.getvalue()


def _csv_value(value: Scalar) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (int, float)):
        return repr(value)
    text = printable(value)
    # spreadsheets run what looks like a formula
    return f"'{text}" if text[:1] in ("=", "+", "-", "@") else text
