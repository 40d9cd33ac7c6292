"""Tables in LaTeX, for the ``booktabs`` package (and ``xcolor`` for pale entries); every name in them is escaped."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

from hierbench.reporting.table import Intervals, Table, Value, format_interval, format_value, is_heading, printable

LATEX = {
    "\\": r"\textbackslash{}", "{": r"\{", "}": r"\}", "$": r"\$", "&": r"\&", "#": r"\#", "%": r"\%", "_": r"\_",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}", ">": r"\textgreater{}",
    "|": r"\textbar{}", '"': "''", "`": r"\textasciigrave{}", "–": "--", "≤": r"$\leq$",
    "-": "{-}", "'": r"\textquotesingle{}", "−": "$-$", "±": r"$\pm$", "†": r"\textdagger{}", "×": r"$\times$",
    "Δ": r"$\Delta$",
}  # fmt: skip

PACKAGES = (r"\usepackage{booktabs}", r"\usepackage{xcolor}")
ROOM = 470.0
"""Points of width that a table may take: both columns of a usual paper."""
ONE_COLUMN = 240.0


@dataclass(frozen=True)
class Size:
    """A size of type, with what it is wide."""

    command: str
    digit: float
    """Width of a digit in points: small type is wider for its height."""
    gap: float
    """Space at each side of a column, in points."""


SIZES = (
    Size("", 5.0, 6.0),
    Size(r"\small", 4.63, 5.0),
    Size(r"\footnotesize", 4.25, 3.0),
    Size(r"\scriptsize", 3.98, 2.2),
)
INTERVAL = Size(r"\fontsize{6}{7}\selectfont", 3.67, 0.0)
"""Intervals that stand under their figures."""
NARROW, WIDE = " .,;:[]()|!'ijl", "mwMW−+±≤=Δ"


def escape_latex(text: str) -> str:
    r"""Return a text that LaTeX sets as it is; letters of Western scripts stay, other signs become ``?``.

    >>> print(escape_latex(r"50% of a_b \input{x}"))
    50\% of a\_b \textbackslash{}input\{x\}
    """
    # a letter that pdflatex cannot set would stop it: these are known in its oldest encoding too
    return "".join(LATEX.get(c, c if c.isascii() or _known(c) else "?") for c in printable(text))


def _known(letter: str) -> bool:
    parts = unicodedata.normalize("NFD", letter)
    composed = len(parts) == 2 and parts[0].isascii() and parts[0].isalpha() and parts[1] in ACCENTS
    return (composed and letter <= "\u017e") or letter in "ÆæØøŒœßŁłı"


ACCENTS = "\u0300\u0301\u0302\u0303\u0304\u0306\u0307\u0308\u030a\u030b\u030c\u0327"
"""Accents that every encoding can put over or under a letter; not the ogonek."""


def to_latex(table: Table) -> str:
    """Return a table as a float: caption, label, rules; best bold, second underlined; its notes below it."""
    stacked, size = _fit(table)
    wide = _width(table, stacked, size) > ONE_COLUMN
    environment = "table*" if wide else "table"
    numeric = [any(row[i].kind != "text" for row in table.rows) for i in range(len(table.columns))]
    lines = [
        rf"\begin{{{environment}}}[t]",
        r"\centering",
        rf"\caption{{{escape_latex(table.title)}}}",
        rf"\label{{{_label(table)}}}",
        r"\par\vspace{4pt}",
        *([size.command] if size.command else []),
        rf"\setlength{{\tabcolsep}}{{{size.gap:g}pt}}",
        rf"\begin{{tabular}}{{@{{}}{''.join('r' if right else 'l' for right in numeric)}@{{}}}}",
        r"\toprule",
        *_headings(table, numeric),
        r"\midrule",
    ]
    for number, row in enumerate(table.rows):
        lines += [r"\midrule"] if number in table.rules else []
        lines += _line(row, table.intervals, stacked)
    lines += [r"\bottomrule", r"\end{tabular}"]
    if table.notes:
        notes = r" \\ ".join(escape_latex(note) for note in table.notes)
        lines += [
            r"\par\vspace{3pt}",
            rf"\begin{{minipage}}{{\linewidth}}\footnotesize\raggedright {notes}\end{{minipage}}",
        ]
    return "\n".join([*lines, rf"\end{{{environment}}}"])


def standalone(body: str) -> str:
    """Return a document that holds some tables, one a page, and compiles as it is."""
    body = body.replace("\\end{table*}\n", "\\end{table*}\n\\clearpage\n").replace(
        "\\end{table}\n", "\\end{table}\n\\clearpage\n"
    )
    head = [r"\documentclass[10pt]{article}", r"\usepackage[a4paper,margin=2cm]{geometry}", *PACKAGES]
    return "\n".join([*head, r"\pagestyle{empty}", r"\begin{document}", body.rstrip("\n"), r"\end{document}", ""])


def needs() -> str:
    """Return the comment that names the packages a preamble needs."""
    return "% needs " + " ".join(PACKAGES) + "\n"


def _headings(table: Table, numeric: Sequence[bool]) -> list[str]:
    lines = []
    if any(table.groups):
        cells, rules, first = [], [], 1
        for name, members in groupby(table.groups):
            count = len(list(members))
            if name:
                cells.append(rf"\multicolumn{{{count}}}{{c}}{{{escape_latex(name)}}}")
                trim = "lr" if first + count <= len(numeric) else "l"
                rules.append(rf"\cmidrule({trim}){{{first}-{first + count - 1}}}")
            else:
                cells += [""] * count
            first += count
        lines += [" & ".join(cells) + r" \\", " ".join(rules)]
    return [*lines, " & ".join(map(escape_latex, table.columns)) + r" \\"]


def _line(row: tuple[Value, ...], intervals: Intervals, stacked: bool) -> list[str]:
    if is_heading(row):
        return [rf"\multicolumn{{{len(row)}}}{{@{{}}l@{{}}}}{{\emph{{{_escaped(format_value(row[0]))}}}}} \\"]
    under = [format_interval(value, intervals=intervals) for value in row]
    if not (stacked and any(under)):
        return [" & ".join(_cell(value, format_value(value, intervals=intervals)) for value in row) + r" \\"]
    upper = " & ".join(_cell(value, format_value(value, intervals="none")) for value in row)
    small = (
        rf"{{{INTERVAL.command} {_grey(value, _escaped(text))}}}" if text else ""
        for value, text in zip(row, under, strict=True)
    )
    return [upper + r" \\[-2pt]", " & ".join(small) + r" \\"]


def _cell(value: Value, text: str) -> str:
    head, bracket, tail = text.partition(" ") if value.rank else (text, "", "")
    shown = _escaped(f"{value.mark}{head}" if value.mark == "≤" else f"{head}{value.mark}")
    shown = {0: shown, 1: rf"\textbf{{{shown}}}", 2: rf"\underline{{{shown}}}"}[value.rank]
    shown += bracket + _escaped(tail)
    # a bracket or star first in a cell would be read as an argument of the line break before it
    return _grey(value, f"{{{shown}}}" if shown[:1] in ("[", "*") else shown)


def _escaped(text: str) -> str:
    return escape_latex(text).replace("{-}{-}", "--")


def _grey(value: Value, text: str) -> str:
    return rf"\textcolor{{gray}}{{{text}}}" if value.grey else text


def _fit(table: Table) -> tuple[bool, Size]:
    """Return whether intervals stand under their figures, and the largest size at which the table has room."""
    for stacked in (False, True):
        for size in SIZES[:3]:
            if _width(table, stacked, size) <= ROOM:
                return stacked, size
    return True, SIZES[-1]


def _width(table: Table, stacked: bool, size: Size) -> float:
    """Return about how wide the table is, in points."""
    widths = []
    for i, heading in enumerate(table.columns):
        entries = [_em(heading) * size.digit]
        for row in table.rows:
            value = row[i]
            if is_heading(row):
                continue
            if stacked:
                entries.append(_em(format_interval(value, intervals=table.intervals)) * INTERVAL.digit)
            text = format_value(value, intervals="none" if stacked else table.intervals)
            entries.append(_em(text + value.mark) * size.digit * (1.15 if value.rank == 1 else 1.0))
        widths.append(max(entries) + 2 * size.gap)
    total = sum(widths)
    groups = table.groups or ("",) * len(table.columns)
    for name, members in groupby(range(len(groups)), key=lambda i: groups[i]):
        total += max(0.0, _em(name) * size.digit - sum(widths[i] for i in members))
    return total


def _em(text: str) -> float:
    """Return the width of a text in digits."""
    return sum(0.58 if c in NARROW else 1.56 if c in WIDE else 1.0 for c in text)


def _label(table: Table) -> str:
    words = re.sub(r"[^a-z0-9]+", "-", (table.label or table.title).lower()).strip("-")
    return f"tab:{words[:60].strip('-') or 'table'}"
