from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from evaluation.test_metrics import make_verdicts
from evaluation.toy_cell import ToyTree, toy_cell
from hierbench.evaluation import scores, trust
from hierbench.evaluation.cell import Effort
from hierbench.evaluation.records import Checks, DepthScores, Proportion, TransferCell
from hierbench.evaluation.runner import run_cell
from hierbench.evaluation.verdicts import Verdicts

LABELS = np.arange(200) % 4


def sound() -> Verdicts:
    clean = LABELS.copy()
    clean[:20] = (clean[:20] + 1) % 4
    attacked = (LABELS + 2) % 4
    attacked[::3] = LABELS[::3]
    return make_verdicts(clean, {1: attacked, 2: attacked}, LABELS)


def check(
    verdicts: Verdicts, *, eps: float = 0.1, norm: str = "linf", effort: Effort | None = None, **how: Any
) -> Checks:
    effort = effort or Effort(gradients=100)
    tree: Any = ToyTree()
    return trust.run_checks(
        verdicts,
        dict.fromkeys(verdicts.attacked, effort),
        clean_effort=Effort(),
        declared=len(LABELS),
        norm=norm,
        eps=eps,
        scoring="rollup",
        depths=scores.depth_scores(verdicts, tree),
        transfer=scores.transfer_cells(verdicts),
        **how,
    )


def spoil(verdicts: Verdicts, depth: int, **columns: Any) -> Verdicts:
    changed = dataclasses.replace(verdicts.attacked[depth], **columns)
    return dataclasses.replace(verdicts, attacked={**verdicts.attacked, depth: changed})


def codes(checks: Checks) -> dict[str, str]:
    return {flag.code: flag.level for flag in checks.flags}


def test_a_sound_run_has_no_flag() -> None:
    checks = check(sound())
    assert checks.flags == ()
    assert checks.moved_share == checks.raised_share == 1.0


@pytest.mark.parametrize(("still", "flagged"), [(1, False), (2, True)])
def test_one_percent_of_unmoved_or_unraised_is_the_limit(still: int, flagged: bool) -> None:
    verdicts = sound()
    searched = np.flatnonzero(verdicts.attacked[2].searched)
    assert len(searched) == 180  # 1 of 180 is under one percent, 2 are over
    moved = np.ones(200, dtype=bool)
    moved[searched[:still]] = False
    assert ("pixels_not_moved" in codes(check(spoil(verdicts, 2, moved=moved)))) == flagged
    loss = verdicts.attacked[2].final_loss.copy()
    held = np.flatnonzero(verdicts.attacked[2].searched & ~verdicts.attacked[2].broken_rollup[:, 1])
    loss[held[:still]] = 0.0
    assert ("loss_not_raised" in codes(check(spoil(verdicts, 2, final_loss=loss)))) == flagged


def test_a_sample_that_broke_was_attacked_whatever_its_loss_says() -> None:
    verdicts = sound()
    loss = verdicts.attacked[2].final_loss.copy()
    loss[verdicts.attacked[2].broken_rollup[:, 1]] = 0.0
    assert codes(check(spoil(verdicts, 2, final_loss=loss))) == {}


def test_samples_that_were_not_attacked_do_not_count_for_the_attack() -> None:
    verdicts = sound()
    moved = verdicts.attacked[2].searched.copy()
    assert check(spoil(verdicts, 2, moved=moved)).flags == ()


def test_a_right_sample_left_out_of_the_attack_fails() -> None:
    verdicts = sound()
    searched = verdicts.attacked[1].searched.copy()
    searched[np.flatnonzero(searched)[0]] = False
    assert codes(check(spoil(verdicts, 1, searched=searched))) == {"not_attacked": "failed"}


def test_zero_gradients_and_unverified_successes_are_warned_of() -> None:
    assert codes(check(sound(), effort=Effort(gradients=100, zero_gradients=6))) == {"zero_gradients": "warning"}
    assert codes(check(sound(), effort=Effort(gradients=100, zero_gradients=5))) == {}
    unverified = np.zeros(200, dtype=bool)
    unverified[7] = True
    found = check(spoil(sound(), 1, unverified=unverified))
    assert codes(found) == {"unverified": "warning"}
    assert found.unverified == 1


def test_equal_accuracies_alone_are_a_warning() -> None:
    verdicts = make_verdicts(LABELS, {1: LABELS, 2: LABELS}, LABELS)
    assert codes(check(verdicts)) == {"robust_equals_clean": "warning"}


NAN = float("nan")


