"""Attacking what a committed headline left robust: those samples and no others, and what breaks is counted."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from hierbench.evaluation.stored import read_record
from hierbench.models.layout import NodeLayout

ROOT = Path(__file__).parents[2]
if not (ROOT / "benchmarks").is_dir():
    pytest.skip("the benchmarks are not part of the installed package", allow_module_level=True)


@pytest.fixture
def survivors(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    monkeypatch.chdir(ROOT)
    return importlib.import_module("survivors")


@pytest.mark.parametrize(
    ("cell", "eps"),
    [("agft.tiny/cifar100/5", "4/255"), ("soft_labels.tiny/cifar100/1", "4/255"),
     ("soft_labels.tiny/cifar100/1/8_255", "8/255")],
)  # fmt: skip
def test_they_are_the_samples_of_the_published_figure(survivors: Any, cell: str, eps: str) -> None:
    assert cell in survivors.CASES
    case = survivors.Case.of(cell)
    robust, name, scored = survivors.headline(case)
    record = read_record(ROOT / name)
    worst = record.depths[case.depth - 1].rollup.worst
    assert worst is not None and (len(robust), scored) == (worst.count, worst.of)
    assert record.identity.attack.eps == eps and case.eps == Fraction(eps)


def two_classes(edge: float) -> Callable[[Tensor], Tensor]:
    """Class 0 below the edge, by images of one pixel."""

    def forward(images: Tensor) -> Tensor:
        value = images.flatten(1).mean(dim=1)
        return torch.stack([edge - value, value - edge], dim=1)

    return forward


def test_what_falls_is_counted_and_not_attacked_again(survivors: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from subjects import Subject  # type: ignore[import-not-found]

    runs = (("gradient", "apgd-ce", {"steps": 5}), ("queries", "square", {"queries": 20}))
    monkeypatch.setattr(survivors, "RUNS", runs)
    monkeypatch.setattr(survivors, "SOURCES", ("elsewhere",))
    near = Subject(
        model="toy",
        dataset="digits",
        forward=two_classes(0.5),
        layout=NodeLayout.from_levels([[0, 1]], direct=False),
        images=torch.tensor([0.45, 0.2, 0.55, 0.9]).view(4, 1, 1, 1),
        labels=np.array([0, 0, 1, 1]),
        ids=("a", "b", "c", "d"),
        device=torch.device("cpu"),
        identity={},
    )
    steps, left = survivors.harder(near, lambda name: two_classes(0.5), eps=Fraction(1, 10), depth=1, seed=0)
    assert [(s["run"], s["searched"], s["broken"]) for s in steps] == [
        ("gradient", 4, 2), ("queries", 2, 0), ("images made against elsewhere", 2, 0),
    ]  # fmt: skip
    assert left.ids == ("b", "d")

    monkeypatch.setattr(survivors, "RUNS", ())
    steps, left = survivors.harder(near, lambda name: two_classes(0.5), eps=Fraction(1, 10), depth=1, seed=0)
    assert [s["broken"] for s in steps] == [2] and left.ids == ("b", "d")
