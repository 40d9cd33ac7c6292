"""The authors' AutoAttack behind our interface: the same images, guarded, counted, and judged by us."""

from __future__ import annotations

import random
import sys
from fractions import Fraction

import numpy as np
import pytest
import torch
from attack_toys import PAIR, TREE, Linear, conv_net, ids_of, images_of
from torch import Tensor, nn

from hierbench.attacks.external.components import NAMES, listed, runnable
from hierbench.attacks.external.global_rng import preserved_rng
from hierbench.attacks.external.node_model import NodeModel
from hierbench.attacks.external.outcome import ExternalResult
from hierbench.attacks.external.pyautoattack import Budget, run_pyautoattack
from hierbench.attacks.threat import BALL_TOLERANCE, ThreatModel
from hierbench.errors import HierbenchError, InputError
from hierbench.models.layout import NodeLayout

pyautoattack = pytest.importorskip("pyautoattack")

NET = conv_net(TREE.width, seed=3)
IMAGES = images_of(40, seed=1)
LABELS = NET(IMAGES)[:, :8].argmax(dim=1)
LABELS[:4] = (LABELS[:4] + 1) % 8  # four are wrong on the clean image
EPS = {"linf": Fraction(3, 255), "l2": Fraction(1, 8)}
SHORT = Budget(steps=5, queries=15)


def attack(
    forward: object = NET,
    images: Tensor = IMAGES,
    labels: Tensor = LABELS,
    *,
    layout: NodeLayout = TREE,
    norm: str = "linf",
    eps: Fraction | None = None,
    depth: int = 3,
    scoring: str = "rollup",
    batch_size: int = 16,
    seed: int = 0,
    budget: Budget = SHORT,
    **others: object,
) -> ExternalResult:
    return run_pyautoattack(
        forward,
        images,
        labels,
        ids_of(len(images)),
        layout=layout,
        threat=ThreatModel(norm, EPS[norm] if eps is None else eps),
        depth=depth,
        scoring=scoring,
        batch_size=batch_size,
        seed=seed,
        budget=budget,
        **others,
    )


