"""Models and trajectories that the tests of training options compare."""

from __future__ import annotations

from typing import Any

from standin import SmallModel


def double_model() -> SmallModel:
    return SmallModel(double=True)


WATCHED: dict[str, Any] = {"validation_images": 30, "validation_points": 4, "validation_steps": 2}
