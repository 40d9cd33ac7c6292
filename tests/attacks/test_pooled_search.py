"""The worst case over all depths in one search: what it promises, and what it does not."""

from __future__ import annotations

import itertools
from fractions import Fraction

import numpy as np
import pytest
import torch
from attack_toys import TREE, Walk, conv_net, ids_of, images_of
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from hierbench.attacks.catalogue import ATTACKS
from hierbench.attacks.engine.attack import Stage, run_attack
from hierbench.attacks.engine.result import AttackResult
from hierbench.attacks.objectives.base import LeafObjective, NodeObjective, node_logits
from hierbench.attacks.optimisers.apgd import APGD
from hierbench.attacks.optimisers.base import Visit
from hierbench.attacks.optimisers.noise import NoiseSource
from hierbench.attacks.threat import ThreatModel
from hierbench.attacks.verdict import DepthsBroken, broken, coarsest_broken
from hierbench.evaluation.metrics import worst_case

NET = conv_net(TREE.width)
IMAGES = images_of(60)
LABELS = NET(IMAGES)[:, :8].argmax(dim=1)
LABELS[::7] = (LABELS[::7] + 3) % 8  # some are wrong on the clean image, at various depths


def attack(
    name: str, *, depth: int = 3, eps: Fraction = Fraction(5, 255), net: object = NET, **given: object
) -> AttackResult:
    spec = ATTACKS.get(name)
    return run_attack(
        net, IMAGES, LABELS, ids_of(60),
        plan=spec.plan(depth=depth, layout=TREE, scoring="rollup", settings=given), layout=TREE,
        threat=ThreatModel("linf", eps), depth=depth, scoring="rollup", batch_size=16, seed=0, dataset="toy",
        attack_name=name, pooled=spec.pools("rollup"),
    )  # fmt: skip


def test_it_is_as_strong_as_every_depth_attacked_by_itself() -> None:
    pooled = attack("multilevel_apgd").counted("rollup")
    members = [attack(name, depth=depth).counted("rollup") for depth in (1, 2, 3) for name in ("apgd-ce", "apgd-t")]
    apart = worst_case(np.stack(members))
    for depth in range(3):
        assert 5 < apart[:, depth].sum() < 60, "the radius must leave something to compare"
        assert pooled[:, depth].sum() >= apart[:, depth].sum() - 1


def test_its_one_image_breaks_the_coarsest_depth_that_was_found() -> None:
    result = attack("multilevel_apgd")
    clean = result.clean_broken["rollup"]
    verified = broken(NET(result.adversarial), LABELS, TREE, "rollup").numpy() | clean
    assert (result.counted("rollup") == verified).all()
    assert (verified[:, :-1] <= verified[:, 1:]).all(), "broken at a depth is broken at every deeper one"
    assert result.searched.tolist() == (~clean[:, 0]).tolist()
    assert not result.unverified.any()
    assert (result.adversarial[~torch.from_numpy(result.searched)] == IMAGES[~torch.from_numpy(result.searched)]).all()


def test_an_image_found_for_a_finer_depth_gives_way_to_a_coarser_one() -> None:
    """The walk breaks the leaf first and the superclass later: both stages see both, and the coarser one is kept."""

    def forward(pixels: Tensor) -> Tensor:
        logits = torch.zeros(len(pixels), TREE.width)
        moved = pixels.mean(dim=(1, 2, 3)) - 0.5
        logits[:, 0], logits[:, 1], logits[:, 3] = 0.05 - moved, 0.0, 3 * moved - 0.2
        return logits

    images, labels = torch.full((4, 1, 2, 2), 0.5), torch.zeros(4, dtype=torch.long)
    found = {}
    for depths in ((3,), (3, 1)):
        plan = [Stage(f"walk/d{d}", LeafObjective(), Walk(steps=12, stride=0.02), depth=d) for d in depths]
        result = run_attack(
            forward, images, labels, ids_of(4), plan=plan, layout=TREE, threat=ThreatModel("linf", Fraction(1, 2)),
            depth=3, scoring="rollup", batch_size=8, seed=0, dataset="toy", attack_name="walk", pooled=True,
        )  # fmt: skip
        found[depths] = result.broken["rollup"].all(axis=0).tolist()
    assert found == {(3,): [False, False, True], (3, 1): [True, True, True]}


