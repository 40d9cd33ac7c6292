"""Plans become cells, cells become records, and what is done is not done again."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from hierbench.cli.app import run
from hierbench.errors import InputError
from hierbench.evaluation.records import Record
from hierbench.evaluation.stored import read_record
from hierbench.paths import data_dir
from hierbench.sweep.cluster import executor
from hierbench.sweep.estimate import estimate_cell, total
from hierbench.sweep.plan import find_plan, read_plan
from hierbench.sweep.state import look_up, write_note
from hierbench.sweep.trained import training_state

SMALL = """
protocol = "digits-v1"
[[cells]]
models = ["clip", "tecoa"]
attacks = ["leaf_pgd"]
scorings = ["rollup", "direct"]
limit = 4
severity_samples = 0
batch_size = 8
"""


def plan_file(folder: Path, text: str = SMALL) -> Path:
    path = folder / "plan.toml"
    path.write_text(text, encoding="utf-8")
    return path


def records(folder: Path) -> dict[str, Record]:
    return {p.name: read_record(p) for p in folder.glob("*/*/*.json") if ".sweep" not in p.parts}


def test_a_plan_is_the_product_of_its_lists_each_cell_once(tmp_path: Path) -> None:
    plan = read_plan(plan_file(tmp_path, SMALL + SMALL.split('"digits-v1"')[1]))
    assert [(c.request.model, c.request.scoring) for c in plan.cells] == [
        ("clip", "rollup"),
        ("clip", "direct"),
        ("tecoa.digits", "rollup"),
        ("tecoa.digits", "direct"),
    ]
    assert len({cell.key for cell in plan.cells}) == 4
    assert plan.name == "plan"


def test_wildcards_and_the_protocols_data_sets_stand_for_what_they_match(tmp_path: Path) -> None:
    text = 'protocol = "tiny-v1"\n[[cells]]\nmodels = ["hier_aft.t*"]\nattacks = ["*leaf_pgd", "multilevel_pgd"]\n'
    plan = read_plan(plan_file(tmp_path, text))
    assert {c.request.model for c in plan.cells} == {"hier_aft.tiny"}
    assert {c.request.attack for c in plan.cells} == {"leaf_pgd", "multilevel_pgd"}
    assert {c.request.dataset for c in plan.cells} == {d.name for d in plan.protocol.datasets}


@pytest.mark.parametrize("path", sorted((data_dir() / "leaderboard" / "plans").glob("*.toml")), ids=lambda p: p.stem)
def test_every_shipped_plan_can_be_read_and_keeps_to_its_protocol(path: Path) -> None:
    from hierbench.evaluation.request import choose_hierarchy, make_plan

    plan = read_plan(find_plan(path.stem))
    assert plan.name == path.stem
    for cell in plan.cells:
        made = make_plan(cell.request, choose_hierarchy(cell.request))
        odd = [d for d in made.deviations if not d.startswith(("limit", "split", "template"))]
        odd = [d for d in odd if not re.fullmatch(r"tree: (\S+) -> \1-shuffled\d+", d)]  # random groups, as a control
        assert odd == [], f"{cell.title}: {odd}"


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ('protocol = "digits-v1"', "", "protocol: missing"),
        ('"digits-v1"', '"digits"', "protocol: unknown protocol"),
        ('models = ["clip", "tecoa"]', "", "cells[0].models: missing"),
        ('["clip", "tecoa"]', "[]", "cells[0].models: must be a list of at least one"),
        ('["clip", "tecoa"]', '["clip", "clip"]', "names an entry twice"),
        ('["clip", "tecoa"]', '["klip"]', "cells[0].models: unknown model 'klip'"),
        ('["leaf_pgd"]', '["leafs"]', "cells[0].attacks: unknown attack 'leafs'"),
        ('["rollup", "direct"]', '"rollup"', "cells[0].scorings: must be a list"),
        ("limit = 4", 'limit = "4"', "cells[0].limit: must be a whole number"),
        ("limit = 4", "limit = true", "cells[0].limit: must be a whole number"),
        ("limit = 4", "depths = [1.5]", "cells[0].depths: must be a list of whole numbers"),
        ("limit = 4", 'datasets = ["digit"]', "cells[0].datasets: unknown dataset"),
        ("limit = 4", "limits = 4", "cells[0].limits: unknown key"),
        ("[[cells]]", "[[cell]]", "cell: unknown key"),
        ("[[cells]]", "[[cells", "not valid TOML"),
    ],
)
def test_a_wrong_plan_is_one_line_that_names_file_and_key(tmp_path: Path, old: str, new: str, words: str) -> None:
    assert SMALL.count(old) == 1
    path = plan_file(tmp_path, SMALL.replace(old, new))
    with pytest.raises(InputError) as caught:
        read_plan(path)
    assert str(caught.value).startswith(f"plan {path}: ")
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A plan and the folder of its results."""
    folder = tmp_path_factory.mktemp("swept")
    path, out = plan_file(folder), folder / "out"
    assert run(["sweep", str(path), "--out", str(out), "--quiet"]) == 0
    return path, out


