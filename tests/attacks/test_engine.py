"""The engine against closed forms, over every attack, norm, scoring and depth, and its promises of determinism."""

from __future__ import annotations

import itertools
from fractions import Fraction

import numpy as np
import pytest
import torch
from attack_toys import PAIR, TREE, Linear, Watched, conv_net, ids_of, images_of
from torch import Tensor

from hierbench.attacks.catalogue import ATTACKS
from hierbench.attacks.engine.attack import AttackResult, run_attack
from hierbench.attacks.engine.batching import fitting_size, ladder, padded
from hierbench.attacks.objectives.base import LeafObjective, NodeObjective, TargetedObjective
from hierbench.attacks.optimisers.base import Rows, Stage, Visit
from hierbench.attacks.optimisers.pgd import PGD
from hierbench.attacks.threat import ThreatModel
from hierbench.attacks.verdict import broken, predicted_nodes
from hierbench.models.layout import NodeLayout

EPS = {"linf": Fraction(4, 255), "l2": Fraction(1, 8)}


def attack(
    forward: object,
    images: Tensor,
    labels: Tensor,
    plan: list[Stage] | tuple[Stage, ...],
    *,
    layout: NodeLayout = TREE,
    norm: str = "linf",
    eps: Fraction | None = None,
    depth: int = 3,
    scoring: str = "rollup",
    batch_size: int = 32,
    sample_ids: list[str] | None = None,
    **others: object,
) -> AttackResult:
    return run_attack(
        forward,
        images,
        labels,
        sample_ids or ids_of(len(images)),
        plan=plan,
        layout=layout,
        threat=ThreatModel(norm, EPS[norm] if eps is None else eps),
        depth=depth,
        scoring=scoring,
        batch_size=batch_size,
        seed=0,
        dataset="toy",
        attack_name="test",
        **others,
    )


def mostly_right(logits: Tensor, depth: int, scoring: str) -> Tensor:
    """Labels that four of five images are given at this depth and scoring, and the fifth mostly is not."""
    given = predicted_nodes(logits, TREE, scoring)[:, depth - 1]
    labels = (TREE.node_of_leaf(depth)[None] == given[:, None]).int().argmax(dim=1)
    every_fifth = torch.arange(len(labels)) % 5 == 0
    return torch.where(every_fifth, (labels + 5) % TREE.num_leaves, labels)


NET = conv_net(TREE.width)
IMAGES = images_of(60)
RIGHT = NET(IMAGES)[:, :8].argmax(dim=1)
"""Labels that are right at every depth under roll-up."""

ATTACK_SETTINGS = [
    ("leaf_pgd", {}),
    ("leaf_pgd", {"start": "clean", "alpha": "eps"}),
    ("superclass_pgd", {"pooling": "max"}),
    ("superclass_pgd", {"pooling": "logsumexp", "restarts": 2}),
    ("multilevel_pgd", {}),
    ("multilevel_pgd", {"targeted": True}),
    ("multilevel_pgd", {"targeted": True, "path": True, "pooling": "logsumexp"}),
]


