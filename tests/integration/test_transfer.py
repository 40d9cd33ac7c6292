"""Images made against one model and shown to another: judged on what both had right, and counted by hand."""

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

from hierbench.models.layout import NodeLayout

ROOT = Path(__file__).parents[2]
if not (ROOT / "benchmarks").is_dir():
    pytest.skip("the benchmarks are not part of the installed package", allow_module_level=True)

EPS = Fraction(1, 10)
PIXELS = ((0.45, 0.5), (0.2, 0.5), (0.55, 0.5), (0.9, 0.5), (0.45, 0.45))
LABELS = (0, 0, 1, 1, 0)


@pytest.fixture
def transfer(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    monkeypatch.chdir(ROOT)
    return importlib.import_module("transfer")


def by_pixel(place: int) -> Callable[[Tensor], Tensor]:
    """Class 0 where one of the two pixels is dark."""

    def forward(images: Tensor) -> Tensor:
        value = images.flatten(1)[:, place]
        return torch.stack([0.5 - value, value - 0.5], dim=1)

    return forward


@pytest.fixture
def models(transfer: Any) -> dict[str, Any]:
    from subjects import Subject  # type: ignore[import-not-found]

    def subject(name: str, place: int) -> Any:
        return Subject(
            model=name,
            dataset="digits",
            forward=by_pixel(place),
            layout=NodeLayout.from_levels([[0, 1]], direct=False),
            images=torch.tensor(PIXELS).view(5, 1, 1, 2),
            labels=np.array(LABELS),
            ids=tuple("abcde"),
            device=torch.device("cpu"),
            identity={},
        )

    return {"left": subject("left", 0), "twin": subject("twin", 0), "right": subject("right", 1)}


def test_a_pair_is_judged_on_what_both_had_right(transfer: Any, models: dict[str, Any]) -> None:
    found = transfer.shown("left", models, (1,), eps=EPS, seed=0)
    (row,) = found["depths"]
    assert row["attacked"] == 5
    assert row["targets"]["left"] == {"both": 5, "left": 2}, "a, c and e lie within reach of the edge"
    assert row["targets"]["twin"] == row["targets"]["left"]
    assert row["targets"]["right"] == {"both": 3, "left": 3}, "a tie is class 0, and pixel 2 tells nothing to left"
    assert found["backwards"] > 0


def test_what_the_source_had_wrong_is_no_images_of_its_own(transfer: Any, models: dict[str, Any]) -> None:
    (row,) = transfer.shown("right", models, (1,), eps=EPS, seed=0)["depths"]
    assert row["attacked"] == 3, "c and d are class 0 to it"
    assert row["targets"]["left"]["both"] == 3


def test_noise_is_as_far_away_and_knows_no_model(transfer: Any, models: dict[str, Any]) -> None:
    images = models["left"].images
    moved = transfer.noise(images, EPS, 0)
    assert torch.allclose((moved - images).abs(), torch.tensor(0.1)) and moved.min() >= 0 and moved.max() <= 1
    assert torch.equal(moved, transfer.noise(images, EPS, 0)) and not torch.equal(moved, transfer.noise(images, EPS, 1))
    found = transfer.shown("noise", models, (1,), eps=EPS, seed=0)
    truth = by_pixel(0)(moved).argmax(dim=1) == torch.tensor(LABELS)
    assert found["depths"][0]["targets"]["left"] == {"both": 5, "left": int(truth.sum())}
    assert found["backwards"] == 0


def test_the_table_says_what_was_left_and_what_is_missing(transfer: Any) -> None:
    names = transfer.sources()
    assert names[0] == "clip" and names[-1] == "noise" and len(names) == 13
    targets = {name: {"both": 200, "left": 50 + place} for place, name in enumerate(names[:-1])}
    row = {"cell": "clip", "dataset": "cifar100", "eps": "4/255", "depths": [{"depth": 1, "targets": targets}],
           "forwards": 1000, "backwards": 900, "seconds": 120}  # fmt: skip
    record = {"rows": [row], "command": "python benchmarks/transfer.py", "seed": 0, "environment": {}}
    said = transfer.render_table(record)
    (line,) = (line for line in said.splitlines() if line.startswith("| clip |"))
    shown = [entry.strip() for entry in line.split("|")[2:-1]]
    place = list(targets).index("clip")
    assert shown[place] == f"*{(50 + place) / 2:.0f}*"
    assert shown[-1] == f"{(50 + len(targets) - 1) / 2:.0f}"
    assert "Not run yet: " in said and "noise" in said and "2 minutes" in said


def test_a_masked_gradient_would_show(transfer: Any) -> None:
    def row(name: str, **left: int) -> dict[str, Any]:
        return {"cell": name, "depths": [{"targets": {k: {"both": 100, "left": v} for k, v in left.items()}}]}

    honest = [row("a", a=10, b=60), row("b", a=50, b=20)]
    assert transfer.own_words(honest, 0) == "Own images break most in 2 of 2 columns."
    masked = [row("a", a=70, b=60), row("b", a=50, b=20)]
    assert transfer.own_words(masked, 0) == "Own images break most in 1 of 2 columns."
    assert transfer.own_words(honest[:1], 0) == "Own images break most in 1 of 1 columns."
