"""The semantic ensemble: its loss and its two scorings against NumPy, and what it refuses."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from attack_toys import ids_of
from numpy.typing import NDArray
from torch import Tensor

from hierbench.attacks.engine.attack import AttackResult, run_attack
from hierbench.attacks.named.semantic import SEMANTIC_ATTACKS, prepare
from hierbench.attacks.objectives.base import LeafObjective
from hierbench.attacks.objectives.semantic import DescribedModel, SemanticObjective, described_model
from hierbench.attacks.optimisers.base import Stage
from hierbench.attacks.optimisers.pgd import PGD
from hierbench.attacks.threat import ThreatModel
from hierbench.datasets.descriptions import Descriptions, load_descriptions, write_descriptions
from hierbench.datasets.digits import load_digits_split
from hierbench.datasets.spec import DatasetSpec
from hierbench.errors import HierbenchError, InputError
from hierbench.hierarchy.catalogue import load_hierarchy
from hierbench.models.binding import BoundModel, bind
from hierbench.models.descriptions import choose_descriptions, description_points
from hierbench.models.load import load_model

(SPEC,) = SEMANTIC_ATTACKS
TEMPLATE = "This is a picture of {noun}."
K, C = 3, 10
THREAT = ThreatModel("linf", Fraction(16, 255))


def bound_to(name: str) -> BoundModel:
    return bind(load_model(name), load_hierarchy("digits"), template=TEMPLATE)


@pytest.fixture(scope="module")
def clip() -> BoundModel:
    return bound_to("clip")


@pytest.fixture(scope="module")
def hyperbolic() -> BoundModel:
    return bound_to("hier_aft.digits")


@pytest.fixture(scope="module")
def digits() -> tuple[Tensor, Tensor]:
    """Twenty-four real digits, float32 [24, 1, 8, 8], and their labels."""
    spec = DatasetSpec("digits", "", (8, 8, 1), TEMPLATE, {}, "test")
    images = load_digits_split(spec, "test")
    rows = np.arange(24)
    return images.pixels(rows).float() / 255, torch.from_numpy(images.labels[rows])


def shipped() -> Descriptions:
    return load_descriptions("digits", [str(digit) for digit in range(C)])


# -- an independent computation: NumPy float64, from METHODS.md 5.6 and 5.8 ----------------------------------


def numpy_logits(bound: BoundModel, pixels: Tensor, prompts: list[str]) -> NDArray[np.float64]:
    """Logits [B, N] over prompts, from open_clip's own image and text features and the head's formula."""
    model = bound.model
    with torch.no_grad():
        image = model.embed(pixels).double().numpy()
        text = model.clip.encode_text(model.tokenizer(prompts)).double().numpy()
    tensors = {name: float(value) for name, value in model.head.state_dict().items() if value.ndim == 0}
    if model.head.kind == "cosine":
        image /= np.linalg.norm(image, axis=1, keepdims=True)
        text /= np.linalg.norm(text, axis=1, keepdims=True)
        return np.exp(tensors["logit_scale"]) * image @ text.T
    r, limit = model.head.config()["curvature"], model.head.config()["max_tangent"]
    leaf_scale = float(model.head.state_dict()["level_scale"][0])

    def on_ball(tangent: NDArray[np.float64]) -> NDArray[np.float64]:
        norm = np.linalg.norm(tangent, axis=1, keepdims=True)
        tangent = tangent * np.minimum(1.0, limit / np.sqrt(r) / norm)
        norm = np.linalg.norm(tangent, axis=1, keepdims=True)
        return np.tanh(np.sqrt(r) * norm) * tangent / (np.sqrt(r) * norm)

    u = on_ball(image * np.exp(tensors["log_a_image"]) / tensors["m_image"])
    v = on_ball(text * leaf_scale * np.exp(tensors["log_a_text"]) / tensors["m_text"])
    gap = np.linalg.norm(u[:, None] - v[None], axis=2)
    room = np.sqrt((1 - r * (u**2).sum(1))[:, None] * (1 - r * (v**2).sum(1))[None])
    return -2 / np.sqrt(r) * np.arcsinh(np.sqrt(r) * gap / room) / tensors["tau"]


def numpy_cross_entropy(logits: NDArray[np.float64], labels: Tensor) -> NDArray[np.float64]:
    peak = logits.max(axis=1, keepdims=True)
    log_sum = np.log(np.exp(logits - peak).sum(axis=1)) + peak[:, 0]
    return log_sum - logits[np.arange(len(logits)), labels.numpy()]


@pytest.mark.parametrize("head", ["clip", "hyperbolic"])
def test_the_loss_is_the_mean_cross_entropy_over_the_descriptions(
    head: str, request: pytest.FixtureRequest, digits: tuple[Tensor, Tensor]
) -> None:
    bound: BoundModel = request.getfixturevalue(head)
    pixels, labels = digits
    described = described_model(bound, count=K, file="shipped", scored="single")
    each = [
        numpy_cross_entropy(numpy_logits(bound, pixels, [described.chosen.sentences[k][c] for c in range(C)]), labels)
        for k in range(K)
    ]
    objective = SemanticObjective(first=len(described.points), count=K)
    logits = described.searched(pixels)
    found = objective.loss(logits, objective.aims(logits, labels, bound.layout)[:, 0], bound.layout)
    np.testing.assert_allclose(found.detach().numpy(), np.mean(each, axis=0), rtol=2e-3, atol=2e-3)
    # Planted: the sum, a single description, or the CE of the mean logits are all far from it.
    for wrong in (np.sum(each, axis=0), each[0], numpy_cross_entropy(_mean_logits(described, pixels), labels)):
        assert np.abs(wrong - np.mean(each, axis=0)).max() > 0.05


def _mean_logits(described: DescribedModel, pixels: Tensor) -> NDArray[np.float64]:
    rows = described.chosen.sentences
    return np.mean([numpy_logits(described, pixels, list(row)) for row in rows], axis=0)  # type: ignore[arg-type]


def test_the_blocks_are_one_description_of_every_class() -> None:
    # By hand: 2 descriptions of 2 classes behind 1 other column; k-major.
    logits = torch.tensor([[9.0, 1.0, 2.0, 3.0, 5.0]])
    layout = load_layout([[0, 1]])
    found = SemanticObjective(first=1, count=2).loss(logits, torch.tensor([[0]]), layout)
    by_hand = 0.5 * (np.log(np.exp(1) + np.exp(2)) - 1 + np.log(np.exp(3) + np.exp(5)) - 3)
    class_major = 0.5 * (np.log(np.exp(1) + np.exp(3)) - 1 + np.log(np.exp(2) + np.exp(5)) - 2)
    assert float(found) == pytest.approx(by_hand, rel=1e-6)
    assert abs(by_hand - class_major) > 0.1


def load_layout(levels: list[list[int]]):  # type: ignore[no-untyped-def]
    from hierbench.models.layout import NodeLayout

    return NodeLayout.from_levels(levels, direct=True)


@pytest.mark.parametrize("head", ["clip", "hyperbolic"])
def test_single_keeps_the_models_answer_and_ensemble_is_the_mean(
    head: str, request: pytest.FixtureRequest, digits: tuple[Tensor, Tensor]
) -> None:
    bound: BoundModel = request.getfixturevalue(head)
    pixels, _ = digits
    with torch.no_grad():
        single = described_model(bound, count=K, file="shipped", scored="single")
        own = bound(pixels)
        assert torch.equal(single(pixels), own)
        assert torch.equal(single.searched(pixels)[:, : own.shape[1]], own)
        assert single.searched(pixels).shape == (24, own.shape[1] + K * C)
        ensemble = described_model(bound, count=K, file="shipped", scored="ensemble")
        answer = ensemble(pixels)
        assert torch.equal(ensemble.searched(pixels)[:, : own.shape[1]], answer)
    np.testing.assert_allclose(answer[:, :C].numpy(), _mean_logits(ensemble, pixels), rtol=2e-3, atol=2e-3)
    assert torch.equal(answer[:, C:], own[:, C:])  # superclasses keep their single prompts
    assert not torch.allclose(answer[:, :C], own[:, :C], atol=0.1)
    assert single.prompts == bound.prompts
    assert ensemble.prompts[:-1] == bound.prompts[:-1]
    assert ensemble.prompts[-1] == tuple(s for row in ensemble.chosen.sentences for s in row)


# -- ranking -------------------------------------------------------------------------------------------------


def numpy_ranking(bound: BoundModel) -> list[list[tuple[float, str]]]:
    """For each class its sentences by falling cosine with the bare name, from open_clip's own text features."""
    model, ranked = bound.model, []
    for leaf, own in zip(bound.hierarchy.leaves, shipped().sentences, strict=True):
        with torch.no_grad():
            found = model.clip.encode_text(model.tokenizer([leaf.name, *own]), normalize=True).double().numpy()
        ranked.append(sorted(zip(found[1:] @ found[0], own, strict=True), key=lambda pair: -pair[0]))
    return ranked