def by_hand(norm: str, attacks: list[str], model: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
    """What a user of the library would write: two targets, 40 queries, ten iterations of FAB."""
    adversary = pyautoattack.AutoAttack(
        model, norm={"linf": "Linf", "l2": "L2"}[norm], eps=float(EPS[norm]), seed=0, version="custom", attacks=attacks
    )
    adversary.apgd.n_restarts = adversary.fab.n_restarts = 1
    adversary.apgd_targeted.n_target_classes = adversary.fab.n_target_classes = 2
    adversary.square.n_queries, adversary.fab.n_iter = 40, 10
    return adversary.run_standard_evaluation(images.clone(), labels, batch_size=16)[0]


class Leaves(nn.Module):
    def forward(self, pixels: Tensor) -> Tensor:
        return NET(pixels)[:, :8]


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("attacks", [["apgd-ce", "apgd-dlr"], ["apgd-t"], ["fab", "fab-t", "square"]])
def test_it_is_the_library_s_own_result(norm: str, attacks: list[str]) -> None:
    images, labels = IMAGES[:24], LABELS[:24]
    with preserved_rng():
        reference = by_hand(norm, attacks, Leaves(), images, labels)
    budget = Budget(queries=40, targets=2, steps=10 if "fab" in attacks else None)
    result = attack(NET, images, labels, norm=norm, version="custom", attacks=attacks, budget=budget)
    theirs = (Leaves()(reference).argmax(dim=1) != labels).numpy()
    assert 6 <= theirs.sum() <= 20
    assert np.array_equal(result.verdict, theirs)
    changed = (reference != images).flatten(1).any(dim=1)
    assert torch.equal(result.adversarial[changed], reference[changed])
    assert np.array_equal(result.searched & theirs, changed.numpy())
    assert result.unverified.sum() == 0
    assert set(result.broken_by[changed.numpy()]) <= set(range(len(attacks)))
    assert (result.broken_by[~result.searched] == -1).all()


@pytest.mark.parametrize("version", ["standard", "plus", "rand"])
@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize(("depth", "scoring"), [(3, "rollup"), (2, "direct"), (1, "rollup"), (1, "direct")])
def test_every_version_runs_at_every_depth(version: str, norm: str, depth: int, scoring: str) -> None:
    logits = NET(IMAGES)
    labels = LABELS if scoring == "rollup" else TREE.node_of_leaf(depth).argsort()[logits.argmax(dim=1) % 8]
    result = attack(NET, IMAGES[:16], labels[:16], version=version, norm=norm, depth=depth, scoring=scoring)
    assert (result.linf if norm == "linf" else result.l2).max() <= float(EPS[norm]) + BALL_TOLERANCE
    assert result.verdict[result.clean_verdict].all()
    assert torch.equal(result.adversarial[~result.searched], IMAGES[:16][~result.searched])
    assert np.array_equal(result.searched, ~result.clean_verdict)
    assert result.engine.startswith("pyautoattack 0.")
    assert result.attack == f"pyautoattack:{version}"
    # What no attack broke comes back as the best point found, and its loss is higher.
    assert result.moved_share == 1.0
    assert result.raised_share == 1.0
    assert result.severity is None
    if depth == 1:
        assert "apgd-t" not in result.components
        assert "apgd-dlr" not in result.components
        assert result.substitutions
    elif version == "plus":
        assert result.components == ("apgd-ce", "apgd-dlr", "fab", "square", "apgd-t", "fab-t")
        assert result.settings["restarts"] == 5
    elif version == "standard":
        assert result.components == ("apgd-ce", "apgd-t", "fab-t", "square")
        assert result.settings["restarts"] == 1
    else:
        assert result.settings["eot"] == 20


def test_each_break_is_credited_to_the_attack_that_made_it() -> None:
    eps = Fraction(6, 255)
    alone = attack(version="custom", attacks=["apgd-ce"], eps=eps, budget=Budget(steps=2))
    both = attack(version="custom", attacks=["apgd-ce", "apgd-t"], eps=eps, budget=Budget(steps=2))
    newly = both.verdict & both.searched
    assert alone.verdict.sum() < both.verdict.sum()
    assert np.array_equal(both.broken_by == 0, alone.verdict & alone.searched)
    assert np.array_equal(both.broken_by == 1, newly & ~alone.verdict)
    assert (both.steps_used[both.broken_by == 0] == 2).all()
    assert (both.steps_used[~both.verdict] == 2 + 7 * 2).all()
    # The loss of what is left is that of the attack whose image it is: apgd-ce's cross-entropy.
    left = ~both.verdict
    logits = NET(both.adversarial)[:, :8]
    expected = torch.nn.functional.cross_entropy(logits, LABELS, reduction="none").numpy()
    assert left.any()
    assert np.allclose(both.final_loss[left], expected[left], atol=1e-5)
    assert not np.allclose(both.final_loss[both.broken_by == 1], expected[both.broken_by == 1], atol=1e-2)


# -- guards, each beside what the library does without it -----------------------------------------------------------


def raw(name: str, candidates: NodeModel, *, targets: int = 9) -> None:
    adversary = pyautoattack.AutoAttack(candidates, eps=0.01, seed=0, version="custom", attacks=[name])
    adversary.apgd_targeted.n_target_classes = adversary.fab.n_target_classes = targets
    nodes = candidates(IMAGES[:6]).argmax(dim=1)
    adversary.run_standard_evaluation(IMAGES[:6], nodes, batch_size=6)


@pytest.mark.parametrize("name", ["apgd-dlr", "apgd-t", "fab-t"])
def test_two_candidates_are_guarded(name: str) -> None:
    with pytest.raises(IndexError):
        raw(name, NodeModel(NET, TREE, depth=1, scoring="rollup"))
    result = attack(version="custom", attacks=[name], depth=1)
    assert result.components == (("fab-t",) if name == "fab-t" else ("apgd-ce",))
    assert bool(result.substitutions) == (name != "fab-t")
    assert result.settings["targets"] == 1


@pytest.mark.parametrize("name", ["apgd-t", "fab-t"])
def test_more_targets_than_wrong_candidates_are_guarded(name: str) -> None:
    with pytest.raises(IndexError):
        raw(name, NodeModel(NET, TREE, depth=2, scoring="rollup"))
    result = attack(version="custom", attacks=[name], depth=2)
    assert result.components == (name,)
    assert result.settings["targets"] == 4
    assert attack(version="custom", attacks=[name], depth=2, budget=Budget(steps=2, targets=2)).settings["targets"] == 2


def test_what_cannot_run_is_said_and_replaced() -> None:
    assert runnable(("apgd-ce", "apgd-t"), candidates=3, norm="linf", height=8).names == ("apgd-ce",)
    swapped = runnable(("apgd-t", "apgd-dlr"), candidates=2, norm="linf", height=8)
    assert swapped.names == ("apgd-ce",)
    assert len(swapped.substitutions) == 2
    assert runnable(("apgd-dlr",), candidates=3, norm="linf", height=8).names == ("apgd-dlr",)
    assert runnable(NAMES, candidates=4, norm="l2", height=5).names == NAMES
    assert runnable(("square", "apgd-ce"), candidates=4, norm="l2", height=4).names == ("apgd-ce",)
    with pytest.raises(InputError, match="5 pixels"):
        runnable(("square",), candidates=4, norm="l2", height=4)


def global_state() -> tuple[object, ...]:
    return (
        torch.get_rng_state().tolist(),
        np.random.get_state()[1].tolist(),
        random.getstate(),
        sys.gettrace(),
        dict(pyautoattack.checks.funcs),
        torch.is_grad_enabled(),
    )


class Dynamic(nn.Module):
    """Takes a gradient to answer, as purifying defences do."""

    def forward(self, pixels: Tensor) -> Tensor:
        with torch.enable_grad():
            inner = pixels.detach().requires_grad_()
            torch.autograd.grad(NET(inner).sum(), inner)
        return NET(pixels)


@pytest.mark.filterwarnings("ignore:it seems to be a dynamic")
def test_nothing_global_moves_though_the_library_moves_it() -> None:
    torch.manual_seed(11)
    before = global_state()
    result = attack(Dynamic())
    assert global_state() == before
    assert any("dynamic" in note for note in result.notes)
    assert not any("dynamic" in note for note in attack().notes)  # it does not stick to the next model
    with pytest.raises(RuntimeError, match="broken model"):
        attack(lambda pixels: (_ for _ in ()).throw(RuntimeError("broken model")))
    assert global_state() == before
    kept = dict(pyautoattack.checks.funcs)
    pyautoattack.checks.check_dynamic(NodeModel(Dynamic(), TREE, depth=3, scoring="rollup"), IMAGES)
    raw("apgd-ce", NodeModel(NET, TREE, depth=3, scoring="rollup"))
    after = global_state()
    assert after[0] != before[0]
    assert after[4] != before[4]
    pyautoattack.checks.funcs.update(kept)


def test_what_an_earlier_dynamic_model_left_in_the_library_does_not_stick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(pyautoattack.checks.funcs, "grad", 3)
    with pytest.warns(Warning, match="dynamic"):  # the library's own check, on a model that is not
        pyautoattack.checks.check_dynamic(NodeModel(NET, TREE, depth=3, scoring="rollup"), IMAGES)
    result = attack(version="custom", attacks=["apgd-ce"])
    assert not any("dynamic" in note for note in result.notes)
    assert pyautoattack.checks.funcs["grad"] == 3


def test_an_error_in_the_middle_leaves_nothing_behind() -> None:
    before, calls = global_state(), []

    def forward(pixels: Tensor) -> Tensor:
        calls.append(len(pixels))
        if len(calls) > 20:
            raise ValueError("out of thin air")
        return NET(pixels)

    with pytest.raises(HierbenchError, match="pyautoattack failed on 8 candidates: ValueError: out of thin air"):
        attack(forward)
    assert global_state() == before


def test_weights_get_no_gradients() -> None:
    net = conv_net(TREE.width, seed=3).requires_grad_(True)
    attack(net, version="custom", attacks=["fab", "fab-t"])
    assert all(weight.grad is None and weight.requires_grad for weight in net.parameters())


# -- cost -----------------------------------------------------------------------------------------------------------


def test_costs_are_counted_to_the_image_and_the_standard_budget_is_one_run() -> None:
    seen: list[int] = []

    def forward(pixels: Tensor) -> Tensor:
        seen.append(len(pixels))
        return NET(pixels)

    tiny = {"eps": Fraction(1, 255_000), "version": "custom", "attacks": ["apgd-ce"], "batch_size": 16}
    result = attack(forward, IMAGES[4:24], LABELS[4:24], budget=Budget(steps=6), **tiny)
    assert not result.verdict.any()
    # Ours: clean pass and verification, 16 + 4 rows for 20 images each. Theirs: five checks for randomness, one of the
    # range and one for dynamics on a batch; the clean pass; and in each batch the clean labels, the random start and
    # six steps, and the images found.
    theirs = 7 * 16 + 20 + 20 * (1 + 7 + 1)
    assert result.forwards == sum(seen) == 2 * 20 + theirs
    assert result.padding == 0
    assert result.backwards == result.gradients == 20 * 7
    assert (result.steps_used == 6).all()
    five = attack(forward, IMAGES[4:24], LABELS[4:24], budget=Budget(steps=6, restarts=5), **tiny)
    assert five.backwards == 5 * 20 * 7
    library_s_own = pyautoattack.AutoAttack(nn.Identity(), version="custom", attacks=["apgd-ce"])
    assert library_s_own.apgd.n_restarts == 5  # the quirk: without the guard, five times the budget


def test_steps_are_those_of_a_shorter_schedule() -> None:
    short = pyautoattack.AutoAttack(nn.Identity(), version="custom", attacks=["apgd-ce"]).apgd
    built = type(short)(nn.Identity(), n_iter=50, eps=0.1, norm="Linf", device="cpu")
    made: list[tuple[int, ...]] = []

    def spy(self: object, x: Tensor, y: Tensor) -> Tensor:
        made.append((self.n_iter, self.n_iter_2, self.n_iter_min, self.size_decr))
        return x

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(short), "perturb", spy)
        attack(version="custom", attacks=["apgd-ce"], budget=Budget(steps=50))
    assert set(made) == {(built.n_iter, built.n_iter_2, built.n_iter_min, built.size_decr)}


