"""HXE and soft labels against walks over the tree's edges, in plain loops and float64 (METHODS.md 5.9)."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from standin import SmallModel, digits_forest, digits_spec, make_task, mixed_forest, ragged_tree
from torch import Tensor

from hierbench.defences import base
from hierbench.defences.base import Batch, Perturbed
from hierbench.defences.methods.hxe import HXE, HXESettings
from hierbench.defences.methods.soft_labels import SoftLabels, SoftLabelSettings, soft_targets
from hierbench.defences.perturb import Found, maximise
from hierbench.hierarchy.shuffle import shuffle
from hierbench.hierarchy.tree import Forest, Hierarchy

Array = npt.NDArray[np.float64]
ALL = tuple(range(10))


# -- trees ------------------------------------------------------------------------------------------------------------


def outline(body: str, name: str = "made") -> Hierarchy:
    from hierbench.hierarchy.class_table import LeafClass
    from hierbench.hierarchy.outline import build_outline

    head = {"dataset": "digits", "tree": name, "title": "Made", "description": "Made up.", "default": "no"}
    head |= {"source": "made up for a test", "licence": "Apache-2.0"}
    lines = "".join(f"# {key}: {value}\n" for key, value in head.items())
    classes = [LeafClass(c.id, c.name, c.noun, c.wordnet) for c in digits_spec().classes]
    return build_outline(lines + body, classes)


def flat_tree() -> Hierarchy:
    return outline("digit | a digit |\n" + "".join(f"  @{leaf}\n" for leaf in ALL), "flat")


def random_tree(seed: int) -> Hierarchy:
    """Cut the shuffled digits in two or three, again and again, so that leaves end at many depths."""
    stream = np.random.default_rng(seed)
    lines = ["digit | a digit |"]

    def grow(leaves: list[int], depth: int) -> None:
        count = min(len(leaves) - 1, int(stream.integers(1, 3)))
        cuts = np.sort(stream.choice(np.arange(1, len(leaves)), size=count, replace=False))
        for part in np.split(np.array(leaves), cuts):
            if len(part) == 1:
                lines.append("  " * depth + f"@{part[0]}")
            else:
                name = f"kind {'abcdefghijklmnop'[len(lines)]}"
                lines.append("  " * depth + f"{name} | a {name} |")
                grow(part.tolist(), depth + 1)

    grow(stream.permutation(10).tolist(), 1)
    return outline("\n".join(lines) + "\n", f"random{seed}")


TREES: dict[str, Callable[[], Hierarchy]] = {
    "strokes": lambda: digits_forest("strokes").trees[0],
    "ragged": ragged_tree,
    "shuffled": lambda: shuffle(ragged_tree(), 1),
    "flat": flat_tree,
    **{f"random{seed}": lambda seed=seed: random_tree(seed) for seed in range(4)},  # type: ignore[misc]
}
CLASSES = {
    "all": ALL,
    "six": (0, 1, 2, 5, 6, 8),
    "two near": (2, 3),
    "two far": (3, 8),
    "chains": (0, 2, 7, 9),  # several nodes are left with one child
}


# -- the definitions, by node ids and edges ---------------------------------------------------------------------------


def parents(tree: Hierarchy) -> dict[str, str | None]:
    return {node.id: node.parent for node in tree.nodes}


def way_up(tree: Hierarchy, leaf: int) -> list[str]:
    """Ids from a leaf to the root, both included."""
    above, path = parents(tree), [tree.leaves[leaf].id]
    while (parent := above[path[-1]]) is not None:
        path.append(parent)
    return path


def height(tree: Hierarchy, node: str) -> int:
    children = [child for child, parent in parents(tree).items() if parent == node]
    return 1 + max(height(tree, child) for child in children) if children else 0


def brute_hxe(tree: Hierarchy, classes: Sequence[int], z: Array, labels: Sequence[int], decay: float) -> list[float]:
    """- sum over the edges of the leaf's path of lambda log p(child | parent), one an image."""
    ways = [way_up(tree, leaf) for leaf in classes]
    out = []
    for row, label in zip(z, labels, strict=True):
        softmax = np.exp(row - row.max())
        softmax = softmax / softmax.sum()

        def share(node: str, softmax: Array = softmax) -> float:
            return math.fsum(float(p) for p, way in zip(softmax, ways, strict=True) if node in way)

        path = ways[label]
        assert share(path[-1]) == pytest.approx(1.0, abs=1e-12)  # p(root) = 1
        edges = list(pairwise(path))
        raw = [math.exp(-decay * (len(path) - 1 - step)) for step in range(len(edges))]  # depth(child), root's is 0
        total = 0.0
        for weight, (child, parent) in zip(raw, edges, strict=True):
            total -= weight / sum(raw) * math.log(share(child) / share(parent))
        out.append(total)
    return out


