"""One perturbation for all images: that it is fitted as it says, on others, the same every time, and verified."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from attack_toys import LEVELS, TREE, Linear, conv_net, ids_of, images_of
from bound_toys import bound_model
from torch import Tensor

from hierbench.attacks.engine.attack import run_attack
from hierbench.attacks.engine.batching import Cost
from hierbench.attacks.named.adaptive import ADAPTIVE_ATTACKS
from hierbench.attacks.objectives.base import NodeObjective
from hierbench.attacks.objectives.margins import MarginObjective
from hierbench.attacks.optimisers.noise import NoiseSource
from hierbench.attacks.threat import ThreatModel
from hierbench.attacks.universal import Ascent, Fit, FitImages, Fitter, Given, fit_universal, in_ball
from hierbench.attacks.verdict import Criterion
from hierbench.errors import HierbenchError, InputError
from hierbench.models.layout import NodeLayout

SPECS = {spec.name: spec for spec in ADAPTIVE_ATTACKS}
CPU = torch.device("cpu")
LAYOUT = NodeLayout.from_levels(LEVELS, direct=False)
NET = conv_net(8, seed=1)
FIT, SCORED = images_of(48, seed=1), images_of(40, seed=2)


def labels_of(images: Tensor) -> Tensor:
    return NET(images).argmax(dim=1)


def fit(forward: object = NET, images: Tensor = FIT, labels: Tensor | None = None, *, eps: str = "16/255",
        norm: str = "linf", depth: int = 3, layout: NodeLayout = LAYOUT, objective: object = None, seed: int = 0,
        cost: Cost | None = None, batch_size: int = 16, **ascent: object) -> Fit:  # fmt: skip
    return fit_universal(
        forward,
        images,
        labels_of(images) if labels is None else labels,
        objective=objective or MarginObjective(depth=depth, scoring="rollup", confidence=0.0),
        criterion=Criterion(layout, depth, "rollup"),
        threat=ThreatModel(norm, Fraction(eps)),
        ascent=Ascent(**{"updates": 30, **ascent}),
        batch_size=batch_size,
        noise=NoiseSource(seed=seed, dataset="toy", attack="u", sample_ids=("universal",)),
        device=CPU,
        cost=cost or Cost(),
    )


def test_a_linear_model_s_best_perturbation_is_found() -> None:
    """With one true class and two logits, the margin's gradient is the same for every image: its sign is the answer."""
    layout = NodeLayout.from_levels([[0, 1]], direct=False)
    model = Linear(2)
    images = 0.5 + 0.2 * (images_of(64, (1, 4, 4)) - 0.5)  # far from the box
    labels = model(images).argmax(dim=1)
    zeros = images[labels == 0]
    objective = NodeObjective(depth=1, scoring="rollup", pooling="max")
    found = fit(model, zeros, labels[labels == 0], layout=layout, depth=1, objective=objective, eps="8/255", updates=60)
    best = 8 / 255 * (model.weight[1] - model.weight[0]).sign().view(1, 4, 4)
    torch.testing.assert_close(found.delta, best, rtol=0, atol=1e-6)
    assert found.images == len(zeros) and found.fooled == int((model(zeros + best).argmax(dim=1) == 1).sum())
    wanted = torch.nn.functional.cross_entropy(model(zeros + best), torch.zeros(len(zeros), dtype=torch.long))
    assert found.loss == pytest.approx(float(wanted), rel=1e-5) and found.loss > found.clean_loss


