"""The four formats of a report. Names in records may be written by strangers: every format escapes them."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

from hierbench.errors import InputError
from hierbench.reporting.layouts import BOUNDED
from hierbench.reporting.table import Report, Row, Scalar, Table, Value, format_value, printable

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
    from rich.table import Table as RichTable

FORMATS = ("rich", "csv", "latex", "markdown")


def render_text(report: Report, form: str) -> str:
    """Return a report as CSV, LaTeX or Markdown text; ``rich`` has no text, see ``render_rich``."""
    if form == "csv":
        return to_csv(report.rows)
    if form == "latex":
        return "\n\n".join(map(to_latex, report.tables)) + "\n"
    if form == "markdown":
        return "\n\n".join(map(to_markdown, report.tables)) + "\n"
    raise InputError(f"--format: {form!r} is none of {', '.join(FORMATS)}")


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

        drawn = self._drawn(stacked=False)
        if Measurement.get(console, options.update(max_width=1000), drawn).maximum > options.max_width:
            drawn = self._drawn(stacked=True)
        yield Text(printable(self.table.title), style="bold")
        yield drawn
        for note in self.table.notes:
            yield Text(f"  {printable(note)}", style=_note_style(note))
        yield Text("")

    def _drawn(self, *, stacked: bool) -> RichTable:
        from rich import box
        from rich.table import Table as RichTable
        from rich.text import Text

        table = self.table
        shown = [i for i, name in enumerate(table.columns) if not (stacked and name in table.spare)]
        gap = (0, 0) if stacked else (0, 1)
        drawn = RichTable(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=gap, collapse_padding=True)
        for i in shown:
            right = any(row[i].kind != "text" for row in table.rows)
            drawn.add_column(Text(printable(table.columns[i])), justify="right" if right else "left")
        for row in table.rows:
            drawn.add_row(*(Text(_shown(row[i], stacked=stacked), style=_grey(row[i])) for i in shown))
        return drawn


def _grey(value: Value) -> str:
    return "bright_black" if value.grey else ""


def _note_style(note: str) -> str:
    if "failed:" in note[:60]:
        return "bold red"
    return "yellow" if "warning:" in note[:60] else "dim"


def _shown(value: Value, *, stacked: bool = False) -> str:
    lines = (printable(line) for line in format_value(value, stacked=stacked).split("\n"))
    text = "\n".join(lines) if value.kind == "share" else " ".join(lines)
    return f"{value.mark}{text}" if value.mark == BOUNDED else f"{text}{value.mark}"


def to_markdown(table: Table) -> str:
    """Return a table as GitHub Markdown; grey entries are in italics."""
    lines = [f"**{escape_markdown(table.title)}**", ""]
    lines.append("| " + " | ".join(escape_markdown(heading) for heading in table.columns) + " |")
    numeric = [any(row[i].kind != "text" for row in table.rows) for i in range(len(table.columns))]
    lines.append("|" + "|".join("---:" if right else "---" for right in numeric) + "|")
    for row in table.rows:
        shown = (escape_markdown(_shown(value)) for value in row)
        styled = (f"*{text}*" if value.grey else text for text, value in zip(shown, row, strict=True))
        lines.append("| " + " | ".join(styled) + " |")
    lines += ["", *(f"- {escape_markdown(note)}" for note in table.notes)]
    return "\n".join(lines)


def escape_markdown(text: str) -> str:
    r"""Return a text that Markdown shows as it is, inside a table cell too.

    >>> print(escape_markdown("a|b <i> [x](y) @me"))
    a\|b &lt;i&gt; \[x\]\(y\) \@me
    """
    plain = printable(text).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return re.sub(r"([\\`*_{}\[\]()#|~$@!])", r"\\\1", plain)


LATEX = {
    "\\": r"\textbackslash{}", "{": r"\{", "}": r"\}", "$": r"\$", "&": r"\&", "#": r"\#", "%": r"\%", "_": r"\_",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}", ">": r"\textgreater{}",
    "|": r"\textbar{}", '"': r"\textquotedbl{}", "`": r"\textasciigrave{}", "–": "--", "≤": r"$\leq$",
    "-": "{-}", "'": r"\textquotesingle{}",
}  # fmt: skip


def escape_latex(text: str) -> str:
    r"""Return a text that LaTeX sets as it is; letters outside ASCII stay, other signs become ``?``.

    >>> print(escape_latex(r"50% of a_b \input{x}"))
    50\% of a\_b \textbackslash{}input\{x\}
    """
    return "".join(LATEX.get(c, c if c.isascii() or c.isalpha() else "?") for c in printable(text))


def to_latex(table: Table) -> str:
    """Return a table for the ``booktabs`` package (``textcomp`` and ``xcolor`` for odd signs and grey entries)."""
    numeric = [any(row[i].kind != "text" for row in table.rows) for i in range(len(table.columns))]
    lines = [
        r"\begin{table}",
        r"\centering",
        rf"\caption{{{escape_latex(table.title)}}}",
        rf"\begin{{tabular}}{{{''.join('r' if right else 'l' for right in numeric)}}}",
        r"\toprule",
        " & ".join(escape_latex(heading) for heading in table.columns) + r" \\",
        r"\midrule",
    ]
    lines += [" & ".join(map(_latex_value, row)) + r" \\" for row in table.rows]
    lines += [r"\bottomrule", r"\end{tabular}"]
    lines += [rf"\par\footnotesize {escape_latex(note)}" for note in table.notes]
    return "\n".join([*lines, r"\end{table}"])


def _latex_value(value: Value) -> str:
    text = escape_latex(_shown(value)).replace("{-}{-}", "--")
    # a bracket first in a cell would be read as the optional argument of the line break before it
    text = f"{{{text}}}" if text.startswith("[") else text
    return rf"\textcolor{{gray}}{{{text}}}" if value.grey else text


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
