"""Calibration of the leaves and rank preservation: by hand, through a run, and refused where they mean nothing."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from evaluation.test_victim import engine_cell, linear_model
from hierbench.cli.app import run
from hierbench.evaluation.cell import Cell
from hierbench.evaluation.leaves import top_overlap, top_probability
from hierbench.evaluation.metrics import calibration_error
from hierbench.evaluation.runner import run_cell
from hierbench.evaluation.scores import calibration_errors, rank_preservation
from hierbench.evaluation.verdicts import CleanVerdicts, read_verdicts
from hierbench.evaluation.victim import EngineVictim


def test_calibration_error_by_hand() -> None:
    # bins [0.2, 0.267): 0.25 right once in two, gap 0.25; [0.867, 0.933): 0.9 right, gap 0.1; the last: 1.0 wrong
    confidence = np.array([0.25, 0.25, 0.9, 1.0])
    right = np.array([True, False, True, False])
    assert calibration_error(confidence, right) == pytest.approx((2 * 0.25 + 0.1 + 1.0) / 4)
    assert calibration_error(np.append(confidence, np.nan), np.append(right, True)) == pytest.approx(1.6 / 4)
    assert calibration_error(np.array([np.nan]), np.array([True])) is None
    assert calibration_error(np.array([0.7, 0.7]), np.array([True, False])) == pytest.approx(0.2), "not |.3| and |.7|"


def test_top_probability_and_overlap_look_at_the_leaves_alone() -> None:
    logits = torch.tensor([[0.0, 1, 2, 3, 4, 5, 99], [5.0, 4, 3, 2, 1, 0, 99]])
    expected = float(torch.softmax(logits[0, :6].double(), 0).max())
    assert top_probability(logits, 6) == pytest.approx([expected] * 2)
    # the top five of the first are leaves 1..5, of the second 0..4: four of six
    assert top_overlap(logits, logits.flip(0), 6) == pytest.approx([4 / 6, 4 / 6])
    assert top_overlap(logits, logits, 6) == pytest.approx([1, 1])
    logits[0, 2] = torch.inf
    assert np.isnan(top_probability(logits, 6)).tolist() == [True, False]
    assert np.isnan(top_overlap(logits, logits.flip(0), 6)).all()


def ranked(cell: Cell) -> Cell:
    victim = cell.victim
    assert isinstance(victim, EngineVictim)
    return dataclasses.replace(cell, victim=dataclasses.replace(victim, reference=linear_model(seed=3)), ranked=True)


def with_full_budget(cell: Cell, samples: int) -> Cell:
    attack = cell.identity.attack.model_copy(update={"severity_samples": samples})
    return dataclasses.replace(cell, identity=cell.identity.model_copy(update={"attack": attack}))


@pytest.mark.parametrize("samples", [48, 5])
def test_a_run_keeps_them_for_the_samples_searched_in_full(tmp_path: Path, samples: int) -> None:
    cell = with_full_budget(engine_cell(tmp_path, attack="leaf_pgd"), samples)
    record = run_cell(cell)
    verdicts = read_verdicts(cell.verdicts_path)
    attack = verdicts.attacked[2]
    assert attack.severity_confidence is not None and verdicts.clean.confidence is not None
    assert np.isfinite(attack.severity_confidence).sum() == samples, "and there are chunks without any of them"
    assert (record.calibration_error_clean, record.calibration_error_attacked) == calibration_errors(verdicts)
    right = verdicts.clean.predicted == verdicts.labels
    assert record.calibration_error_clean == calibration_error(verdicts.clean.confidence, right)
    assert record.rank_preservation is None and attack.severity_overlap is None
    still = attack.full_budget & ~attack.searched
    assert (attack.severity_confidence[still] == verdicts.clean.confidence[still]).all()
    moved = attack.full_budget & attack.searched
    assert (attack.severity_confidence[moved] != verdicts.clean.confidence[moved]).all()


def test_attacked_calibration_is_of_the_attacked_predictions(tmp_path: Path) -> None:
    cell = with_full_budget(engine_cell(tmp_path, attack="leaf_pgd", eps="60/255"), 48)
    record = run_cell(cell)
    verdicts = read_verdicts(cell.verdicts_path)
    attack = verdicts.attacked[2]
    assert attack.severity_confidence is not None
    predicted = np.where(attack.searched, attack.severity_predicted, verdicts.clean.predicted)
    assert (predicted != verdicts.labels).all(), "all are broken, so that the error is the mean confidence"
    assert record.calibration_error_attacked == pytest.approx(attack.severity_confidence.mean())


def test_ranks_are_compared_when_asked_and_make_an_unranked_cell_unfinished(tmp_path: Path) -> None:
    plain = with_full_budget(engine_cell(tmp_path, attack="leaf_pgd"), 48)
    first = run_cell(plain)
    asked = run_cell(ranked(plain))
    assert first.rank_preservation is None
    verdicts = read_verdicts(plain.verdicts_path)
    overlap = verdicts.attacked[2].severity_overlap
    assert overlap is not None and np.isfinite(overlap).all()
    assert asked.rank_preservation == rank_preservation(verdicts) == pytest.approx(overlap.mean())
    assert asked.cost.forwards > first.cost.forwards, "the reference's passes are counted"
    assert asked.depths == first.depths, "no verdict depends on it"
    assert run_cell(ranked(plain)).created == asked.created, "and now it is finished"


def test_journals_from_before_the_confidence_are_joined_without_it() -> None:
    old = CleanVerdicts(np.array([0]), np.array([[False]]))
    new = CleanVerdicts(np.array([1]), np.array([[True]]), confidence=np.array([0.5]))
    for parts in ([old, new], [new, old]):
        joined = CleanVerdicts.join(parts)
        assert joined.confidence is None and len(joined.predicted) == 2


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--attack", "multilevel_apgd"], "keeps no image of its full search"),
        (["--attack", "text_synonyms"], "keeps no image of its full search"),
        (["--attack", "leaf_pgd", "--severity-samples", "0"], "read from the leaves' attack"),
        (["--attack", "superclass_pgd", "--depth", "1"], "read from the leaves' attack"),
    ],
)
def test_ranks_are_refused_where_there_are_none(
    arguments: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = ["eval", "--model", "tecoa.digits", "--limit", "8", "--rank-preservation", "--out", str(tmp_path)]
    assert run([*given, *arguments]) != 0
    errors = capsys.readouterr().err
    assert said in errors and "--rank-preservation" in errors
    assert not any(tmp_path.iterdir())


def test_the_undefended_backbone_is_the_reference(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """At eps 0 the undefended model is its own reference, and a defended one is what its training changed."""
    given = ["eval", "--attack", "leaf_pgd", "--limit", "24", "--rank-preservation", "--out", str(tmp_path)]
    assert run([*given, "--eps", "0", "--model", "clip"]) == 0
    assert "clean ones to 100.0 %" in " ".join(capsys.readouterr().out.split())
    assert run([*given, "--model", "tecoa"]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "rank preservation" in said and "100.0 %" not in said.split("rank preservation")[1]
    assert "under attack (samples searched in full)" in said