def test_descriptions_are_ranked_by_cosine_with_the_bare_name(clip: BoundModel) -> None:
    names = [leaf.name for leaf in clip.hierarchy.leaves]
    found = choose_descriptions(clip.model, shipped(), names, count=5)
    assert (found.count, found.similarity.shape) == (5, (5, C))
    changed = 0
    for c, ranked in enumerate(numpy_ranking(clip)):
        assert [found.sentences[k][c] for k in range(5)] == [sentence for _, sentence in ranked[:5]]
        np.testing.assert_allclose(found.similarity[:, c], [near for near, _ in ranked[:5]], atol=1e-5)
        changed += [s for _, s in ranked[:5]] != list(shipped().sentences[c][:5])
    assert changed == C  # the file's own order would not do
    again = choose_descriptions(bound_to("clip").model, shipped(), names, count=5)
    assert (again.sentences, again.digest) == (found.sentences, found.digest)
    assert found.digest != choose_descriptions(clip.model, shipped(), names, count=4).digest


def test_equally_near_sentences_keep_the_files_order(clip: BoundModel) -> None:
    # The tokenizer knows no case: these are three texts of one feature.
    same = ("A ZERO seen here.", "a zero seen here.", "A zero SEEN here.")
    made = Descriptions("digits", "en", "a test", "CC0-1.0", ("0",), (same,))
    assert choose_descriptions(clip.model, made, ["zero"], count=3).sentences == tuple((text,) for text in same)


