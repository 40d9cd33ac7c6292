"""The multilevel objective with borrowed negatives and delta_T: against training's own code, NumPy, and by hand."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
import torch
from attack_toys import LEVELS, TREE, ids_of, images_of
from bound_toys import PROMPTS, bound_model
from torch import Tensor

from hierbench.attacks.engine.attack import run_attack
from hierbench.attacks.named.adaptive import ADAPTIVE_ATTACKS
from hierbench.attacks.objectives.base import level_weights
from hierbench.attacks.objectives.universal_hier import (
    WithEmbedding,
    distinct_prompts,
    level_nodes,
    universal_hier_objective,
)
from hierbench.attacks.threat import ThreatModel
from hierbench.errors import InputError
from hierbench.models.negatives import Neighbour, extra_negatives

SPEC = next(spec for spec in ADAPTIVE_ATTACKS if spec.name == "universal_hier")
IMAGES = images_of(12)
LABELS = torch.arange(12) % 8


def objective_of(kind: str = "hyperbolic", **given: object) -> tuple[object, object, Tensor]:
    bound = bound_model(kind)
    settings = {"sides": "both", "text_eps": 0.0, "level_radius": True} | given
    objective = universal_hier_objective(bound, TREE, **settings)
    return bound, objective, WithEmbedding(bound)(IMAGES)


def by_hand(
    bound: object, embedding: Tensor, label: int, *, moved: bool, text: dict[str, Tensor] | None = None
) -> float:
    """Return the loss of one image with HNSA on both sides, in plain words and double precision."""
    head = bound.model.head.double()
    bound.model.double()
    total = 0.0

    def feature(prompt: str) -> Tensor:
        return (text or {}).get(prompt, bound.model.text_hidden([prompt])[0]).double()

    for depth in (1, 2, 3):
        row = LEVELS[depth - 1]
        own = [head.points(feature(p)[None], 3 - depth)[0] for p in PROMPTS[depth - 1]]
        mean = sum(p.norm() for p in own) / len(own)
        truth = row[label]
        scores = [head.point_logits(head.image_points(embedding[None].double()), p[None])[0, 0] for p in own]
        seen = set(PROMPTS[depth - 1])
        for other in (depth + 1, depth - 1):
            if not 1 <= other <= 3:
                continue
            for node, prompt in enumerate(PROMPTS[other - 1]):
                # parent and child share a leaf; a ragged leaf's prompt stands in the level already
                leaves = {leaf for leaf in range(8) if LEVELS[other - 1][leaf] == node}
                related = any(row[leaf] == truth for leaf in leaves)
                if prompt in seen or related:
                    continue
                point = head.points(feature(prompt)[None], 3 - other)[0]
                if moved:
                    point = point * mean / point.norm()
                scores.append(head.point_logits(head.image_points(embedding[None].double()), point[None])[0, 0])
        stacked = torch.stack(scores)
        total += level_weights(3)[depth - 1] * float(torch.logsumexp(stacked, 0) - stacked[truth])
    return total


@pytest.mark.parametrize("kind", ["hyperbolic", "cosine"])
@pytest.mark.parametrize("level_radius", [True, False])
def test_the_loss_is_that_of_the_words(kind: str, level_radius: bool) -> None:
    bound, objective, columns = objective_of(kind, level_radius=level_radius)
    aims = objective.aims(columns, LABELS, TREE)[:, 0]
    losses = objective.loss(columns, aims, TREE)
    embedding = bound.model.embed(IMAGES)
    moved = level_radius and kind == "hyperbolic"
    for image in range(len(IMAGES)):
        expected = by_hand(bound, embedding[image], int(LABELS[image]), moved=moved)
        assert float(losses[image]) == pytest.approx(expected, rel=2e-4, abs=2e-4)
        bound.model.float()


def test_borrowed_nodes_are_training_s_own() -> None:
    """The same tables as ``hierbench.defences.methods.hier_aft.hnsa`` makes for a whole tree, by prompt."""
    from hierbench.defences.methods.hier_aft.hnsa import negative_tables
    from hierbench.defences.nodes import training_nodes
    from hierbench.hierarchy.catalogue import load_hierarchy
    from hierbench.hierarchy.tree import Forest
    from hierbench.models.binding import level_prompts
    from hierbench.models.layout import NodeLayout

    for dataset in ("digits", "cifar100"):
        tree = load_hierarchy(dataset)
        nodes = training_nodes(Forest((tree,)), template="{noun}")
        prompts, layout = level_prompts(tree, "{noun}"), NodeLayout.from_hierarchy(tree, direct=False)
        names = distinct_prompts(prompts)
        for sides in ("both", "lower", "upper", "off"):
            theirs = negative_tables(nodes, sides=sides)
            levels = level_nodes(prompts, layout, sides=sides)
            mine = [level.extra for level in reversed(levels)]
            assert [level.weight for level in reversed(levels)][1:] == [s.weight for s in nodes.trees[0].levels]
            for own, (ours, other) in enumerate(zip(mine, (theirs.leaves, *theirs.levels[0]), strict=True)):
                rows = [[names[row] for row in level.prompt.tolist()] for level in reversed(levels)][own]
                other_rows = (
                    nodes.prompts[: nodes.num_classes]
                    if own == 0
                    else [nodes.prompts[row] for row in nodes.trees[0].levels[own - 1].prompt.tolist()]
                )
                assert pairs(ours, rows, names) == pairs(other, other_rows, nodes.prompts)


def test_a_prompt_of_two_neighbours_is_borrowed_once_and_blocked_for_either() -> None:
    first = Neighbour(torch.tensor([5, 6]), 1, torch.tensor([[True, False], [False, False]]))
    second = Neighbour(torch.tensor([1, 5]), 1, torch.tensor([[False, False], [False, True]]))
    extra = extra_negatives(torch.tensor([0, 1]), [first, second])
    assert [(steps, rows.tolist()) for steps, rows in extra.groups] == [(1, [5, 6])]  # 1 is the level's own
    assert extra.blocked.tolist() == [[True, False], [True, False]]


def pairs(extra: object, own: object, names: object) -> set[tuple[str, str, int, bool]]:
    borrowed = [(names[row], steps) for steps, rows in extra.groups for row in rows.tolist()]
    assert extra.blocked.shape == (len(own), len(borrowed))
    return {
        (node, name, steps, bool(extra.blocked[m, x]))
        for m, node in enumerate(own)
        for x, (name, steps) in enumerate(borrowed)
    }


@pytest.mark.parametrize("kind", ["hyperbolic", "cosine"])
def test_no_row_knows_of_another(kind: str) -> None:
    _, objective, columns = objective_of(kind, text_eps=2e-2)
    aims = objective.aims(columns, LABELS, TREE)[:, 0]
    together = objective.loss(columns, aims, TREE)
    for image in range(len(IMAGES)):
        alone = objective.loss(columns[image : image + 1], aims[image : image + 1], TREE)
        assert float(alone) == pytest.approx(float(together[image]), rel=1e-5)


@pytest.mark.parametrize("kind", ["hyperbolic", "cosine"])
def test_delta_t_is_the_worst_nudge_of_the_text(kind: str) -> None:
    bound, plain, columns = objective_of(kind)
    _, nudged, _ = objective_of(kind, text_eps=2e-4)
    aims = plain.aims(columns, LABELS, TREE)[:, 0]
    before, after = plain.loss(columns, aims, TREE), nudged.loss(columns, aims, TREE)
    assert (after > before).all()
    # against a search in the same ball: twenty sign steps on one image's own copy of the text features
    embedding, length = bound.model.embed(IMAGES), plain.features.norm(dim=-1, keepdim=True)
    for image in range(4):
        delta = torch.zeros_like(plain.features)
        best = -np.inf
        for _ in range(20):
            delta = delta.detach().requires_grad_()
            value = plain._levels(
                embedding[image : image + 1], plain.features + length * delta, aims[image : image + 1]
            )
            best = max(best, float(value.detach()))
            (gradient,) = torch.autograd.grad(value.sum(), delta)
            delta = (delta.detach() + 1e-4 * gradient.sign()).clamp(-2e-4, 2e-4)
        gained = float(after[image] - before[image])
        assert gained >= 0.98 * (best - float(before[image])) > 0


def test_delta_t_is_each_image_s_own_in_its_ball_and_found_without_a_graph_too() -> None:
    bound, objective, columns = objective_of("hyperbolic", text_eps=2e-4)
    aims = objective.aims(columns, LABELS, TREE)[:, 0]
    with torch.no_grad():
        assert not objective.loss(columns, aims, TREE).requires_grad
        delta = objective.text_delta(bound.model.embed(IMAGES), aims)
    assert delta.shape == (len(IMAGES), len(distinct_prompts(PROMPTS)), bound.points.shape[1])
    assert float(delta.abs().max()) == pytest.approx(2e-4) and not delta.requires_grad
    assert not torch.equal(delta[0], delta[1])


def test_gradients_reach_the_pixels() -> None:
    bound, objective, _ = objective_of(text_eps=2e-4)
    query = IMAGES.clone().requires_grad_()
    columns = WithEmbedding(bound)(query)
    loss = objective.loss(columns, objective.aims(columns, LABELS, TREE)[:, 0], TREE)
    (gradient,) = torch.autograd.grad(loss.sum(), query)
    assert torch.isfinite(gradient).all()
    # and are those of finite differences, with the nudge held to its own worst case on both sides
    bound.model.double()
    direction = torch.randn(IMAGES.shape, generator=torch.Generator().manual_seed(5))
    double = universal_hier_objective(bound, TREE, sides="both", text_eps=0.0, level_radius=True)
    for name in ("features",):
        object.__setattr__(double, name, getattr(double, name).double())
    bound.points = bound.points.double()

    def at(step: float) -> Tensor:
        seen = WithEmbedding(bound)(IMAGES.double() + step * direction.double())
        return double.loss(seen, double.aims(seen, LABELS, TREE)[:, 0], TREE)

    slope = (at(1e-5) - at(-1e-5)) / 2e-5
    query = IMAGES.double().requires_grad_()
    seen = WithEmbedding(bound)(query)
    loss = double.loss(seen, double.aims(seen, LABELS, TREE)[:, 0], TREE)
    (exact,) = torch.autograd.grad(loss.sum(), query)
    torch.testing.assert_close((exact * direction).flatten(1).sum(1), slope, rtol=1e-3, atol=1e-4)


def run(kind: str, scoring: str, depth: int, **settings: object) -> object:
    bound = bound_model(kind)
    labels = bound(IMAGES)[:, :8].argmax(dim=1)
    if scoring == "direct":
        labels = LABELS
    return run_attack(
        bound, IMAGES, labels, ids_of(len(IMAGES)), layout=TREE, depth=depth, scoring=scoring, batch_size=8, seed=0,
        threat=ThreatModel("linf", Fraction(16, 255)), dataset="toy", attack_name="universal_hier",
        pooled=SPEC.pools(scoring),
        plan=SPEC.plan(depth=depth, layout=TREE, scoring=scoring, settings=settings, bound=bound),
    )  # fmt: skip


@pytest.mark.parametrize("kind", ["hyperbolic", "cosine"])
@pytest.mark.parametrize("optimiser", ["pgd", "apgd"])
def test_one_search_fills_every_depth_with_the_ordinary_verdict(kind: str, optimiser: str) -> None:
    result = run(kind, "rollup", 3, optimiser=optimiser, steps=10)
    broken = result.broken["rollup"]
    assert 0 < broken[:, 0].sum() < broken[:, 2].sum(), broken.sum(axis=0)
    assert (np.diff(broken.astype(int), axis=1) >= 0).all()
    assert result.components == (f"{optimiser}-levels-hnsa",)
    assert result.raised[result.searched].mean() >= 0.99
    again = bound_model(kind)(result.adversarial)[:, :8].argmax(dim=1).numpy()
    assert np.array_equal(again, result.predictions["rollup"][:, -1])


def test_direct_scoring_takes_each_depth_by_itself() -> None:
    assert SPEC.default_depths(3, "direct") == (1, 2, 3)
    result = run("hyperbolic", "direct", 2, steps=5)
    assert result.depth == 2


def test_settings_reach_the_objective_and_wrong_ones_are_refused() -> None:
    given = {"hnsa": "lower", "hnsa_radius": "own", "text_eps": "0"}
    (stage,) = SPEC.plan(depth=3, layout=TREE, scoring="rollup", settings=given, bound=bound_model())
    assert stage.depth == 1
    assert stage.objective.text_eps == 0 and not stage.objective.level_radius
    assert len(stage.objective.levels[-1].extra) == 0 and len(stage.objective.levels[0].extra) > 0
    with pytest.raises(InputError, match="hnsa is 'sideways'"):
        SPEC.settings({"hnsa": "sideways"})
    with pytest.raises(InputError, match="needs a model bound"):
        SPEC.plan(depth=3, layout=TREE, scoring="rollup")
