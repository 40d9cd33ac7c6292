"""Which logit column belongs to which node of a class tree, as tensors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from hierbench.errors import InputError

if TYPE_CHECKING:
    from hierbench.hierarchy.tree import Hierarchy

_NO_COLUMNS = (0, 0)


@dataclass(frozen=True, eq=False)
class NodeLayout:
    """The torch-side view of one class tree for logits of width ``width``.

    Columns ``0 .. C-1`` are the leaves in the dataset's label order. The direct logits of the nodes at depth
    d, where they exist, are the columns ``columns[d - 1]``; depth D is the leaves, so ``columns[D - 1]`` is
    ``(0, C)``. A depth without direct logits has ``(0, 0)``.

    Args:
        leaf_to_node: long [D, C]; row d - 1 holds, for each leaf, the index within depth d of its node.
        columns: one (start, stop) a depth.

    Raises ``ValueError`` if rows and columns do not agree. METHODS.md 1.

    >>> layout = NodeLayout.from_levels([[0, 0, 1, 1], [0, 1, 2, 3]], direct=True)
    >>> layout.num_depths, layout.num_leaves, layout.width
    (2, 4, 6)
    >>> layout.columns
    ((4, 6), (0, 4))
    """

    leaf_to_node: Tensor
    columns: tuple[tuple[int, int], ...]
    node_counts: tuple[int, ...] = field(init=False)

    def __post_init__(self) -> None:
        table = self.leaf_to_node
        if table.ndim != 2 or table.dtype != torch.long or table.numel() == 0:
            raise ValueError(f"leaf_to_node must be long [D, C], not {table.dtype} {tuple(table.shape)}")
        if len(self.columns) != table.shape[0]:
            raise ValueError(f"{len(self.columns)} column ranges for {table.shape[0]} depths")
        counts = tuple(int(count) for count in (table.max(dim=1).values + 1).tolist())
        for depth, (count, (start, stop)) in enumerate(zip(counts, self.columns, strict=True), start=1):
            present = torch.bincount(table[depth - 1], minlength=count)
            if bool((present == 0).any()):
                raise ValueError(f"depth {depth} has a node without leaves")
            if (start, stop) != _NO_COLUMNS and stop - start != count:
                raise ValueError(f"depth {depth} has {count} nodes and {stop - start} columns")
        if self.columns[-1] != (0, table.shape[1]):
            raise ValueError(f"the deepest level must be the leaf columns (0, {table.shape[1]})")
        if not torch.equal(table[-1].cpu(), torch.arange(table.shape[1])):
            raise ValueError("the deepest level must be the leaves in label order")
        object.__setattr__(self, "node_counts", counts)

    @classmethod
    def from_levels(cls, levels: Sequence[Sequence[int]] | Tensor, *, direct: bool) -> NodeLayout:
        """Build a layout from the leaf-to-node rows, coarsest first: leaf columns, then depth 1, 2, ..., D - 1."""
        table = torch.as_tensor(levels, dtype=torch.long)
        columns = []
        stop = table.shape[1]
        for row in table[:-1]:
            start, stop = stop, stop + int(row.max()) + 1
            columns.append((start, stop) if direct else _NO_COLUMNS)
        return cls(leaf_to_node=table, columns=(*columns, (0, table.shape[1])))

    @classmethod
    def from_hierarchy(cls, hierarchy: Hierarchy, *, direct: bool) -> NodeLayout:
        """Build the layout of a tree; ``direct`` says whether the nodes have logits of their own."""
        return cls.from_levels(torch.from_numpy(hierarchy.leaf_to_node.copy()), direct=direct)

    def to(self, device: torch.device | str) -> NodeLayout:
        """Return the layout on a device (itself, when it is there already)."""
        table = self.leaf_to_node.to(device)
        return self if table is self.leaf_to_node else NodeLayout(leaf_to_node=table, columns=self.columns)

    @property
    def num_depths(self) -> int:
        """D, the depth of the leaves."""
        return int(self.leaf_to_node.shape[0])

    @property
    def num_leaves(self) -> int:
        """C, the number of classes."""
        return int(self.leaf_to_node.shape[1])

    @property
    def width(self) -> int:
        """The number of logit columns the layout reads."""
        return max(stop for _, stop in self.columns)

    @property
    def has_direct(self) -> bool:
        """Whether every depth has direct logits."""
        return all(stop > start for start, stop in self.columns)

    @property
    def device(self) -> torch.device:
        """Where the tables are."""
        return self.leaf_to_node.device

    def check_depth(self, depth: int) -> int:
        """Return ``depth``; outside 1..D it is an ``InputError``."""
        if not 1 <= depth <= self.num_depths:
            raise InputError(f"depth {depth} does not exist: the tree has depths 1 to {self.num_depths}")
        return depth

    def nodes_at(self, depth: int) -> int:
        """Return the number of nodes at a depth."""
        return self.node_counts[self.check_depth(depth) - 1]

    def node_of_leaf(self, depth: int) -> Tensor:
        """Return long [C]: the node at ``depth`` that holds each leaf."""
        return self.leaf_to_node[self.check_depth(depth) - 1]

    def direct_columns(self, depth: int) -> slice:
        """Return the columns of the direct logits at a depth; a depth without them is an ``InputError``."""
        start, stop = self.columns[self.check_depth(depth) - 1]
        if stop <= start:
            raise InputError(f"scoring direct: depth {depth} has no node logits here; use scoring rollup")
        return slice(start, stop)

    def membership(self, depth: int) -> Tensor:
        """Return float32 [C, n_d]: 1 where the leaf is under the node."""
        return self._memberships[self.check_depth(depth) - 1]

    def ancestors(self, depth: int) -> Tensor:
        """Return long [n_d, depth]: for each node at ``depth``, its node at the depths 1 .. ``depth``."""
        return self._ancestors[self.check_depth(depth) - 1]

    @cached_property
    def _memberships(self) -> tuple[Tensor, ...]:
        return tuple(
            torch.nn.functional.one_hot(row, count).to(torch.float32)
            for row, count in zip(self.leaf_to_node, self.node_counts, strict=True)
        )

    @cached_property
    def _ancestors(self) -> tuple[Tensor, ...]:
        tables = []
        for depth, count in enumerate(self.node_counts, start=1):
            # Cuts are nested, so any leaf of a node knows the node's ancestors: take the first.
            first_leaf = self.membership(depth).argmax(dim=0)
            assert first_leaf.shape == (count,)
            tables.append(self.leaf_to_node[:depth, first_leaf].T.contiguous())
        return tuple(tables)