def brute_targets(tree: Hierarchy, classes: Sequence[int], sharpness: float) -> Array:
    """q(c) prop. to exp(-sharpness h(LCA(c, y)) / h_max), row y."""
    top = max(height(tree, node.id) for node in tree.nodes)
    out = np.zeros((len(classes), len(classes)))
    for y, mine in enumerate(classes):
        for c, other in enumerate(classes):
            above = set(way_up(tree, other))
            meet = next(node for node in way_up(tree, mine) if node in above)
            out[y, c] = math.exp(-sharpness * height(tree, meet) / top)
        out[y] /= out[y].sum()
    return out


def brute_soft(
    tree: Hierarchy, classes: Sequence[int], z: Array, labels: Sequence[int], sharpness: float
) -> list[float]:
    targets = brute_targets(tree, classes, sharpness)
    out = []
    for row, label in zip(z, labels, strict=True):
        log_softmax = row - row.max() - math.log(sum(math.exp(v - row.max()) for v in row))
        out.append(-sum(float(q) * float(v) for q, v in zip(targets[label], log_softmax, strict=True)))
    return out


def brute(kind: str, forest: Forest, classes: Sequence[int], z: Array, labels: Sequence[int], value: float) -> Array:
    """One an image, mean over the trees."""
    one = brute_hxe if kind == "hxe" else brute_soft
    return np.mean([one(tree, classes, z, labels, value) for tree in forest.trees], axis=0)


def cross_entropy(z: Array, labels: Sequence[int]) -> Array:
    top = z.max(axis=1, keepdims=True)
    logs = z - top - np.log(np.exp(z - top).sum(axis=1, keepdims=True))
    return np.array([-row[label] for row, label in zip(logs, labels, strict=True)])


def made(kind: str, forest: Forest, classes: Sequence[int] | None = None, value: float | None = None) -> Any:
    task = make_task(SmallModel(double=True), forest, classes=classes, eps="16/255")
    if kind == "hxe":
        return HXE(HXESettings() if value is None else HXESettings(decay=value), task)
    return SoftLabels(SoftLabelSettings() if value is None else SoftLabelSettings(sharpness=value), task)


def some_logits(count: int, classes: int, seed: int = 0, scale: float = 3.0) -> tuple[Array, list[int]]:
    stream = np.random.default_rng(seed)
    labels = [*range(classes), *stream.integers(0, classes, max(0, count - classes)).tolist()]
    return stream.normal(scale=scale, size=(len(labels), classes)), labels


def tree_loss(defence: Any, z: Array, labels: Sequence[int]) -> Array:
    out: Array = defence.tree_loss(torch.from_numpy(z), torch.tensor(labels)).numpy()
    return out


# -- against the definitions ------------------------------------------------------------------------------------------


def test_the_trees_here_are_ragged_and_deep_enough() -> None:
    depths = {name: sorted(set(tree().leaf_depth.tolist())) for name, tree in TREES.items()}
    assert depths["ragged"] == [1, 2, 3] and depths["flat"] == [1]
    assert any(len(found) >= 3 and max(found) >= 4 for found in depths.values()), depths


