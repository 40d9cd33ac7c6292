"""What the leaves' probabilities say beyond right and wrong: confidence, and the order that the backbone had."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hierbench.evaluation.metrics import TOP_CLASSES

Floats = NDArray[np.float64]


def top_probability(logits: Tensor, leaves: int) -> Floats:
    """Return the largest probability [n] over the first ``leaves`` of logits [n, N]; NaN where one is not finite."""
    own = logits[:, :leaves].double()
    top = torch.softmax(own, dim=1).amax(dim=1)
    return np.asarray(torch.where(_finite(own), top, torch.nan).cpu().numpy())


def top_overlap(logits: Tensor, reference: Tensor, leaves: int) -> Floats:
    """Return the overlap [n] of the five likeliest leaves under two sets of logits [n, N].

    Intersection over union: 1 is the same five, 0 is none in common. NaN where a logit is not finite. Source: rank
    preservation in AGFT (arXiv 2603.29410); METHODS.md section 4.
    """
    sets = [side[:, :leaves].topk(min(TOP_CLASSES, leaves), dim=1).indices for side in (logits, reference)]
    common = (sets[0][:, :, None] == sets[1][:, None, :]).sum(dim=(1, 2)).double()
    overlap = common / (2 * sets[0].shape[1] - common)
    there = _finite(logits[:, :leaves]) & _finite(reference[:, :leaves])
    return np.asarray(torch.where(there, overlap, torch.nan).cpu().numpy())


def _finite(logits: Tensor) -> Tensor:
    return torch.isfinite(logits).all(dim=1)
