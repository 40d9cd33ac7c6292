"""Whole attacks on a toy whose weak spots are planted."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
import torch
from attacks.text.test_search import ListedSource
from attacks.text.text_toys import images_like, toy_bound, vector_of

from hierbench.attacks.engine.attack import run_attack
from hierbench.attacks.engine.chunk import Progress
from hierbench.attacks.engine.verify import judge
from hierbench.attacks.objectives.base import LeafObjective, NodeObjective
from hierbench.attacks.optimisers.base import Stage
from hierbench.attacks.optimisers.pgd import PGD
from hierbench.attacks.text.attacker import TextAttacker
from hierbench.attacks.text.coupled import CoupledObjective
from hierbench.attacks.text.outcome import TextAttackResult
from hierbench.attacks.text.settings import TextSettings
from hierbench.attacks.threat import ThreatModel
from hierbench.errors import InputError
from hierbench.models.binding import BoundModel
from hierbench.models.heads import Head, HyperbolicHead

CAT, OTTER, CAR, TRUCK, APPLE, PEAR = range(6)
LABELS = [CAT, CAR, APPLE, CAT, PEAR, TRUCK, OTTER, CAT, APPLE, CAR]
IDS = [f"sample-{index}" for index in range(len(LABELS))]

WEAK = {"kitty": 3 * vector_of("car")}
"""One of the synonyms of "cat" is encoded as a car, and so is further away than the others."""
SYNONYMS = {"cat": ("feline", "mouser", "kitty"), "animal": ("beast",), "truck": ("lorry",)}


def heads() -> list[Head | None]:
    return [None, HyperbolicHead(levels=2, m_image=2.0, m_text=12.0, tau=0.05)]


def attacker_of(settings: TextSettings, *, head: Head | None = None, breadth: int = 1) -> TextAttacker:
    return TextAttacker(toy_bound(WEAK, head=head), settings, source=ListedSource(SYNONYMS, breadth=breadth))


def run(attacker: TextAttacker, images: torch.Tensor | None = None, **changed: object) -> TextAttackResult:
    images = images if images is not None else images_like(attacker.bound, LABELS)
    arguments = {
        "depth": 2,
        "scoring": "rollup",
        "threat": ThreatModel("linf", Fraction(2, 255)),
        "batch_size": 4,
        "seed": 0,
        "dataset": "toys",
        "attack_name": "toy",
        **changed,
    }
    return attacker.run(images, arguments.pop("labels", LABELS), arguments.pop("ids", IDS), **arguments)  # type: ignore[arg-type]


def logits_with(bound: BoundModel, images: torch.Tensor, texts: dict[str, str]) -> torch.Tensor:
    """The logits where some prompts read otherwise, by the model's own path from text to logits."""
    leaf, coarse = (
        bound.model.node_points([texts.get(prompt, prompt) for prompt in bound.prompts[d - 1]], steps_above_leaf=2 - d)
        for d in (2, 1)
    )
    return bound.model(images, torch.cat([leaf, coarse]))


def pgd_plan(steps: int = 5, *, depth: int = 2) -> list[Stage]:
    objective = NodeObjective(depth=depth, scoring="rollup", pooling="max")
    return [Stage("pgd-node-ce", objective, PGD(steps=steps))]


# -- words ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("head", heads(), ids=["cosine", "hyperbolic"])
def test_the_planted_synonym_is_found_and_breaks_its_class(head: Head | None) -> None:
    attacker = attacker_of(TextSettings(scope="true", span="class_name"), head=head)
    found = run(attacker)
    assert [p.new for p in attacker.level(2).prompts] == ["kitty", "", "", "lorry", "", ""]
    assert not found.result.clean_verdict.any()
    cats = np.array(LABELS) == CAT
    assert found.result.verdict[cats].all()
    assert not found.result.verdict[~cats & (np.array(LABELS) != TRUCK)].any()
    assert (found.result.broken_by == np.where(found.result.verdict, 0, -1)).all()


