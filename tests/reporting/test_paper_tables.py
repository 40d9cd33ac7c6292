"""The tables of papers: every figure follows from the verdicts, ranks are right, nothing is mixed."""

from __future__ import annotations

import io
import re
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pandas
import pytest
from rich.console import Console
from typer.testing import CliRunner

from hierbench.cli.app import app
from hierbench.errors import InputError
from hierbench.reporting import formats, table_frame
from hierbench.reporting.build import make_report
from hierbench.reporting.collect import Selection
from hierbench.reporting.ranks import ranked
from hierbench.reporting.reported import read_reported
from hierbench.reporting.standings import gather, trusted
from hierbench.reporting.table import Report, Value
from reporting.toy_records import HOSTILE, broken, toy_record

PAPER = ("methods-datasets", "methods-depths", "attack-score", "ablation")
Paths = dict[tuple[str, str], Path]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("records")


@pytest.fixture(scope="module")
def paths(folder: Path) -> Paths:
    made = {}
    for model, first, second in (("alpha", 30, 8), ("beta", 20, 4), ("gamma", 14, 24)):
        for parity, (attack, strength) in enumerate((("first", first), ("second", second))):
            made[model, attack] = toy_record(folder, model, strength=strength, attack=attack, parity=parity)
    return made


def report(folder: Path, layout: Any, **options: Any) -> Report:
    names = {"protocol", "model", "dataset", "attack", "scoring", "eps"}
    selection = Selection(**{k: v for k, v in options.items() if k in names})
    return make_report(layout, folder, selection, **{k: v for k, v in options.items() if k not in names})


def test_several_names_stand_with_commas_between_and_each_must_be_there(folder: Path, paths: Paths) -> None:
    frame = table_frame("methods-depths", folder, model="alpha, gam*")
    assert sorted(set(frame["model"])) == ["alpha", "gamma"]
    with pytest.raises(InputError, match="--model: none of the 4 records found is of 'delta'"):
        table_frame("methods-depths", folder, model="alpha,gamma,delta")
    for asked in ("alpha,", ",", ""):
        with pytest.raises(InputError, match=f"--model: '{asked}' has an empty name"):
            table_frame("methods-depths", folder, model=asked)


@pytest.mark.parametrize("scoring", ["rollup", "direct"])
def test_robust_is_the_worst_of_all_attacks_sample_by_sample(folder: Path, paths: Paths, scoring: str) -> None:
    frame = table_frame("methods-depths", folder, scoring=scoring)
    assert len(frame) == 3 * 2
    for _, line in frame.iterrows():
        masks = [broken(paths[line["model"], attack], scoring, line["depth"]) for attack in ("first", "second")]
        worst = masks[0][1] | masks[1][1]
        assert line["robust"] == np.mean(~worst)
        assert line["clean"] == np.mean(~masks[0][0])
        assert line["attacks"] == "first; second" and line["scored_by"] == scoring
    assert any(
        np.mean(~broken(paths["gamma", a], scoring, 2)[1])
        != frame.query("model == 'gamma' and depth == 2").robust.item()
        for a in ("first", "second")
    ), "the two attacks must not break the same samples, or the test shows nothing"


def test_one_attack_and_the_depth_it_is_aimed_at_can_be_chosen(folder: Path, paths: Paths) -> None:
    frame = table_frame("methods-depths", folder, attack="second", aimed=True)
    for _, line in frame.iterrows():
        _, worst = broken(paths[line["model"], "second"], "rollup", line["depth"], (line["depth"],))
        assert line["robust"] == np.mean(~worst) and line["robust_is"] == "aimed"
    both = table_frame("methods-depths", folder, aimed=True)
    for _, line in both.iterrows():
        masks = [
            broken(paths[line["model"], a], "rollup", line["depth"], (line["depth"],))[1] for a in ("first", "second")
        ]
        assert line["robust"] == np.mean(~(masks[0] | masks[1]))


@pytest.mark.parametrize("layout", PAPER)
def test_csv_reads_back_into_the_same_numbers_in_pandas(folder: Path, paths: Paths, layout: Any) -> None:
    options = {"baseline": "beta"} if layout == "ablation" else {}
    made = report(folder, layout, **options)
    text = formats.render_text(made, "csv")
    read = pandas.read_csv(io.StringIO(text), float_precision="round_trip", keep_default_na=False, na_values=[""])
    assert list(read) == list(made.rows[0]) and len(read) == len(made.rows)
    for (_, line), row in zip(read.iterrows(), made.rows, strict=True):
        for name, value in row.items():
            assert pandas.isna(line[name]) if value is None else line[name] == value, name
    assert any(value is None for row in made.rows for value in row.values()) or layout.startswith("methods")


