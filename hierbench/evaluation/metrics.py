"""Accuracies and tree distances over samples (METHODS.md section 4): NumPy only."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from hierbench.errors import InputError

Bools = NDArray[np.bool_]
Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

CALIBRATION_BINS = 15
TOP_CLASSES = 5
"""How many of the likeliest leaves are compared for rank preservation."""


def roll_up_broken(predicted: Ints, labels: Ints, leaf_to_node: Ints) -> Bools:
    """Return the roll-up verdicts [n, D]: True where the predicted leaf [n] and the true leaf [n] part at depth d.

    ``leaf_to_node`` [D, C] holds the node of every leaf at depth 1..D in rows 0..D-1. A prediction of -1 (no finite
    logits) is broken everywhere.
    """
    if len(predicted) != len(labels):
        raise InputError(f"{len(predicted)} predictions for {len(labels)} labels")
    broken: Bools = (leaf_to_node[:, predicted] != leaf_to_node[:, labels]).T
    return np.asarray(broken | (predicted < 0)[:, None])


def robust_mask(clean_broken: Bools, attacked_broken: Bools) -> Bools:
    """Return which samples are robust: right when clean and not broken under the attack (any equal shapes)."""
    return np.asarray(~clean_broken & ~attacked_broken)


def worst_case(broken: Bools) -> Bools:
    """Pool verdicts [A, ...] over attacks: broken if any of them breaks the sample."""
    return np.asarray(broken.any(axis=0))


def majority_level(labels: Ints, leaf_to_node: Ints) -> NDArray[np.float64]:
    """Return per depth [D] the share of samples in the most frequent node."""
    return np.array([np.bincount(row[labels]).max() / len(labels) for row in leaf_to_node])


def chance_direct(leaf_to_node: Ints) -> NDArray[np.float64]:
    """Return per depth [D] the accuracy of a uniformly drawn node: 1 / nodes."""
    return np.array([1.0 / len(np.unique(row)) for row in leaf_to_node])


def chance_roll_up(labels: Ints, leaf_to_node: Ints) -> NDArray[np.float64]:
    """Return per depth [D] the expected accuracy of a uniformly drawn leaf, rolled up, on these labels [n]."""
    return np.array([(np.bincount(row)[row[labels]] / len(row)).mean() for row in leaf_to_node])


def calibration_error(confidence: Floats, right: Bools) -> float | None:
    """Return the expected calibration error of confidences [n] in [0, 1]; None without a sample.

    Samples fall into 15 bins of equal width by confidence; the error is the mean of |accuracy - confidence| over the
    bins, weighted by their samples (Guo et al. 2017, arXiv 1706.04599). With few samples it is biased upwards. A
    confidence that is NaN is left out.
    """
    known = np.isfinite(confidence)
    if not known.any():
        return None
    sure, hit = confidence[known], right[known].astype(np.float64)
    bins = np.minimum((sure * CALIBRATION_BINS).astype(np.int64), CALIBRATION_BINS - 1)
    gaps = np.bincount(bins, weights=hit - sure, minlength=CALIBRATION_BINS)
    return float(np.abs(gaps).sum() / len(sure))


class TreeDistances(Protocol):
    """What of a ``Hierarchy`` is measured, all in tree edges."""

    @property
    def lca_height(self) -> Ints:
        """[C, C]"""

    @property
    def lca_depth(self) -> Ints:
        """[C, C]"""

    @property
    def path_length(self) -> Ints:
        """[C, C]"""

    @property
    def leaf_depth(self) -> Ints:
        """[C]"""


@dataclass(frozen=True, slots=True)
class TreeErrors:
    """Tree distances of leaf predictions; see ``records.Mistakes`` for each field."""

    samples: int
    error_rate: float
    severity: float | None
    ahd: float
    tree_induced_error: float
    precision: float
    recall: float
    f_score: float


def tree_errors(predicted: Ints, labels: Ints, tree: TreeDistances) -> TreeErrors:
    """Measure leaf predictions [n] against labels [n] in a tree (Bertinetto et al. 2020, arXiv 1912.09393).

    Samples without a prediction (-1) must be left out by the caller. Severity is over the mistakes, everything else
    over all samples. With A(c) the nodes from leaf c upward without the root, |A(p) & A(y)| is the edge depth of the
    lowest common ancestor, and |A(c)| that of the leaf.
    """
    if len(labels) == 0:
        raise InputError("tree distances need at least one sample")
    wrong = predicted != labels
    heights = tree.lca_height[predicted, labels].astype(np.float64)
    mistakes = int(wrong.sum())
    common = tree.lca_depth[predicted, labels].astype(np.float64)
    precision = common / tree.leaf_depth[predicted]
    recall = common / tree.leaf_depth[labels]
    total = precision + recall
    f_score = np.divide(2 * precision * recall, total, out=np.zeros_like(total), where=total > 0)
    return TreeErrors(
        samples=len(labels),
        error_rate=mistakes / len(labels),
        severity=float(heights[wrong].mean()) if mistakes else None,
        ahd=float(heights.mean()),
        tree_induced_error=float(tree.path_length[predicted, labels].mean()),
        precision=float(precision.mean()),
        recall=float(recall.mean()),
        f_score=float(f_score.mean()),
    )