@pytest.mark.parametrize("head", heads(), ids=["cosine", "hyperbolic"])
@pytest.mark.parametrize("scope", ["all", "true"])
@pytest.mark.parametrize(
    ("depth", "scoring", "given"), [(2, "rollup", False), (2, "rollup", True), (1, "direct", False)]
)
def test_logits_are_those_of_the_attacked_prompts(
    head: Head | None, scope: str, depth: int, scoring: str, given: bool
) -> None:
    attacker = attacker_of(TextSettings(scope=scope), head=head)  # type: ignore[arg-type]
    bound, images = attacker.bound, images_like(attacker.bound, LABELS)
    clean = bound(images) if given else None
    found = run(attacker, images, clean_logits=clean, depth=depth, scoring=scoring).result
    texts = {prompt.clean: prompt.text for prompt in attacker.level(depth).prompts}
    assert any(old != new for old, new in texts.items())
    for row, label in enumerate(LABELS):
        own = bound.prompts[depth - 1][int(bound.layout.node_of_leaf(depth)[label])]
        read = texts if scope == "all" else {own: texts[own]}
        expected = logits_with(bound, images[row : row + 1], read)[0]
        torch.testing.assert_close(found.logits[row], expected, rtol=1e-4, atol=1e-4)
    expected_verdicts = judge(found.logits, torch.tensor(LABELS), bound.layout)
    for name, broken in expected_verdicts.broken.items():
        assert (found.broken[name] == broken.numpy()).all()
    torch.testing.assert_close(found.clean_logits, bound(images))


def test_scope_true_leaves_the_other_columns_bit_for_bit() -> None:
    attacker = attacker_of(TextSettings(scope="true"))
    found = run(attacker).result
    same = found.logits == found.clean_logits
    changed = attacker.level(2).changed
    for row, label in enumerate(LABELS):
        others = np.arange(same.shape[1]) != label
        assert same[row][torch.from_numpy(others)].all()
        assert bool(same[row, label]) == (not changed[label])


def test_direct_scoring_attacks_the_depths_own_prompts() -> None:
    attacker = attacker_of(TextSettings())
    found = run(attacker, depth=1, scoring="direct")
    assert found.text.depth == 1
    assert attacker.level(1).prompts[0].text == "This is a photo of an beast."  # the toy source keeps the article
    leaves = attacker.bound.layout.num_leaves
    assert torch.equal(found.result.logits[:, :leaves], found.result.clean_logits[:, :leaves])
    assert not torch.equal(found.result.logits, found.result.clean_logits)
    assert (found.result.broken["rollup"] == found.result.clean_broken["rollup"]).all()
    leaf = run(attacker, depth=1, scoring="rollup")
    assert leaf.text.depth == 2
    coarse = slice(leaves, None)
    assert torch.equal(leaf.result.logits[:, coarse], leaf.result.clean_logits[:, coarse])
    assert (leaf.result.broken["rollup"] == run(attacker).result.broken["rollup"]).all()


def test_where_nothing_can_be_said_otherwise_it_is_counted_and_not_called_an_attack() -> None:
    found = run(attacker_of(TextSettings(scope="true", span="class_name")))
    attackable = np.isin(LABELS, [CAT, TRUCK])
    assert (found.text.attackable == attackable).all()
    assert (found.result.moved == attackable).all()
    assert found.unattackable == int((~attackable).sum())
    assert (found.result.raised == attackable).all()
    assert (found.result.final_loss[~attackable] == 0).all()
    everyone = run(attacker_of(TextSettings(scope="all", span="class_name")))
    assert everyone.text.attackable.all()
    assert everyone.unattackable == 0


def test_the_pixels_stay_and_their_distances_are_zero() -> None:
    attacker = attacker_of(TextSettings())
    images = images_like(attacker.bound, LABELS)
    found = run(attacker, images).result
    assert torch.equal(found.adversarial, images)
    assert found.max_linf == found.max_l2 == 0.0
    assert found.searched.all()
    assert (found.gradients, found.backwards) == (0, 0)


def test_clean_mistakes_are_not_attacked_and_count_as_broken() -> None:
    attacker = attacker_of(TextSettings(scope="true"))
    images = images_like(attacker.bound, [*LABELS[:-1], PEAR])  # the last is labelled a car
    found = run(attacker, images).result
    assert found.clean_verdict[-1]
    assert not found.searched[-1]
    assert np.isnan(found.final_loss[-1])
    assert found.verdict[-1]