@pytest.mark.parametrize(("name", "given"), ATTACK_SETTINGS)
@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("scoring", ["rollup", "direct"])
@pytest.mark.parametrize("depth", [1, 2, 3])
def test_what_holds_for_every_attack(name: str, given: dict[str, object], norm: str, scoring: str, depth: int) -> None:
    plan = ATTACKS.get(name).plan(depth=depth, layout=TREE, scoring=scoring, settings={"steps": 6, **given})
    labels = mostly_right(NET(IMAGES), depth, scoring)
    result = attack(NET, IMAGES, labels, plan, norm=norm, depth=depth, scoring=scoring)

    clean = broken(NET(IMAGES), labels, TREE, scoring)[:, depth - 1].numpy()
    assert np.array_equal(result.clean_verdict, clean)
    assert np.array_equal(result.searched, ~clean)
    # A sample that was wrong already counts as broken, and its image is the clean one.
    assert bool(result.verdict[clean].all())
    assert torch.equal(result.adversarial[torch.from_numpy(clean)], IMAGES[torch.from_numpy(clean)])
    # Every verdict is that of the returned images, at every depth and scoring.
    for other in ("rollup", "direct"):
        again = predicted_nodes(NET(result.adversarial), TREE, other).numpy()
        assert np.array_equal(result.predictions[other], again)
        assert np.array_equal(result.broken[other], again != TREE.leaf_to_node[:, labels].T.numpy())
    delta = (result.adversarial - IMAGES).flatten(1)
    own = result.max_linf if norm == "linf" else result.max_l2
    assert own <= float(EPS[norm]) + 1e-6
    assert result.max_linf == pytest.approx(float(delta.abs().max()), abs=1e-7)
    assert result.max_l2 == pytest.approx(float(delta.norm(dim=1).max()), abs=1e-6)
    assert float(result.adversarial.min()) >= 0
    assert float(result.adversarial.max()) <= 1
    # It attacked: pixels moved, its own loss rose, gradients were there.
    assert result.moved_share == 1.0
    assert result.raised_share >= 0.97
    assert result.zero_gradient_share == 0.0
    assert result.unverified.sum() == result.nonfinite.sum() == 0
    survived = result.searched & ~result.verdict
    assert bool((result.final_loss[survived] > result.clean_loss[survived]).all())
    assert bool((result.broken_by == np.where(result.searched & result.verdict, 0, -1)).all())
    runs = (stage := plan[0]).objective.aims(NET(IMAGES), labels, TREE).shape[1] * stage.restarts
    assert bool((result.steps_used[survived] == 6 * runs).all())
    assert bool((result.steps_used[~result.searched] == 0).all())
    assert bool(np.isnan(result.clean_loss[~result.searched]).all())


def test_the_table_above_has_both_broken_and_robust_samples() -> None:
    plan = ATTACKS.get("superclass_pgd").plan(depth=2, layout=TREE, scoring="rollup")
    result = attack(NET, IMAGES, RIGHT, plan, depth=2)
    assert 5 <= result.verdict.sum() <= 55


# -- closed forms ---------------------------------------------------------------------------------------------


def linear_problem(width: int, count: int, *, seed: int) -> tuple[Linear, Tensor, Tensor]:
    """Images far enough from the box that the ball alone limits the attack."""
    model = Linear(width, seed=seed)
    images = 0.3 + 0.4 * images_of(count, (1, 4, 4), seed=seed)
    return model, images, model(images)