def test_a_pixel_that_the_box_clips_has_no_say() -> None:
    layout, model = NodeLayout.from_levels([[0, 1]], direct=False), Linear(2)
    images = 0.5 + 0.2 * (images_of(32, (1, 4, 4)) - 0.5)
    upward = (model.weight[1] - model.weight[0]).sign().view(4, 4)
    images[:, 0, 0, 0] = (upward[0, 0] + 1) / 2  # at the end of the range that the loss wants to leave
    labels = torch.zeros(len(images), dtype=torch.long)
    objective = NodeObjective(depth=1, scoring="rollup", pooling="max")
    found = fit(model, images, labels, layout=layout, depth=1, objective=objective, eps="8/255")
    reached = found.delta[0] * upward / (8 / 255)
    assert float(reached[0, 0]) < 0.999 and float(reached.flatten()[1:].min()) == pytest.approx(1.0)


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("depth", [1, 3])
def test_the_perturbation_is_in_the_ball_and_breaks_images_it_never_saw(norm: str, depth: int) -> None:
    eps = "24/255" if norm == "linf" else "1"
    found = fit(norm=norm, eps=eps, depth=depth)
    size = found.delta.abs().max() if norm == "linf" else found.delta.norm()
    assert 0 < float(size) <= float(Fraction(eps)) + 1e-6
    criterion, labels = Criterion(LAYOUT, depth, "rollup"), labels_of(SCORED)
    fooled = criterion.broken(NET((SCORED + found.delta).clamp(0, 1)), criterion.true_node(labels))[0].sum()
    sign = torch.from_numpy(np.random.default_rng(0).choice([-1.0, 1.0], size=FIT.shape[1:])).float()
    random = sign * float(Fraction(eps)) if norm == "linf" else sign / sign.norm()
    by_chance = criterion.broken(NET((SCORED + random).clamp(0, 1)), criterion.true_node(labels))[0].sum()
    assert fooled > by_chance


def test_the_best_look_is_kept_and_restarts_never_hurt() -> None:
    one, three = fit(restarts=1), fit(restarts=3)
    assert (three.fooled, three.loss) >= (one.fooled, one.loss)
    # a step so long that the perturbation jumps about: the last look is seldom the best
    assert fit(alpha="eps", updates=40).fooled >= fit(alpha="eps", updates=4).fooled


def test_images_that_are_wrong_when_clean_are_left_out() -> None:
    labels = labels_of(FIT)
    labels[:10] = (labels[:10] + 1) % 8
    found = fit(labels=labels)
    assert found.images == len(FIT) - 10
    same = fit(images=FIT[10:], labels=labels[10:])
    assert torch.equal(found.delta, same.delta) and found.fooled == same.fooled
    all_wrong = fit(labels=(labels_of(FIT) + 1) % 8)
    assert all_wrong.images == len(FIT)


def test_radius_0_is_the_zero_perturbation() -> None:
    found = fit(eps="0")
    assert not found.delta.any() and found.fooled == 0 and found.loss == found.clean_loss


def test_the_cost_is_counted_to_the_image() -> None:
    seen = []

    def counting(pixels: Tensor) -> Tensor:
        seen.append((len(pixels), pixels.requires_grad))
        return NET(pixels)

    cost = Cost()
    fit(counting, cost=cost, updates=10)
    assert cost.forwards == sum(size for size, _ in seen)
    assert cost.backwards == sum(size for size, graded in seen if graded) == 10 * 16
    assert cost.forwards == 48 + 10 * 16 + 10 * 48  # the clean pass, the updates, a look after each tenth


def test_a_fit_is_the_same_every_time_and_another_with_another_seed() -> None:
    torch.manual_seed(1)
    first = fit()
    state = torch.get_rng_state()
    torch.manual_seed(2)
    assert torch.equal(first.delta, fit().delta)
    assert not torch.equal(first.delta, fit(seed=1).delta)
    torch.manual_seed(1)
    assert torch.equal(torch.get_rng_state(), state), "the global generator was drawn from"


def test_in_ball() -> None:
    delta = torch.tensor([0.5, -0.2, 0.0]).view(1, 1, 1, 3)
    linf, l2 = (in_ball(delta, ThreatModel(norm, Fraction(1, 4))) for norm in ("linf", "l2"))
    assert linf.flatten().tolist() == [0.25, pytest.approx(-0.2), 0.0]
    assert float(l2.norm()) == pytest.approx(0.25) and torch.equal(
        in_ball(l2 * 0.5, ThreatModel("l2", Fraction(1, 4))), l2 * 0.5
    )
    assert not in_ball(torch.zeros(1, 1, 1, 3), ThreatModel("l2", Fraction(1, 4))).any()


