"""What a search is given: one chunk of samples and everything that decides about them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from hierbench.attacks.engine.batching import Cost, Forward
from hierbench.attacks.threat import ThreatModel
from hierbench.attacks.verdict import Criterion, DepthsBroken


class Progress(NamedTuple):
    """Where one ``run_attack`` stands; cheap enough to be told at every step."""

    samples: int
    """Samples of the chunk."""
    finished: int
    """Samples that are decided: clean-wrong, broken, or searched to the end (in this stage)."""
    survivors: int
    """Attacked samples that nothing has broken so far."""
    forwards: int
    """Images through the model so far."""


ProgressCallback = Callable[[Progress], None]


@dataclass
class GradientCount:
    """What the gradients of a search looked like, one count a row and step."""

    total: int = 0
    zero: int = 0
    nonfinite: int = 0


@dataclass(frozen=True)
class Chunk:
    """What a search reads: the chunk's images and labels, the threat, the stop rule, and where to compute."""

    forward: Forward
    images: Tensor
    labels: Tensor
    clean_logits: Tensor
    threat: ThreatModel
    criterion: Criterion
    """At the attacked depth; of a pooled search, the leaves."""
    every_depth: DepthsBroken | None
    """Set in a pooled search: every image is scored at every depth."""
    batch_size: int
    device: torch.device
    progress: ProgressCallback | None
    cost: Cost
    gradients: GradientCount