def reach_of(difference: Tensor, norm: str, eps: float) -> Tensor:
    """How far a linear score can be raised within the ball: eps times the dual norm."""
    return eps * (difference.abs().sum(dim=-1) if norm == "linf" else difference.norm(dim=-1))


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("objective", ["leaf", "node-rollup", "node-direct"])
def test_two_classes_are_broken_exactly_where_the_optimum_is(norm: str, objective: str) -> None:
    model, images, logits = linear_problem(2, 200, seed=1)
    labels = logits.argmax(dim=1)
    eps = 0.02 if norm == "linf" else 0.1
    aim = {
        "leaf": LeafObjective(),
        "node-rollup": NodeObjective(depth=1, scoring="rollup", pooling="max"),
        "node-direct": NodeObjective(depth=1, scoring="direct", pooling="max"),
    }[objective]
    result = attack(
        model,
        images,
        labels,
        [Stage("pgd", aim, PGD(steps=3, alpha="eps", start_at="clean"))],
        layout=PAIR,
        norm=norm,
        eps=Fraction(str(eps)),
        depth=1,
        scoring="direct" if objective == "node-direct" else "rollup",
    )
    margin = (logits[:, 0] - logits[:, 1]).abs()
    reach = reach_of(model.weight[0] - model.weight[1], norm, eps)
    clear = ((margin - reach).abs() > 1e-5).numpy()
    optimum = (margin < reach).numpy()
    assert 40 < optimum.sum() < 160
    assert np.array_equal(result.verdict[clear], optimum[clear])
    # Survivors hold the optimum itself: the sign of the weights' difference, eps in every pixel.
    if norm == "linf":
        towards = torch.sign(model.weight[1] - model.weight[0]) * torch.where(labels == 0, 1.0, -1.0)[:, None]
        survived = torch.from_numpy(~result.verdict)
        delta = (result.adversarial - images).flatten(1)
        assert torch.allclose(delta[survived], eps * towards[survived], atol=1e-6)


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize(("scoring", "depth"), [("rollup", 3), ("direct", 1), ("direct", 2), ("direct", 3)])
def test_targeted_on_all_wrong_nodes_finds_the_optimum_of_a_linear_model(norm: str, scoring: str, depth: int) -> None:
    model, images, logits = linear_problem(TREE.width, 80, seed=2)
    start, stop = TREE.columns[depth - 1]
    labels = mostly_right(logits, depth, scoring)
    truth = TREE.leaf_to_node[depth - 1, labels]
    eps = 0.01 if norm == "linf" else 0.03
    objective = TargetedObjective(depth=depth, scoring=scoring, pooling="max", targets=9)
    # At a large scale, minus the cross-entropy of a target is its margin over the best other node.
    result = attack(
        lambda pixels: 100 * model(pixels),
        images,
        labels,
        [Stage("t", objective, PGD(steps=30))],
        norm=norm,
        eps=Fraction(str(eps)),
        depth=depth,
        scoring=scoring,
    )
    own, weight = logits[:, start:stop], model.weight[start:stop]
    margin = own.gather(1, truth[:, None]) - own
    slack = margin - reach_of(weight[None] - weight[truth][:, None], norm, eps)
    slack = slack.scatter(1, truth[:, None], torch.inf).amin(dim=1)
    # A sample can be broken exactly if some wrong node can be raised above the right one.
    optimum = (slack < 0).numpy()
    clear = (slack.abs() > 0.05).numpy()
    assert clear.mean() > 0.7
    assert 5 <= (optimum & result.searched).sum() <= 75
    assert np.array_equal(result.verdict[clear], optimum[clear])
    assert not result.verdict[slack.numpy() > 1e-4].any()  # never beyond what is possible


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("scoring", ["rollup", "direct"])
@pytest.mark.parametrize("depth", [1, 2, 3])
def test_an_unbounded_attack_breaks_an_undefended_model_and_a_bounded_one_of_zero_does_nothing(
    norm: str, scoring: str, depth: int
) -> None:
    plan = ATTACKS.get("superclass_pgd").plan(depth=depth, layout=TREE, scoring=scoring)
    labels = mostly_right(NET(IMAGES), depth, scoring)
    everything = attack(
        NET, IMAGES, labels, plan, norm=norm, eps=Fraction(1 if norm == "linf" else 50), depth=depth, scoring=scoring
    )
    assert everything.verdict.mean() >= 0.99
    calls: list[int] = []
    nothing = attack(
        lambda pixels: (calls.append(len(pixels)), NET(pixels))[1],
        IMAGES,
        labels,
        plan,
        norm=norm,
        eps=Fraction(0),
        depth=depth,
        scoring=scoring,
        full_budget=np.ones(60, dtype=bool),
    )
    assert torch.equal(nothing.adversarial, IMAGES)
    assert np.array_equal(nothing.verdict, nothing.clean_verdict)
    assert nothing.moved_share is None
    assert nothing.raised_share is None
    assert nothing.zero_gradient_share is None
    assert nothing.severity is None
    assert nothing.max_linf == nothing.max_l2 == 0.0
    assert calls == [32, 32]  # the clean pass, and nothing else


# -- determinism ----------------------------------------------------------------------------------------------


def every_result(images: Tensor, labels: Tensor, batch_size: int, ids: list[str]) -> tuple[AttackResult, Watched]:
    watched = Watched(PGD(steps=8))
    stage = Stage("pgd", NodeObjective(depth=2, scoring="rollup", pooling="max"), watched, restarts=2)
    return attack(NET, images, labels, [stage], depth=2, batch_size=batch_size, sample_ids=ids), watched


def test_draws_do_not_depend_on_the_batch_size_and_verdicts_agree() -> None:
    images = images_of(300, seed=5)
    labels = NET(images)[:, :8].argmax(dim=1)
    found = {size: every_result(images, labels, size, ids_of(300)) for size in (7, 64, 128)}
    base, base_starts = found[128]
    assert 30 < base.verdict.sum() < 270
    for result, starts in found.values():
        shared = base_starts.starts.keys() & starts.starts.keys()
        assert len(shared) > 300
        assert all(torch.equal(base_starts.starts[key], starts.starts[key]) for key in shared)
        assert (result.verdict == base.verdict).mean() >= 0.999
        assert result.unverified.sum() == 0


