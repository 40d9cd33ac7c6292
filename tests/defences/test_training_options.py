"""Every option of a recipe at once."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
from standin import mixed_forest, small_images
from test_trainer import StoppedError, run, same, stop_at, tensors
from training_pieces import WATCHED


@pytest.mark.parametrize("name", ["tecoa", "hier_aft"])
def test_a_run_with_every_option_resumes_in_the_same_bits(tmp_path: Path, name: str) -> None:
    recipe = {
        **WATCHED,
        "optimiser": "adam",
        "precision": "bf16",
        "ema_decay": 0.9,
        "train_scope": "visual",
        "shots": 4,
        "accumulate": 3,
        "validation_points": 5,
        "stop_on_overfitting": True,
        "checkpoint_steps": 1,
        "augmentation": "photo",
    }
    options: dict[str, Any] = {"recipe": recipe, "validation": small_images(seed=9), "forest": mixed_forest()}
    whole = run(tmp_path / "whole", name, **options)
    for stop in range(1, 12, 2):
        with pytest.raises(StoppedError):
            run(tmp_path / "killed", name, **options, progress=stop_at(stop + 1))
    resumed = run(tmp_path / "killed", name, **options)
    assert same(tensors(resumed.model), tensors(whole.model))
    one, other = resumed.record["run"], whole.record["run"]
    for key in set(one) - {"seconds", "resumes"}:
        assert one[key] == other[key], key
    assert one["resumes"] == 6 and one["steps"] == 12 and math.isfinite(one["curve"][-1]["loss"])
    assert resumed.record["given"] == whole.record["given"]
