"""The angular gradient against NumPy, against plain PGD on a head without norms, and where norms mask it."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
import torch
from attack_toys import PAIR, TREE, ids_of, images_of
from bound_toys import ToyBound, ToyModel, bound_model, hyperbolic_head
from torch import Tensor, nn

from hierbench.attacks.engine.attack import run_attack
from hierbench.attacks.named.adaptive import ADAPTIVE_ATTACKS
from hierbench.attacks.named.pgd import PGD_ATTACKS
from hierbench.attacks.optimisers.angular import AngularForward, angular, without_radial
from hierbench.attacks.threat import ThreatModel
from hierbench.errors import InputError

ANGULAR = next(spec for spec in ADAPTIVE_ATTACKS if spec.name == "angular_pgd")
PLAIN = next(spec for spec in PGD_ATTACKS if spec.name == "superclass_pgd")
IMAGES = images_of(24)


def attacked(spec: object, bound: object, *, images: Tensor = IMAGES, labels: Tensor | None = None, depth: int = 3,
             layout: object = TREE, eps: str = "8/255", **settings: object) -> object:  # fmt: skip
    if labels is None:
        labels = bound(images)[:, : layout.num_leaves].argmax(dim=1)
    return run_attack(
        bound, images, labels, ids_of(len(images)), layout=layout, depth=depth, scoring="rollup", batch_size=16, seed=0,
        threat=ThreatModel("linf", Fraction(eps)), dataset="toy", attack_name="same name, same draws",
        plan=tuple(
            # one component name: both attacks then start from the same points
            type(stage)("one", stage.objective, stage.optimiser, stage.restarts, stage.depth, stage.eot, stage.forward)
            for stage in spec.plan(depth=depth, layout=layout, scoring="rollup", settings=settings, bound=bound)
        ),
    )  # fmt: skip


def test_the_radial_part_is_what_numpy_says() -> None:
    rng = np.random.default_rng(0)
    vectors, points = rng.normal(size=(9, 5)), rng.normal(size=(9, 5))
    got = without_radial(torch.from_numpy(vectors), torch.from_numpy(points)).numpy()
    for row, (vector, point) in enumerate(zip(vectors, points, strict=True)):
        # By an orthonormal basis whose first axis is the ray: the other coordinates stay, the first goes.
        basis, _ = np.linalg.qr(np.column_stack([point, np.eye(5)[:, :4]]))
        coordinates = basis.T @ vector
        coordinates[0] = 0.0
        np.testing.assert_allclose(got[row], basis @ coordinates, atol=1e-12)
        assert abs(got[row] @ point) < 1e-12


def test_a_huge_radial_part_leaves_no_rounding_behind() -> None:
    points = torch.randn(6, 64, generator=torch.Generator().manual_seed(0))
    small = without_radial(torch.randn(6, 64, generator=torch.Generator().manual_seed(1)), points)
    huge = small.double() + 1e9 * points.double()
    assert torch.allclose(without_radial(huge, points), small.double(), atol=1e-5)
    # the same in float32 would leave an error of the radial part's last bits
    in_float32 = (
        huge.float() - (huge.float() * points).sum(-1, keepdim=True) / points.pow(2).sum(-1, keepdim=True) * points
    )
    assert not torch.allclose(in_float32, small, atol=1e-1)


def test_a_point_at_the_origin_keeps_its_gradient() -> None:
    vectors = torch.randn(3, 4)
    points = torch.zeros(3, 4)
    points[1] = 1e-30
    found = without_radial(vectors, points)
    assert torch.equal(found[[0, 2]], vectors[[0, 2]])
    assert abs(float(found[1].sum())) < 1e-6


@pytest.mark.parametrize("kind", ["hyperbolic", "cosine"])
def test_the_forward_is_unchanged_bit_for_bit(kind: str) -> None:
    bound = bound_model(kind)
    assert torch.equal(AngularForward(bound)(IMAGES), bound(IMAGES))
    query = IMAGES.clone().requires_grad_()
    assert torch.equal(AngularForward(bound)(query).detach(), bound(IMAGES))


def gradient_of(forward: object, images: Tensor) -> Tensor:
    query = images.clone().requires_grad_()
    loss = nn.functional.cross_entropy(forward(query)[:, :8], torch.zeros(len(images), dtype=torch.long))
    return torch.autograd.grad(loss, query)[0]


def test_radial_at_the_tangent_vector_is_radial_at_the_embedding() -> None:
    bound = bound_model("hyperbolic")
    head = bound.model.head

    def at_the_tangent(pixels: Tensor) -> Tensor:
        tangent = angular(head.image_tangent(bound.model.embed(pixels)))
        return head.point_logits(head.to_ball(tangent), bound.points)

    with torch.no_grad():  # some are clipped, some are not
        norms = head.image_tangent(bound.model.embed(IMAGES)).norm(dim=-1)
    assert (norms < 2).any()
    torch.testing.assert_close(
        gradient_of(AngularForward(bound), IMAGES), gradient_of(at_the_tangent, IMAGES), rtol=1e-4, atol=1e-9
    )


def test_a_cosine_head_has_no_radial_gradient_and_a_hyperbolic_one_has() -> None:
    plain, same = (gradient_of(f, IMAGES) for f in (bound_model("cosine"), AngularForward(bound_model("cosine"))))
    torch.testing.assert_close(plain, same, rtol=1e-4, atol=1e-8)
    plain, other = (gradient_of(f, IMAGES) for f in (bound_model(), AngularForward(bound_model())))
    assert (plain - other).norm() > 0.1 * plain.norm()


def test_on_a_cosine_head_the_attack_is_plain_pgd() -> None:
    bound = bound_model("cosine")
    ours, plain = attacked(ANGULAR, bound), attacked(PLAIN, bound)
    assert 0 < plain.verdict.sum() < len(IMAGES)
    assert np.array_equal(ours.verdict, plain.verdict)
    assert torch.equal(ours.adversarial, plain.adversarial)
    hyperbolic = bound_model()
    assert not torch.equal(attacked(ANGULAR, hyperbolic).adversarial, attacked(PLAIN, hyperbolic).adversarial)


class Masked(nn.Module):
    """Two pixels: the first turns the embedding towards the other class and, far more strongly, lengthens it.

    The logits are the length times the cosine to each axis. Lengthening makes the right answer surer, so the loss falls
    along the way to the flip: the gradient says the opposite of where the flip is, until just before it.
    """

    def forward(self, pixels: Tensor) -> Tensor:
        moved = (pixels.flatten(1)[:, 0] - 0.5) * 255 / 8  # -1 .. 1 in the ball
        angle = torch.pi / 8 * (1 + 1.2 * moved)  # the flip is at pi / 4, at 0.83
        length = torch.exp(6.0 * moved)
        return torch.stack([length * torch.cos(angle), length * torch.sin(angle)], dim=1)


class AxisHead(nn.Module):
    """Inner products with the two axes."""

    def logits(self, embedding: Tensor, points: Tensor) -> Tensor:
        return embedding @ points.T


def masked_model() -> ToyBound:
    model = ToyModel(AxisHead(), Masked())  # type: ignore[arg-type]
    bound = ToyBound.__new__(ToyBound)
    nn.Module.__init__(bound)
    bound.model, bound.layout, bound.prompts, bound.points = model, PAIR, (("a", "b"),), torch.eye(2)
    return bound.eval()


@pytest.mark.parametrize("optimiser", ["pgd", "apgd"])
def test_a_norm_that_masks_the_flip_misleads_plain_gradients_only(optimiser: str) -> None:
    bound = masked_model()
    images = torch.full((8, 1, 1, 2), 0.5)
    labels = torch.zeros(8, dtype=torch.long)
    shared = {"images": images, "labels": labels, "depth": 1, "layout": PAIR, "start": "clean"}
    plain = attacked(PLAIN, bound, **shared)
    assert not plain.verdict.any(), "the plant must mislead PGD"
    assert (plain.adversarial[:, 0, 0, 0] < 0.5).all(), "and send it the other way"
    assert attacked(ANGULAR, bound, optimiser=optimiser, **shared).verdict.all()


def test_apgd_is_an_option_and_named() -> None:
    for optimiser, steps in (("pgd", 20), ("apgd", 50)):
        given = {"optimiser": optimiser, "steps": steps}
        (stage,) = ANGULAR.plan(depth=2, layout=TREE, scoring="direct", settings=given, bound=bound_model())
        assert stage.component == f"{optimiser}-angular-ce"
        assert type(stage.optimiser).__name__.lower() == optimiser and stage.optimiser.steps == steps
        assert stage.objective.depth == 2 and stage.objective.scoring == "direct"


@pytest.mark.parametrize("bound", [None, nn.Linear(2, 2)])
def test_a_forward_without_an_embedding_is_refused(bound: object) -> None:
    with pytest.raises(InputError, match="needs a model bound"):
        ANGULAR.plan(depth=3, layout=TREE, scoring="rollup", bound=bound)


def test_gradients_at_clipped_tangents_are_finite() -> None:
    bound = ToyBound(ToyModel(hyperbolic_head(), nn.Sequential(bound_model().model.embedder, Times(50.0))))
    found = gradient_of(AngularForward(bound), IMAGES)
    assert torch.isfinite(found).all() and bool((found != 0).any())


class Times(nn.Module):
    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, values: Tensor) -> Tensor:
        return values * self.factor
