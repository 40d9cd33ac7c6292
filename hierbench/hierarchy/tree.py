"""A class tree, its levels, and several trees over the same classes (METHODS.md section 1)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from itertools import zip_longest

import numpy as np
import numpy.typing as npt

from hierbench.errors import InputError
from hierbench.hierarchy.errors import HierarchyError
from hierbench.hierarchy.shape import IntArray, TreeShape, frozen_ints


@dataclass(frozen=True, slots=True)
class Node:
    """One node: ``name`` is bare ("apple"), ``noun`` stands in a sentence with its article ("an apple")."""

    id: str
    parent: str | None
    name: str
    noun: str
    wordnet: str | None = None


@dataclass(frozen=True)
class Level:
    """One cut of a tree: the nodes of one depth, which together hold every leaf exactly once.

    ``leaf_to_node`` [C] is the index in ``nodes`` of the node that holds each leaf; ``positions`` [N_d] is each node's
    place in ``Hierarchy.nodes``.
    """

    depth: int
    nodes: tuple[Node, ...]
    leaf_to_node: IntArray = field(compare=False, repr=False)
    positions: IntArray = field(compare=False, repr=False)

    @property
    def ids(self) -> tuple[str, ...]:
        """The nodes' ids, in level order."""
        return tuple(node.id for node in self.nodes)

    @property
    def names(self) -> tuple[str, ...]:
        """The nodes' bare names, in level order."""
        return tuple(node.name for node in self.nodes)

    @property
    def nouns(self) -> tuple[str, ...]:
        """The nodes' noun phrases, in level order."""
        return tuple(node.noun for node in self.nodes)

    @property
    def leaf_counts(self) -> IntArray:
        """How many leaves each node holds [N_d]."""
        return np.bincount(self.leaf_to_node, minlength=len(self.nodes)).astype(np.int64)

    def __len__(self) -> int:
        return len(self.nodes)


