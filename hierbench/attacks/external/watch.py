"""Watching pyautoattack at work: which sample went through which attack, and the best image of those that hold out.

The library gives back the images that fooled the model and the clean ones of all others. Its parts know more: every
run returns the points of highest loss. They are read off here, sample by sample, without a change to its code.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hierbench.attacks.engine.ledger import NOT_FOUND

Call = Callable[..., Any]


class Watch:
    """What became of each of n samples; arrays are [n].

    Attributes:
        touched: the attack that had the sample last, an index of ``names``: of a fooled one, the attack that did it.
        fooled: whether an attack changed the sample's image, which it does on success only.
        steps: iterations or queries, over all runs.
        best: [n, c, h, w]: the point of highest loss of the sample's first run that has one; else the clean image.
        best_by: the attack that made it, -1 where none did.
    """

    def __init__(self, images: Tensor, names: tuple[str, ...]) -> None:
        n = len(images)
        self.names = names
        self.touched = np.full(n, NOT_FOUND, dtype=np.int64)
        self.fooled = np.zeros(n, dtype=np.bool_)
        self.steps = np.zeros(n, dtype=np.int64)
        self.best = images.clone()
        self.best_by = np.full(n, NOT_FOUND, dtype=np.int64)
        self._current = NOT_FOUND
        self._known: dict[bytes, list[int]] = defaultdict(list)
        for index, row in enumerate(images):
            self._known[_key(row)].append(index)

    @property
    def survivors(self) -> int:
        """How many samples nothing has fooled so far."""
        return int((~self.fooled).sum())

    def on(self, part: Any, name: Callable[[], str]) -> None:
        """Watch a part of the library; ``name`` says which attack it is when it starts."""
        perturb, single = part.perturb, part.attack_single_run

        def watched_perturb(x: Tensor, y: Tensor) -> Tensor:
            self._current = self.names.index(name())
            groups = self._samples(x)
            found: Tensor = perturb(x, y)
            changed = (found != x).flatten(1).any(dim=1).cpu().numpy()
            for row, samples in enumerate(groups):
                self.touched[samples] = self._current
                self.fooled[samples] |= bool(changed[row])
            return found

        def watched_single(x: Tensor, *others: Any, **more: Any) -> Any:
            groups = self._samples(x)
            found = single(x, *others, **more)
            self._note(groups, found, part)
            return found

        part.perturb, part.attack_single_run = watched_perturb, watched_single

    def _note(self, groups: list[list[int]], found: Any, part: Any) -> None:
        """Read one run: APGD returns four tensors, Square its queries and points, FAB its nearest images alone."""
        queries, best = _read(found, len(groups), part)
        for row, samples in enumerate(groups):
            self.steps[samples] += queries[row]
            if best is None:
                continue
            for sample in samples:
                if self.best_by[sample] == NOT_FOUND:
                    self.best[sample] = best[row].detach().to(self.best)
                    self.best_by[sample] = self._current

    def _samples(self, x: Tensor) -> list[list[int]]:
        """Return the samples whose clean image each row is, equal images together."""
        return [self._known[_key(row)] for row in x]


def _read(found: Any, rows: int, part: Any) -> tuple[NDArray[np.int64], Tensor | None]:
    if isinstance(found, tuple) and len(found) == 4:
        return np.full(rows, part.n_iter, dtype=np.int64), found[0]
    if isinstance(found, tuple):
        return found[0].cpu().numpy().astype(np.int64), found[1]
    return np.full(rows, part.n_iter, dtype=np.int64), None


def _key(row: Tensor) -> bytes:
    return bytes(row.detach().to("cpu", torch.float32).contiguous().numpy().tobytes())
