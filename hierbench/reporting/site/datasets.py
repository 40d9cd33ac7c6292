"""What the page of a data set shows: its trees drawn, and who was measured on them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from hierbench.datasets.catalogue import DATASETS
from hierbench.datasets.spec import DatasetSpec
from hierbench.hierarchy.catalogue import list_hierarchies, load_hierarchy
from hierbench.hierarchy.tree import Hierarchy
from hierbench.reporting.site.names import slug
from hierbench.reporting.site.protocols import GroundView, ProtocolView
from hierbench.reporting.site.trees import Branch, LevelDrawing, branches_of, draw_levels


@dataclass(frozen=True)
class TreeView:
    """One class tree of a data set."""

    hierarchy: Hierarchy
    drawing: LevelDrawing
    root: Branch
    used: tuple[tuple[ProtocolView, GroundView, bool], ...]
    """Grounds on it, and whether their records hold this very version of the tree."""

    @property
    def nodes(self) -> tuple[int, ...]:
        """Nodes per depth, coarsest first."""
        return tuple(len(level) for level in self.hierarchy.levels)


@dataclass(frozen=True)
class DatasetView:
    """A data set with its trees."""

    name: str
    spec: DatasetSpec | None
    """None where hierbench does not know it."""
    trees: tuple[TreeView, ...]
    others: tuple[tuple[ProtocolView, GroundView], ...]
    """Grounds on trees that are not at hand."""
    records: int

    @property
    def slug(self) -> str:
        """Stem of the page's name."""
        return slug(self.name)

    @property
    def title(self) -> str:
        """What it is called."""
        return self.spec.title if self.spec is not None else self.name


def dataset_views(protocols: Sequence[ProtocolView]) -> tuple[DatasetView, ...]:
    """Return the data sets of the protocols and of their records: those with records first, then by name."""
    names = {dataset.name for p in protocols if p.protocol is not None for dataset in p.protocol.datasets}
    names |= {view.ground.dataset for p in protocols for view in p.grounds}
    views = [_view(name, protocols) for name in sorted(names)]
    return tuple(sorted(views, key=lambda view: (not view.records, view.name)))


def _view(name: str, protocols: Sequence[ProtocolView]) -> DatasetView:
    spec = DATASETS.get(name) if name in DATASETS else None
    own = [(p, view) for p in protocols for view in p.grounds if view.ground.dataset == name]
    of = spec.tree_dataset if spec is not None else name
    trees = [load_hierarchy(dataset, tree) for dataset, tree in list_hierarchies() if dataset == of]
    known = {tree.tree for tree in trees}
    return DatasetView(
        name=name,
        spec=spec,
        trees=tuple(_tree(tree, own) for tree in sorted(trees, key=lambda tree: (not tree.default, tree.tree))),
        others=tuple((p, view) for p, view in own if view.ground.tree not in known),
        records=sum(len(row.placed) for _, view in own for row in view.rows),
    )


def _tree(hierarchy: Hierarchy, own: Sequence[tuple[ProtocolView, GroundView]]) -> TreeView:
    used = [(p, v, v.ground.tree_hash == hierarchy.content_hash) for p, v in own if v.ground.tree == hierarchy.tree]
    return TreeView(hierarchy, draw_levels(hierarchy), branches_of(hierarchy), tuple(used))
