from __future__ import annotations

import csv
import io
import re
from pathlib import Path
from typing import Any

import pytest
from evaluation.toy_cell import toy_cell
from rich.console import Console

from hierbench.errors import InputError
from hierbench.evaluation.records import Flag, Record, SeenPart
from hierbench.evaluation.runner import run_cell
from hierbench.evaluation.scores import seen_parts
from hierbench.evaluation.verdicts import read_verdicts
from hierbench.reporting import formats, layouts
from hierbench.reporting.collect import Selection, collect_records
from hierbench.reporting.comparable import check_comparable, differences
from hierbench.reporting.labels import attack_labels, ball
from hierbench.reporting.table import Value, format_value

HOSTILE = "=cmd|' /C calc'!A0 [red]x[/red] \\input{/etc/passwd} <script> | a_b %&#$ ~^ \x1b[31m\u202e"


@pytest.fixture(scope="module")
def record(tmp_path_factory: pytest.TempPathFactory) -> Record:
    cell = toy_cell(tmp_path_factory.mktemp("out"))
    made = run_cell(cell)
    parts = seen_parts(
        read_verdicts(cell.verdicts_path),
        cell.class_ids,
        {"cat": "known", "dog": "known", "car": "known", "bus": "unseen"},
        "rollup",
    )
    return made.model_copy(update={"seen": parts})


def renamed(record: Record, **names: Any) -> Record:
    """Return the record with parts of its identity changed: ``model="x"`` or ``dataset={"revision": "y"}``."""
    parts = {}
    for part, change in names.items():
        values = change if isinstance(change, dict) else {"name": change}
        parts[part] = getattr(record.identity, part).model_copy(update=values)
    return record.model_copy(update={"identity": record.identity.model_copy(update=parts)})


def terminal(report: layouts.Report) -> str:
    out = Console(file=io.StringIO(), width=250, markup=False, emoji=False, highlight=False)
    out.print(formats.render_rich(report))
    return out.file.getvalue()  # type: ignore[attr-defined, no-any-return]


def test_a_narrow_terminal_shows_every_figure(record: Record) -> None:
    out = Console(file=io.StringIO(), width=80, markup=False, emoji=False, highlight=False)
    out.print(formats.render_rich(layouts.depth_report([record])))
    shown = out.file.getvalue()  # type: ignore[attr-defined]
    table = shown.split("model toy")[0]
    assert "…" not in table
    for heading in layouts.DEPTH_COLUMNS:
        assert heading in table or heading == "success"
    robust = record.depths[0].rollup.robust
    assert robust is not None
    assert f"{100 * robust.low:.1f}–{100 * robust.high:.1f}" in table
    assert "[" not in table


def rows(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text)))


def test_csv_reads_back_into_the_same_numbers(record: Record) -> None:
    read = rows(formats.render_text(layouts.depth_report([record]), "csv"))
    assert len(read) == len(record.depths)
    for line, entry in zip(read, record.depths, strict=True):
        assert entry.rollup.robust is not None and entry.rollup.success is not None
        assert int(line["depth"]) == entry.depth
        assert float(line["chance"]) == entry.rollup.chance
        for name in ("clean", "robust", "worst", "success"):
            share = getattr(entry.rollup, name)
            assert [float(line[name + end]) for end in ("", "_low", "_high")] == [share.value, share.low, share.high]
        assert float(line["relative"]) == entry.rollup.relative
        severe = next(m for m in record.mistakes if m.attack_depth == entry.depth)
        assert float(line["severity"]) == severe.severity
    read = rows(formats.render_text(layouts.transfer_report([record]), "csv"))
    for line, cell in zip(read, record.transfer, strict=True):
        assert float(line["robust"]) == cell.robust.value
        assert (line["success_share"] == "") == (cell.success_share is None)
        assert line["implied"] == str(cell.implied).lower()


def test_every_format_shows_the_same_percentages(record: Record) -> None:
    report = layouts.depth_report([record])
    shown = terminal(report)
    for entry in record.depths:
        wanted = format_value(layouts.proportion_value(entry.rollup.robust))
        for text in (shown, formats.render_text(report, "markdown"), formats.render_text(report, "latex")):
            plain = text.replace("\\[", "[").replace("\\]", "]")
            assert wanted in plain