def test_best_is_bold_second_underlined_ties_share_and_missing_has_none() -> None:
    rows = [(Value("a"), Value(x, "share"), Value(y, "share")) for x, y in
            ((0.5, None), (0.75, 0.25), (0.75, None), (0.25, None))]  # fmt: skip
    assert [[v.rank for v in row] for row in ranked(rows)] == [[0, 2, 0], [0, 1, 0], [0, 1, 0], [0, 0, 0]]
    assert [row[1].rank for row in ranked([(Value("a"), Value(0.5, "share"))] * 2)] == [0, 0]


def test_ranks_are_seen_in_every_format(folder: Path, paths: Paths) -> None:
    made = report(folder, "methods-depths", scoring="rollup")
    (table,) = made.tables
    frame = table_frame("methods-depths", folder)
    leaf = frame[frame.depth == 2].sort_values("robust", ascending=False)
    best, second = leaf.iloc[0], leaf.iloc[1]
    assert best.robust > second.robust > leaf.iloc[2].robust
    latex, markdown = (formats.render_text(made, form) for form in ("latex", "markdown"))
    line = next(line for line in latex.splitlines() if line.startswith(best.model))
    assert line.rstrip(" \\").endswith(rf"\textbf{{{100 * best.robust:.1f}}}")
    line = next(line for line in latex.splitlines() if line.startswith(second.model))
    assert line.rstrip(" \\").endswith(rf"\underline{{{100 * second.robust:.1f}}}")
    assert f"**{100 * best.robust:.1f}** |" in markdown and f"<u>{100 * second.robust:.1f}</u> |" in markdown
    out = Console(file=io.StringIO(), width=200, force_terminal=True, color_system="standard")
    out.print(formats.render_rich(made))
    assert f"\x1b[1m{100 * best.robust:.1f}\x1b[0m" in out.file.getvalue()  # type: ignore[attr-defined]
    assert all(value.rank == 0 for row in table.rows[:2] for value in row), "chance is not ranked"


def test_radii_are_ranked_apart(folder: Path, paths: Paths, tmp_path: Path) -> None:
    for model, eps, strength in (("a", "8/255", 2), ("b", "8/255", 8), ("a", "30/255", 9), ("b", "30/255", 30)):
        toy_record(tmp_path, model, eps=eps, strength=strength)
    (table,) = report(tmp_path, "methods-depths").tables
    best = [row[0].content for row in table.rows if row[4].rank == 1]
    assert best == ["a", "a"], "one in each block of rows"
    (table,) = report(tmp_path, "methods-datasets").tables
    assert table.groups[1::2] == ("toyset, linf 8/255", "toyset, linf 30/255")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"protocol": {"name": "other-v1"}}, "protocol (toy-v1 1 and other-v1 1)"),
        ({"protocol": {"version": 2}}, "protocol (toy-v1 1 and toy-v1 2)"),
        ({"dataset": {"revision": "file:new"}}, "dataset revision (file:toy and file:new)"),
        ({"dataset": {"sample_list_hash": "sha256:" + "1" * 64}}, "sample list"),
        ({"hierarchy": {"hash": "sha256:" + "2" * 64}}, "tree"),
        ({"dataset": {"template": "a {}"}}, "prompt template"),
    ],
)
@pytest.mark.parametrize("layout", PAPER)
def test_layouts_refuse_to_mix_and_say_what_differs(tmp_path: Path, layout: Any, change: Any, words: str) -> None:
    toy_record(tmp_path, "alpha")
    toy_record(tmp_path, "beta", identity=change)
    with pytest.raises(InputError) as caught:
        report(tmp_path, layout)
    assert words in str(caught.value) and "\n" not in str(caught.value)


def test_other_radii_do_not_share_an_ablation_or_a_matrix(tmp_path: Path) -> None:
    toy_record(tmp_path, "alpha", eps="8/255", strength=8)
    toy_record(tmp_path, "beta", eps="30/255")
    for layout in ("attack-score", "ablation"):
        with pytest.raises(InputError, match=r"threat model \(linf 8/255 and linf 30/255\)"):
            report(tmp_path, layout)