def test_square_counts_queries_and_takes_no_gradient() -> None:
    result = attack(version="custom", attacks=["square"], eps=Fraction(1, 255_000), budget=Budget(queries=25))
    assert result.backwards == 0
    assert (result.steps_used[result.searched] == 26).all()  # its first point comes on top
    assert result.zero_gradient_share is None


def test_zero_radius_runs_nothing() -> None:
    calls: list[int] = []
    result = attack(lambda pixels: (calls.append(len(pixels)), NET(pixels))[1], eps=Fraction(0))
    assert torch.equal(result.adversarial, IMAGES)
    assert calls == [16, 16, 8]
    assert not result.searched.any()
    assert result.moved_share is None
    assert np.isnan(result.final_loss).all()


def test_all_wrong_when_clean_runs_nothing() -> None:
    result = attack(labels=(NET(IMAGES)[:, :8].argmax(dim=1) + 1) % 8)
    assert result.verdict.all()
    assert result.backwards == 0


# -- verdicts are ours ----------------------------------------------------------------------------------------------


def returning(images: Tensor) -> object:
    return lambda self, x, y, batch_size: (images[: len(x)], None)


def test_outside_the_ball_nothing_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    maker = pyautoattack.AutoAttack
    monkeypatch.setattr(maker, "run_standard_evaluation", lambda self, x, y, batch_size: (1 - x, None))
    result = attack(eps=Fraction(1, 255_000))
    assert (NET(1 - IMAGES)[4:, :8].argmax(dim=1) != LABELS[4:]).any()  # outside, some would be broken
    assert result.outside == 36
    assert result.max_linf <= 1 / 255_000 + BALL_TOLERANCE
    assert not result.verdict[4:].any()
    assert result.unverified[4:].all()
    assert any("outside" in note for note in result.notes)