def test_order_does_not_matter() -> None:
    labels = RIGHT
    base, _ = every_result(IMAGES, labels, 16, ids_of(60))
    order = torch.randperm(60, generator=torch.Generator().manual_seed(0))
    ids = [ids_of(60)[index] for index in order.tolist()]
    mixed, _ = every_result(IMAGES[order], labels[order], 16, ids)
    assert np.array_equal(mixed.verdict, base.verdict[order.numpy()])
    assert np.array_equal(mixed.steps_used, base.steps_used[order.numpy()])
    assert torch.allclose(mixed.adversarial, base.adversarial[order], atol=1e-6)


def test_a_chunk_is_a_function_of_itself() -> None:
    # What makes an interrupted run resumable: chunks done before or after a kill are bit-equal.
    labels = RIGHT
    whole = [every_result(IMAGES[rows], labels[rows], 8, ids_of(60)[rows])[0] for rows in (slice(0, 30), slice(30, 60))]
    torch.rand(1000)  # the global generator plays no part
    later = every_result(IMAGES[30:], labels[30:], 8, ids_of(60)[30:])[0]
    assert torch.equal(later.adversarial, whole[1].adversarial)
    assert torch.equal(later.logits, whole[1].logits)
    assert np.array_equal(later.final_loss, whole[1].final_loss, equal_nan=True)
    assert (later.forwards, later.backwards, later.padding) == (whole[1].forwards, whole[1].backwards, whole[1].padding)
    joined, _ = every_result(IMAGES, labels, 8, ids_of(60))
    assert np.array_equal(joined.verdict, np.concatenate([part.verdict for part in whole]))


def test_given_clean_logits_save_a_forward_and_change_nothing() -> None:
    plan = ATTACKS.get("leaf_pgd").plan(depth=3, layout=TREE, scoring="rollup")
    first = attack(NET, IMAGES, RIGHT, plan)
    again = attack(NET, IMAGES, RIGHT, plan, clean_logits=first.clean_logits)
    assert torch.equal(first.adversarial, again.adversarial)
    assert again.forwards == first.forwards - 64


def test_the_gradient_is_that_of_each_sample_s_own_loss() -> None:
    # Summed over the batch, not averaged: an average shrinks gradients by the batch size, and small ones to 0.
    told: dict[int, Tensor] = {}

    class Listener(PGD):
        def advance(self, visit: Visit, state: Rows) -> tuple[Tensor, Rows]:
            told.update(zip(visit.noise.samples, visit.gradient, strict=True))
            return super().advance(visit, state)

    attack(NET, IMAGES, RIGHT, [Stage("pgd", LeafObjective(), Listener(steps=1, start_at="clean"))], batch_size=64)
    assert len(told) == 60
    for sample, gradient in told.items():
        query = IMAGES[sample : sample + 1].clone().requires_grad_()
        loss = torch.nn.functional.cross_entropy(NET(query)[:, :8], RIGHT[sample : sample + 1])
        (own,) = torch.autograd.grad(loss, query)
        assert torch.allclose(gradient, own[0], rtol=1e-3, atol=1e-7)


def test_nothing_global_is_touched() -> None:
    state, numpy_state = torch.get_rng_state(), np.random.get_state()[1].copy()
    net = conv_net(TREE.width).requires_grad_(True)
    plan = ATTACKS.get("leaf_pgd").plan(depth=3, layout=TREE, scoring="rollup")
    before = IMAGES.clone()
    attack(net, IMAGES, RIGHT, plan)
    assert torch.equal(torch.get_rng_state(), state)
    assert np.array_equal(np.random.get_state()[1], numpy_state)
    assert all(parameter.grad is None for parameter in net.parameters())
    assert torch.equal(IMAGES, before)
    assert not IMAGES.requires_grad
    assert torch.is_grad_enabled()


# -- cost -----------------------------------------------------------------------------------------------------


