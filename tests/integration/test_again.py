"""Running committed cells again: one verdict that is another must be seen."""

from __future__ import annotations

import dataclasses
import importlib
from pathlib import Path
from typing import Any

import pytest

from hierbench.evaluation.verdicts import read_verdicts

ROOT = Path(__file__).parents[2]
if not (ROOT / "benchmarks").is_dir():
    pytest.skip("the benchmarks are not part of the installed package", allow_module_level=True)


@pytest.fixture
def again(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    monkeypatch.chdir(ROOT)
    return importlib.import_module("again")


def test_one_other_verdict_is_counted(again: Any) -> None:
    path = min((ROOT / "leaderboard/records/tiny-v1/tecoa.tiny").glob("cifar100.*.leaf_pgd.rollup.*.parquet"))
    first = read_verdicts(path)
    attack = first.attacked[5]
    right = int((~attack.broken_rollup[:, 4]).nonzero()[0][0])
    broken = attack.broken_rollup.copy()
    broken[right, 4] = True
    other = dataclasses.replace(first, attacked={5: dataclasses.replace(attack, broken_rollup=broken)})
    total = 2 * attack.broken_rollup.size
    assert again.agreement(first, first) == (total, total)
    assert again.agreement(first, other) == (total - 1, total)
    assert again.robust_at(first, "rollup", 5) == again.robust_at(other, "rollup", 5) + 1


def test_the_draw_is_by_seed_and_of_shipped_models_under_our_own_engine(again: Any) -> None:
    few, many = again.draw(3, 4), again.draw(3, 9)
    assert many[:4] == few != again.draw(4, 4)
    assert len(set(many)) == 9