def test_what_was_wrong_when_clean_stays_broken_whatever_the_image_shows() -> None:
    """The search at the coarsest depth moves the leaf back to the right one: that mends nothing."""

    def forward(pixels: Tensor) -> Tensor:
        logits = torch.zeros(len(pixels), TREE.width) - 1.0
        moved = pixels.mean(dim=(1, 2, 3)) - 0.5
        logits[:, 0], logits[:, 1], logits[:, 3] = 20 * moved, 0.05, 25 * moved - 1.0
        return logits

    images, labels = torch.full((4, 1, 2, 2), 0.5), torch.zeros(4, dtype=torch.long)
    plan = [Stage("walk/d1", NodeObjective(1, "rollup", "max"), Walk(steps=5, stride=0.02), depth=1)]
    result = run_attack(
        forward, images, labels, ids_of(4), plan=plan, layout=TREE, threat=ThreatModel("linf", Fraction(1, 2)), depth=3,
        scoring="rollup", batch_size=8, seed=0, dataset="toy", attack_name="walk", pooled=True,
    )  # fmt: skip
    assert result.clean_broken["rollup"].tolist() == [[False, False, True]] * 4
    assert result.searched.all()
    assert result.broken["rollup"].tolist() == [[False, False, False]] * 4, "the image shows the right leaf"
    assert result.counted("rollup").tolist() == [[False, False, True]] * 4
    assert not result.unverified.any()


def test_a_stage_leaves_out_samples_whose_depth_is_broken() -> None:
    """Coarse to fine: what the coarsest stage broke costs nothing afterwards."""
    full = attack("multilevel_apgd", eps=Fraction(80, 255))
    assert full.broken["rollup"][:, 0].mean() > 0.9
    alone = attack("apgd-ce", depth=1, eps=Fraction(80, 255))
    assert full.forwards < alone.forwards + 40 * 101


def test_a_hopeless_run_ends_early_and_costs_next_to_nothing_in_strength() -> None:
    found = {patience: attack("multilevel_apgd", patience=patience) for patience in (0, 8)}
    assert found[8].forwards < 0.75 * found[0].forwards
    worse = found[0].counted("rollup").sum(axis=0) - found[8].counted("rollup").sum(axis=0)
    assert (worse <= 1).all()


def test_patience_counts_what_a_window_gained() -> None:
    """A loss that rises by one a step: 22 in the first window, which is patience enough for 44 below 0, not for 50."""
    clean, threat = torch.full((2, 1, 1, 1), 0.5), ThreatModel("linf", Fraction(1, 10))
    noise = NoiseSource(seed=0, dataset="d", attack="a", sample_ids=("s", "t")).rows([0, 1], [0, 0])
    apgd = APGD(steps=100, patience=2.0)
    query, state = apgd.start(clean, threat, noise)
    ended = []
    for step in range(24):
        loss, steps = torch.tensor([-66.0 + step, -72.0 + step]), torch.full((2,), step)
        query, state = apgd.advance(Visit(query, clean, threat, loss, torch.ones_like(query), steps, noise), state)
        ended.append(state["done"].tolist())
    assert ended[22] == [False, True]
    assert not any(any(flags) for flags in ended[:22])


def test_roll_up_is_monotone_in_depth_and_logsumexp_decisions_are_not() -> None:
    levels = [[0, 0, 1, 1], [0, 1, 2, 3]]
    from hierbench.models.layout import NodeLayout

    pair = NodeLayout.from_levels(levels, direct=False)
    logits = torch.tensor([[2.0, -9.0, 1.9, 1.9]])  # the best leaf is 0; its node has less mass than the other
    label = torch.tensor([0])
    assert broken(logits, label, pair, "rollup").tolist() == [[False, False]]
    nodes = node_logits(logits, pair, depth=1, scoring="rollup", pooling="logsumexp")
    assert nodes.argmax(dim=1).tolist() == [1], "broken at depth 1 by mass, though not at the leaves"


def test_separately_run_attacks_need_not_be_monotone_in_depth() -> None:
    """One step at the leaves may miss what one step at the superclass hits: only the pooled worst case is monotone."""
    seen = set()
    for eps in range(1, 12):
        results = {}
        for depth in (1, 2, 3):
            plan = [Stage("pgd", NodeObjective(depth, "rollup", "max"), _one_step())]
            result = run_attack(
                NET, IMAGES, LABELS, ids_of(60), plan=plan, layout=TREE, threat=ThreatModel("linf", Fraction(eps, 255)),
                depth=depth, scoring="rollup", batch_size=16, seed=0, dataset="toy", attack_name="one",
            )  # fmt: skip
            results[depth] = result.verdict | result.clean_verdict
        seen |= {bool((results[coarse] & ~results[fine]).any()) for coarse, fine in ((1, 2), (2, 3))}
    assert True in seen