def test_the_table_names_what_was_measured(record: Record) -> None:
    shown = terminal(layouts.depth_report([record]))
    for words in (
        "toy_attack",
        "linf eps 30/255",
        "8 x 8 x 1 pixels",
        "scoring rollup",
        "40 images",
        "toy-v1",
        "pairs",
    ):
        assert words in shown
    failed = record.model_copy(
        update={
            "checks": record.checks.model_copy(update={"flags": (Flag(code="x", level="failed", message="broke"),)})
        }
    )
    assert "failed: broke (x)" in terminal(layouts.depth_report([failed]))


def test_low_clean_accuracy_is_grey_and_said(record: Record) -> None:
    assert not any(value.grey for row in layouts.depth_table(record).rows for value in row)
    direct = record.depths[0].direct
    assert direct is not None
    weak = direct.model_copy(update={"clean": direct.clean.model_copy(update={"value": 0.49})})
    entry = record.depths[0].model_copy(update={"direct": weak})
    greyed = layouts.depth_table(record.model_copy(update={"depths": (entry, record.depths[1])}))
    assert [value.grey for value in greyed.rows[0]] == [False] * 5 + [True] * 6
    assert not any(value.grey for value in greyed.rows[1])
    assert any("grey" in note for note in greyed.notes)


def test_what_roll_up_implies_is_no_finding(record: Record) -> None:
    robust, success, direct, direct_success = layouts.transfer_tables(record)
    assert robust.rows[1][2].mark == "≤", "attack at 1, scored at 2"
    assert robust.rows[1][1].mark == robust.rows[2][1].mark == ""
    assert success.rows[0][2].content is None
    assert success.rows[1][1].content is not None, "a leaf attack that breaks the superclass is a finding"
    assert not any(value.mark for row in direct.rows for value in row)
    assert direct_success.rows[0][2].content is not None
    for table in (success, robust):
        for row in table.rows[-2:]:
            assert format_value(row[2]) != "100.0" or row[0].content == "attack at 2"


def test_classes_are_shown_by_what_was_seen(record: Record) -> None:
    assert record.seen is not None
    part: SeenPart
    for part in record.seen:
        assert part.classes == {"known": 3, "unseen": 1}[part.part]
    shown = terminal(layouts.seen_report([record]))
    assert "zero-shot" in shown and "unseen" in shown
    total = sum(part.depths[1].worst.count for part in record.seen)
    assert total == record.depths[1].rollup.worst.count


@pytest.mark.parametrize("form", ["rich", "csv", "latex", "markdown"])
def test_a_strangers_name_is_shown_and_does_nothing(record: Record, form: str) -> None:
    report = layouts.models_report([renamed(record, model=HOSTILE)])
    text = terminal(report) if form == "rich" else formats.render_text(report, form)
    assert "\x1b" not in text and "\u202e" not in text
    assert "calc" in text, "the name must still be readable"
    if form == "csv":
        assert all(line["model"].startswith("'=") for line in rows(text))
    if form == "rich":
        assert "[red]x[/red]" in text
    if form == "markdown":
        assert "<" not in text
        cells = next(line for line in text.splitlines() if "calc" in line)
        assert len(re.findall(r"(?<!\\)\|", cells)) == 5 + 3 * 2 + 1
    if form == "latex":
        assert r"\input" not in text
        line = next(line for line in text.splitlines() if "calc" in line)
        assert len(re.findall(r"(?<!\\)&", line)) == 5 + 3 * 2 - 1
        assert not re.search(r"(?<!\\)[%#_$](?!\\leq)", line)


@pytest.mark.parametrize("start", ["=", "+", "-", "@"])
def test_no_spreadsheet_formula_gets_out(record: Record, start: str) -> None:
    text = formats.render_text(layouts.depth_report([renamed(record, model=f"{start}1+1")]), "csv")
    assert rows(text)[0]["model"] == f"'{start}1+1"


def test_negative_numbers_are_numbers_in_csv() -> None:
    assert formats.to_csv([{"gap": -0.25, "none": None, "yes": True}]) == "gap,none,yes\n-0.25,,true\n"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"protocol": "other-v1"}, "protocol (toy-v1 1 and other-v1 1)"),
        ({"protocol": {"version": 2}}, "protocol"),
        ({"dataset": {"grid": (32, 32, 1)}}, "pixel grid (8 8 1 and 32 32 1)"),
        ({"dataset": {"revision": "file:other"}}, "dataset revision (file:toy and file:other)"),
        ({"dataset": {"sample_list_hash": "sha256:" + "1" * 64}}, "sample list"),
        ({"dataset": {"template": "a {}"}}, "prompt template"),
        ({"dataset": "elsewhere"}, "dataset (toyset and elsewhere)"),
        ({"hierarchy": {"hash": "sha256:" + "2" * 64}}, "tree"),
    ],
)
def test_what_cannot_be_compared_does_not_share_a_table(record: Record, change: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError) as caught:
        check_comparable([record, renamed(record, **change)])
    assert words in str(caught.value)


