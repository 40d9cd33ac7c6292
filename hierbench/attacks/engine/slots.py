"""The slots of a running search, one row each."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from hierbench.attacks.optimisers.base import Rows

Ints = NDArray[np.int64]


@dataclass
class Slots:
    """Rows in work: tensors on the device, and on the host which sample, run and step each row is at.

    A row that is not live only fills the batch up: it is computed along, and nobody looks at it.
    """

    rows: Rows
    sample: Ints
    run: Ints
    step: Ints
    live: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.sample)

    @property
    def live_count(self) -> int:
        """How many rows are live."""
        return int(self.live.sum())

    def take(self, positions: Ints) -> Slots:
        """Return copies of some rows."""
        index = torch.from_numpy(positions).to(self.rows["query"].device)
        rows = {name: values.index_select(0, index) for name, values in self.rows.items()}
        return Slots(
            rows, self.sample[positions], self.run[positions], self.step[positions], self.live[positions].copy()
        )

    def put(self, positions: Ints, new: Slots) -> None:
        """Overwrite some rows."""
        index = torch.from_numpy(positions).to(self.rows["query"].device)
        for name, values in self.rows.items():  # never in place: two names may share one tensor
            self.rows[name] = values.index_copy(0, index, new.rows[name])
        self.sample[positions], self.run[positions], self.step[positions] = new.sample, new.run, new.step
        self.live[positions] = new.live

    @staticmethod
    def join(parts: list[Slots]) -> Slots:
        """Return the rows of all parts, in order."""
        if len(parts) == 1:
            return parts[0]
        rows = {name: torch.cat([part.rows[name] for part in parts]) for name in parts[0].rows}
        return Slots(
            rows,
            np.concatenate([part.sample for part in parts]),
            np.concatenate([part.run for part in parts]),
            np.concatenate([part.step for part in parts]),
            np.concatenate([part.live for part in parts]),
        )

    def padded(self, size: int) -> Slots:
        """Return ``size`` rows: these, then copies of them that are not live."""
        count = len(self)
        if count == size:
            return self
        filled = self.take(np.arange(size) % count)
        filled.live[count:] = False
        return filled