def test_datasets_stand_side_by_side_with_their_mean(tmp_path: Path) -> None:
    for dataset in ("one", "two"):
        toy_record(tmp_path, "alpha", dataset=dataset, strength=12, seed=len(dataset))
    toy_record(tmp_path, "beta", dataset="one", strength=20)
    (table,) = report(tmp_path, "methods-datasets").tables
    assert table.groups == ("", "one", "one", "two", "two", "mean", "mean")
    alpha, beta = table.rows[2], table.rows[3]
    assert alpha[5].content == pytest.approx((alpha[1].content + alpha[3].content) / 2)  # type: ignore[operator]
    assert [v.content for v in beta[3:]] == [None] * 4 and not any(v.rank for v in beta[3:])


def test_models_that_met_other_attacks_are_marked(tmp_path: Path) -> None:
    for model in ("alpha", "beta", "gamma"):
        toy_record(tmp_path, model)
    toy_record(tmp_path, "beta", attack="second")
    (table,) = report(tmp_path, "methods-depths").tables
    assert [row[0].mark for row in table.rows[2:]] == ["", "*", ""]
    assert any("beta: first, second" in note for note in table.notes)


def test_every_attack_of_a_worst_case_is_named_with_what_tells_them_apart(tmp_path: Path) -> None:
    toy_record(tmp_path, "alpha")
    from hierbench.evaluation.stored import read_record

    path = toy_record(tmp_path, "alpha", strength=20)
    record = read_record(path)
    attack = record.identity.attack.model_copy(update={"scoring": "direct"})
    identity = record.identity.model_copy(update={"attack": attack})
    path.write_text(record.model_copy(update={"identity": identity}).to_json())
    toy_record(tmp_path, "alpha", attack="third", depths=(2,))
    (table,) = report(tmp_path, "methods-depths").tables
    said = "attacks: first stopped by direct, first stopped by rollup, third at depth 2"
    assert said in table.notes


def test_records_without_verdicts_have_no_joint_worst_case(tmp_path: Path) -> None:
    path = toy_record(tmp_path, "alpha")
    other = toy_record(tmp_path, "alpha", attack="second")
    data = other.with_suffix(".parquet").read_bytes()
    other.with_suffix(".parquet").write_bytes(path.with_suffix(".parquet").read_bytes()[:-1] + b"x")
    with pytest.raises(InputError, match="another SHA-256"):
        report(tmp_path, "methods-depths")
    other.with_suffix(".parquet").unlink()
    with pytest.raises(InputError, match="is missing"):
        report(tmp_path, "methods-depths")
    (table,) = report(tmp_path, "methods-depths", attack="second").tables
    assert table.rows[2][4].content is not None, "one record's own figures need no verdicts"
    other.with_suffix(".parquet").write_bytes(data)
    assert report(tmp_path, "methods-depths").rows


def test_a_record_that_failed_its_checks_is_left_out_and_named(tmp_path: Path) -> None:
    from hierbench.evaluation.records import Flag
    from hierbench.evaluation.stored import read_record

    toy_record(tmp_path, "alpha", strength=6)
    path = toy_record(tmp_path, "alpha", attack="second", strength=29)
    record = read_record(path)
    flags = (Flag(code="out_of_ball", level="failed", message="too far"),)
    checks = record.checks.model_copy(update={"flags": flags})
    path.write_text(record.model_copy(update={"checks": checks}).to_json())
    made = report(tmp_path, "methods-depths")
    assert made.rows[0]["attacks"] == "first"
    assert "left out: alpha under second failed out_of_ball" in made.tables[0].notes
    with pytest.raises(InputError, match="no figure may be used"):
        report(tmp_path, "methods-depths", attack="second")


def test_attacks_on_texts_are_in_no_worst_case_of_attacks_on_images(tmp_path: Path) -> None:
    toy_record(tmp_path, "alpha", strength=6, attack="leaf_pgd")
    toy_record(tmp_path, "alpha", strength=29, attack="text_synonyms")
    both, notes = trusted(gather(tmp_path, Selection()))
    assert [p.record.identity.attack.name for p in both] == ["leaf_pgd"]
    assert notes == ["left out, as they change texts: text_synonyms; --attack shows them"]
    texts, notes = trusted(gather(tmp_path, Selection(attack="text_*")))
    assert [p.record.identity.attack.name for p in texts] == ["text_synonyms"]
    assert notes == []