def test_costs_are_counted_to_the_image() -> None:
    seen: list[tuple[int, bool]] = []

    def forward(pixels: Tensor) -> Tensor:
        seen.append((len(pixels), torch.is_grad_enabled()))
        return NET(pixels)

    images, labels = IMAGES[:10], RIGHT[:10]
    plan = [Stage("pgd", LeafObjective(), PGD(steps=5))]
    result = attack(forward, images, labels, plan, eps=Fraction(1, 255_000), batch_size=16)
    assert not result.verdict.any()
    # The clean pass, five steps, the point after the last step, the verification: 10 images in batches of 12.
    assert seen == [(12, False)] + [(12, True)] * 5 + [(12, False)] * 2
    assert (result.forwards, result.backwards, result.padding) == (96, 60, 16)
    assert result.gradients == 50


def test_the_batch_stays_full_and_shrinks_down_the_ladder() -> None:
    sizes: list[int] = []

    def forward(pixels: Tensor) -> Tensor:
        if torch.is_grad_enabled():
            sizes.append(len(pixels))
        return NET(pixels)

    images = images_of(200, seed=9)
    labels = NET(images)[:, :8].argmax(dim=1)
    result = attack(forward, images, labels, [Stage("pgd", LeafObjective(), PGD(steps=10))], batch_size=32)
    assert 20 < result.verdict.sum() < 180
    assert set(sizes) <= set(ladder(32))
    assert sizes == sorted(sizes, reverse=True)
    # No slot is empty while the queue is not: only the last, shrinking batches and the other passes are padded.
    assert sizes.count(32) * 32 > 0.8 * sum(sizes)
    assert result.padding < 0.12 * result.forwards
    assert sum(sizes) == result.backwards


def test_ladder() -> None:
    assert ladder(128) == (128, 96, 64, 48, 32, 24, 16, 12, 8, 6, 4)
    assert ladder(7) == (7,)
    assert ladder(1) == (1,)
    assert [fitting_size(rows, 64) for rows in (1, 8, 9, 33, 64, 65)] == [4, 8, 12, 48, 64, 64]
    rows = images_of(3)
    assert torch.equal(padded(rows, 8), rows[[0, 1, 2, 0, 1, 2, 0, 1]])  # its own rows: zeros would be foreign inputs


def test_progress_counts_up_to_all_samples() -> None:
    told = []
    plan = ATTACKS.get("superclass_pgd").plan(depth=1, layout=TREE, scoring="direct", settings={"restarts": 2})
    result = attack(
        NET, IMAGES, mostly_right(NET(IMAGES), 1, "direct"), plan, depth=1, scoring="direct", progress=told.append
    )
    finished = [at.finished for at in told]
    survivors = [at.survivors for at in told]
    assert finished[0] == result.clean_verdict.sum()
    assert finished == sorted(finished)
    assert finished[-1] == 60
    assert survivors == sorted(survivors, reverse=True)
    assert survivors[0] == result.searched.sum()
    assert survivors[-1] == (~result.verdict).sum()
    assert all(one.forwards <= two.forwards for one, two in itertools.pairwise(told))


def test_ctrl_c_passes_through() -> None:
    def interrupt(at: object) -> None:
        raise KeyboardInterrupt

    plan = ATTACKS.get("leaf_pgd").plan(depth=3, layout=TREE, scoring="rollup")
    with pytest.raises(KeyboardInterrupt):
        attack(NET, IMAGES, RIGHT, plan, progress=interrupt)
    assert torch.is_grad_enabled()


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_the_verified_image_is_the_searched_one_bit_for_bit(norm: str) -> None:
    searched: list[Tensor] = []

    def forward(pixels: Tensor) -> Tensor:
        searched.append(pixels.detach().clone())
        return NET(pixels)

    plan = [Stage("pgd", LeafObjective(), PGD(steps=6))]
    result = attack(forward, IMAGES[:20], RIGHT[:20], plan, norm=norm, batch_size=20)
    verified = searched.pop()
    assert torch.equal(verified, result.adversarial)
    seen = torch.cat(searched)
    for image in verified:
        assert bool((seen == image).flatten(1).all(dim=1).any())