# -- the attack ------------------------------------------------------------------------------------------------


def fitter_of(forward: object = NET, *, eps: str = "16/255", ids: tuple[str, ...] | None = None) -> Fitter:
    given = FitImages(FIT, labels_of(FIT), ids or tuple(f"fit-{i}" for i in range(len(FIT))))
    return Fitter(forward, given, ThreatModel("linf", Fraction(eps)), 0, "toy", 16, CPU)


def attack(fitter: Fitter, part: slice = slice(None), *, name: str = "superclass_uap", depth: int = 3,
           batch_size: int = 16, **settings: object) -> object:  # fmt: skip
    images, given = SCORED[part], {"updates": 20, **settings}
    return run_attack(
        NET, images, labels_of(images), ids_of(len(SCORED))[part], layout=LAYOUT, depth=depth, scoring="rollup",
        batch_size=batch_size, seed=0, threat=fitter.threat, dataset="toy", attack_name=name,
        plan=SPECS[name].plan(depth=depth, layout=LAYOUT, scoring="rollup", settings=given, fitter=fitter),
    )  # fmt: skip


def test_every_image_gets_the_one_perturbation_and_the_ordinary_verdict() -> None:
    fitter = fitter_of()
    result = attack(fitter)
    (found,) = fitter._found.values()
    wanted = fitter.threat.project(SCORED + found.delta, SCORED)
    torch.testing.assert_close(result.adversarial, wanted, rtol=0, atol=1e-7)
    assert np.array_equal(result.verdict, (NET(wanted).argmax(dim=1) != labels_of(SCORED)).numpy())
    assert 0 < result.verdict.sum() < len(SCORED)
    assert result.backwards == 0 and result.components == ("universal-ce",)


def test_chunks_and_batches_do_not_matter() -> None:
    whole, fitter = attack(fitter_of()), fitter_of()
    parts = [attack(fitter, slice(start, start + 9), batch_size=4) for start in range(0, len(SCORED), 9)]
    assert len(fitter._found) == 1, "it was fitted again for another chunk"
    assert torch.equal(torch.cat([part.adversarial for part in parts]), whole.adversarial)
    assert np.array_equal(np.concatenate([part.verdict for part in parts]), whole.verdict)


def test_a_fit_is_paid_for_once() -> None:
    fitter = fitter_of()
    attack(fitter)
    first, seconds = fitter.take_cost()
    assert first.forwards > 0 and first.backwards == 20 * 16 and seconds > 0
    attack(fitter)
    assert fitter.take_cost() == (Cost(), 0.0)
    attack(fitter, depth=1)
    assert fitter.take_cost()[0].backwards > 0, "another depth is another perturbation"
    uap = attack(fitter, name="uap")
    assert fitter.take_cost() == (Cost(), 0.0), "uap is superclass_uap at the leaves"
    assert torch.equal(uap.adversarial, attack(fitter_of()).adversarial)


def test_the_number_of_images_is_a_setting() -> None:
    fitter = fitter_of()
    attack(fitter, images=20)
    (found,) = fitter._found.values()
    assert found.images == 20


def test_direct_scoring_is_fitted_on_the_depth_s_own_logits() -> None:
    bound = bound_model("cosine")
    with torch.no_grad():
        own = bound(FIT)[:, TREE.direct_columns(1)].argmax(dim=1)
    labels = torch.where(own == 0, 0, 3)  # a leaf under each of the two nodes, so that depth 1 is right
    given = FitImages(FIT, labels, tuple(f"fit-{i}" for i in range(len(FIT))))
    fitter = Fitter(bound, given, ThreatModel("linf", Fraction(32, 255)), 0, "toy", 16, CPU)
    for scoring in ("direct", "rollup"):
        (stage,) = SPECS["superclass_uap"].plan(
            depth=1, layout=TREE, scoring=scoring, settings={"updates": 20}, fitter=fitter
        )
        assert stage.objective.scoring == scoring
    direct, rollup = fitter._found.values()
    assert direct.images == len(FIT) > rollup.images and direct.fooled > 0
    assert not torch.equal(direct.delta, rollup.delta)