@pytest.mark.parametrize("classes", CLASSES)
@pytest.mark.parametrize("name", TREES)
def test_hxe_is_the_sum_over_the_edges_of_the_leaf_path(name: str, classes: str) -> None:
    tree, kept = TREES[name](), CLASSES[classes]
    z, labels = some_logits(14, len(kept))
    for decay in (0.1, 0.0, 1.3):
        got = tree_loss(made("hxe", Forest((tree,)), kept, decay), z, labels)
        np.testing.assert_allclose(got, brute_hxe(tree, kept, z, labels, decay), rtol=1e-9, atol=1e-12)
    single = made("hxe", Forest((tree,)), kept).tree_loss(torch.from_numpy(z).float(), torch.tensor(labels))
    assert single.dtype == torch.float32
    np.testing.assert_allclose(single.numpy(), brute_hxe(tree, kept, z, labels, 0.1), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("classes", CLASSES)
@pytest.mark.parametrize("name", TREES)
def test_soft_labels_are_those_of_the_lowest_common_ancestors_height(name: str, classes: str) -> None:
    tree, kept = TREES[name](), CLASSES[classes]
    z, labels = some_logits(14, len(kept))
    for sharpness in (10.0, 0.5):
        targets = soft_targets(tree, kept, sharpness=sharpness)
        assert targets.dtype == torch.float64
        np.testing.assert_allclose(targets.numpy(), brute_targets(tree, kept, sharpness), rtol=1e-12)
        np.testing.assert_allclose(targets.sum(dim=1).numpy(), 1.0, rtol=1e-12)
        got = tree_loss(made("soft_labels", Forest((tree,)), kept, sharpness), z, labels)
        np.testing.assert_allclose(got, brute_soft(tree, kept, z, labels, sharpness), rtol=1e-10)


@pytest.mark.parametrize(("kind", "value"), [("hxe", 0.1), ("soft_labels", 10.0)])
def test_several_trees_are_averaged_and_the_defaults_are_those_of_the_page(kind: str, value: float) -> None:
    forest = Forest((*mixed_forest().trees, random_tree(2)))
    z, labels = some_logits(20, 6)
    got = tree_loss(made(kind, forest, CLASSES["six"]), z, labels)
    np.testing.assert_allclose(got, brute(kind, forest, CLASSES["six"], z, labels, value), rtol=1e-9)
    each = [tree_loss(made(kind, Forest((tree,)), CLASSES["six"]), z, labels) for tree in forest.trees]
    np.testing.assert_allclose(got, np.mean(each, axis=0), rtol=1e-12)
    assert np.abs(each[0] - each[1]).max() > 0.01


@pytest.mark.parametrize("decay", [0.1, 0.8])
@pytest.mark.parametrize("name", ["ragged", "random0", "random2"])
def test_an_edge_counts_exp_of_its_childs_depth_and_a_path_counts_one(name: str, decay: float) -> None:
    """Two classes share all the mass: only the edge below their lowest common ancestor costs, lambda log 2."""
    tree = TREES[name]()
    defence = made("hxe", Forest((tree,)), None, decay)
    for y in ALL:
        counted: dict[int, float] = {}
        depth = len(way_up(tree, y)) - 1
        for other in ALL:
            if other == y:
                continue
            z = np.full((1, 10), -80.0)
            z[0, [y, other]] = 0.0
            meet = next(node for node in way_up(tree, y) if node in way_up(tree, other))
            child = depth - way_up(tree, y).index(meet) + 1
            counted[child] = float(tree_loss(defence, z, [y])[0]) / math.log(2)
            path = math.fsum(math.exp(-decay * d) for d in range(1, depth + 1))
            assert counted[child] == pytest.approx(math.exp(-decay * child) / path, rel=1e-9)
        assert set(counted) == set(range(1, depth + 1)) and sum(counted.values()) == pytest.approx(1.0)


@pytest.mark.parametrize(("kind", "value"), [("hxe", 0.1), ("soft_labels", 10.0)])
def test_a_shuffled_tree_is_another_loss_on_the_same_logits(kind: str, value: float) -> None:
    tree, control = ragged_tree(), shuffle(ragged_tree(), 1)
    z, labels = some_logits(20, 10)
    plain, other = (tree_loss(made(kind, Forest((t,))), z, labels) for t in (tree, control))
    np.testing.assert_allclose(other, brute(kind, Forest((control,)), ALL, z, labels, value), rtol=1e-9)
    assert np.abs(plain - other).max() > 0.01


# -- limits -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("decay", [0.0, 0.1, 5.0])
def test_hxe_on_a_tree_without_superclasses_is_the_cross_entropy(decay: float) -> None:
    z, labels = some_logits(20, 10)
    np.testing.assert_allclose(
        tree_loss(made("hxe", Forest((flat_tree(),)), None, decay), z, labels), cross_entropy(z, labels), rtol=1e-10
    )


@pytest.mark.parametrize("name", ["ragged", "random1"])
def test_hxe_without_decay_is_the_cross_entropy_over_the_length_of_the_path(name: str) -> None:
    tree = TREES[name]()
    z, labels = some_logits(20, 10)
    got = tree_loss(made("hxe", Forest((tree,)), None, 0.0), z, labels)
    np.testing.assert_allclose(got, cross_entropy(z, labels) / tree.leaf_depth[labels], rtol=1e-9)


def test_hxe_of_a_steep_decay_sees_only_the_coarsest_nodes() -> None:
    tree = ragged_tree()
    z, labels = some_logits(20, 10)
    got = tree_loss(made("hxe", Forest((tree,)), None, 60.0), z, labels)
    top = [[leaf for leaf in ALL if way_up(tree, leaf)[-2] == way_up(tree, label)[-2]] for label in labels]
    softmax = np.exp(z) / np.exp(z).sum(axis=1, keepdims=True)
    want = [-math.log(row[leaves].sum()) for row, leaves in zip(softmax, top, strict=True)]
    np.testing.assert_allclose(got, want, rtol=1e-9)


def test_a_mistake_far_off_costs_hxe_more_than_a_near_one() -> None:
    tree = ragged_tree()  # 2 and 3 are both open strokes; 8 is a ring
    near, far = np.zeros((1, 10)), np.zeros((1, 10))
    near[0, 3], far[0, 8] = 4.0, 4.0
    for kind in ("hxe", "soft_labels"):
        defence = made(kind, Forest((tree,)))
        assert tree_loss(defence, near, [2])[0] < tree_loss(defence, far, [2])[0] - 0.01
    assert cross_entropy(near, [2])[0] == pytest.approx(cross_entropy(far, [2])[0])


def test_soft_labels_that_are_sharp_are_plain_ones_and_flat_ones_say_nothing() -> None:
    z, labels = some_logits(20, 10)
    sharp = made("soft_labels", mixed_forest(), None, 1e4)
    np.testing.assert_allclose(tree_loss(sharp, z, labels), cross_entropy(z, labels), rtol=1e-10)
    targets = soft_targets(ragged_tree(), ALL, sharpness=1e-9)
    np.testing.assert_allclose(targets.numpy(), 0.1, rtol=1e-6)


def test_a_nearer_class_is_given_more() -> None:
    tree = ragged_tree()
    targets = soft_targets(tree, ALL, sharpness=10.0).numpy()
    heights = tree.lca_height
    for y in ALL:
        order = np.argsort(heights[y], kind="stable")
        values = targets[y][order]
        assert order[0] == y and all(
            (values[i] > values[i + 1]) == (heights[y][order[i]] < heights[y][order[i + 1]]) for i in range(9)
        )
    # Half way up a tree of height h_max a class keeps exp(-5) of what the truth has.
    assert targets[0, 1] / targets[0, 0] == pytest.approx(math.exp(-10.0 * heights[0, 1] / 3))


@pytest.mark.parametrize("kind", ["hxe", "soft_labels"])
def test_extreme_logits_in_single_precision_stay_finite(kind: str) -> None:
    defence = made(kind, mixed_forest())
    z = torch.full((10, 10), -500.0)
    z[torch.arange(10), (torch.arange(10) + 3) % 10] = 500.0
    z.requires_grad_()
    for labels in (torch.arange(10), (torch.arange(10) + 3) % 10):
        (gradient,) = torch.autograd.grad(defence.tree_loss(z, labels).sum(), z)
        assert bool(gradient.isfinite().all())
        assert bool(defence.tree_loss(z.detach(), labels).isfinite().all())
    right = made("hxe", mixed_forest()).tree_loss(z.detach(), (torch.arange(10) + 3) % 10)
    assert float(right.abs().max()) < 1e-4


@pytest.mark.parametrize(("kind", "value"), [("hxe", 0.1), ("soft_labels", 10.0)])
def test_the_gradient_is_that_of_the_definition(kind: str, value: float) -> None:
    forest, kept = mixed_forest(), CLASSES["chains"]
    z, labels = some_logits(8, len(kept), scale=1.5)
    way = np.random.default_rng(9).normal(size=z.shape)
    given = torch.from_numpy(z).requires_grad_()
    made(kind, forest, kept).tree_loss(given, torch.tensor(labels)).sum().backward()
    step = 1e-6
    ends = [brute(kind, forest, kept, z + sign * step * way, labels, value).sum() for sign in (1, -1)]
    assert given.grad is not None
    assert float((given.grad.numpy() * way).sum()) == pytest.approx((ends[0] - ends[1]) / (2 * step), rel=1e-6)


# -- loss and attack --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Scene:
    defence: Any
    model: SmallModel
    batch: Batch
    adversarial: Tensor
    forest: Forest

    def logits(self, pixels: Tensor) -> Array:
        embedding = self.model.embed(pixels).detach().numpy()
        text = (self.defence.task.hidden[:6] @ self.model.text_projection).detach().numpy()
        rows = [[e @ t / (np.linalg.norm(e) * np.linalg.norm(t)) for t in text] for e in embedding]
        return math.exp(2.0) * np.array(rows)


def scene(kind: str) -> Scene:
    forest = mixed_forest()
    generator = torch.Generator().manual_seed(5)
    pixels = torch.rand(9, 1, 8, 8, generator=generator, dtype=torch.float64)
    labels = torch.randint(0, 6, (9,), generator=generator)
    noise = torch.rand(9, 1, 8, 8, generator=generator, dtype=torch.float64)
    adversarial = (pixels + 0.4 * (noise - 0.5)).clamp(0, 1)
    defence = made(kind, forest, CLASSES["six"])
    return Scene(defence, SmallModel(double=True), Batch(pixels, labels, generator), adversarial, forest)


@pytest.mark.parametrize(("kind", "value"), [("hxe", 0.1), ("soft_labels", 10.0)])
def test_the_loss_is_the_mean_over_the_adversarial_images(kind: str, value: float) -> None:
    s = scene(kind)
    text = s.defence.task.text_features(s.model)
    loss, log = s.defence.loss(s.model, s.batch, Perturbed(s.adversarial), text)
    z, labels = s.logits(s.adversarial), s.batch.labels.tolist()
    assert float(loss.detach()) == pytest.approx(
        brute(kind, s.forest, CLASSES["six"], z, labels, value).mean(), rel=1e-9
    )
    assert {name: float(v) for name, v in log.items()} == pytest.approx(
        {
            "tree_loss": float(loss.detach()),
            "ce_leaf": cross_entropy(z, labels).mean(),
            "adversarial_accuracy": (z.argmax(axis=1) == labels).mean(),
        },
        rel=1e-6,
    )
    assert not any(v.requires_grad for v in log.values()) and s.defence.trains == ("visual",)


@pytest.mark.parametrize(("kind", "value"), [("hxe", 0.1), ("soft_labels", 10.0)])
def test_the_attack_maximises_the_same_summed_over_the_batch(
    kind: str, value: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    s = scene(kind)
    text = s.defence.task.text_features(s.model).detach()
    given: list[Any] = []

    def spy(objective: Any, images: Tensor, **rest: Any) -> Found:
        given.extend([objective, images])
        return maximise(objective, images, **rest)

    monkeypatch.setattr(base, "maximise", spy)
    found = s.defence.perturb(s.model, s.batch, text)
    assert given[1] is s.batch.pixels and len(given) == 2
    labels = s.batch.labels.tolist()
    way = torch.randn(s.adversarial.shape, generator=torch.Generator().manual_seed(23), dtype=torch.float64)

    def wanted(pixels: Tensor) -> float:
        return float(brute(kind, s.forest, CLASSES["six"], s.logits(pixels), labels, value).sum())

    points = s.adversarial.clone().requires_grad_()
    objective = given[0](points, None)
    assert float(objective.detach()) == pytest.approx(wanted(s.adversarial), rel=1e-9)
    (gradient,) = torch.autograd.grad(objective, points)
    step = 1e-5
    slope = (wanted(s.adversarial + step * way) - wanted(s.adversarial - step * way)) / (2 * step)
    assert float((gradient * way).sum()) == pytest.approx(slope, rel=1e-5)
    assert wanted(found.pixels) > wanted(s.batch.pixels)