def test_what_can_be_compared_does(record: Record) -> None:
    other = renamed(record, model="other", attack={"eps": "1/255", "scoring": "direct"})
    assert differences([record, other]) == []
    report = layouts.models_report([record, other])
    assert [row[0].content for row in report.tables[0].rows] == ["toy", "other"]
    custom = renamed(record, protocol={"custom": True, "deviations": ("limit: all -> 5",)})
    marked = layouts.models_report([record, custom]).tables[0]
    assert [row[0].mark for row in marked.rows] == ["", "*"]
    assert any("limit: all -> 5" in note for note in marked.notes)


def test_records_are_found_by_name_and_wildcard(record: Record, tmp_path: Path) -> None:
    for name in ("hier_aft.toy", "tecoa.toy"):
        changed = renamed(record, model={"name": name, "defence": name.partition(".")[0]})
        folder = tmp_path / "toy-v1" / name
        folder.mkdir(parents=True)
        (folder / "cell.json").write_text(changed.to_json(), encoding="utf-8")
    (tmp_path / "toy-v1" / "tecoa.toy" / ".cell.json.unfinished").write_text("{")

    def names(**said: str) -> list[str]:
        return [r.identity.model.name for r in collect_records(tmp_path, Selection(**said))]  # type: ignore[arg-type]

    assert names() == ["hier_aft.toy", "tecoa.toy"]
    assert names(model="hier_*") == names(model="hier_aft") == ["hier_aft.toy"]
    assert names(eps="60/510") == names()
    for said in ({"model": "clip"}, {"eps": "1/255"}, {"scoring": "direct"}):
        with pytest.raises(InputError, match="no record"):
            names(**said)
    with pytest.raises(InputError, match="--eps"):
        names(eps="x")
    with pytest.raises(InputError, match="does not exist"):
        collect_records(tmp_path / "none", Selection())


def test_a_value_says_when_it_was_not_measured() -> None:
    assert format_value(Value(None, "share")) == "–"
    assert format_value(Value(0.5, "share", low=0.4, high=0.6), intervals=False) == "50.0"
    assert format_value(Value(1.25, "number")) == "1.25"


def test_latex_compiles(pdflatex: str, record: Record, tmp_path: Path) -> None:
    import subprocess

    hostile = renamed(record, model=HOSTILE)
    body = "".join(
        formats.render_text(make([hostile]), "latex")
        for make in (layouts.depth_report, layouts.transfer_report, layouts.seen_report, layouts.models_report)
    )
    packages = "\\usepackage{booktabs,xcolor,textcomp}\\usepackage[T1]{fontenc}"
    (tmp_path / "t.tex").write_text(f"\\documentclass{{article}}{packages}\\begin{{document}}{body}\\end{{document}}")
    done = subprocess.run(
        [pdflatex, "-halt-on-error", "-no-shell-escape", "t.tex"], cwd=tmp_path, capture_output=True, check=False
    )
    assert done.returncode == 0, done.stdout[-2000:]


def test_attacks_of_one_name_are_told_apart_by_what_differs(record: Record) -> None:
    given = dict(record.identity.attack.parameters)
    few, many = (renamed(record, attack={"parameters": {**given, "steps": steps}}) for steps in (20, 100))
    other = renamed(record, attack={"name": "else", "parameters": {"steps": 7}})
    name = record.identity.attack.name
    assert attack_labels([few, many, other]) == [f"{name} (steps 20)", f"{name} (steps 100)", "else"]
    assert attack_labels([few, few]) == [name, name]
    assert attack_labels([renamed(record, attack={"engine": "pyautoattack"})]) == [f"{name} (by pyautoattack)"]
    shown = formats.render_text(layouts.models_report([few, many]), "latex")
    assert "(steps 20)" in shown and "(steps 100)" in shown


def test_an_attack_on_texts_alone_has_no_radius(record: Record) -> None:
    assert ball(record) == f"{record.identity.attack.norm} {record.identity.attack.eps}"
    checks = record.checks.model_copy(update={"text_rejected": {"proposed": 3}, "max_linf": 0.0})
    words = record.model_copy(update={"checks": checks})
    assert ball(words) == "texts only"
    moved = record.model_copy(update={"checks": checks.model_copy(update={"max_linf": 0.01})})
    assert ball(moved) == ball(record)  # a multimodal attack moves pixels as well