def test_chunks_and_repeats_change_nothing() -> None:
    whole = run(attacker_of(TextSettings())).result
    attacker = attacker_of(TextSettings())
    images = images_like(attacker.bound, LABELS)
    for rows in (slice(0, 4), slice(4, 10)):
        part = run(attacker, images[rows], labels=LABELS[rows], ids=IDS[rows]).result
        assert (part.verdict == whole.verdict[rows]).all()
        torch.testing.assert_close(part.logits, whole.logits[rows])
    forwards = attacker.bound.model.text_forwards
    run(attacker, images)
    assert attacker.bound.model.text_forwards == forwards  # the prompts are attacked once


def test_severity_is_that_of_the_samples_asked_for() -> None:
    full = np.arange(10) < 4
    found = run(attacker_of(TextSettings(scope="true")), full_budget=full).result
    assert found.severity is not None
    assert (found.severity.mask == full).all()
    assert (found.severity.predictions["rollup"] == found.predictions["rollup"]).all()
    assert run(attacker_of(TextSettings())).result.severity is None


def test_progress_is_told() -> None:
    told: list[Progress] = []
    for settings, plan in (
        (TextSettings(), ()),
        (TextSettings(source="continuous"), ()),
        (TextSettings(images="coupled", scope="true"), pgd_plan()),
    ):
        told.clear()
        found = run(attacker_of(settings), plan=plan, progress=told.append).result
        assert told[-1].samples == told[-1].finished == 10
        assert told[-1].survivors == int((~found.verdict).sum())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"source": "thesaurus"}, "source 'thesaurus' is unknown: use wordnet or"),
        ({"span": "noun"}, "span 'noun' is unknown: use any or class_name"),
        ({"text_eps": -1.0}, "text_eps -1.0 is too small"),
        ({"text_eps": float("nan")}, "text_eps nan is too small"),
        ({"text_steps": 0}, "text_steps 0 is too small: at least 1"),
        ({"source": "continuous", "images": "coupled"}, "leaves the images clean"),
    ],
)
def test_wrong_settings_are_one_line(settings: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        TextSettings(**settings)  # type: ignore[arg-type]


def test_arguments_that_do_not_fit_are_refused() -> None:
    attacker = attacker_of(TextSettings())
    with pytest.raises(ValueError, match="labels must be"):
        run(attacker, labels=[0] * 9)
    with pytest.raises(ValueError, match="unique ids"):
        run(attacker, ids=["a"] * 10)
    with pytest.raises(InputError, match="depth 3 does not exist"):
        run(attacker, depth=3)
    with pytest.raises(ValueError, match="needs the image attack's plan"):
        run(attacker_of(TextSettings(images="coupled")))


# -- features ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("head", heads(), ids=["cosine", "hyperbolic"])
@pytest.mark.parametrize("scope", ["all", "true"])
@pytest.mark.parametrize(("depth", "scoring"), [(2, "rollup"), (1, "direct")])
def test_a_small_radius_gains_what_the_gradient_promises(
    head: Head | None, scope: str, depth: int, scoring: str
) -> None:
    """For a radius this small the best loss is the clean one plus eps times the gradient's l1 norm."""
    eps = 1e-4
    settings = TextSettings(source="continuous", scope=scope, text_eps=eps)  # type: ignore[arg-type]
    attacker = attacker_of(settings, head=head)
    bound, model = attacker.bound, attacker.bound.model
    images = images_like(bound, LABELS, depth=depth)
    found = run(attacker, images, depth=depth, scoring=scoring)
    assert found.result.searched.sum() >= 8
    projected = (model.text_hidden(bound.prompts[depth - 1]) @ model.text_projection).detach()
    length = projected.norm(dim=1, keepdim=True)
    for row in np.flatnonzero(found.result.searched & ~found.result.verdict).tolist():
        node = int(bound.layout.node_of_leaf(depth)[LABELS[row]])
        delta = torch.zeros_like(projected, requires_grad=True)
        used = delta if scope == "all" else delta * (torch.arange(len(projected)) == node)[:, None]
        points = model.head.points(length * (projected / length + used), 2 - depth)
        loss = torch.nn.functional.cross_entropy(
            model.logits(model.embed(images[row : row + 1]), points), torch.tensor([node])
        )
        (gradient,) = torch.autograd.grad(loss, delta)
        promised = float(eps * gradient.abs().sum())
        gained = float(found.result.final_loss[row] - found.result.clean_loss[row])
        assert gained == pytest.approx(promised, rel=0.05, abs=2e-5)
        assert float(found.result.clean_loss[row]) == pytest.approx(float(loss.detach()), rel=1e-3, abs=1e-5)
        assert found.text.linf[row] == pytest.approx(eps, rel=1e-3)


@pytest.mark.parametrize("head", heads(), ids=["cosine", "hyperbolic"])
@pytest.mark.parametrize(("depth", "scoring"), [(2, "rollup"), (1, "rollup"), (1, "direct")])
@pytest.mark.parametrize("scope", ["all", "true"])
def test_a_large_radius_breaks_everything(head: Head | None, depth: int, scoring: str, scope: str) -> None:
    settings = TextSettings(source="continuous", scope=scope, text_eps=0.6, text_steps=40)  # type: ignore[arg-type]
    found = run(attacker_of(settings, head=head), depth=depth, scoring=scoring)
    searched = found.result.searched
    assert searched.any()
    # Under roll-up one moved leaf does not lose a depth whose node has another leaf near by.
    if scope == "all" or (depth, scoring) != (1, "rollup"):
        assert found.result.verdict[searched].all()
    assert (found.text.linf <= 0.6 + 1e-6).all()
    assert found.text.depth == (1 if scoring == "direct" else 2)
    assert found.result.raised[searched].all()
    assert not found.result.unverified.any()
    assert (found.result.steps_used[searched] >= 1).all()


def test_radius_zero_moves_nothing() -> None:
    found = run(attacker_of(TextSettings(source="continuous", text_eps=0.0)))
    assert not found.result.verdict.any()
    assert not found.result.moved.any()
    assert not found.text.attackable.any()
    torch.testing.assert_close(found.result.logits, found.result.clean_logits)


def test_small_batches_find_the_same_features() -> None:
    settings = TextSettings(source="continuous", text_eps=0.02)
    one, two = (run(attacker_of(settings), batch_size=size) for size in (2, 10))
    assert (one.result.verdict == two.result.verdict).all()
    np.testing.assert_allclose(one.result.final_loss, two.result.final_loss, rtol=1e-4, atol=1e-5)


# -- image and text ------------------------------------------------------------------------------------------------


def test_the_coupled_objective_is_the_papers() -> None:
    stream = np.random.default_rng(0)

    def softmax(x: np.ndarray) -> np.ndarray:
        return np.exp(x) / np.exp(x).sum()

    def unit(x: np.ndarray) -> np.ndarray:
        return x / np.linalg.norm(x)

    clean, text = ([unit(stream.normal(size=7)) for _ in range(3)] for _ in range(2))
    moved = [unit(stream.normal(size=7)) for _ in range(2)]
    objective = CoupledObjective(4, torch.tensor(np.stack(clean)), torch.tensor(np.stack(text)), 3.0)
    bound = toy_bound()
    aims = objective.aims(torch.zeros(3, 11), torch.tensor([0, 1, 2]), bound.layout)
    assert aims.tolist() == [[[0]], [[1]], [[2]]]
    rows = [2, 0]
    logits = torch.tensor(np.concatenate([stream.normal(size=(2, 4)), np.stack(moved)], axis=1))
    found = objective.loss(logits, aims[rows, 0], bound.layout)
    expected = []
    for row, now in zip(rows, moved, strict=True):
        q = softmax(now)
        terms = [(p * np.log(p / q)).sum() for p in (softmax(clean[row]), softmax(text[row]))]
        expected.append(terms[0] + 3.0 * terms[1])
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-9)


