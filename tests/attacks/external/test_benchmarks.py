"""The two benchmark scripts: their statistics, their resuming, and the counts that they write."""

from __future__ import annotations

import argparse
import importlib.util
import json
import sys
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from attack_toys import TREE, conv_net, ids_of, images_of

pytest.importorskip("pyautoattack")
pytest.importorskip("torchattacks")

FOLDER = Path(__file__).resolve().parents[3] / "benchmarks"
if not FOLDER.is_dir():
    pytest.skip("the benchmarks are not part of the installed package", allow_module_level=True)


def script(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, FOLDER / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def scripts() -> Iterator[dict[str, ModuleType]]:
    found = {name: script(name) for name in ("subjects", "measurement", "parity", "speed_runs", "speed", "adaptive")}
    yield found
    for name in found:
        del sys.modules[name]


@pytest.fixture(scope="module")
def subject(scripts: dict[str, ModuleType]) -> Any:
    net, images = conv_net(TREE.width, seed=3), images_of(40, seed=1)
    return scripts["subjects"].Subject(
        model="toy",
        dataset="digits",
        forward=lambda pixels: net(pixels)[:, :8],
        layout=type(TREE).from_levels(TREE.leaf_to_node, direct=False),
        images=images,
        labels=net(images)[:, :8].argmax(dim=1).numpy(),
        ids=tuple(ids_of(40)),
        device=torch.device("cpu"),
        identity={"weights_hash": "one"},
    )


@pytest.fixture
def quick(scripts: dict[str, ModuleType], monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    parity = scripts["parity"]
    monkeypatch.setattr(parity, "EPS", {"digits": Fraction(3, 255)})
    monkeypatch.setattr(parity, "STEPS", 12)
    monkeypatch.setattr(parity, "QUERIES", 60)
    return parity


CELLS = [(3, 8, "leaf_pgd"), (3, 8, "apgd-ce"), (1, 2, "apgd-ce"), (2, 5, "apgd-t"), (3, 8, "square")]


@pytest.mark.parametrize(("depth", "nodes", "attack"), CELLS)
def test_a_cell_s_counts_belong_together(quick: ModuleType, subject: Any, depth: int, nodes: int, attack: str) -> None:
    cell = quick.Cell("toy", "digits", depth, nodes, attack)
    row = quick.compare(cell, subject, seed=0)
    assert row["cell"] == f"toy/digits/d{depth}/{attack}"
    assert row["ours"]["robust"] - row["theirs"]["robust"] == row["only_ours_robust"] - row["only_theirs_robust"]
    assert 0 < row["theirs"]["robust"] < row["clean"] == 40
    assert row["ours"]["robust"] <= row["theirs"]["robust"] + 4
    assert row["ours"]["unverified"] == row["theirs"]["unverified"] == 0
    for side in ("ours", "theirs"):
        assert (row[side]["backwards"] > 0) == (attack != "square")
        assert row[side]["forwards"] > 80
    assert row["reference"] == ("torchattacks" if attack == "leaf_pgd" else "pyautoattack")
    json.dumps(row, allow_nan=False)


def test_the_budget_is_equal_on_both_sides(quick: ModuleType, subject: Any) -> None:
    # An eps at which nothing breaks, so that both go to the end: steps + 1 gradients a sample and run.
    quick.EPS["digits"] = Fraction(1, 255_000)
    row = quick.compare(quick.Cell("toy", "digits", 2, 5, "apgd-t"), subject, seed=0)
    assert row["budget"] == {"steps": 12, "restarts": 1, "targets": 4}
    assert row["theirs"]["backwards"] == 40 * 4 * 13
    assert 40 * 4 * 12 <= row["ours"]["backwards"] <= 40 * 4 * 13 + 64 * 13
    assert row["ours"]["robust"] == row["theirs"]["robust"] == 40


def row_of(cell: str, ours: int, theirs: int, p: float, reference: str = "pyautoattack") -> dict[str, Any]:
    return {
        "cell": cell, "reference": reference, "n": 200, "p": p,
        "ours": {"robust": ours}, "theirs": {"robust": theirs},
        "only_ours_robust": max(0, ours - theirs), "only_theirs_robust": max(0, theirs - ours),
    }  # fmt: skip


def test_holm_is_the_textbook_s(scripts: dict[str, ModuleType]) -> None:
    holm = scripts["parity"].holm
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.6, 0.9]) == [1.0, 1.0]
    assert holm([]) == []


