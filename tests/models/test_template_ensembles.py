"""Several templates a node: one feature made of all, as in CLIP's zero-shot evaluation, for every head and level."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import pytest
import torch
from torch import Tensor

from hierbench.datasets.catalogue import get_spec
from hierbench.datasets.ensembles import IMAGENET
from hierbench.errors import InputError
from hierbench.evaluation.prepare import prepare_cell
from hierbench.evaluation.protocol import PROTOCOLS
from hierbench.evaluation.request import Request, choose_hierarchy, make_plan
from hierbench.hierarchy.catalogue import load_hierarchy
from hierbench.models.binding import bind
from hierbench.models.heads import HyperbolicHead
from hierbench.models.load import load_model
from hierbench.models.zeroshot import ZeroShotModel, ensemble_features

TWO = ("a photo of a {}.", "{noun}, drawn large.")


@pytest.fixture(scope="module")
def clip() -> ZeroShotModel:
    return load_model("clip")


def test_the_mean_is_of_directions_and_the_norm_is_the_mean_of_the_norms() -> None:
    # (3, 4) has direction (0.6, 0.8) and norm 5; (10, 0) has (1, 0) and 10. Their mean direction is (0.8, 0.4), of
    # norm sqrt(0.8), so (2, 1) / sqrt(5); the mean norm is 7.5. A mean without normalisation would point to (6.5, 2).
    found = ensemble_features([torch.tensor([[3.0, 4.0]]), torch.tensor([[10.0, 0.0]])])
    torch.testing.assert_close(found, 7.5 * torch.tensor([[2.0, 1.0]]) / 5**0.5)


def test_one_template_changes_no_bit(clip: ZeroShotModel) -> None:
    features = torch.randn(4, 6)
    assert ensemble_features([features]) is features
    tree = load_hierarchy("digits")
    assert torch.equal(bind(clip, tree, template=TWO[0]).points, bind(clip, tree, template=TWO[:1]).points)


def by_hand(model: ZeroShotModel, name: str, noun: str) -> Tensor:
    prompts = [TWO[0].replace("{}", name), TWO[1].replace("{noun}", noun)]
    with torch.no_grad():
        features = model.clip.encode_text(model.tokenizer(prompts))
    units = features / features.norm(dim=1, keepdim=True)
    mean = (units[0] + units[1]) / 2
    return mean / mean.norm()


def test_leaves_and_superclasses_are_averaged_over_the_same_templates(clip: ZeroShotModel) -> None:
    tree = load_hierarchy("digits", "strokes")
    bound = bind(clip, tree, template=TWO)
    assert [len(level) for level in bound.prompts] == [2 * len(level) for level in tree.levels]
    for depth in tree.depths:
        nodes = tree.level(depth).nodes
        wanted = torch.stack([by_hand(clip, node.name, node.noun) for node in nodes])
        columns = bound.layout.direct_columns(depth)
        torch.testing.assert_close(bound.points[columns], wanted, atol=1e-6, rtol=1e-5)
        alone = bind(clip, tree, template=TWO[0])
        assert float((bound.points[columns] - alone.points[columns]).abs().max()) > 1e-3


def test_a_hyperbolic_head_lifts_a_feature_of_the_usual_norm(clip: ZeroShotModel) -> None:
    tree, model = load_hierarchy("digits"), load_model("clip")
    prompts = bind(clip, tree, template=TWO).prompts
    hidden = [model.text_hidden(prompts[-1][i::2]) @ model.text_projection for i in range(2)]
    norms = (hidden[0].norm(dim=1) + hidden[1].norm(dim=1)) / 2
    model.head = HyperbolicHead(levels=len(prompts), m_text=float(norms.mean()))
    points = bind(model, tree, template=TWO).points[: tree.num_leaves]
    # Tangent of norm 0.5 * norm / m_text, onto the ball of curvature -1: tanh of it.
    torch.testing.assert_close(points.norm(dim=1), torch.tanh(0.5 * norms / norms.mean()), atol=1e-5, rtol=1e-5)
    cosines = torch.nn.functional.cosine_similarity(points, bind(clip, tree, template=TWO).points[: tree.num_leaves])
    torch.testing.assert_close(cosines, torch.ones_like(cosines))


def test_every_prompt_is_encoded_once() -> None:
    model, tree = load_model("clip"), load_hierarchy("digits", "strokes")
    nodes = sum(len(level) for level in tree.levels)
    bind(model, tree, template=TWO)
    assert model.text_forwards == 2 * nodes
    bind(model, tree, template=TWO[0])
    assert model.text_forwards == 2 * nodes


def test_an_ensemble_has_no_one_template_to_edit(clip: ZeroShotModel) -> None:
    with pytest.raises(InputError, match=r"^--template: this edits or replaces a node's one prompt, here it has 2; "):
        _ = bind(clip, load_hierarchy("digits"), template=TWO).template


def request(**given: object) -> Request:
    return Request(**{"dataset": "cifar10", "template": "ensemble", **given})  # type: ignore[arg-type]


@pytest.mark.parametrize("attack", ["text_synonyms", "text_features", "multimodal_coupled", "semantic_ensemble"])
def test_attacks_on_prompts_refuse_an_ensemble_in_one_line(attack: str) -> None:
    asked = request(attack=attack)
    with pytest.raises(InputError, match=f"^--template: {attack} edits or replaces one prompt a class, ensemble has "):
        make_plan(asked, choose_hierarchy(asked))
    single = replace(asked, template="a {}")
    assert make_plan(single, choose_hierarchy(single)).template == "a {}"


def test_a_data_set_without_an_ensemble_refuses_in_one_line() -> None:
    bare = replace(get_spec("cifar10"), ensemble=())
    assert bare.templates("a {}") == ("a {}",)
    with pytest.raises(
        InputError, match=r"^--template ensemble: dataset cifar10 has no ensemble of templates; give one"
    ):
        bare.templates("ensemble")


def test_a_cell_is_scored_by_the_ensemble_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    from hierbench.datasets.catalogue import DATASETS

    spec = replace(get_spec("digits"), ensemble=TWO)
    monkeypatch.setitem(DATASETS._entries, "digits", spec)
    given = {"model": "clip", "dataset": "digits", "limit": 8, "attack": "leaf_pgd", "eps": Fraction(32, 255)}
    hashes = set()
    for template in (None, "ensemble", *TWO):
        cell = prepare_cell(Request(**given, template=template))  # type: ignore[arg-type]
        assert cell.identity.dataset.template == (template or spec.template)
        assert cell.arguments.resolved["template"] == (template or spec.template)
        hashes.add(cell.identity.dataset.prompts_hash)
        if template == "ensemble":
            assert f"template: {spec.template} -> ensemble" in cell.identity.protocol.deviations
            forwards = cell.text().forwards
    assert len(hashes) == 4
    nodes = sum(len(level) for level in load_hierarchy("digits").levels)
    assert forwards == 2 * nodes


def test_fares_protocol_shows_the_ensembles_that_its_paper_does() -> None:
    protocol = PROTOCOLS.get("fare-v1")
    assert {entry.template for entry in protocol.datasets} == {"ensemble"}
    counts = {"imagenet": 80, "imagenet_r": 80, "imagenet_sketch": 80, "caltech101": 34, "cifar10": 18, "cifar100": 18}
    counts |= {"stanford_cars": 8, "dtd": 8, "eurosat": 3, "stl10": 2, "fgvc_aircraft": 2}
    counts |= {"oxford_pets": 1, "flowers102": 1, "pcam": 1}
    assert {e.name: len(get_spec(e.name).templates(str(e.template))) for e in protocol.datasets} == counts


def test_imagenets_templates_are_clips_eighty() -> None:
    from open_clip.zero_shot_metadata import OPENAI_IMAGENET_TEMPLATES

    assert len(IMAGENET) == 80
    assert set(IMAGENET) == {template("{}") for template in OPENAI_IMAGENET_TEMPLATES}


@pytest.mark.parametrize("dataset", ["imagenet", "caltech101", "cifar100", "dtd", "stanford_cars", "pcam"])
def test_no_two_nodes_of_a_level_share_a_prompt_of_an_ensemble(dataset: str) -> None:
    from hierbench.models.binding import ensemble_prompts

    spec = get_spec(dataset)
    tree = load_hierarchy(spec.tree_dataset, classes=spec.class_ids)
    levels = ensemble_prompts(tree, spec.templates("ensemble"))
    assert [len(level) for level in levels] == [len(spec.ensemble) * len(level) for level in tree.levels]
