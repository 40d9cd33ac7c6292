"""APGD, FAB and Square: against brute force, closed forms and the authors' own code."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
import torch
from attack_toys import TREE, Linear, conv_net, ids_of, images_of
from torch import Tensor

from hierbench.attacks.catalogue import ATTACKS
from hierbench.attacks.engine.attack import Stage, run_attack
from hierbench.attacks.engine.batching import Cost
from hierbench.attacks.engine.passes import Passes
from hierbench.attacks.engine.result import AttackResult
from hierbench.attacks.objectives.base import NodeObjective
from hierbench.attacks.objectives.margins import MarginObjective, TargetedMarginObjective
from hierbench.attacks.optimisers.apgd import APGD
from hierbench.attacks.optimisers.base import Visit
from hierbench.attacks.optimisers.fab import FAB, onto_plane
from hierbench.attacks.optimisers.noise import NoiseSource
from hierbench.attacks.optimisers.square import Square
from hierbench.attacks.threat import ThreatModel
from hierbench.errors import HierbenchError, InputError
from hierbench.models.layout import NodeLayout

NET = conv_net(TREE.width)
IMAGES = images_of(64)
RIGHT = NET(IMAGES)[:, :8].argmax(dim=1)
RADIUS = {"linf": Fraction(6, 255), "l2": Fraction(1, 4)}


def attack(
    name: str, *, norm: str = "linf", depth: int = 3, eps: Fraction | None = None, **settings: object
) -> AttackResult:
    return run_attack(
        NET,
        IMAGES,
        RIGHT,
        ids_of(64),
        plan=ATTACKS.get(name).plan(depth=depth, layout=TREE, scoring="rollup", settings=settings),
        layout=TREE,
        threat=ThreatModel(norm, RADIUS[norm] if eps is None else eps),
        depth=depth,
        scoring="rollup",
        batch_size=32,
        seed=0,
        dataset="toy",
        attack_name=name,
    )


class Reference(torch.nn.Module):
    """Max-over-leaves node logits at one depth, as the authors' code wants its model."""

    def __init__(self, depth: int) -> None:
        super().__init__()
        self.owner = TREE.node_of_leaf(depth)
        self.nodes = TREE.nodes_at(depth)

    def forward(self, pixels: Tensor) -> Tensor:
        leaves = NET(pixels)[:, :8]
        return torch.stack([leaves[:, self.owner == node].amax(dim=1) for node in range(self.nodes)], dim=1)


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("name", ["apgd-ce", "apgd-dlr", "apgd-t", "fab-t", "square"])
@pytest.mark.parametrize("depth", [2, 3])
def test_no_weaker_than_the_authors_code(name: str, norm: str, depth: int) -> None:
    from pyautoattack import AutoAttack

    model, nodes = Reference(depth).eval(), TREE.node_of_leaf(depth)[RIGHT]
    state = torch.get_rng_state()
    theirs = AutoAttack(
        model,
        norm={"linf": "Linf", "l2": "L2"}[norm],
        eps=float(RADIUS[norm]),
        version="custom",
        attacks=[name],
        seed=0,
    )
    theirs.verbose = False
    theirs.apgd.n_restarts = theirs.fab.n_restarts = 1
    theirs.square.n_queries, theirs.fab.n_iter = 300, 30
    theirs.apgd_targeted.n_target_classes = theirs.fab.n_target_classes = min(9, TREE.nodes_at(depth) - 1)
    found = theirs.run_standard_evaluation(IMAGES, nodes, batch_size=64)[0]
    torch.set_rng_state(state)
    robust_theirs = int((model(found).argmax(dim=1) == nodes).sum())
    given = {"square": {"queries": 300}, "fab-t": {"steps": 30}}.get(name, {})
    robust_ours = int((~attack(name, norm=norm, depth=depth, **given).verdict).sum())
    assert 3 <= robust_theirs <= 61, "the radius must leave something to compare"
    assert robust_ours <= robust_theirs + 2