def test_too_few_near_sentences_name_the_class(clip: BoundModel) -> None:
    names = [leaf.name for leaf in clip.hierarchy.leaves]
    nearest = [[near for near, _ in ranked] for ranked in numpy_ranking(clip)]
    weakest = min(range(C), key=lambda c: nearest[c][1])
    limit = nearest[weakest][1] + 1e-4  # this class alone keeps one sentence
    kept = choose_descriptions(clip.model, shipped(), names, count=1, minimum=limit)
    assert float(kept.similarity.min()) >= limit
    with pytest.raises(InputError, match=rf"class '{weakest}' has 1 sentences with a cosine of 0\.\d+ or more to '"):
        choose_descriptions(clip.model, shipped(), names, count=2, minimum=limit)
    with pytest.raises(InputError, match="class '0' has 9 sentences, and 10 are needed"):
        choose_descriptions(clip.model, shipped(), names, count=10)
    with pytest.raises(InputError, match="give 1 or more"):
        choose_descriptions(clip.model, shipped(), names, count=0)
    with pytest.raises(ValueError, match="9 names for 10 classes"):
        choose_descriptions(clip.model, shipped(), names[:9], count=1)


def test_points_are_leaf_points_one_description_after_another(hyperbolic: BoundModel) -> None:
    names = [leaf.name for leaf in hyperbolic.hierarchy.leaves]
    chosen = choose_descriptions(hyperbolic.model, shipped(), names, count=2)
    points = description_points(hyperbolic.model, chosen)
    assert not points.requires_grad
    for k, c in ((0, 0), (0, 7), (1, 3)):
        (own,) = hyperbolic.model.node_points([chosen.sentences[k][c]], steps_above_leaf=0)
        torch.testing.assert_close(points[k * C + c], own)
    above = hyperbolic.model.node_points([chosen.sentences[0][0]], steps_above_leaf=1)[0]
    assert not torch.allclose(points[0], above, atol=1e-3)  # the level's scale matters