def test_the_summary_knows_a_cell_that_is_worse(scripts: dict[str, ModuleType]) -> None:
    rows = [row_of("a", 100, 100, 1.0), row_of("b", 90, 95, 0.001), row_of("c", 50, 50, 1.0, "torchattacks")]
    first, second = scripts["parity"].summarise(rows)
    assert (first["points_above"], first["significantly_worse"], first["reached"]) == (-1.25, [], True)
    assert rows[1]["p_holm"] == 0.002
    assert (second["reference"], second["n"]) == ("torchattacks", 200)
    worse = scripts["parity"].summarise([row_of("a", 100, 100, 1.0), row_of("b", 96, 90, 0.001)])[0]
    assert worse["significantly_worse"] == ["b"]
    assert not worse["reached"]
    many = scripts["parity"].summarise([row_of("a", 101, 100, 1.0)])[0]
    assert (many["points_above"], many["significantly_worse"], many["reached"]) == (0.5, [], False)


def test_a_finished_cell_is_known_and_a_changed_one_is_not(
    quick: ModuleType, subject: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cells = [quick.Cell("toy", "digits", 3, 8, "apgd-ce"), quick.Cell("toy", "digits", 3, 8, "leaf_pgd")]
    monkeypatch.setattr(quick, "all_cells", lambda: cells)
    options = argparse.Namespace(out=tmp_path / "deep" / "parity.json", seed=0, device="cpu", threads=1)
    record = quick.read(options.out, 0)
    assert not quick.done(cells[0], subject, record)
    for cell in reversed(cells):
        quick.keep(quick.compare(cell, subject, seed=0), record, options)
    again = quick.read(options.out, 0)
    assert [row["cell"] for row in again["rows"]] == [cell.name for cell in cells]
    assert quick.done(cells[0], subject, again)
    with pytest.raises(quick.InputError, match="seed 0"):
        quick.read(options.out, 1)
    changed = type(subject)(**{**vars(subject), "identity": {"weights_hash": "two"}})
    assert not quick.done(cells[0], changed, again)
    monkeypatch.setattr(quick, "STEPS", 13)
    assert not quick.done(cells[0], subject, again)
    assert quick.done(cells[1], subject, again)
    table = quick.render_table(again)
    assert "depth 3 (8 nodes)" in table
    assert "Against pyautoattack, pooled over 1 cells and 40 verdicts" in table
    assert quick.estimate(cells, {("toy", "digits"): subject}) > 0


def test_speed_compares_equal_work(
    scripts: dict[str, ModuleType], subject: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    speed, runs = scripts["speed"], scripts["speed_runs"]
    monkeypatch.setattr(runs, "STEPS", 8)
    monkeypatch.setattr(runs, "EASY", Fraction(3, 255))
    found = {case.name: case for case in runs.cases(subject, subject, 0)}
    assert set(speed.ALLOWED) <= set(found)
    ours, theirs = found["depths/undefended"].ours(), found["depths/undefended"].theirs()
    assert len(ours.robust) == len(theirs.robust) == 3
    assert ours.robust == tuple(sorted(ours.robust, reverse=True))
    assert np.abs(np.subtract(ours.robust, theirs.robust)).max() <= 3
    assert ours.worst == ours.robust
    assert all(worst <= own for worst, own in zip(theirs.worst, theirs.robust, strict=True))
    assert ours.forwards < theirs.forwards
    engine, bare = found["overhead/robust"].ours(), found["overhead/robust"].theirs()
    assert (engine.forwards, engine.backwards) == (bare.forwards, bare.backwards)
    entry = {"runs": [{"ours": vars(ours), "theirs": vars(theirs)} for _ in range(3)]}
    for run in entry["runs"]:
        run["ours"]["cpu_seconds"], run["theirs"]["cpu_seconds"] = 1.0, 2.0
    part = speed.summarise("depths/undefended", entry)
    assert part["cpu_ratio"] == 0.5
    assert part["extra_robust"]["robust"] == sum(ours.robust) - sum(theirs.robust)
    assert part["ratio"] == pytest.approx(ours.seconds / theirs.seconds, abs=1e-3)
    assert part["reached"] == (part["ratio"] <= 0.15)