@dataclass(frozen=True, eq=False)
class Hierarchy:
    """One tree over a data set's classes, with nested levels; immutable, equal to another by content hash.

    Made by ``load_hierarchy_file``, ``build_outline`` and the catalogue, which check it first. Depth 1 is the
    coarsest level, depth ``num_depths`` the leaves in label order. Heights, lowest common ancestors and path lengths
    are those of the tree's edges, not of its levels. Arrays are read-only; the [C, C] ones are made when first asked
    for.
    """

    dataset: str
    tree: str
    title: str
    description: str
    default: bool
    source: str
    licence: str
    levelling: str
    content_hash: str
    nodes: tuple[Node, ...] = field(repr=False)
    levels: tuple[Level, ...] = field(repr=False)
    shape: TreeShape = field(repr=False)
    choices: tuple[str, ...] = field(default=(), repr=False)
    """What its builder had to decide, one line a decision."""

    @property
    def leaves(self) -> tuple[Node, ...]:
        """The classes, in the data set's label order."""
        return self.levels[-1].nodes

    @property
    def num_depths(self) -> int:
        """D: the number of levels."""
        return len(self.levels)

    @property
    def num_leaves(self) -> int:
        """C: the number of classes."""
        return len(self.leaves)

    @property
    def depths(self) -> range:
        """1 (coarsest) to D (leaves)."""
        return range(1, self.num_depths + 1)

    def level(self, depth: int) -> Level:
        """Return the level at one depth; a depth outside 1..D raises ``InputError``."""
        if depth not in self.depths:
            raise InputError(
                f"depth {depth}: hierarchy '{self.dataset}/{self.tree}' has depths 1 (coarsest) to {self.num_depths}"
            )
        return self.levels[depth - 1]

    @cached_property
    def leaf_to_node(self) -> IntArray:
        """[D, C]: row d-1 is the index, within level d, of the node that holds each leaf."""
        return frozen_ints(np.stack([level.leaf_to_node for level in self.levels]))

    def parents(self, depth: int) -> IntArray:
        """Return, for each node of level ``depth`` >= 2, the index in the level above of the node that holds it [N_d].

        A ragged leaf stands in both levels and is its own parent there (METHODS.md section 1).
        """
        level = self.level(depth)
        if depth == 1:
            raise InputError(f"depth 1 of hierarchy '{self.dataset}/{self.tree}' has no coarser level: use 2 or deeper")
        parents = np.empty(len(level), dtype=np.int64)
        parents[level.leaf_to_node] = self.levels[depth - 2].leaf_to_node
        return frozen_ints(parents)

    def own_parent(self, depth: int) -> npt.NDArray[np.bool_]:
        """Return which nodes of level ``depth`` >= 2 also stand in the level above, as their own parent [N_d]."""
        above = self.parents(depth)
        same: npt.NDArray[np.bool_] = self.level(depth).positions == self.level(depth - 1).positions[above]
        return same

    @cached_property
    def _ranks(self) -> IntArray:
        """[C]: each label's place in the depth-first order of the leaves."""
        ranks = np.empty(self.num_leaves, dtype=np.int64)
        ranks[self.shape.leaf_order] = np.arange(self.num_leaves)
        return ranks

    @cached_property
    def neighbour_meets(self) -> IntArray:
        """[C-1]: the node position where leaves i and i+1 of the depth-first order meet.

        All meeting nodes between two leaves lie under the two leaves' own meeting node, and one of them is that node;
        so the height of a lowest common ancestor is the largest height in the range, its depth the smallest depth.
        """
        shape = self.shape
        ordered = shape.leaf_nodes[shape.leaf_order]
        parent, first = shape.parent, shape.first_leaf
        meets = np.empty(max(self.num_leaves - 1, 0), dtype=np.int64)
        for right in range(1, self.num_leaves):
            # Leaf `right` opens every node above it that begins there; the next one up also holds its left neighbour.
            node = int(ordered[right])
            while first[node] == right:
                node = int(parent[node])
            meets[right - 1] = node
        return frozen_ints(meets)

    def _over_pairs(self, values: IntArray, *, largest: bool) -> IntArray:
        """Spread the largest (or smallest) of ``values`` [C-1] between two leaves over all pairs of labels [C, C]."""
        count = self.num_leaves
        ordered = np.zeros((count, count), dtype=np.int64)
        combine = np.maximum if largest else np.minimum
        for left in range(count - 1):
            row = combine.accumulate(values[left:])
            ordered[left, left + 1 :] = row
            ordered[left + 1 :, left] = row
        return ordered[np.ix_(self._ranks, self._ranks)]

    @cached_property
    def lca_height(self) -> IntArray:
        """[C, C]: the height of the lowest common ancestor of two leaves, in edges; 0 on the diagonal."""
        return frozen_ints(self._over_pairs(self.shape.height[self.neighbour_meets], largest=True))

    @cached_property
    def lca_depth(self) -> IntArray:
        """[C, C]: edges from the root to the lowest common ancestor of two leaves; the leaf's own on the diagonal."""
        depth = self._over_pairs(self.shape.depth[self.neighbour_meets], largest=False)
        np.fill_diagonal(depth, self.leaf_depth)
        return frozen_ints(depth)

    @cached_property
    def path_length(self) -> IntArray:
        """[C, C]: the number of edges between two leaves."""
        depth = self.leaf_depth
        return frozen_ints(depth[:, None] + depth[None, :] - 2 * self.lca_depth)

    @cached_property
    def leaf_depth(self) -> IntArray:
        """[C]: edges from the root to each leaf."""
        return frozen_ints(self.shape.depth[self.shape.leaf_nodes])

    def ancestors(self, leaf_index: int) -> tuple[int, ...]:
        """Return the positions in ``nodes`` of a leaf and of all above it but the root, from the leaf upward."""
        if not 0 <= leaf_index < self.num_leaves:
            raise InputError(
                f"leaf {leaf_index}: hierarchy '{self.dataset}/{self.tree}' has leaves 0 to {self.num_leaves - 1}"
            )
        above: list[int] = []
        node = int(self.shape.leaf_nodes[leaf_index])
        while node != self.shape.root:
            above.append(node)
            node = int(self.shape.parent[node])
        return tuple(above)

    def leaves_under(self, position: int) -> IntArray:
        """Return the labels under the node at one position of ``nodes``, ascending."""
        found = self.shape.leaf_order[self.shape.first_leaf[position] : self.shape.last_leaf[position]]
        return np.sort(found)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Hierarchy) and self.content_hash == other.content_hash

    def __hash__(self) -> int:
        return hash(self.content_hash)


@dataclass(frozen=True)
class Forest:
    """Several trees over the same classes in the same order; anything else raises ``HierarchyError``."""

    trees: tuple[Hierarchy, ...]

    def __post_init__(self) -> None:
        if not self.trees:
            raise InputError("a forest needs at least one hierarchy")
        first = self.trees[0]
        for other in self.trees[1:]:
            where = f"forest of '{first.dataset}/{first.tree}' and '{other.dataset}/{other.tree}'"
            if other.dataset != first.dataset:
                raise HierarchyError(where, "the trees of a forest belong to one dataset")
            for label, (mine, theirs) in enumerate(zip_longest(first.leaves, other.leaves)):
                if mine is None or theirs is None or (mine.id, mine.noun) != (theirs.id, theirs.noun):
                    raise HierarchyError(
                        where,
                        f"the trees of a forest have the same leaves, with the same nouns, in the same order; "
                        f"label {label} differs",
                    )
        names = [tree.tree for tree in self.trees]
        for name in names:
            if names.count(name) > 1:
                raise HierarchyError(f"forest of '{first.dataset}'", f"tree '{name}' is given twice")

    @property
    def dataset(self) -> str:
        """The data set all trees belong to."""
        return self.trees[0].dataset

    @property
    def leaves(self) -> tuple[Node, ...]:
        """The classes, in label order, as the first tree has them."""
        return self.trees[0].leaves

    def __len__(self) -> int:
        return len(self.trees)

    def __iter__(self) -> Iterator[Hierarchy]:
        return iter(self.trees)