@pytest.mark.parametrize("name", ["apgd-ce", "apgd-t", "fab-t", "square", "autoattack"])
def test_every_part_finds_what_a_linear_model_hides(name: str) -> None:
    """A linear model's robust accuracy under linf is known: the margin against eps times the weights' l1 distance."""
    model, images = Linear(8, shape=(3, 8, 8)), images_of(64) * 0.5 + 0.25
    logits = model(images)
    labels = logits.argmax(dim=1)
    gaps = (logits.gather(1, labels[:, None]) - logits).abs()
    reach = (model.weight[labels][:, None] - model.weight[None]).abs().sum(dim=2)
    smallest = torch.where(reach > 0, gaps / reach, torch.inf).amin(dim=1)
    eps = Fraction(float(smallest.median())).limit_denominator(10_000)
    layout = NodeLayout.from_levels([list(range(8))], direct=False)
    settings = {"queries": 400} if name in ("square", "autoattack") else {}
    result = run_attack(
        model, images, labels, ids_of(64),
        plan=ATTACKS.get(name).plan(depth=1, layout=layout, scoring="rollup", settings=settings),
        layout=layout, threat=ThreatModel("linf", eps), depth=1, scoring="rollup",
        batch_size=32, seed=0, dataset="toy", attack_name=name,
    )  # fmt: skip
    breakable = (smallest < float(eps) * 0.98).numpy()
    safe = (smallest > float(eps) * 1.001).numpy()
    assert not result.verdict[safe].any(), "no attack breaks what cannot break"
    # Cross-entropy ascends towards several classes at once, and random search is slow: neither need find every one.
    assert result.verdict[breakable].mean() >= {"apgd-ce": 0.9, "square": 0.4}.get(name, 1.0)


def test_apgd_halves_its_step_and_returns_to_its_best_point() -> None:
    """A loss that a step of 2 eps always overshoots: only halved steps can raise it."""
    clean, threat = torch.full((1, 1, 2, 2), 0.5), ThreatModel("linf", Fraction(1, 10))
    noise = NoiseSource(seed=0, dataset="d", attack="a", sample_ids=("s",)).rows([0], [0])
    apgd = APGD(steps=40)
    query, state = apgd.start(clean, threat, noise)
    peak = clean + torch.tensor([[[[0.03, -0.07], [0.05, 0.0]]]])
    sizes, best = [], []
    for step in range(40):
        loss = -(query - peak).abs().sum(dim=(1, 2, 3))
        gradient = (peak - query).sign()
        query, state = apgd.advance(Visit(query, clean, threat, loss, gradient, torch.tensor([step]), noise), state)
        sizes.append(float(state["size"]))
        best.append(float(state["best_loss"]))
        assert float((query - clean).abs().max()) <= 0.1 + 1e-6
    assert sizes[0] == pytest.approx(0.2)
    assert sizes == sorted(sizes, reverse=True) and sizes[-1] < 0.02
    assert {round(0.2 / size) for size in sizes} <= {2**k for k in range(12)}
    assert best == sorted(best) and best[-1] > -0.03


def test_a_projection_is_the_shortest_shift_in_the_box() -> None:
    rng = np.random.default_rng(0)
    points, normal = rng.random((40, 6)), rng.normal(size=(40, 6))
    offset = (normal * points).sum(axis=1) - rng.normal(size=40) * 0.3
    for norm in ("linf", "l2"):
        shifts = onto_plane(*(torch.tensor(v) for v in (points, normal, offset)), norm=norm).numpy()
        assert ((points + shifts > -1e-9) & (points + shifts < 1 + 1e-9)).all()
        gap = (normal * (points + shifts)).sum(axis=1) - offset
        reachable = np.abs(gap) < 1e-9
        assert reachable.mean() > 0.7
        # Brute force: no point of a fine grid of shorter shifts reaches the plane.
        size = np.abs(shifts).max(axis=1) if norm == "linf" else np.linalg.norm(shifts, axis=1)
        excess = (normal * points).sum(axis=1) - offset
        for row in np.flatnonzero(reachable):
            shorter = rng.normal(size=(4000, 6))
            length = np.abs(shorter).max(axis=1) if norm == "linf" else np.linalg.norm(shorter, axis=1)
            shorter *= (0.97 * size[row] / length)[:, None]
            landed = np.clip(points[row] + shorter, 0, 1) @ normal[row] - offset[row]
            assert (np.sign(landed) == np.sign(excess[row])).all()