def _one_step() -> object:
    from hierbench.attacks.optimisers.pgd import PGD

    return PGD(steps=1, alpha="eps", start_at="clean")


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 5), st.integers(1, 12), st.integers(1, 4), st.randoms(use_true_random=False))
def test_the_worst_case_over_attacks(members: int, samples: int, depths: int, random: object) -> None:
    """Never above a member, never raised by another attack, the same in any order."""
    draws = np.array([random.random() < 0.5 for _ in range(members * samples * depths)])  # type: ignore[attr-defined]
    stack = draws.reshape(members, samples, depths)
    worst = worst_case(stack)
    robust = (~worst).mean(axis=0)
    assert (robust <= (~stack).mean(axis=1) + 1e-12).all()
    assert ((~worst_case(stack[:-1])).mean(axis=0) >= robust).all() if members > 1 else True
    for order in itertools.islice(itertools.permutations(range(members)), 6):
        assert (worst_case(stack[list(order)]) == worst).all()


@settings(max_examples=60, deadline=None)
@given(st.lists(st.floats(-5, 5, width=32), min_size=8, max_size=8), st.integers(0, 7))
def test_one_number_says_which_depths_are_broken(leaves: list[float], label: int) -> None:
    logits = torch.zeros(1, TREE.width)
    logits[0, :8] = torch.tensor(leaves)
    labels = torch.tensor([label])
    flags = broken(logits, labels, TREE, "rollup")
    level, exact = int(DepthsBroken.of(TREE).level(logits, labels)), int(coarsest_broken(flags))
    assert flags[0].tolist() == [depth >= exact for depth in (1, 2, 3)]
    if exact <= 3:
        own = TREE.node_of_leaf(exact) == TREE.node_of_leaf(exact)[label]
        lead = float(logits[0, :8].max() - logits[0, :8][own].max())
        assert level == (exact if lead > 2e-5 * float(logits[0, :8].abs().max()) else 4), "a tie is no success yet"
    else:
        assert level == 4


def test_a_search_does_not_stop_on_a_tie_that_another_batch_may_break_otherwise() -> None:
    """Kernels round by batch size: what leads by rounding alone is searched on, and then confirmed."""

    def forward(pixels: Tensor) -> Tensor:
        moved = pixels.mean(dim=(1, 2, 3)) - 0.5
        logits = torch.zeros(len(pixels), TREE.width)
        jitter = 1e-6 if torch.is_grad_enabled() else -1e-6  # the search, and its verification
        logits[:, 0], logits[:, 7] = 1.0, 1.0 + jitter + 0.02 * (moved - 0.05).clamp_min(0)
        return logits

    images, labels = torch.full((6, 1, 2, 2), 0.5), torch.zeros(6, dtype=torch.long)
    with torch.no_grad():
        clean_logits = forward(images)
    plan = [Stage("walk", LeafObjective(), Walk(steps=10, stride=0.02))]
    result = run_attack(
        forward, images, labels, ids_of(6), plan=plan, layout=TREE, threat=ThreatModel("linf", Fraction(1, 2)), depth=3,
        scoring="rollup", batch_size=8, seed=0, dataset="toy", attack_name="walk",
        clean_logits=clean_logits,
    )  # fmt: skip
    assert result.verdict.all()
    assert not result.unverified.any()


def test_a_model_that_answers_nan_is_broken_at_every_depth() -> None:
    def forward(pixels: Tensor) -> Tensor:
        logits = NET(pixels)
        return torch.where((pixels.mean(dim=(1, 2, 3)) > 0.505)[:, None], torch.nan, logits)

    result = attack("multilevel_apgd", net=forward, eps=Fraction(20, 255))
    odd = result.nonfinite
    assert odd.any()
    assert result.broken["rollup"][odd].any(axis=1).all()
    assert not result.unverified.any()


@pytest.mark.parametrize("wrong", [{"scoring": "direct"}, {"depth": 2}])
def test_pooling_needs_roll_up_and_the_leaves(wrong: dict[str, object]) -> None:
    arguments = {"depth": 3, "scoring": "rollup", **wrong}
    with pytest.raises(ValueError, match="pooled"):
        run_attack(
            NET, IMAGES, LABELS, ids_of(60), plan=[Stage("pgd", LeafObjective(), _one_step())], layout=TREE,
            threat=ThreatModel("linf", Fraction(1, 255)), batch_size=16, seed=0, dataset="toy", attack_name="x",
            pooled=True, **arguments,
        )  # fmt: skip
