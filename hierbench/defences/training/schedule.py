"""Learning rate per step: linear warm-up, then cosine to zero (METHODS.md 5)."""

from __future__ import annotations

import math


def warmup_steps(steps: int, *, share: float, limit: int) -> int:
    """Return min(limit, share of all steps), rounded up.

    >>> warmup_steps(500, share=0.07, limit=1000), warmup_steps(100_000, share=0.07, limit=1000)
    (35, 1000)
    """
    return min(limit, math.ceil(share * steps - 1e-9))


def rate_at(step: int, *, steps: int, warmup: int, peak: float) -> float:
    """Return the rate of one step, counted from 0; the first is above 0, the peak is the first after the warm-up.

    >>> [round(rate_at(s, steps=6, warmup=2, peak=1.0), 3) for s in range(6)]
    [0.5, 1.0, 1.0, 0.854, 0.5, 0.146]
    """
    if step < warmup:
        return peak * (step + 1) / warmup
    return peak * 0.5 * (1.0 + math.cos(math.pi * (step - warmup) / max(1, steps - warmup)))
