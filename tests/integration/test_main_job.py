"""The main job with the shipped weights, from the command a user types to the table."""

from __future__ import annotations

import os
import random
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

import hierbench
from hierbench.cli import app
from hierbench.errors import InputError
from hierbench.evaluation.records import Record
from hierbench.models.catalogue import MODELS

SHIPPED = ("clip", "tecoa.digits", "hier_aft.digits")


def run(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "hierbench", *arguments]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=600)


def verdicts(folder: Path) -> pd.DataFrame:
    (path,) = folder.rglob("*.parquet")
    return pd.read_parquet(path)


def test_everything_promised_is_shipped() -> None:
    names = set(MODELS.names())
    assert names >= {"clip"} | {f"{d}.{v}" for d in ("tecoa", "hier_aft") for v in ("digits", "tiny")}


def test_the_readme_command_prints_a_row_for_every_depth(tmp_path: Path) -> None:
    done = run("eval", "--model", "hier_aft", "--attack", "superclass_pgd", "--limit", "40", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "hier_aft.digits under superclass_pgd, digits (strokes)" in " ".join(done.stdout.split())
    for depth, nodes in ((1, 2), (2, 4), (3, 10)):
        assert any(line.split()[:2] == [str(depth), str(nodes)] for line in done.stdout.splitlines())
    again = run("table", "--format", "csv", cwd=tmp_path)
    assert again.returncode == 0 and "hier_aft.digits" in again.stdout


def test_the_pooled_worst_case_fills_every_depth(tmp_path: Path) -> None:
    """One search, one image a sample, a figure at each depth; nothing is said of transfer."""
    record = hierbench.evaluate(
        "tecoa.digits", attack="multilevel_apgd", limit=20, out=tmp_path, settings={"steps": 10}
    )
    attack = record.identity.attack
    assert (attack.pooled, attack.depths, attack.components) == (True, (3,), ("apgd-ce", "apgd-t"))
    assert not record.checks.failed, record.checks.flags
    assert record.transfer == ()
    robust = [depth.rollup.robust for depth in record.depths]
    assert all(depth.attacked and depth.rollup.robust == depth.rollup.worst for depth in record.depths)
    assert [r.count for r in robust] == sorted((r.count for r in robust), reverse=True)
    assert 0 < robust[0].count <= 20
    apart = hierbench.evaluate("tecoa.digits", attack="superclass_pgd", limit=20, out=tmp_path)
    for together, alone in zip(record.depths, apart.depths, strict=True):
        assert together.rollup.robust.count <= alone.rollup.robust.count + 1
    direct = hierbench.evaluate(
        "clip", attack="multilevel_apgd", scoring="direct", limit=10, out=tmp_path, settings={"steps": 5}
    )
    assert direct.identity.attack.depths == (1, 2, 3) and not direct.identity.attack.pooled


@pytest.mark.parametrize("model", SHIPPED)
def test_eps_zero_is_clean_accuracy_exactly(tmp_path: Path, model: str) -> None:
    record = hierbench.evaluate(model, attack="superclass_pgd", eps=0, limit=100, out=tmp_path)
    for depth in record.depths:
        assert depth.rollup.robust is not None
        assert depth.rollup.robust.count == depth.rollup.clean.count == depth.rollup.worst.count
    assert record.checks.max_linf == 0.0


@pytest.mark.parametrize("scoring", ["rollup", "direct"])
def test_eps_one_leaves_nothing_of_the_undefended_model(tmp_path: Path, scoring: str) -> None:
    given = {"attack": "superclass_pgd", "eps": 1, "limit": 100, "severity_samples": 0}
    record = hierbench.evaluate("clip", **given, out=tmp_path, scoring=scoring)
    for depth in record.depths:
        scores = depth.rollup if scoring == "rollup" else depth.direct
        assert scores is not None and scores.robust is not None
        assert scores.robust.value <= 0.01, f"depth {depth.depth}"


def test_a_larger_radius_is_never_safer_by_much(tmp_path: Path) -> None:
    given = {"attack": "leaf_pgd", "limit": 100, "severity_samples": 0, "out": tmp_path}
    found = [leaf(hierbench.evaluate("clip", eps=eps, **given)) for eps in ("2/255", "8/255", "32/255")]
    assert found[0] >= found[1] >= found[2] - 0.02
    assert found[0] > found[2]


def leaf(record: Record) -> float:
    robust = record.depths[-1].rollup.robust
    assert robust is not None
    return robust.value


def test_a_defence_beats_none_at_its_own_radius(tmp_path: Path) -> None:
    given = {"attack": "leaf_pgd", "limit": 100, "severity_samples": 0, "out": tmp_path}
    before = hierbench.evaluate("clip", **given).depths[-1].rollup.robust
    for defence in ("tecoa", "hier_aft"):
        after = hierbench.evaluate(defence, **given).depths[-1].rollup.robust
        assert before is not None and after is not None
        assert after.low > before.high, defence


def test_text_is_encoded_once(tmp_path: Path) -> None:
    record = hierbench.evaluate("clip", limit=20, out=tmp_path)
    assert record.cost.text_forwards == 2 + 4 + 10
    assert record.checks.text_rejected is None


def test_a_text_attack_s_record_counts_its_texts(tmp_path: Path) -> None:
    record = hierbench.evaluate("clip", attack="text_synonyms", limit=20, out=tmp_path)
    refused = record.checks.text_rejected
    assert refused is not None and 0 < refused["proposed"] >= sum(refused.values()) - refused["proposed"]
    assert record.cost.text_forwards > 2 + 4 + 10  # the edits that were tried, too


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--attack", "superclas_pgd"], "did you mean 'superclass_pgd'"),
        (["--dataset", "digit"], "did you mean 'digits'"),
        (["--tree", "stroke"], "did you mean 'strokes'"),
        (["--depth", "4"], "depths 1 (coarsest) to 3 (leaves)"),
        (["--eps", "4"], "did you mean 4/255?"),
        (["--eps", "nan"], "--eps"),
        (["--limit", "0"], "--limit"),
        (["--dataset", "cifar100", "--data-root", "nowhere"], "--data-root"),
        (["--model", "./nothing"], "model.json"),
        (["--scoring", "sideways"], "sideways"),
        (["--device", "cuda:99"], "--device"),
        (["--out", "/proc/nothing"], "/proc/nothing"),
    ],
)
def test_bad_input_is_one_line_and_writes_nothing(
    tmp_path: Path,
    arguments: list[str],
    said: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert app.run(["eval", "--limit", "5", *arguments]) == 2
    printed = capsys.readouterr()
    assert said in printed.err and len(printed.err.strip().splitlines()) == 1 and printed.out == ""
    assert list(tmp_path.iterdir()) == []


def test_bad_input_is_one_line_of_the_whole_process(tmp_path: Path) -> None:
    done = run("eval", "--limit", "5", "--model", "heir_aft", cwd=tmp_path)
    assert done.returncode == 2 and done.stdout == ""
    assert "did you mean" in done.stderr and len(done.stderr.strip().splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.data
@pytest.mark.parametrize("model", ["clip", "tecoa", "hier_aft"])
def test_real_images_at_five_depths(tmp_path: Path, data_root: Path, model: str) -> None:
    record = hierbench.evaluate(model, dataset="cifar100", limit=100, data_root=data_root, out=tmp_path)
    assert [d.nodes for d in record.depths] == [2, 4, 8, 20, 100]
    assert not record.checks.failed
    assert record.identity.model.name == ("clip" if model == "clip" else f"{model}.tiny")
    raised = {flag.code for flag in record.checks.flags}
    assert ("collapse_guard" in raised) == bool(record.identity.model.guard_flags)
    assert record.seen is not None and {p.part for p in record.seen} == {"known", "unseen"}


@pytest.mark.data
def test_the_undefended_backbone_is_what_its_record_says(data_root: Path) -> None:
    import json

    from hierbench.datasets.load import load_images
    from hierbench.datasets.seen import load_seen
    from hierbench.paths import data_dir
    from hierbench.pretraining.report import accuracy_report

    stored = json.loads((data_dir() / "weights" / "tiny_clip-v1" / "record.json").read_text())
    model = hierbench.load_model("clip")
    assert model.weights_hash == stored["weights_hash"]
    report = accuracy_report(model, load_images("cifar100", root=data_root), load_seen())
    before = next(e for e in stored["test"] if e["dataset"] == "cifar100")
    assert report["known"]["among_themselves"]["accuracy"] >= 0.45
    unseen = report["unseen"]["among_themselves"]
    assert unseen["low"] > unseen["chance"]
    assert abs(report["known"]["all_classes"]["accuracy"] - before["known"]["all_classes"]["accuracy"]) < 0.01


@pytest.mark.slow
def test_ten_kills_end_in_the_same_verdicts(tmp_path: Path) -> None:
    arguments = ["--model", "hier_aft", "--attack", "superclass_pgd", "--batch-size", "16", "--limit", "240", "--quiet"]
    whole = run("eval", *arguments, "--out", "whole", cwd=tmp_path)
    assert whole.returncode == 0, whole.stderr
    rng = random.Random(0)
    kills = 0
    for _ in range(60):
        process = subprocess.Popen(
            [sys.executable, "-m", "hierbench", "eval", *arguments, "--out", "killed"],
            cwd=tmp_path,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        if kills < 10:
            try:
                process.wait(timeout=rng.uniform(4.0, 9.0))
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
                kills += 1
                continue
        if process.wait(timeout=600) == 0:
            break
    assert kills >= 3, "the run ended before it could be killed: make it longer"
    pd.testing.assert_frame_equal(verdicts(tmp_path / "whole"), verdicts(tmp_path / "killed"))


@pytest.mark.slow
def test_ctrl_c_loses_nothing(tmp_path: Path) -> None:
    arguments = ["eval", "--model", "clip", "--batch-size", "16", "--limit", "240", "--quiet", "--out", "out"]
    process = subprocess.Popen([sys.executable, "-m", "hierbench", *arguments], cwd=tmp_path, stderr=subprocess.PIPE)
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and not list(tmp_path.rglob("*.unit*")) and process.poll() is None:
        time.sleep(0.2)
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=120)
    assert process.returncode in (130, 0), stderr.decode()
    if process.returncode == 130:
        assert "again" in stderr.decode() or "resume" in stderr.decode() or "same command" in stderr.decode()
    assert run(*arguments, cwd=tmp_path).returncode == 0
    assert len(verdicts(tmp_path / "out")) == 240


@pytest.mark.slow
@pytest.mark.parametrize("model", ["clip", "hier_aft"])
def test_batch_sizes_agree(tmp_path: Path, model: str) -> None:
    tables = []
    for batch in (7, 64, 128):
        out = tmp_path / str(batch)
        hierbench.evaluate(model, attack="superclass_pgd", batch_size=batch, out=out, severity_samples=0)
        tables.append(verdicts(out))
    broken = [c for c in tables[0].columns if "broken" in c]
    assert broken
    flat = [t[broken].to_numpy() for t in tables]
    for other in flat[1:]:
        assert np.mean(np.asarray(flat[0]) == np.asarray(other)) >= 0.999


def test_a_coarser_search_is_said_and_its_verdicts_are_exact(tmp_path: Path) -> None:
    exact = hierbench.evaluate("tecoa", attack="leaf_pgd", limit=60, out=tmp_path)
    coarse = hierbench.evaluate("tecoa", attack="leaf_pgd", limit=60, out=tmp_path, search_precision="bf16")
    assert "search_precision" not in exact.identity.attack.parameters
    assert coarse.identity.attack.parameters["search_precision"] == "bf16" and coarse.identity.protocol.custom
    assert coarse.identity.cell != exact.identity.cell and coarse.checks.unverified == 0
    counts = [record.depths[-1].rollup.worst.count for record in (exact, coarse)]
    assert abs(counts[0] - counts[1]) <= 2


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"search_precision": "fp8"}, "--search-precision: 'fp8' is none of fp32, tf32, bf16"),
        ({"search_precision": "bf16", "attack": "text_synonyms"}, "does not run on hierbench's image search"),
        ({"search_precision": "bf16", "attack": "apgd-ce", "engine": "pyautoattack"}, "leave it out"),
    ],
)
def test_a_precision_that_cannot_be_had_is_refused(tmp_path: Path, given: dict[str, str], said: str) -> None:
    with pytest.raises(InputError, match=re.escape(said)):
        hierbench.evaluate("clip", limit=10, out=tmp_path, **given)


