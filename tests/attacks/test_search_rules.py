"""What a search keeps, when it stops, and what it does when model or optimiser misbehave: planted cases."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import pytest
import torch
from attack_toys import OURS, PAIR, TREE, Linear, Walk, Watched, conv_net, ids_of, images_of
from test_engine import EPS, IMAGES, NET, RIGHT, attack
from torch import Tensor, nn

from hierbench.attacks.catalogue import ATTACKS
from hierbench.attacks.engine.attack import run_attack
from hierbench.attacks.engine.precision import exact_float32
from hierbench.attacks.objectives.base import LeafObjective, NodeObjective, TargetedObjective
from hierbench.attacks.optimisers.base import Rows, Stage, Visit
from hierbench.attacks.optimisers.noise import RowNoise
from hierbench.attacks.optimisers.pgd import PGD, ascend
from hierbench.attacks.threat import ThreatModel
from hierbench.errors import HierbenchError, InputError
from hierbench.models.layout import NodeLayout

FULL = np.array([True])
PIXEL = torch.full((1, 1, 1, 1), 0.5)
ZERO = torch.zeros(1, dtype=torch.long)


def scalar_model(*columns: object) -> object:
    """A model of one-pixel images: each column a function of how far the pixel is above 0.5, in steps of 0.01."""

    def forward(pixels: Tensor) -> Tensor:
        steps = (pixels.flatten() - 0.5) / 0.01
        return torch.stack([column(steps) for column in columns], dim=1)

    return forward


def walked(result: object) -> float:
    return float((result.adversarial - PIXEL).item() / 0.01)


def walk(forward: object, *, layout: NodeLayout = PAIR, depth: int = 1, objective: object = None, **others: object):
    walker = Walk(steps=others.pop("steps", 8), stride=0.01, alternate=others.pop("alternate", False))
    restarts = others.pop("restarts", 1)
    stage = Stage("walk", objective or LeafObjective(), walker, restarts=restarts)
    return attack(forward, PIXEL, ZERO, [stage], layout=layout, depth=depth, eps=Fraction(1, 5), **others)


def peak(at: float, height: float, width: float = 1.0) -> object:
    return lambda steps: height - (steps - at).abs() / width


def level(height: float) -> object:
    return lambda steps: torch.full_like(steps, height) + 0.0 * steps


def test_the_first_success_is_kept_though_a_worse_image_follows() -> None:
    # Broken from step 3 on, most confidently at step 6.
    result = walk(scalar_model(level(0.0), peak(6, 3.5)))
    assert result.verdict.all()
    assert walked(result) == pytest.approx(3, abs=0.01)
    assert result.steps_used.tolist() == [3]
    assert result.severity is None


def test_full_budget_keeps_the_first_success_and_goes_on_for_severity() -> None:
    result = walk(scalar_model(level(0.0), peak(6, 3.5)), full_budget=FULL)
    assert walked(result) == pytest.approx(3, abs=0.01)
    assert result.steps_used.tolist() == [3]
    assert result.severity.mask.all()
    assert float((result.severity.images - PIXEL).item() / 0.01) == pytest.approx(6, abs=0.01)
    assert result.severity.predictions["rollup"].tolist() == [[1]]
    assert result.gradients == 8  # it did use the whole budget


def test_the_severe_image_is_a_mistake_though_a_right_answer_had_a_higher_loss() -> None:
    # The leaf loss is highest at step 7, where the sibling wins and the answer is right at depth 1; the mistake at
    # depth 1 is at step 2.
    layout = NodeLayout.from_levels([[0, 0, 1], [0, 1, 2]], direct=False)
    forward = scalar_model(level(0.0), peak(7, 6.0, 0.5), peak(2, 0.5))
    result = walk(forward, layout=layout, depth=1, full_budget=FULL)
    assert result.verdict.all()
    assert float((result.severity.images - PIXEL).item() / 0.01) == pytest.approx(2, abs=0.01)
    assert result.severity.predictions["rollup"][0, 0] == 1


def test_a_survivor_keeps_its_best_loss_not_its_last_iterate() -> None:
    result = walk(scalar_model(level(0.0), peak(4, -0.5)))
    assert not result.verdict.any()
    assert walked(result) == pytest.approx(4, abs=0.01)
    assert result.final_loss[0] == pytest.approx(np.log(1 + np.exp(-0.5)), abs=1e-4)
    assert result.steps_used.tolist() == [8]


def test_the_point_after_the_last_step_counts() -> None:
    forward = scalar_model(level(0.0), lambda steps: steps - 7.5)
    assert walk(forward, steps=8).verdict.all()
    assert not walk(forward, steps=7).verdict.any()


def test_the_start_counts() -> None:
    # One step is made, but the success is at the start itself: the random point of run 0.
    images = images_of(40, (1, 2, 2)) * 0.5 + 0.25
    model = Linear(2, shape=(1, 2, 2))
    labels = model(images).argmax(dim=1)
    # A PGD that may only walk back to where the start was: its gradient is that of a constant loss.
    stage = Stage("pgd", LeafObjective(), PGD(steps=1, alpha="1e-9"))
    result = attack(model, images, labels, [stage], layout=PAIR, depth=1, eps=Fraction(1, 4))
    at_start = result.steps_used[result.verdict & result.searched]
    assert len(at_start) > 3
    assert (at_start == 0).all()


def test_a_logsumexp_search_goes_on_while_the_leaf_still_rolls_up_right() -> None:
    # Leaf 0 alone in node 0 against three leaves: their sum overtakes at step 1, each of them only at step 5.
    layout = NodeLayout.from_levels([[0, 1, 1, 1], [0, 1, 2, 3]], direct=False)
    forward = scalar_model(level(0.0), *[lambda steps: 0.2 * (steps - 4.5)] * 3)
    objective = NodeObjective(depth=1, scoring="rollup", pooling="logsumexp")
    result = walk(forward, layout=layout, objective=objective)
    lost = [step for step in range(9) if 3 * np.exp(0.2 * (step - 4.5)) > 1]
    assert lost[0] == 0  # the objective's own arg-max is wrong from the start
    assert result.verdict.all()
    assert result.steps_used.tolist() == [5]
    assert walked(result) == pytest.approx(5, abs=0.01)


def test_restarts_run_until_one_succeeds() -> None:
    # Run 0 walks down, run 1 up; only up is wrong.
    forward = scalar_model(level(0.0), lambda steps: steps - 2.5)
    assert not walk(forward, alternate=True).verdict.any()
    result = walk(forward, alternate=True, restarts=2)
    assert result.verdict.all()
    assert result.steps_used.tolist() == [8 + 3]
    assert walk(forward, alternate=True, restarts=5).steps_used.tolist() == [8 + 3]


def test_among_runs_the_one_nearest_to_breaking_is_kept() -> None:
    # Neither run breaks: walking down ends at margin -1, walking up at -0.5.
    forward = scalar_model(level(0.0), lambda steps: torch.maximum(steps / 16 - 1.0, -steps / 8 - 2.0))
    result = walk(forward, alternate=True, restarts=2)
    assert not result.verdict.any()
    assert walked(result) == pytest.approx(8, abs=0.01)
    forward = scalar_model(level(0.0), lambda steps: torch.maximum(-steps / 16 - 1.0, steps / 8 - 2.0))
    result = walk(forward, alternate=True, restarts=2)
    assert walked(result) == pytest.approx(-8, abs=0.01)


def test_each_target_gets_its_own_run() -> None:
    # The strongest wrong leaf never rises, and running at it pushes the other one down; only the second target breaks.
    flat = NodeLayout.from_levels([[0, 1, 2]], direct=False)
    forward = scalar_model(level(0.0), level(-0.1), lambda steps: steps / 4 - 0.5)
    results = []
    for targets in (1, 2):
        objective = TargetedObjective(depth=1, scoring="rollup", pooling="max", targets=targets)
        plan = [Stage("t", objective, PGD(steps=5, start_at="clean"))]
        results.append(attack(forward, PIXEL, ZERO, plan, layout=flat, depth=1, eps=Fraction(1, 25)))
    assert not results[0].verdict.any()
    assert walked(results[0]) == pytest.approx(-4, abs=0.01)
    assert results[1].verdict.all()
    assert results[1].steps_used.tolist() == [5 + 3]
    # The loss told is that of the run which made the image: minus the cross-entropy of the second target.
    (logits,) = results[1].logits.tolist()
    assert results[1].final_loss[0] == pytest.approx(logits[2] - np.log(np.exp(logits).sum()), abs=1e-5)


def test_logits_that_are_odd_on_the_way_are_flagged_though_the_returned_image_has_none() -> None:
    forward = scalar_model(level(0.0), lambda steps: torch.where(steps > 5.5, torch.nan, steps - 2.5))
    result = walk(forward, full_budget=FULL)
    assert walked(result) == pytest.approx(3, abs=0.01)
    assert bool(torch.isfinite(result.logits).all())
    assert result.nonfinite.all()
    assert not walk(forward).nonfinite.any()


def test_a_second_stage_works_on_survivors_and_never_makes_it_worse() -> None:
    weak = Stage("weak", LeafObjective(), PGD(steps=1, alpha="1/2550"))
    watched = Watched(PGD(steps=20))
    strong = Stage("strong", LeafObjective(), watched)
    labels = RIGHT
    alone = attack(NET, IMAGES, labels, [weak])
    both = attack(NET, IMAGES, labels, [weak, strong])
    assert alone.verdict.sum() < both.verdict.sum()
    assert (alone.verdict <= both.verdict).all()
    assert (both.broken_by[alone.verdict] == 0).all()
    assert (both.broken_by[both.verdict & ~alone.verdict] == 1).all()
    assert torch.equal(both.adversarial[torch.from_numpy(alone.verdict)], alone.adversarial[alone.verdict])
    assert both.components == ("weak", "strong")
    assert sorted(watched.starts) == [(sample, 0) for sample in np.flatnonzero(~alone.verdict)]


def test_adding_an_attack_never_raises_robust_accuracy_and_the_order_never_matters() -> None:
    labels = RIGHT
    stages = [
        Stage("leaf", LeafObjective(), PGD(steps=4)),
        Stage("node", NodeObjective(depth=2, scoring="rollup", pooling="max"), PGD(steps=4)),
        Stage("lse", NodeObjective(depth=2, scoring="rollup", pooling="logsumexp"), PGD(steps=4)),
    ]
    alone = [attack(NET, IMAGES, labels, [stage], depth=2).verdict for stage in stages]
    worst = np.any(alone, axis=0)
    for order in ([0, 1, 2], [2, 1, 0], [1, 2, 0]):
        pooled = attack(NET, IMAGES, labels, [stages[index] for index in order], depth=2).verdict
        assert np.array_equal(pooled, worst)


# -- models that misbehave --------------------------------------------------------------------------------------


def test_an_attack_that_returns_the_clean_images_is_seen() -> None:
    @dataclass(frozen=True)
    class Nothing(PGD):
        def start(self, clean: Tensor, threat: ThreatModel, noise: RowNoise) -> tuple[Tensor, Rows]:
            return clean, {}

        def advance(self, visit: Visit, state: Rows) -> tuple[Tensor, Rows]:
            return visit.query, {}

    result = attack(NET, IMAGES, RIGHT, [Stage("nothing", LeafObjective(), Nothing())])
    assert not result.verdict.any()
    assert result.moved_share == 0.0
    assert result.raised_share == 0.0
    assert torch.equal(result.adversarial, IMAGES)


def test_an_attack_that_only_adds_noise_does_not_pass_for_one() -> None:
    @dataclass(frozen=True)
    class Noise(PGD):
        def advance(self, visit: Visit, state: Rows) -> tuple[Tensor, Rows]:
            return visit.query, {}

    result = attack(NET, IMAGES, RIGHT, [Stage("noise", LeafObjective(), Noise())], eps=Fraction(1, 255))
    assert result.moved_share == 1.0
    assert result.raised_share < 0.9


def test_an_attack_that_descends_is_seen() -> None:
    @dataclass(frozen=True)
    class Descend(PGD):
        def advance(self, visit: Visit, state: Rows) -> tuple[Tensor, Rows]:
            return ascend(visit.query, visit.clean, -visit.gradient, visit.threat, visit.threat.radius), {}

    plan = [Stage("down", LeafObjective(), Descend(start_at="clean"))]
    result = attack(NET, IMAGES, RIGHT, plan)
    assert result.raised_share < 0.1


def test_an_image_outside_the_ball_never_counts() -> None:
    @dataclass(frozen=True)
    class Leaper(PGD):
        def advance(self, visit: Visit, state: Rows) -> tuple[Tensor, Rows]:
            return visit.clean + 3 * visit.threat.radius, {}

    forward = scalar_model(level(0.0), lambda steps: steps - 7.5)  # wrong from 0.075 on
    plan = [Stage("leap", LeafObjective(), Leaper(start_at="clean"))]
    result = attack(forward, PIXEL, ZERO, plan, layout=PAIR, depth=1, eps=Fraction(1, 20))
    assert not result.verdict.any()
    assert result.unverified.all()
    assert result.max_linf <= 0.05 + 1e-6


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_an_optimiser_that_makes_odd_pixels_is_an_error_or_projected(bad: float) -> None:
    @dataclass(frozen=True)
    class Odd(PGD):
        def advance(self, visit: Visit, state: Rows) -> tuple[Tensor, Rows]:
            return torch.full_like(visit.query, bad), {}

    plan = [Stage("odd", LeafObjective(), Odd())]
    if np.isnan(bad):
        with pytest.raises(HierbenchError, match="not finite"):
            attack(NET, IMAGES, RIGHT, plan)
    else:
        assert attack(NET, IMAGES, RIGHT, plan).max_linf <= float(EPS["linf"]) + 1e-6


def test_masked_gradients_are_counted() -> None:
    class Rounding(nn.Module):
        def forward(self, pixels: Tensor) -> Tensor:
            return NET((pixels * 16).round() / 16)

    masked = attack(Rounding(), IMAGES, RIGHT, [Stage("pgd", LeafObjective(), PGD())])
    assert masked.zero_gradient_share == 1.0
    half = attack(
        lambda pixels: NET(torch.where(pixels[:, :1, :1, :1] > 0.5, pixels, (pixels * 16).round() / 16)),
        IMAGES,
        RIGHT,
        [Stage("pgd", LeafObjective(), PGD(steps=4, start_at="clean", alpha="1/2550"))],
        eps=Fraction(1, 2550),
    )
    expected = float((IMAGES[:, 0, 0, 0] <= 0.5).float().mean())
    assert half.zero_gradient_share == pytest.approx(expected, abs=0.06)


def test_logits_that_are_not_finite_count_as_broken_and_are_flagged() -> None:
    def forward(pixels: Tensor) -> Tensor:
        logits = NET(pixels)
        odd = pixels.flatten(1).mean(dim=1) > 0.5
        return torch.where(odd[:, None], torch.nan, logits)

    # Images 0..29 are below the edge and can be pushed over it; 30..59 are over it from the start.
    centred = IMAGES - IMAGES.flatten(1).mean(dim=1).view(-1, 1, 1, 1)
    shift = torch.where(torch.arange(60) < 30, 0.495, 0.52).view(-1, 1, 1, 1)
    images = (0.3 * centred + shift).clamp(0, 1)
    labels = NET(images)[:, :8].argmax(dim=1)
    walker = Stage("walk", LeafObjective(), Walk(steps=5, stride=0.002))
    result = attack(forward, images, labels, [walker], eps=Fraction(1, 10))
    assert result.nonfinite[30:].all()
    assert result.clean_verdict[30:].all()
    assert not result.searched[30:].any()
    assert torch.equal(result.adversarial[30:], images[30:])
    assert (result.clean_predictions["rollup"][30:] == -1).all()
    assert not result.clean_verdict[:30].any()
    pushed = result.nonfinite[:30] & result.verdict[:30]
    assert pushed.sum() > 20
    assert (result.predictions["rollup"][:30][pushed] == -1).all()
    assert np.isposinf(result.final_loss[:30][pushed]).all()
    assert result.raised_share == 1.0


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_gradients_that_are_not_finite_never_become_images(norm: str) -> None:
    class Root(nn.Module):
        """Finite logits whose gradient is NaN in one pixel."""

        def forward(self, pixels: Tensor) -> Tensor:
            flat = pixels.flatten(1)
            silent = torch.sqrt((flat[:, 0] * 0.0).abs())  # 0, with derivative 0 * inf
            return NET(pixels) + silent[:, None]

    result = attack(Root(), IMAGES, RIGHT, [Stage("pgd", LeafObjective(), PGD())], norm=norm)
    assert result.nonfinite_gradients == result.gradients > 0
    assert bool(torch.isfinite(result.adversarial).all())
    assert not result.nonfinite.any()
    assert 0 < result.verdict.sum() < 60


def test_a_success_that_the_verification_does_not_see_does_not_count() -> None:
    def forward(pixels: Tensor) -> Tensor:
        logits = NET(pixels)
        return logits.flip(1) if torch.is_grad_enabled() else logits  # wrong only while it is searched

    labels = RIGHT
    plan = [Stage("pgd", LeafObjective(), PGD(steps=3, alpha="1/255000"))]
    result = attack(forward, IMAGES, labels, plan, eps=Fraction(1, 255_000))
    assert result.unverified.sum() > 20
    assert not result.verdict.any()
    assert (result.broken_by == -1).all()


def test_half_precision_is_refused_and_autocast_is_switched_off() -> None:
    plan = [Stage("pgd", LeafObjective(), PGD(steps=3))]
    with pytest.raises(HierbenchError, match="float32"):
        attack(lambda pixels: NET(pixels).half(), IMAGES, RIGHT, plan)
    plain = attack(NET, IMAGES, RIGHT, plan)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = attack(NET, IMAGES, RIGHT, plan)
    assert torch.equal(plain.adversarial, inside.adversarial)


def test_tensor_float_is_off_inside_and_back_after() -> None:
    before = torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32
    assert before[0]  # the default, which rounds convolutions
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # autocast on a machine without the device
        with pytest.raises(KeyboardInterrupt), exact_float32(torch.device("cuda")):
            assert not torch.backends.cudnn.allow_tf32
            assert not torch.backends.cuda.matmul.allow_tf32
            assert torch.backends.cudnn.deterministic
            raise KeyboardInterrupt
    assert (torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32) == before
    assert not torch.backends.cudnn.deterministic


@pytest.mark.parametrize(
    ("change", "error", "said"),
    [
        ({"images": IMAGES * 255}, ValueError, r"lie in \[0, 1\]"),
        ({"images": IMAGES.double()}, ValueError, "float32"),
        ({"images": IMAGES[:0]}, ValueError, "n > 0"),
        ({"labels": torch.full((60,), 8)}, ValueError, "leaf indices below 8"),
        ({"labels": torch.zeros(3, dtype=torch.long)}, ValueError, "60 leaf indices"),
        ({"sample_ids": ["same"] * 60}, ValueError, "unique"),
        ({"plan": []}, ValueError, "no stage"),
        ({"plan": [Stage("a", LeafObjective(), PGD())] * 2}, ValueError, "one component name"),
        ({"batch_size": 0}, ValueError, "batch_size"),
        ({"full_budget": np.ones(3, dtype=bool)}, ValueError, "full_budget"),
        ({"depth": 4}, InputError, "depths 1 to 3"),
        ({"forward": conv_net(5)}, HierbenchError, "the tree wants 15"),
        ({"forward": lambda pixels: pixels.flatten()}, HierbenchError, r"want \[B, N\]"),
    ],
)
def test_arguments_that_do_not_fit_are_refused(change: dict[str, object], error: type[Exception], said: str) -> None:
    given = {
        "forward": NET,
        "images": IMAGES,
        "labels": RIGHT,
        "sample_ids": ids_of(60),
        "plan": [Stage("pgd", LeafObjective(), PGD())],
        "layout": TREE,
        "threat": ThreatModel("linf", Fraction(1, 255)),
        "depth": 3,
        "scoring": "rollup",
        "batch_size": 32,
        "seed": 0,
        "dataset": "toy",
        "attack_name": "test",
        **change,
    }
    with pytest.raises(error, match=said):
        run_attack(given.pop("forward"), given.pop("images"), given.pop("labels"), given.pop("sample_ids"), **given)


@pytest.mark.parametrize("name", OURS)
def test_a_depth_of_one_node_is_undefined_not_robust(name: str) -> None:
    layout = NodeLayout.from_levels([[0] * 8, list(range(8))], direct=True)
    if ATTACKS.get(name).leaf_only:
        return  # refused at any other depth: see test_catalogue
    plan = ATTACKS.get(name).plan(depth=1, layout=layout, scoring="rollup")
    with pytest.raises(InputError, match="robustness is undefined"):
        attack(NET, IMAGES, RIGHT, plan, layout=layout, depth=1)