def test_attack_and_score_depths_mark_what_is_implied(folder: Path, paths: Paths) -> None:
    (table,) = report(folder, "attack-score", attack="first").tables
    assert table.groups == ("", "", "rollup", "rollup", "direct", "direct")
    assert table.rules == (3, 6)
    block = table.rows[:3]
    assert [row[1].content for row in block] == ["clean", "depth 1", "depth 2"]
    assert [[v.mark for v in row[2:]] for row in block] == [[""] * 4, ["", "≤", "", ""], [""] * 4]
    for row, aimed in zip(block[1:], (1, 2), strict=True):
        for value, (scoring, depth) in zip(
            row[2:], (("rollup", 1), ("rollup", 2), ("direct", 1), ("direct", 2)), strict=True
        ):
            assert value.content == np.mean(~broken(paths["alpha", "first"], scoring, depth, (aimed,))[1])


def test_an_ablation_subtracts_the_baseline_on_the_same_samples(folder: Path, paths: Paths) -> None:
    made = report(folder, "ablation", baseline="beta", depth="1,leaf")
    assert made.rows[0]["model"] == "beta" and made.rows[0]["robust_difference"] is None
    line = next(row for row in made.rows if row["model"] == "gamma" and row["depth"] == 2)
    one, two = ([broken(paths[m, a], "rollup", 2)[1] for a in ("first", "second")] for m in ("gamma", "beta"))
    own, base = ~(one[0] | one[1]), ~(two[0] | two[1])
    assert line["robust_difference"] == pytest.approx(np.mean(own) - np.mean(base), abs=1e-12)
    draws = np.random.default_rng(5).integers(0, len(own), (4000, len(own)))
    brute = np.quantile(own[draws].mean(1) - base[draws].mean(1), [0.025, 0.975])
    assert [line["robust_difference_low"], line["robust_difference_high"]] == pytest.approx(brute, abs=0.051)
    shown = formats.render_text(made, "markdown")
    assert "Δ: difference to beta in points, with the paired bootstrap 95 % interval" in shown.replace("\\", "")
    with pytest.raises(InputError, match="--baseline: 'delta'"):
        report(folder, "ablation", baseline="delta")


def test_an_ablation_is_of_one_defence_and_says_which_settings_changed(tmp_path: Path) -> None:
    for model, training in (("d.one", {"radius": 1, "trees": ["a"]}), ("d.two", {"radius": 2, "trees": ["a", "b"]})):
        toy_record(tmp_path, model, defence="d", identity={"model": {"defence": "d", "training": training}})
    (table,) = report(tmp_path, "ablation").tables
    assert "d.two: radius 2, trees a+b" in table.notes
    toy_record(tmp_path, "other", defence="e")
    with pytest.raises(InputError, match="variants of one defence, not of d, e"):
        report(tmp_path, "ablation")


REPORTED = (
    "method,protocol,backbone,trained_on,dataset,metric,eps,value,source,note\n"
    "clip,x-paper,B,none,Toy-Set,clean,,88.5,Someone 2024,\n"
    "clip,x-paper,B,none,Toy-Set,pgd-20,1/255,99.99,Someone 2024,\n"
    "clip ablation: part,x-paper,B,none,Toy-Set,clean,,1.5,Someone 2024,\n"
    "tecoa,x-paper,B,none,Toy-Set,clean,,70,Someone 2024,\n"
)


def test_reported_figures_are_marked_and_never_ranked(folder: Path, paths: Paths, tmp_path: Path) -> None:
    file = tmp_path / "reported.csv"
    file.write_text(REPORTED)
    plain = report(folder, "methods-depths").tables[0]
    made = report(folder, "methods-depths", reported=True, reported_from=file)
    (table,) = made.tables
    assert table.rows[: len(plain.rows)] == plain.rows, "measured figures and their ranks do not move"
    heading, line = table.rows[len(plain.rows) :]
    assert heading[0].content == "reported:" and (line[0].content, line[0].mark) == ("clip", " †1")
    assert [v.content for v in line[1:]] == [None, None, 0.885, 0.9999] and not any(v.rank for v in line)
    assert any(
        n.startswith("†1: protocol x-paper, B trained on none, robust: pgd-20 at 1/255; Someone") for n in table.notes
    )
    last = [row for row in made.rows if row["source"] == "reported"]
    assert [(r["clean"], r["robust"], r["metric"]) for r in last] == [(0.885, None, "clean"), (None, 0.9999, "pgd-20")]
    file.write_text(REPORTED.replace("88.5", "x"))
    with pytest.raises(InputError, match="line 2: value is not a number"):
        read_reported(file)
    file.write_text("a,b\n1,2\n")
    with pytest.raises(InputError, match="the columns should be"):
        read_reported(file)