def test_images_that_are_not_finite_are_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    maker = pyautoattack.AutoAttack
    monkeypatch.setattr(maker, "run_standard_evaluation", lambda self, x, y, batch_size: (x * torch.nan, None))
    result = attack()
    assert torch.equal(result.adversarial, IMAGES)
    assert not result.verdict[4:].any()
    assert result.unverified[4:].all()
    assert result.nonfinite[4:].all()


def test_a_success_that_is_none_is_unverified(monkeypatch: pytest.MonkeyPatch) -> None:
    maker = pyautoattack.AutoAttack
    nudged = lambda self, x, y, batch_size: ((x + 1e-6).clamp(0, 1), None)  # noqa: E731
    monkeypatch.setattr(maker, "run_standard_evaluation", nudged)
    result = attack()
    assert not result.verdict[4:].any()
    assert result.unverified[4:].all()
    assert not result.unverified[:4].any()


def test_logsumexp_images_are_scored_again() -> None:
    result = attack(depth=1, pooling="logsumexp", version="custom", attacks=["apgd-ce"], eps=Fraction(8, 255))
    nodes = NodeModel(NET, TREE, depth=1, scoring="rollup", pooling="logsumexp")(result.adversarial).argmax(dim=1)
    lost = (nodes != TREE.node_of_leaf(1)[LABELS]).numpy()
    assert (lost != result.verdict).any()  # the library's stop rule and the verdict part ways on these images
    assert np.array_equal(result.verdict, result.broken["rollup"][:, 0])
    assert any("logsumexp" in note for note in result.notes)