def test_fab_leaves_the_ball_but_nothing_outside_counts() -> None:
    seen: list[float] = []

    def forward(pixels: Tensor) -> Tensor:
        seen.append(float((pixels.detach()[:, None] - IMAGES[None]).abs().amax(dim=(2, 3, 4)).amin(dim=1).max()))
        return NET(pixels)

    threat = ThreatModel("linf", Fraction(1, 255))
    plan = [Stage("fab-t", TargetedMarginObjective(3, "rollup", kind="margin"), FAB(iterations=20, targets=7))]
    result = run_attack(
        forward, IMAGES, RIGHT, ids_of(64), plan=plan, layout=TREE, threat=threat, depth=3, scoring="rollup",
        batch_size=32, seed=0, dataset="toy", attack_name="fab",
    )  # fmt: skip
    assert max(seen) > 2 / 255, "it does look outside"
    assert result.linf.max() <= 1 / 255 + 1e-6
    assert not result.unverified.any()
    assert result.raised_share == 1.0


def test_square_needs_no_gradient_and_its_draws_are_the_samples_own() -> None:
    def forward(pixels: Tensor) -> Tensor:
        assert not torch.is_grad_enabled()
        return NET(pixels)

    def run(order: list[int], batch: int) -> dict[str, Tensor]:
        result = run_attack(
            forward, IMAGES[order], RIGHT[order], [ids_of(64)[i] for i in order],
            plan=[Stage("square", MarginObjective(3, "rollup"), Square(steps=150))], layout=TREE,
            threat=ThreatModel("linf", Fraction(6, 255)), depth=3, scoring="rollup", batch_size=batch, seed=0,
            dataset="toy", attack_name="square",
        )  # fmt: skip
        assert result.backwards == 0
        assert 5 < result.verdict.sum() < 60
        return {ids_of(64)[i]: result.adversarial[row] for row, i in enumerate(order)}

    one, other = run(list(range(64)), 32), run(list(range(63, -1, -1)), 32)
    assert all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_square_keeps_only_what_raises_the_loss(norm: str) -> None:
    threat, clean = ThreatModel(norm, RADIUS[norm]), images_of(6)
    noise = NoiseSource(seed=0, dataset="d", attack="a", sample_ids=tuple(ids_of(6))).rows(range(6), [0] * 6)
    square = Square(steps=300)
    query, state = square.start(clean, threat, noise)
    losses = []
    for step in range(300):
        loss = -(query - 0.4).square().sum(dim=(1, 2, 3))
        query, state = square.advance(Visit(query, clean, threat, loss, query, torch.full((6,), step), noise), state)
        losses.append(state["best_loss"].clone())
        assert float(threat.distances(query, clean).max()) <= float(threat.eps) + 1e-6
        assert ((query >= 0) & (query <= 1)).all()
    losses = torch.stack(losses)
    assert bool((losses[1:] >= losses[:-1]).all())
    assert bool((losses[-1] > losses[0] + 0.1).all())


def test_dlr_says_what_it_needs() -> None:
    logits, labels = torch.randn(4, TREE.width), torch.zeros(4, dtype=torch.long)
    with pytest.raises(InputError, match="depth 1 has 2 nodes: the dlr loss needs 3"):
        MarginObjective(1, "rollup", kind="dlr").aims(logits, labels, TREE)
    with pytest.raises(InputError, match="needs 4"):
        TargetedMarginObjective(1, "rollup").aims(logits, labels, TREE)