@pytest.mark.parametrize(
    ("norm", "linf", "l2", "good"),
    [
        ("linf", 0.1, 9.0, True),
        ("l2", 0.2, 0.1, True),
        ("linf", 0.1001, 0.1, False),
        ("l2", 0.05, 0.2, False),
        ("linf", NAN, 0.0, False),
    ],
)
def test_the_ball_is_that_of_the_norm(norm: str, linf: float, l2: float, good: bool) -> None:
    verdicts = spoil(sound(), 1, linf=np.full(200, linf), l2=np.full(200, l2))
    if np.isnan(linf):
        with pytest.raises(ValueError, match="finite"):
            check(verdicts, norm=norm)
        return
    assert ("outside_ball" not in codes(check(verdicts, norm=norm))) == good


def share(count: int) -> Proportion:
    return scores.proportion(np.arange(40) < count)


def with_rollup(entry: DepthScores, **changes: Any) -> DepthScores:
    return entry.model_copy(update={"rollup": entry.rollup.model_copy(update=changes)})


@pytest.mark.parametrize(
    ("where", "changes", "words"),
    [
        (0, {"robust": "clean + 1"}, "is above clean"),
        (0, {"worst": "clean + 1"}, "is above clean"),
        (1, {"worst": "robust + 1"}, "above a member"),
        (1, {"clean": "clean 1 + 1"}, "depth 2 more often"),
    ],
)
def test_impossible_orderings_are_named(tmp_path: Path, where: int, changes: dict[str, str], words: str) -> None:
    record = run_cell(toy_cell(tmp_path))
    assert trust.recheck(record) == []
    depths: list[DepthScores] = list(record.depths)
    assert depths[where].rollup.robust is not None
    values = {
        "clean + 1": depths[where].rollup.clean.count + 1,
        "robust + 1": depths[where].rollup.robust.count + 1,  # type: ignore[union-attr]
        "clean 1 + 1": depths[0].rollup.clean.count + 1,
    }
    edited = {}
    for name, wanted in changes.items():
        count = values[wanted]
        edited[name] = Proportion.model_construct(count=count, of=40, value=count / 40, low=0.0, high=1.0)
    depths[where] = with_rollup(depths[where], **edited)
    flags = trust.impossible_orderings(depths, record.transfer)
    assert any(words in flag.message for flag in flags)
    assert {flag.level for flag in flags} == {"failed"}


def test_a_transfer_row_that_is_not_monotone_is_named(tmp_path: Path) -> None:
    record = run_cell(toy_cell(tmp_path))
    cells: list[TransferCell] = list(record.transfer)
    at = next(i for i, c in enumerate(cells) if c.scoring == "rollup" and (c.attack_depth, c.score_depth) == (1, 2))
    cells[at] = cells[at].model_copy(update={"robust": share(39)})
    assert any("attack at depth 1" in flag.message for flag in trust.impossible_orderings(record.depths, cells))


def test_a_collapse_guard_of_the_training_is_a_warning() -> None:
    assert trust.guard_warnings(()) == ()
    (flag,) = trust.guard_warnings(("norm_order",))
    assert flag.level == "warning" and "parent" in flag.message


def test_a_library_that_keeps_successes_only_is_noted_and_one_that_does_nothing_fails() -> None:
    verdicts = sound()
    searched = verdicts.attacked[1].searched
    why = "its library keeps successes only"
    some, none = searched & (np.arange(len(searched)) % 2 == 0), np.zeros_like(searched)
    kept = spoil(verdicts, 1, moved=some, final_loss=verdicts.attacked[1].clean_loss)
    assert codes(check(kept, unmoved=why)) == {"left_as_they_were": "note"}
    assert codes(check(kept))["pixels_not_moved"] == "failed"
    assert codes(check(spoil(verdicts, 1, moved=none), unmoved=why))["pixels_not_moved"] == "failed"


def test_a_pooled_search_attacks_what_is_right_at_any_depth() -> None:
    """One pass from the leaves: its searched samples are those right at depth 1, not only those right at the leaves."""
    verdicts = sound()
    (deepest,) = [d for d in verdicts.attacked if d == max(verdicts.attacked)]
    right_at_the_top = ~verdicts.clean.broken_rollup[:, 0]
    pooled = dataclasses.replace(
        verdicts,
        attacked={deepest: dataclasses.replace(verdicts.attacked[deepest], searched=right_at_the_top)},
    )
    assert "not_attacked" not in codes(check(pooled, pooled=True))
    if (right_at_the_top != ~verdicts.clean.broken_rollup[:, deepest - 1]).any():
        assert codes(check(pooled))["not_attacked"] == "failed"
    fewer = right_at_the_top.copy()
    fewer[np.flatnonzero(fewer)[:1]] = False
    short = dataclasses.replace(
        pooled, attacked={deepest: dataclasses.replace(pooled.attacked[deepest], searched=fewer)}
    )
    assert codes(check(short, pooled=True))["not_attacked"] == "failed"