def test_a_closed_form_is_met() -> None:
    net = Linear(2, seed=5)
    images = images_of(60, (1, 4, 4), seed=5) * 0.5 + 0.25  # so that the box never cuts the ball
    labels = net(images).argmax(dim=1)
    difference = (net.weight[1] - net.weight[0]) * (1 - 2 * labels[:, None])
    gap = (net(images).gather(1, labels[:, None]) - net(images).gather(1, 1 - labels[:, None]))[:, 0]
    eps = Fraction(1, 40)
    reachable = (float(eps) * difference.abs().sum(dim=1) > gap).numpy()
    result = attack(net, images, labels, layout=PAIR, depth=1, eps=eps, version="custom", attacks=["apgd-ce"])
    assert 10 < reachable.sum() < 50
    assert np.array_equal(result.verdict, reachable)


def test_masked_gradients_are_reported() -> None:
    result = attack(lambda pixels: NET(pixels).detach() + 0 * pixels.sum(), version="custom", attacks=["apgd-dlr"])
    assert result.zero_gradient_share == 1.0
    assert any("zero gradient" in note for note in result.notes)
    assert any("depend on the batch: 16" in note for note in result.notes)


def test_it_is_repeatable_and_the_seed_matters() -> None:
    budget = Budget(steps=3, queries=5)
    first, again, other = attack(budget=budget), attack(budget=budget), attack(budget=budget, seed=1)
    assert torch.equal(first.adversarial, again.adversarial)
    assert not torch.equal(first.adversarial, other.adversarial)


def test_progress_counts_survivors() -> None:
    told: list[object] = []
    result = attack(eps=Fraction(16, 255), progress=told.append)
    assert told[0].survivors == result.searched.sum()
    assert told[-1].survivors == (~result.verdict).sum()
    assert [at.survivors for at in told] == sorted((at.survivors for at in told), reverse=True)
    assert told[-1].forwards <= result.forwards


@pytest.mark.parametrize(
    ("version", "attacks", "message"),
    [
        ("custom", None, "needs attacks"),
        ("custom", ["apgd"], "did you mean 'apgd-t'|did you mean 'apgd-"),
        ("custom", ["square", "square"], "twice"),
        ("fast", None, "'fast' is unknown"),
        ("standard", ["square"], "names its own"),
    ],
)
def test_wrong_arguments_are_one_line(version: str, attacks: list[str] | None, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        listed(version, attacks)
    assert "\n" not in str(caught.value)


def test_a_budget_of_nothing_is_refused() -> None:
    with pytest.raises(InputError, match="queries 0"):
        Budget(queries=0)