@pytest.mark.parametrize("scoring", ["rollup", "direct"])
def test_margin_losses_equal_numpy(scoring: str) -> None:
    rng = np.random.default_rng(1)
    logits = rng.normal(size=(20, TREE.width)) * 5
    labels = rng.integers(0, 8, size=20)
    for depth in (2, 3):
        owner = TREE.node_of_leaf(depth).numpy()
        if scoring == "direct" and depth < 3:
            nodes = logits[:, TREE.direct_columns(depth)]
        else:
            nodes = np.stack([logits[:, :8][:, owner == n].max(axis=1) for n in range(owner.max() + 1)], axis=1)
        truth = owner[labels]
        for row in range(20):
            z, t = nodes[row], truth[row]
            s = np.sort(z)[::-1]
            rival = max(v for k, v in enumerate(z) if k != t)
            given = (torch.tensor(logits[row : row + 1]), torch.tensor(labels[row : row + 1]))
            for kind, expected in (("margin", rival - z[t]), ("dlr", (rival - z[t]) / (s[0] - s[2] + 1e-12))):
                objective = MarginObjective(depth, scoring, kind=kind)
                aims = objective.aims(*given, TREE)[:, 0]
                assert float(objective.loss(given[0], aims, TREE)) == pytest.approx(expected, rel=1e-12)
            targeted = TargetedMarginObjective(depth, scoring, targets=2)
            aims = targeted.aims(*given, TREE)
            wrong = [k for k in np.argsort(-z, kind="stable") if k != t][:2]
            assert aims[0, :, 1].tolist() == wrong
            for run, target in enumerate(wrong):
                expected = (z[target] - z[t]) / (s[0] - 0.5 * (s[2] + s[3]) + 1e-12)
                assert float(targeted.loss(given[0], aims[:, run], TREE)) == pytest.approx(expected, rel=1e-12)


def test_a_model_that_draws_is_averaged_over() -> None:
    images, aims = IMAGES[:8], RIGHT[:8, None]
    objective = NodeObjective(3, "rollup", "max")
    shifts = [0.1 * images_of(8, seed=10 + k) for k in range(5)]
    turn = iter(shifts)
    passes = Passes(forward=lambda pixels: NET(pixels + next(turn)), layout=TREE, cost=Cost(), part=8)
    found = passes.at(images, objective, aims, gradient=True, eot=5)
    singles = [
        Passes(forward=lambda pixels, s=s: NET(pixels + s), layout=TREE, cost=Cost(), part=8).at(
            images, objective, aims, gradient=True
        )
        for s in shifts
    ]
    assert torch.allclose(found.gradient, torch.stack([one.gradient for one in singles]).mean(dim=0), atol=1e-7)
    assert torch.allclose(found.loss, torch.stack([one.loss for one in singles]).mean(dim=0))
    assert torch.equal(found.logits, singles[-1].logits)
    assert (passes.cost.forwards, passes.cost.backwards) == (40, 40)


def test_memory_that_runs_out_halves_what_goes_through_at_once() -> None:
    """The same answers in parts of three, the largest that fits; the parts are remembered."""
    sizes = []

    def forward(pixels: Tensor) -> Tensor:
        sizes.append(len(pixels))
        if len(pixels) > 3:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB")
        return NET(pixels)

    objective, aims = NodeObjective(3, "rollup", "max"), RIGHT[:12, None]
    passes = Passes(forward=forward, layout=TREE, cost=Cost(), part=12)
    small = passes.at(IMAGES[:12], objective, aims, gradient=True)
    whole = Passes(forward=NET, layout=TREE, cost=Cost(), part=12).at(IMAGES[:12], objective, aims, gradient=True)
    assert sizes == [12, 6, 3, 3, 3, 3]
    assert (passes.part, passes.halvings) == (3, 2)
    assert torch.allclose(small.logits, whole.logits, atol=1e-5)
    assert torch.allclose(small.gradient, whole.gradient, atol=1e-5)
    sizes.clear()
    passes.at(IMAGES[:4], objective, RIGHT[:4, None], gradient=False)
    assert sizes == [3, 1]

    def hopeless(pixels: Tensor) -> Tensor:
        raise RuntimeError("[enforce fail at alloc_cpu.cpp:1] DefaultCPUAllocator: can't allocate memory")

    with pytest.raises(HierbenchError, match="one image does not fit"):
        Passes(forward=hopeless, layout=TREE, cost=Cost(), part=4).at(IMAGES[:4], objective, aims[:4], gradient=True)

    def wrong(pixels: Tensor) -> Tensor:
        raise RuntimeError("shapes do not match")

    with pytest.raises(RuntimeError, match="shapes"):
        Passes(forward=wrong, layout=TREE, cost=Cost(), part=4).at(IMAGES[:4], objective, aims[:4], gradient=True)
