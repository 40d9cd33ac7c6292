"""The learning curve: means over windows of steps, resumable in the middle of one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass
class TrainLog:
    """Collects scalars a step and keeps one point every ``every`` steps."""

    every: int
    points: list[dict[str, float]] = field(default_factory=list)
    sums: dict[str, float] = field(default_factory=dict)
    count: int = 0

    def add(self, step: int, values: Mapping[str, float]) -> None:
        """Take one step's scalars; ``step`` counts from 1."""
        for name, value in values.items():
            self.sums[name] = self.sums.get(name, 0.0) + value
        self.count += 1
        if step % self.every == 0:
            self.close(step)

    def close(self, step: int) -> None:
        """End the window, if anything is in it."""
        if self.count:
            self.points.append({"step": step, **{name: total / self.count for name, total in self.sums.items()}})
            self.sums, self.count = {}, 0

    def recent(self, points: int) -> dict[str, float]:
        """Mean of each scalar over the last points."""
        rows = self.points[-points:]
        names = [name for name in (rows[-1] if rows else {}) if name != "step"]
        return {name: sum(row.get(name, 0.0) for row in rows) / len(rows) for name in names}

    def curve(self) -> list[dict[str, float]]:
        """The points at six digits, for a record."""
        return [
            {name: value if name == "step" else float(f"{value:.6g}") for name, value in point.items()}
            for point in self.points
        ]

    def state(self) -> dict[str, Any]:
        """Plain JSON, for a checkpoint."""
        return {"every": self.every, "points": self.points, "sums": self.sums, "count": self.count}

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> TrainLog:
        """Rebuild from ``state``."""
        return cls(
            every=int(state["every"]),
            points=list(state["points"]),
            sums=dict(state["sums"]),
            count=int(state["count"]),
        )


def mean_of_parts(parts: Sequence[tuple[int, Mapping[str, float]]]) -> dict[str, float]:
    """Return each logged value's mean over the parts of a batch that have it, weighted by their numbers of images.

    >>> mean_of_parts([(3, {"loss": 1.0, "ce": 2.0}), (1, {"loss": 5.0})])
    {'loss': 2.0, 'ce': 2.0}
    """
    sums: dict[str, float] = {}
    sizes: dict[str, int] = {}
    for size, values in parts:
        for name, value in values.items():
            sums[name] = sums.get(name, 0.0) + size * value
            sizes[name] = sizes.get(name, 0) + size
    return {name: total / sizes[name] for name, total in sums.items()}