def test_a_text_side_that_gives_nan_is_refused() -> None:
    model = load_model("clip")
    with torch.no_grad():
        model.text_projection[0, 0] = float("nan")
    with pytest.raises(HierbenchError, match="text feature is not finite"):
        choose_descriptions(model, shipped(), [str(d) for d in range(C)], count=1)


# -- the attack ----------------------------------------------------------------------------------------------


def attack(bound: BoundModel, digits: tuple[Tensor, Tensor], **settings: object) -> AttackResult:
    """Run the named attack as a cell would: prepared once, then planned."""
    images, labels = digits
    resolved = SPEC.settings({"steps": 5, "descriptions": K, **settings})
    model, _ = prepare(bound, resolved)
    plan = SPEC.plan(
        depth=model.layout.num_depths, layout=model.layout, scoring="rollup", settings=resolved, bound=model
    )
    return run(model, images, labels, plan)


def run(model: Callable[[Tensor], Tensor], images: Tensor, labels: Tensor, plan: tuple[Stage, ...]) -> AttackResult:
    layout = model.layout  # type: ignore[attr-defined]
    return run_attack(
        model, images, labels, ids_of(len(images)), plan=plan, layout=layout, threat=THREAT, depth=layout.num_depths,
        scoring="rollup", batch_size=16, seed=0, dataset="digits", attack_name="semantic_ensemble",
        full_budget=np.ones(len(images), dtype=np.bool_),
    )  # fmt: skip


@pytest.mark.parametrize("scored", ["single", "ensemble"])
def test_verdicts_are_the_scorings_own(scored: str, clip: BoundModel, digits: tuple[Tensor, Tensor]) -> None:
    result = attack(clip, digits, scored=scored)
    described = described_model(clip, count=K, file="shipped", scored=scored)  # type: ignore[arg-type]
    with torch.no_grad():
        leaves = described(result.adversarial)[:, :C] if scored == "ensemble" else clip(result.adversarial)[:, :C]
    assert result.predictions["rollup"][:, -1].tolist() == leaves.argmax(dim=1).tolist()
    assert result.components == ("pgd-semantic-ce",)
    assert not result.unverified.any()
    assert result.searched.sum() > 12 and result.raised[result.searched].all()
    assert result.broken["rollup"][:, -1].sum() > result.clean_broken["rollup"][:, -1].sum()
    assert 0 < result.linf.max() <= 16 / 255 + 1e-6


def test_the_two_scorings_are_different_measurements(clip: BoundModel, digits: tuple[Tensor, Tensor]) -> None:
    single, ensemble = attack(clip, digits, scored="single"), attack(clip, digits, scored="ensemble")
    assert not np.allclose(single.clean_logits[:, :C], ensemble.clean_logits[:, :C], atol=0.1)
    assert np.allclose(single.clean_logits[:, C:], ensemble.clean_logits[:, C:], atol=1e-4)


