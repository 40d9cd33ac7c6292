"""Hier-AFT's loss in NumPy float64, written from METHODS.md 5.8 with loops over nodes, for comparison only."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from hierbench.hierarchy.tree import Forest, Hierarchy

Vector = npt.NDArray[np.float64]


@dataclass
class Space:
    """Points, distances and logits of one geometry."""

    r: float
    tau: float
    cosine: bool
    a_image: float
    a_text: float
    scales: list[float]

    def exp0(self, v: Vector) -> Vector:
        n = float(np.linalg.norm(v))
        if self.r == 0:
            return v
        if math.sqrt(self.r) * n > 2.0:
            v, n = v * 2.0 / (math.sqrt(self.r) * n), 2.0 / math.sqrt(self.r)
        return math.tanh(math.sqrt(self.r) * n) / (math.sqrt(self.r) * n) * v

    def image(self, f: Vector) -> Vector:
        return f / np.linalg.norm(f) if self.cosine else self.exp0(self.a_image * f)

    def text(self, t: Vector, steps: int) -> Vector:
        return t / np.linalg.norm(t) if self.cosine else self.exp0(self.a_text * self.scales[steps] * t)

    def far(self, u: Vector, v: Vector) -> float:
        if self.cosine:
            return float(1 - u @ v)
        if self.r == 0:
            return 2 * float(np.linalg.norm(u - v))
        r, uv, uu, vv = self.r, -u @ v, u @ u, v @ v
        moved = ((1 + 2 * r * uv + r * vv) * -u + (1 - r * uu) * v) / (1 + 2 * r * uv + r * r * uu * vv)
        return 2 / math.sqrt(r) * math.atanh(math.sqrt(r) * float(np.linalg.norm(moved)))

    def logit(self, u: Vector, v: Vector) -> float:
        return float(u @ v) / self.tau if self.cosine else -self.far(u, v) / self.tau

    def middle(self, points: list[Vector]) -> Vector:
        if self.cosine:
            mean = np.mean(points, axis=0)
            return mean / np.linalg.norm(mean)
        klein = [2 * u / (1 + self.r * u @ u) for u in points]
        gamma = [1 / math.sqrt(1 - self.r * k @ k) for k in klein]
        k = sum(g * p for g, p in zip(gamma, klein, strict=True)) / sum(gamma)
        return k / (1 + math.sqrt(1 - self.r * k @ k))


def cross_entropy(logits: list[float], target: int) -> float:
    top = max(logits)
    return top + math.log(sum(math.exp(z - top) for z in logits)) - logits[target]


class Reference:
    def __init__(
        self,
        *,
        forest: Forest,
        kept: list[int],
        space: Space,
        embedding: Vector,
        labels: list[int],
        text: dict[str, Vector],
        hnsa: str,
        radius: str,
        zeta_vic: float,
        zeta_gap: float,
        total_trees: bool,
    ) -> None:
        self.__dict__.update(locals())
        self.images = [space.image(f) for f in embedding]

    def level_ids(self, tree: Hierarchy, depth: int) -> list[str]:
        level = tree.level(depth)
        return [n.id for i, n in enumerate(level.nodes) if any(level.leaf_to_node[c] == i for c in self.kept)]

    def node_of(self, tree: Hierarchy, depth: int, leaf: int) -> str:
        level = tree.level(depth)
        return level.nodes[int(level.leaf_to_node[leaf])].id

    def related(self, tree: Hierarchy, depth: int, node: str, other_depth: int, other: str) -> bool:
        """Whether two nodes of adjacent levels share a trained class, which in nested levels makes one the parent."""
        return any(
            self.node_of(tree, depth, c) == node and self.node_of(tree, other_depth, c) == other for c in self.kept
        )

    def point(self, tree: Hierarchy, depth: int, node: str) -> Vector:
        return self.space.text(self.text[node], tree.num_depths - depth)

    def logits_over(self, image: Vector, own: list[Vector], extra: list[Vector]) -> list[float]:
        if self.radius == "level":
            mean = float(np.mean([np.linalg.norm(p) for p in own]))
            extra = [p * mean / np.linalg.norm(p) for p in extra]
        return [self.space.logit(image, p) for p in [*own, *extra]]

    def scored_depths(self, tree: Hierarchy) -> list[int]:
        return [d for d in range(tree.num_depths - 1, 0, -1) if len(self.level_ids(tree, d)) > 1]

    def leaf_term(self) -> float:
        first = self.forest.trees[0]
        leaves = [first.leaves[c].id for c in self.kept]
        own = [self.point(first, first.num_depths, i) for i in leaves]
        values = []
        for image, label in zip(self.images, self.labels, strict=True):
            extra, taken = [], set(leaves)
            for tree in self.forest.trees:
                depth = tree.num_depths - 1
                if self.hnsa not in ("both", "upper") or depth not in self.scored_depths(tree):
                    continue
                for node in self.level_ids(tree, depth):
                    if node in taken:
                        continue
                    taken.add(node)
                    if not self.related(tree, depth, node, tree.num_depths, first.leaves[label].id):
                        extra.append(self.point(tree, depth, node))
            logits = self.logits_over(image, own, extra)
            values.append(cross_entropy(logits, self.kept.index(label)))
        return float(np.mean(values))

    def image_nodes(self, tree: Hierarchy) -> dict[int, dict[str, tuple[Vector, bool]]]:
        """Point of each node that has images, by depth, and whether two distinct children have."""
        found: dict[int, dict[str, tuple[Vector, bool]]] = {tree.num_depths: {}}
        for c in self.kept:
            mine = [p for p, y in zip(self.images, self.labels, strict=True) if y == c]
            if mine:
                found[tree.num_depths][tree.leaves[c].id] = (self.space.middle(mine), False)
        for depth in range(tree.num_depths - 1, 0, -1):
            found[depth] = {}
            for node in self.level_ids(tree, depth):
                children = [
                    point
                    for child, (point, _) in found[depth + 1].items()
                    if self.related(tree, depth, node, depth + 1, child)
                ]
                if len(children) == 1:
                    found[depth][node] = (children[0], False)
                elif children:
                    found[depth][node] = (self.space.middle(children), True)
        return found

    def tree_terms(self, tree: Hierarchy) -> tuple[float, float, float]:
        """Weighted cross-entropies above the leaves, L_gap^Label and L_gap^Intra of one tree."""
        images = self.image_nodes(tree)
        depths, deepest = self.scored_depths(tree), tree.num_depths
        hita = label_gap = intra_gap = 0.0
        for depth in depths:
            ids = self.level_ids(tree, depth)
            own = [self.point(tree, depth, i) for i in ids]
            values = []
            for node, (image, scored) in images[depth].items():
                if not scored:
                    continue
                near = []
                if self.hnsa in ("both", "lower"):
                    near.append(depth + 1)
                if self.hnsa in ("both", "upper") and depth - 1 in depths:
                    near.append(depth - 1)
                extra = [
                    self.point(tree, other_depth, other)
                    for other_depth in near
                    for other in self.level_ids(tree, other_depth)
                    if other not in ids and not self.related(tree, depth, node, other_depth, other)
                ]
                values.append(cross_entropy(self.logits_over(image, own, extra), ids.index(node)))
            steps = deepest - depth
            hita += (1 - steps / (deepest + 1)) * (float(np.mean(values)) if values else 0.0)
            text_hinges, image_hinges = [], []
            for child in self.level_ids(tree, depth + 1):
                parent = next(i for i in ids if self.related(tree, depth, i, depth + 1, child))
                if parent == child:
                    continue
                size = np.linalg.norm
                wide, deep = size(self.point(tree, depth, parent)), size(self.point(tree, depth + 1, child))
                text_hinges.append(max(0.0, wide - deep + self.zeta_gap))
                if child in images[depth + 1] and images[depth][parent][1]:
                    wide, deep = size(images[depth][parent][0]), size(images[depth + 1][child][0])
                    image_hinges.append(max(0.0, wide - deep + self.zeta_gap))
            label_gap += float(np.mean(text_hinges)) if text_hinges else 0.0
            intra_gap += float(np.mean(image_hinges)) if image_hinges else 0.0
        return hita, label_gap, intra_gap

    def parts(self) -> dict[str, float]:
        trees = [self.tree_terms(tree) for tree in self.forest.trees]
        over = sum if self.total_trees else (lambda values: sum(values) / len(trees))
        first = self.forest.trees[0]
        far = [
            self.space.far(image, self.point(first, first.num_depths, first.leaves[y].id))
            for image, y in zip(self.images, self.labels, strict=True)
        ]
        leaf = self.leaf_term()
        return {
            "ce_leaf": leaf,
            "hita": leaf + over([t[0] for t in trees]),
            "vic": float(np.mean([max(0.0, d - self.zeta_vic) for d in far])),
            "gap_label": over([t[1] for t in trees]),
            "gap_intra": over([t[2] for t in trees]),
        }