@pytest.mark.parametrize("scope", ["all", "true"])
@pytest.mark.parametrize("images_kind", ["independent", "coupled"])
def test_pairs_are_judged_with_the_attacked_prompts(scope: str, images_kind: str) -> None:
    attacker = attacker_of(TextSettings(images=images_kind, scope=scope))  # type: ignore[arg-type]
    bound, images = attacker.bound, images_like(attacker.bound, LABELS)
    found = run(attacker, images, plan=pgd_plan(), full_budget=np.arange(10) < 3).result
    texts = {prompt.clean: prompt.text for prompt in attacker.level(2).prompts}
    for row, label in enumerate(LABELS):
        own = bound.prompts[1][label]
        read = texts if scope == "all" else {own: texts[own]}
        expected = logits_with(bound, found.adversarial[row : row + 1], read)[0]
        torch.testing.assert_close(found.logits[row], expected, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(found.clean_logits, bound(images))
    assert found.logits.shape[1] == bound.layout.width
    assert found.components[0] == "listed"
    assert 0 < found.max_linf <= 2 / 255 + 1e-6
    assert found.severity is not None
    assert (found.severity.mask == (np.arange(10) < 3)).all()
    assert (np.asarray(found.broken_by) >= 0).sum() == int((found.verdict & found.searched).sum())
    if images_kind == "independent":
        alone = run_attack(
            bound, images, torch.tensor(LABELS), IDS, plan=pgd_plan(), layout=bound.layout,
            threat=ThreatModel("linf", Fraction(2, 255)), depth=2, scoring="rollup", batch_size=4, seed=0,
            dataset="toys", attack_name="toy", full_budget=np.arange(10) < 3,
        )  # fmt: skip
        assert torch.equal(found.adversarial, alone.adversarial)


@pytest.mark.parametrize("images_kind", ["independent", "coupled"])
@pytest.mark.parametrize("scope", ["all", "true"])
def test_radius_zero_is_the_text_attack(images_kind: str, scope: str) -> None:
    none = ThreatModel("linf", Fraction(0))
    pair = run(attacker_of(TextSettings(images=images_kind, scope=scope)), plan=pgd_plan(), threat=none)  # type: ignore[arg-type]
    text = run(attacker_of(TextSettings(scope=scope)))  # type: ignore[arg-type]
    assert (pair.result.verdict == text.result.verdict).all()
    assert (pair.result.searched == text.result.searched).all()
    assert text.result.verdict.any()
    assert not text.result.verdict.all()


@pytest.mark.parametrize("scope", ["all", "true"])
def test_coupled_per_sample_is_what_one_sample_alone_gets(scope: str) -> None:
    """Scope true runs the engine once a class; the result of a sample may not depend on its company."""
    settings = TextSettings(images="coupled", scope=scope)  # type: ignore[arg-type]
    whole = run(attacker_of(settings), plan=pgd_plan()).result
    attacker = attacker_of(settings)
    images = images_like(attacker.bound, LABELS)
    for row in (0, 2, 7, 9):
        one = slice(row, row + 1)
        alone = run(attacker, images[one], labels=LABELS[one], ids=IDS[one], plan=pgd_plan()).result
        torch.testing.assert_close(alone.adversarial[0], whole.adversarial[row], rtol=0, atol=1e-6)
        assert alone.verdict[0] == whole.verdict[row]


def test_coupled_scope_true_meets_its_own_attacked_prompt_only() -> None:
    """Where a sample's own prompt cannot change, the other classes' replacements may not matter to it."""
    settings = TextSettings(images="coupled", scope="true", span="class_name")
    labels = [CAR, APPLE, CAR, CAR, CAR, CAR, PEAR, CAR, CAR, CAT]
    twins = {"kitty": 1.02 * vector_of("car")}  # beside the prompt of the cars, so that it would win half of them
    results = []
    for words in ({"cat": ("kitty",)}, {}):
        attacker = TextAttacker(toy_bound(twins), settings, source=ListedSource(words))
        images = images_like(attacker.bound, labels)
        results.append(run(attacker, images, labels=labels, plan=pgd_plan()).result)
    rows = np.array(labels) != CAT
    assert torch.equal(results[0].adversarial[rows], results[1].adversarial[rows])
    assert (results[0].steps_used[rows] == results[1].steps_used[rows]).all()
    assert (results[0].verdict[rows] == results[1].verdict[rows]).all()


def test_coupled_moves_the_embedding_away_from_both() -> None:
    attacker = attacker_of(TextSettings(images="coupled"))
    found = run(attacker, plan=[Stage("pgd-leaf-ce", LeafObjective(), PGD(steps=5))]).result
    assert found.components == ("listed", "pgd-coupled-kl")
    survived = ~found.verdict  # a first success may come with a lower loss
    assert survived.sum() >= 4
    assert (found.final_loss[survived] > found.clean_loss[survived]).all()