def test_a_sweep_leaves_the_record_that_eval_leaves(swept: tuple[Path, Path], tmp_path: Path) -> None:
    _, out = swept
    found = records(out)
    assert len(found) == 4
    words = ["eval", "--model", "tecoa", "--attack", "leaf_pgd", "--scoring", "direct", "--limit", "4", "--quiet"]
    words += ["--severity-samples", "0", "--batch-size", "8"]
    assert run([*words, "--out", str(tmp_path)]) == 0
    ((name, alone),) = records(tmp_path).items()
    assert found[name].depths == alone.depths
    assert found[name].verdicts == alone.verdicts


def test_what_is_done_is_not_run_again_and_what_is_gone_is(
    swept: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    path, out = swept
    plan = read_plan(path, out=out)
    assert [s.state for s in look_up(plan)] == ["done"] * 4
    before = {p: p.stat().st_mtime_ns for p in out.glob("*/*/*") if ".sweep" not in p.parts}
    gone = next(p for p in sorted(before) if p.suffix == ".json" and "clip" in p.parts)
    gone.unlink()
    assert sorted(s.state for s in look_up(plan)) == ["done", "done", "done", "missing"]
    capsys.readouterr()
    assert run(["sweep", str(path), "--out", str(out), "--quiet"]) == 0
    said = capsys.readouterr().out
    assert "3 of 4 cells are done" in said
    assert said.count(": done") == 1
    after = {p: p.stat().st_mtime_ns for p in out.glob("*/*/*") if ".sweep" not in p.parts}
    assert after.keys() == before.keys()
    assert {p.stem for p in before if before[p] != after[p]} == {gone.stem}


def test_a_cell_of_other_weights_or_of_an_older_protocol_is_missing(
    swept: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    import dataclasses

    import hierbench.sweep.state as state

    path, out = swept
    plan = read_plan(path, out=out)
    newer = dataclasses.replace(plan, protocol=dataclasses.replace(plan.protocol, content_hash="sha256:" + "0" * 64))
    assert {s.state for s in look_up(newer)} == {"missing"}
    monkeypatch.setattr(state, "read_description", lambda folder: {"weights_hash": "sha256:" + "1" * 64})
    assert {(s.cell.request.model, s.state) for s in look_up(plan)} == {("clip", "done"), ("tecoa.digits", "missing")}


def test_a_note_cannot_lead_out_of_the_results(swept: tuple[Path, Path], tmp_path: Path) -> None:
    import shutil

    path, out = swept
    here = tmp_path / "deep" / "out"
    shutil.copytree(out, here)
    plan = read_plan(path, out=here)
    outside = tmp_path / "deep" / "elsewhere"
    (record,) = here.glob("*/clip/*direct*.json")
    shutil.copytree(record.parent, outside)
    note = here / ".sweep" / f"{plan.cells[1].key}.json"
    said = json.loads(note.read_text())
    note.write_text(json.dumps({**said, "record": f"../elsewhere/{record.name}"}))
    assert look_up(plan)[1].state == "missing"
    note.write_text("{")
    assert look_up(plan)[1].state == "done", "a damaged note says nothing, and the record is found without it"


def test_a_cell_that_fails_is_noted_and_the_others_go_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    text = SMALL.replace('["clip", "tecoa"]', '["clip"]').replace("limit = 4", "limit = 4\ndepths = [3]")
    text += '[[cells]]\nmodels = ["clip"]\nattacks = ["leaf_pgd"]\nlimit = 4\ndepths = [9]\n'
    text += '[[cells]]\nmodels = ["clip"]\nattacks = ["leaf_pgd"]\nlimit = 2\nbatch_size = 8\n'
    path, out = plan_file(tmp_path, text), tmp_path / "out"
    assert run(["sweep", str(path), "--out", str(out), "--quiet"]) == 1
    said = capsys.readouterr().out
    assert "failed: --depth: 9 does not exist" in said
    assert said.count(": done") == 3
    states = look_up(read_plan(path, out=out))
    assert [s.state for s in states] == ["done", "done", "failed", "done"]
    monkeypatch.setenv("COLUMNS", "200")
    assert run(["sweep", "status", str(path), "--out", str(out)]) == 0
    shown = capsys.readouterr().out
    assert "--depth: 9 does not exist" in shown
    assert "3 of 4 cells done" in shown


def test_estimates_come_from_the_records_most_like_the_cell(swept: tuple[Path, Path]) -> None:
    path, out = swept
    plan = read_plan(path, out=out)
    found = list(records(out).values())
    own = [r for r in found if r.identity.model.name == "clip" and r.identity.attack.scoring == "rollup"]
    first = plan.cells[0]
    estimate = estimate_cell(first, plan.protocol, found)
    assert estimate.seconds == pytest.approx(own[0].cost.seconds)
    assert "model, data set and attack" in estimate.rests_on
    others = [r for r in found if r.identity.model.name != "clip"]
    assert "data set and attack" in estimate_cell(first, plan.protocol, others).rests_on
    unknown = estimate_cell(first, plan.protocol, [])
    assert unknown.seconds is None
    assert total([estimate, unknown]) == (estimate.seconds, 1)


def test_dry_run_runs_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = plan_file(tmp_path)
    assert run(["sweep", str(path), "--dry-run", "--out", str(tmp_path / "out")]) == 0
    assert "0 of 4 cells done" in capsys.readouterr().out
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "words", [["status"], ["a", "b"], ["status", "a", "b"]], ids=["no plan", "two plans", "too many"]
)
def test_wrong_words_say_what_is_wanted(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["sweep", *words]) == 2
    said = capsys.readouterr().err
    assert said.startswith("hierbench: error: ")
    assert "plan" in said.lower()


def test_a_begun_cell_is_told_from_a_missing_one(tmp_path: Path) -> None:
    plan = read_plan(plan_file(tmp_path), out=tmp_path / "out")
    write_note(tmp_path / "out", plan.cells[2])
    assert [s.state for s in look_up(plan)] == ["missing", "missing", "begun", "missing"]


TWELVE = """
protocol = "digits-v1"
[[cells]]
models = ["clip", "tecoa", "hier_aft"]
attacks = ["leaf_pgd", "multilevel_pgd"]
scorings = ["rollup", "direct"]
limit = 6
severity_samples = 0
batch_size = 8
"""


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="no SIGKILL here")
def test_twelve_cells_in_processes_killed_and_resumed_run_only_what_was_missing(tmp_path: Path) -> None:
    path, out = plan_file(tmp_path, TWELVE), tmp_path / "out"
    words = ["sweep", str(path), "--out", str(out), "--executor", "local", "--jobs", "2", "--set", "timeout_min=10"]
    command = [sys.executable, "-m", "hierbench", *words]
    first = subprocess.Popen(command, start_new_session=True, stdout=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 300
        while len(records_there(out)) < 4 and time.monotonic() < deadline:
            time.sleep(0.05)
    finally:
        os.killpg(first.pid, signal.SIGKILL)
        first.wait()
    kill_jobs(out)
    early = {p: p.stat().st_mtime_ns for p in records_there(out)}
    assert 4 <= len(early) < 12, "the kill came too late to show anything"
    second = subprocess.run(command, capture_output=True, text=True, timeout=500)
    assert second.returncode == 0, second.stdout + second.stderr
    plan = read_plan(path, out=out)
    assert [s.state for s in look_up(plan)] == ["done"] * 12
    assert {p: p.stat().st_mtime_ns for p in early} == early, "a finished cell ran again"
    ran = second.stdout.count(": done")
    assert 12 - len(early) <= ran < 12


def test_a_job_may_take_its_time(tmp_path: Path) -> None:
    """Left to itself submitit ends a local job after two minutes, four times, and calls it failed."""
    made = executor(tmp_path, kind="local", parameters={})._executor
    assert made.parameters["timeout_min"] >= 60 * 24 * 7 and made.max_num_timeout >= 100
    assert executor(tmp_path, kind="local", parameters={"timeout_min": 10})._executor.parameters["timeout_min"] == 10


def records_there(out: Path) -> list[Path]:
    return [p for p in out.glob("*/*/*.json") if ".sweep" not in p.parts and not p.name.startswith(".")]


def kill_jobs(out: Path) -> None:
    """End the jobs that a killed sweep left behind: each has its own session."""
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            words = (entry / "cmdline").read_bytes()
        except OSError:
            continue
        if str(out).encode() in words and b"submitit" in words:
            os.kill(int(entry.name), signal.SIGKILL)


def test_a_plan_that_is_not_there_says_which_are() -> None:
    with pytest.raises(InputError, match=r"no such plan; give a .toml file, or one of .*tiny-v1-core"):
        find_plan("nothing")


TRAINS = """
protocol = "digits-v1"
[[train]]
recipe = "digits/clean_ft"
variant = "few"
seeds = [0, 2]
[train.settings]
steps = 2
validation_images = 0

[[train]]
recipe = "digits/soft_labels"
variant = "odd"
seeds = [0, 1]
shuffle_trees = [5, 6]
[train.settings]
steps = 2
validation_images = 0

[[cells]]
models = ["*.few", "clean_ft.few-s2"]
attacks = ["leaf_pgd"]
limit = 4
severity_samples = 0
batch_size = 8
[cells.settings]
steps = 1
"""


def test_a_plan_names_the_models_it_trains_by_variant_and_seed(tmp_path: Path) -> None:
    plan = read_plan(plan_file(tmp_path, TRAINS), models=tmp_path / "models")
    assert [(t.name, t.request.seed) for t in plan.trainings] == [
        ("clean_ft.few", 0), ("clean_ft.few-s2", 2), ("soft_labels.odd", 0), ("soft_labels.odd-s1", 1),
    ]  # fmt: skip
    assert [t.request.settings["shuffle_tree"] for t in plan.trainings[2:]] == [5, 6]
    assert [Path(c.request.model).name for c in plan.cells] == ["clean_ft.few", "clean_ft.few-s2"]
    assert len({t.key for t in plan.trainings}) == 4


@pytest.mark.parametrize("executor", [[], ["--executor", "local", "--jobs", "2"]])
def test_what_a_plan_trains_is_trained_once_and_only_if_a_cell_wants_it(
    tmp_path: Path, executor: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    plan, models, out = plan_file(tmp_path, TRAINS), tmp_path / "models", tmp_path / "out"
    command = ["sweep", str(plan), "--out", str(out), "--models", str(models), "--quiet", *executor]
    assert run(command) == 0
    assert sorted(p.name for p in models.iterdir()) == ["clean_ft.few", "clean_ft.few-s2"]
    made = records(out)
    assert {r.identity.model.name for r in made.values()} == {"clean_ft.few", "clean_ft.few-s2"}
    assert len({r.identity.model.weights_hash for r in made.values()}) == 2, "two seeds are two models"
    written = {p: p.stat().st_mtime_ns for p in models.rglob("*") if p.is_file()}
    capsys.readouterr()
    assert run(command) == 0 and "all 2 cells are done" in capsys.readouterr().out
    assert {p: p.stat().st_mtime_ns for p in models.rglob("*") if p.is_file()} == written
    assert run(["sweep", "status", *command[1:6]]) == 0
    said = capsys.readouterr().out
    assert said.count(": trained") == 2 and said.count(": missing") == 2


def test_another_setting_is_another_training(tmp_path: Path) -> None:
    models, out = tmp_path / "models", tmp_path / "out"
    places = ["--out", str(out), "--models", str(models), "--quiet"]
    text = TRAINS.replace('models = ["*.few", "clean_ft.few-s2"]', 'models = ["clean_ft.few"]')
    assert run(["sweep", str(plan_file(tmp_path, text)), *places]) == 0
    first = read_plan(tmp_path / "plan.toml", models=models).trainings[0]
    assert training_state(first, out) == ("trained", None)
    changed = read_plan(plan_file(tmp_path, text.replace("steps = 2", "steps = 3", 1)), models=models).trainings[0]
    assert training_state(changed, out) == ("missing", None)
    (models / "clean_ft.few" / "model.json").unlink()
    assert training_state(first, out) == ("missing", None)


def test_a_training_that_fails_is_noted_and_its_cells_say_why(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = TRAINS.replace("steps = 2\n", "steps = 2\nlearning_rate = -1.0\n", 1)
    out = tmp_path / "out"
    command = ["sweep", str(plan_file(tmp_path, text)), "--out", str(out), "--models", str(tmp_path / "m"), "--quiet"]
    assert run(command) == 1
    said = capsys.readouterr().out
    assert said.count("failed: setting learning_rate = -1.0: it should be above 0") == 2
    assert said.count("failed:") == 4, "two trainings, and the cells of their models"
    assert run(["sweep", "status", *command[1:6]]) == 0
    assert "failed: setting learning_rate" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ('recipe = "digits/clean_ft"', 'recipe = "digits/clean"', "train[0]: recipe: unknown recipe"),
        ("seeds = [0, 2]", "seeds = [0, -2]", "train[0]: seeds: must be a list of whole numbers"),
        ("shuffle_trees = [5, 6]", "shuffle_trees = [5]", "train[1]: shuffle_trees: must have one entry"),
        ('variant = "odd"', 'varient = "odd"', "train[1].varient: unknown key"),
        ('recipe = "digits/soft_labels"\nvariant = "odd"', 'recipe = "digits/clean_ft"\nvariant = "few"', "twice"),
    ],
)
def test_a_wrong_training_is_refused_by_key(tmp_path: Path, old: str, new: str, words: str) -> None:
    assert old in TRAINS
    with pytest.raises(InputError) as caught:
        read_plan(plan_file(tmp_path, TRAINS.replace(old, new)))
    assert words in str(caught.value) and "\n" not in str(caught.value)
