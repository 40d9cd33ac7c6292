"""Distances between leaves in a tree, for pairs of any number (METHODS.md section 4)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from hierbench.errors import InputError
from hierbench.hierarchy.shape import IntArray
from hierbench.hierarchy.tree import Hierarchy


@dataclass(frozen=True)
class HierarchicalAgreement:
    """Per pair: hierarchical precision, recall and F, each in [0, 1], float64."""

    precision: npt.NDArray[np.float64]
    recall: npt.NDArray[np.float64]
    f: npt.NDArray[np.float64]


def lca_height(hierarchy: Hierarchy, predicted: npt.ArrayLike, labels: npt.ArrayLike) -> IntArray:
    """Return the height of the lowest common ancestor of each pair of leaves, in edges; 0 where they agree [n]."""
    a, b = _pairs(hierarchy, predicted, labels)
    return hierarchy.lca_height[a, b]


def lca_depth(hierarchy: Hierarchy, predicted: npt.ArrayLike, labels: npt.ArrayLike) -> IntArray:
    """Return the edges from the root to the lowest common ancestor of each pair of leaves [n]."""
    a, b = _pairs(hierarchy, predicted, labels)
    return hierarchy.lca_depth[a, b]


def path_length(hierarchy: Hierarchy, predicted: npt.ArrayLike, labels: npt.ArrayLike) -> IntArray:
    """Return the number of edges between each pair of leaves, the tree-induced error [n]."""
    a, b = _pairs(hierarchy, predicted, labels)
    return hierarchy.path_length[a, b]


def hierarchical_agreement(
    hierarchy: Hierarchy, predicted: npt.ArrayLike, labels: npt.ArrayLike
) -> HierarchicalAgreement:
    """Return |A(p) & A(y)| over |A(p)|, over |A(y)|, and their harmonic mean, per pair [n].

    A is a leaf with all above it but the root, so the shared part is as large as the lowest common ancestor is deep
    (METHODS.md section 4).
    """
    a, b = _pairs(hierarchy, predicted, labels)
    shared = hierarchy.lca_depth[a, b].astype(np.float64)
    of_predicted, of_label = hierarchy.leaf_depth[a], hierarchy.leaf_depth[b]
    return HierarchicalAgreement(
        precision=shared / of_predicted, recall=shared / of_label, f=2 * shared / (of_predicted + of_label)
    )


def _pairs(hierarchy: Hierarchy, predicted: npt.ArrayLike, labels: npt.ArrayLike) -> tuple[IntArray, IntArray]:
    found: list[IntArray] = []
    for name, given in (("predicted", predicted), ("labels", labels)):
        array = np.asarray(given)
        if array.size and not np.issubdtype(array.dtype, np.integer):
            raise InputError(f"{name}: leaf labels are integers, not {array.dtype}")
        array = array.astype(np.int64)
        if array.size and (array.min() < 0 or array.max() >= hierarchy.num_leaves):
            raise InputError(
                f"{name}: leaf labels of '{hierarchy.dataset}/{hierarchy.tree}' are 0 to {hierarchy.num_leaves - 1}"
            )
        found.append(array)
    if found[0].shape != found[1].shape:
        raise InputError(f"predicted and labels differ in shape: {found[0].shape} and {found[1].shape}")
    return found[0], found[1]
