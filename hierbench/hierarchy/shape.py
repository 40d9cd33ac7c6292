"""The bare shape of a rooted tree as arrays: edge depths, heights, and the leaves under each node."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

IntArray = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class TreeShape:
    """A rooted tree over ``N`` nodes with ``C`` leaves; nodes are named by position, leaves by label.

    ``parent`` [N] is -1 at the root. ``depth`` [N] counts edges from the root, ``height`` [N] edges on the longest way
    down to a leaf. ``leaf_nodes`` [C] is each leaf's node. ``leaf_order`` [C] lists the labels as a depth-first walk
    meets them; the leaves under node ``n`` are ``leaf_order[first_leaf[n]:last_leaf[n]]``. ``walk`` [N] is the walk.
    """

    parent: IntArray
    depth: IntArray
    height: IntArray
    leaf_nodes: IntArray
    leaf_order: IntArray
    first_leaf: IntArray
    last_leaf: IntArray
    walk: IntArray

    @property
    def root(self) -> int:
        """The root's position."""
        return int(self.walk[0])

    @property
    def num_leaves(self) -> IntArray:
        """How many leaves are under each node [N]; 1 for a leaf."""
        return self.last_leaf - self.first_leaf


def frozen_ints(values: npt.ArrayLike) -> IntArray:
    """Return a read-only int64 array of these values."""
    array = np.array(values, dtype=np.int64)
    array.setflags(write=False)
    return array


def child_lists(parent: Sequence[int]) -> list[list[int]]:
    """Return each node's children, in the order of their positions."""
    children: list[list[int]] = [[] for _ in parent]
    for node, above in enumerate(parent):
        if above >= 0:
            children[above].append(node)
    return children


def tree_shape(parent: Sequence[int], leaf_nodes: Sequence[int]) -> TreeShape:
    """Walk a tree once and return its shape.

    ``parent`` [N] holds positions, -1 at the one root; ``leaf_nodes`` [C] the childless nodes in label order. The
    caller has checked that it is one tree. Iterative throughout, so that a tree of any depth is fine.
    """
    children = child_lists(parent)
    count = len(parent)
    label = dict(zip(leaf_nodes, range(len(leaf_nodes)), strict=True))
    depth, height, first, last = [0] * count, [0] * count, [0] * count, [0] * count
    walk: list[int] = []
    leaf_order: list[int] = []
    waiting = [parent.index(-1)]
    while waiting:
        node = waiting.pop()
        walk.append(node)
        first[node] = len(leaf_order)
        if parent[node] >= 0:
            depth[node] = depth[parent[node]] + 1
        if children[node]:
            waiting.extend(reversed(children[node]))
        else:
            leaf_order.append(label[node])
            last[node] = len(leaf_order)
    for node in reversed(walk):
        above = parent[node]
        if above >= 0:
            height[above] = max(height[above], height[node] + 1)
            last[above] = max(last[above], last[node])
    return TreeShape(
        parent=frozen_ints(parent),
        depth=frozen_ints(depth),
        height=frozen_ints(height),
        leaf_nodes=frozen_ints(leaf_nodes),
        leaf_order=frozen_ints(leaf_order),
        first_leaf=frozen_ints(first),
        last_leaf=frozen_ints(last),
        walk=frozen_ints(walk),
    )