@pytest.mark.slow
def test_a_compiled_search_is_said_and_its_verdicts_are_the_plain_models(tmp_path: Path) -> None:
    plain = hierbench.evaluate("tecoa", attack="leaf_pgd", limit=60, out=tmp_path / "plain")
    made = hierbench.evaluate("tecoa", attack="leaf_pgd", limit=60, out=tmp_path / "compiled", compile=True)
    assert made.arguments.given["compile"] is True
    assert made.identity == plain.identity and made.checks.unverified == 0
    assert made.cost.forwards > plain.cost.forwards, "what it called broken was looked at again"
    counts = [record.depths[-1].rollup.worst.count for record in (plain, made)]
    assert abs(counts[0] - counts[1]) <= 2


def test_without_a_compiler_one_line_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_compiler(*_: object, **__: object) -> None:
        raise RuntimeError("no working C++ compiler\nand much more")

    monkeypatch.setattr(torch, "compile", no_compiler)
    with pytest.raises(InputError, match=r"--compile: torch cannot compile this model here \(no working C\+\+ comp"):
        hierbench.evaluate("tecoa", attack="leaf_pgd", limit=10, out=tmp_path, compile=True)
    assert not list(tmp_path.iterdir())
    with pytest.raises(InputError, match="--compile: text_synonyms does not run"):
        hierbench.evaluate("tecoa", attack="text_synonyms", limit=10, out=tmp_path, compile=True)