def test_without_images_to_fit_on_it_is_refused() -> None:
    with pytest.raises(InputError, match="apart from those that are scored"):
        SPECS["uap"].plan(depth=3, layout=TREE, scoring="rollup")


def test_a_perturbation_of_another_shape_is_refused() -> None:
    optimiser = Given(Fit(torch.zeros(1, 4, 4), 0.0, 0.0, 1, 0))
    with pytest.raises(HierbenchError, match=r"\(1, 4, 4\)"):
        optimiser.start(SCORED[:2], ThreatModel("linf", Fraction(1, 255)), None)


def test_default_depths_and_wrong_settings() -> None:
    assert SPECS["uap"].default_depths(4) == (4,) and SPECS["superclass_uap"].default_depths(4) == (1, 2, 3, 4)
    for given in ({"updates": 0}, {"fit_on": "test"}, {"loss": "dlr"}, {"images": 0}):
        with pytest.raises(InputError):
            SPECS["uap"].settings(given)
    with pytest.raises(InputError, match="restarts 0"):
        Ascent(restarts=0)


# -- which images it is fitted on ------------------------------------------------------------------------------


def test_no_scored_image_is_fitted_on() -> None:
    from hierbench.datasets.load import load_images
    from hierbench.evaluation.fitting import fit_images

    for split in ("test", "heldout", "train"):
        scored = load_images("digits", split=split)
        given = fit_images(scored, dataset="digits", part="auto", count=2000)
        assert not set(given.ids) & set(scored.ids)
        assert len(given.ids) == len(given.images) == len(given.labels) > 100
        assert ("train" if split == "heldout" else "heldout") in given.source
        pixels = {image.numpy().tobytes() for image in scored.pixels(np.arange(len(scored))).float() / 255}
        shared = sum(image.numpy().tobytes() in pixels for image in given.images)
        assert shared == 0, "the same picture under two ids"


def test_the_rest_of_a_split_is_what_the_limit_leaves() -> None:
    from hierbench.datasets.load import load_images
    from hierbench.evaluation.fitting import fit_images

    scored = load_images("digits", limit=100)
    given = fit_images(scored, dataset="digits", part="rest", count=50)
    assert given.ids == load_images("digits", limit=150).ids[100:]
    assert not set(given.ids) & set(scored.ids) and "50 images of test" in given.source
    with pytest.raises(InputError, match="--limit"):
        fit_images(load_images("digits"), dataset="digits", part="rest", count=50)


def test_a_cell_of_its_own_from_start_to_record(tmp_path: Path) -> None:
    """Through ``prepare`` and ``victim``: nothing failed, the note says where it was fitted, the cost is counted."""
    from hierbench.evaluation.prepare import prepare_cell
    from hierbench.evaluation.request import Request
    from hierbench.evaluation.runner import run_cell

    settings = {"updates": 10, "images": 40}
    request = Request(
        dataset="digits", attack="superclass_uap", limit=40, settings=settings, batch_size=8, out=tmp_path
    )
    cell = prepare_cell(request)
    assert not set(cell.victim.fitter.given.ids) & set(cell.images.ids)
    seen: list[int] = []
    cell.victim.forward.register_forward_hook(lambda module, given, logits: seen.append(len(given[0])))
    record = run_cell(cell)
    assert record.cost.forwards == sum(seen), "the fit and the scoring are both in the cost"
    assert not record.checks.failed, record.checks.flags
    assert any("fitted on 40 images of heldout" in note for note in record.notes)
    assert record.cost.backwards == len(record.identity.attack.depths) * 10 * 8