def test_it_raises_its_own_loss_more_than_the_single_prompts_attack(
    clip: BoundModel, digits: tuple[Tensor, Tensor]
) -> None:
    images, labels = digits
    described = described_model(clip, count=K, file="shipped", scored="single")
    objective = SemanticObjective(first=len(described.points), count=K)

    def semantic_loss(result: AttackResult) -> float:
        assert result.severity is not None
        with torch.no_grad():
            logits = described.searched(result.severity.images)
            return float(objective.loss(logits, labels[:, None], clip.layout).mean())

    own = run(described, images, labels, (Stage("own", objective, PGD(steps=10), forward=described.searched),))
    leaf = run(described, images, labels, (Stage("leaf", LeafObjective(), PGD(steps=10)),))
    assert semantic_loss(own) > semantic_loss(leaf) + 0.1


def test_descriptions_are_encoded_once(digits: tuple[Tensor, Tensor]) -> None:
    bound = bound_to("clip")
    attack(bound, digits)
    encoded = bound.model.text_forwards
    attack(bound, digits)
    assert bound.model.text_forwards == encoded
    assert encoded == 10 + 6 + 10 + 90  # leaf and node prompts, bare names, every sentence of the file


def test_it_also_plans_from_a_bound_model_that_nobody_prepared(clip: BoundModel) -> None:
    (stage,) = SPEC.plan(depth=3, layout=clip.layout, scoring="rollup", settings={"descriptions": 2}, bound=clip)
    assert isinstance(stage.objective, SemanticObjective)
    assert (stage.objective.first, stage.objective.count) == (clip.layout.width, 2)
    with pytest.raises(InputError, match="scored=ensemble needs the model that prepare gives"):
        SPEC.plan(depth=3, layout=clip.layout, scoring="rollup", settings={"scored": "ensemble"}, bound=clip)
    with pytest.raises(InputError, match="needs a model with a text side"):
        SPEC.plan(depth=3, layout=clip.layout, scoring="rollup")


def test_a_file_of_ones_own_decides_and_the_record_says_so(clip: BoundModel, tmp_path: Path) -> None:
    own = tmp_path / "mine.json"
    write_descriptions(dataclasses.replace(shipped(), source="a test"), own)
    settings = SPEC.settings({"descriptions": 2, "file": str(own)})
    first, facts = prepare(clip, settings)
    assert facts == {"file": "mine.json", "descriptions_hash": first.chosen.digest}
    changed = json.loads(own.read_text())
    del changed["hash"]
    changed["classes"][4]["sentences"] = ["A four like a sail.", "A four like a little chair."]
    own.write_text(json.dumps(changed))
    second, other = prepare(clip, settings)
    assert [row[4] for row in second.chosen.sentences] != [row[4] for row in first.chosen.sentences]
    assert other["descriptions_hash"] != facts["descriptions_hash"]
    with pytest.raises(InputError, match="class '4' has 2 sentences, and 3 are needed"):
        prepare(clip, SPEC.settings({"descriptions": 3, "file": str(own)}))


def test_a_data_set_without_descriptions_names_the_file_wanted(clip: BoundModel) -> None:
    elsewhere = bind(clip.model, dataclasses.replace(clip.hierarchy, dataset="stl10"), template=TEMPLATE)
    with pytest.raises(InputError, match=r"stl10 has no descriptions: descriptions/stl10\.json is wanted"):
        prepare(elsewhere, SPEC.settings())


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"descriptions": 0}, "descriptions is '0', and should be a whole number of at least 1"),
        ({"scored": "both"}, "scored is 'both', and should be single or ensemble"),
        ({"description": 3}, "did you mean 'descriptions'?"),
    ],
)
def test_wrong_settings_are_one_line(given: dict[str, object], said: str) -> None:
    with pytest.raises(InputError) as caught:
        SPEC.settings(given)
    assert said in str(caught.value)


def test_the_entry_is_light() -> None:
    code = "import sys, hierbench.attacks.named.semantic; print([m for m in ('torch', 'pandas') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120)
    assert done.stdout.strip() == "[]"
