"""What one pass of Hier-AFT is made of."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class TextNodes:
    """Text points of one pass: the leaves [K, E], and the nodes of each level of each tree [M, E]."""

    features: Tensor
    leaves: Tensor
    levels: tuple[tuple[Tensor, ...], ...]


@dataclass(frozen=True)
class LevelTerms:
    """Cross-entropies of one pass: the leaf term, and one a level of each tree (unweighted)."""

    leaf: Tensor
    levels: tuple[tuple[Tensor, ...], ...]