def test_the_committed_reported_figures_are_read() -> None:
    assert len(read_reported()) > 400


def test_options_that_a_layout_would_ignore_are_refused(folder: Path, paths: Paths) -> None:
    for layout, options in (
        ("depths", {"depth": "1"}),
        ("models", {"aimed": True}),
        ("methods-depths", {"baseline": "beta"}),
        ("attack-score", {"reported": True}),
        ("methods-depths", {"scoring": "upward"}),
        ("methods-datasets", {"depth": "1,2"}),
        ("methods-depths", {"depth": "7"}),
    ):
        with pytest.raises(InputError, match="--"):
            report(folder, layout, **options)


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("hostile")
    for model in (HOSTILE, "Müller Łódź ŋ Čapek ǆ"):
        dataset = {"name": f"data {HOSTILE}"[:200]}
        toy_record(
            folder, "m", strength=20, attack="a",
            identity={"model": {"name": model, "defence": "none"}, "dataset": dataset, "attack": {"name": HOSTILE}},
        )  # fmt: skip
    return folder


LAYOUTS = (*PAPER, "methods-attacks", "methods-eps", "methods-templates", "depths", "transfer", "models")


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("form", ["rich", "csv", "latex", "markdown"])
def test_a_strangers_names_do_nothing_in_any_format(hostile: Path, layout: str, form: str) -> None:
    made = CliRunner().invoke(app, ["table", "--layout", layout, "--format", form, "--records", str(hostile)])
    assert made.exit_code == 0, made.output
    text = made.output
    assert "\x1b" not in text and "\u202e" not in text and "calc" in text
    if form == "latex":
        assert not re.search(r"(?<!\\)\$x|(?<!\\)#\w|\\input|[模π]", text)
    if form == "markdown":
        assert "<b>" not in text and "$x" not in text.replace("\\$x", "")
    if form == "csv":
        assert len(pandas.read_csv(io.StringIO(text))) >= 2


SETTINGS = [(name, who, how) for name in LAYOUTS for who, how in (("folder", "none"), ("hostile", "wilson"))]


@pytest.mark.parametrize(("layout", "whose", "intervals"), [*SETTINGS, ("methods-depths", "folder", "pm")])
def test_latex_of_every_layout_compiles(
    pdflatex: str, hostile: Path, folder: Path, paths: Paths, tmp_path: Path, layout: str, whose: str, intervals: str
) -> None:
    records = {"folder": folder, "hostile": hostile}[whose]
    extra = ["--baseline", "beta"] if layout == "ablation" and whose == "folder" else []
    extra += ["--reported"] if layout in ("methods-datasets", "methods-depths") else []
    out = tmp_path / "t.tex"
    arguments = ["--layout", layout, "--format", "latex", "--standalone", "--intervals", intervals, "--out", str(out)]
    made = CliRunner().invoke(app, ["table", "--records", str(records), *arguments, *extra])
    assert made.exit_code == 0, made.output
    _compiles(pdflatex, out)


def _compiles(pdflatex: str, path: Path) -> None:
    command = [pdflatex, "-halt-on-error", "-no-shell-escape", "-interaction=nonstopmode", path.name]
    done = subprocess.run(command, cwd=path.parent, capture_output=True, text=True, errors="replace", check=False)
    assert done.returncode == 0, done.stdout[-2000:]
    assert "Missing character" not in done.stdout


def test_every_letter_that_is_let_through_can_be_set(pdflatex: str, tmp_path: Path) -> None:
    letters = "".join(map(chr, range(0x20, 0x250)))
    body = formats.escape_latex(" ".join(letters))
    (tmp_path / "t.tex").write_text(f"\\documentclass{{article}}\\begin{{document}}{body}\\end{{document}}")
    _compiles(pdflatex, tmp_path / "t.tex")


def test_standalone_is_for_latex(folder: Path, paths: Paths) -> None:
    made = CliRunner().invoke(app, ["table", "--format", "csv", "--standalone", "--records", str(folder)])
    assert isinstance(made.exception, InputError) and "--standalone" in str(made.exception)
