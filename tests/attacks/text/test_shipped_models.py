"""The attacks on the models that come with hierbench, and as the catalogue lists them."""

from __future__ import annotations

import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch

from hierbench.attacks.text.attacker import TextAttacker
from hierbench.attacks.text.runner import facts_of
from hierbench.attacks.text.settings import TextSettings
from hierbench.attacks.text.specs import TEXT_ATTACKS, image_plan, is_text_attack, text_settings
from hierbench.attacks.threat import ThreatModel
from hierbench.datasets.load import load_images
from hierbench.errors import InputError
from hierbench.hierarchy.catalogue import load_hierarchy
from hierbench.models.binding import BoundModel, bind
from hierbench.models.load import load_model

SPECS = {spec.name: spec for spec in TEXT_ATTACKS}
NOT_HERE = "text_mlm"  # its language model comes from the Hub


@pytest.fixture(scope="module", params=["clip", "hier_aft.digits"])
def bound(request: pytest.FixtureRequest) -> BoundModel:
    return bind(load_model(request.param), load_hierarchy("digits"), template="This is a picture of {noun}.")


@pytest.mark.parametrize("name", [name for name in SPECS if name != NOT_HERE])
@pytest.mark.parametrize(("depth", "scoring"), [(1, "rollup"), (1, "direct"), (None, "rollup")])
def test_every_named_attack_runs_on_digits(bound: BoundModel, name: str, depth: int | None, scoring: str) -> None:
    depth = depth or bound.hierarchy.num_depths
    settings = SPECS[name].settings({"positions": 1} if name == "text_characters" else None)
    found = load_images("digits", split="test", limit=24)
    images = found.pixels(np.arange(24)).float() / 255
    attacker = TextAttacker(bound, text_settings(name, settings))
    before = bound.model.text_forwards
    result = attacker.run(
        images,
        found.labels,
        list(found.ids),
        depth=depth,
        scoring=scoring,  # type: ignore[arg-type]
        threat=ThreatModel("linf", Fraction(8, 255)),
        batch_size=16,
        seed=0,
        dataset="digits",
        attack_name=name,
        plan=image_plan(name, settings, depth=depth, layout=bound.layout, scoring=scoring),  # type: ignore[arg-type]
    )
    nodes = tuple(bound.layout.node_counts)
    components = SPECS[name].components(settings, nodes=nodes, depths=(depth,), scoring=scoring)  # type: ignore[arg-type]
    assert result.result.components == components
    assert bound.model.text_forwards - before == result.text.text_forwards
    assert (~result.result.clean_verdict | ~result.result.searched).all()
    level = result.text.level
    if level is not None:
        assert len(level.prompts) == len(bound.prompts[level.depth - 1])
        clean = [prompt.clean for prompt in level.prompts]
        assert clean == list(bound.prompts[level.depth - 1])
        assert len({prompt.text for prompt in level.prompts}) == len(clean)
        steps = bound.hierarchy.num_depths - level.depth
        own = bound.model.node_points([prompt.text for prompt in level.prompts], steps_above_leaf=steps)
        torch.testing.assert_close(level.points, own, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["text_synonyms", "multimodal_coupled"])
def test_the_runners_way_gives_the_same_verdicts(bound: BoundModel, name: str) -> None:
    spec = SPECS[name]
    settings = spec.settings({"scope": "true"})
    assert spec.runner is not None
    runner = spec.runner(bound, settings)
    found = load_images("digits", split="test", limit=12)
    depth = bound.hierarchy.num_depths
    arguments = {
        "images": found.pixels(np.arange(12)).float() / 255, "labels": found.labels, "sample_ids": list(found.ids),
        "depth": depth, "scoring": "rollup", "threat": ThreatModel("linf", Fraction(8, 255)), "batch_size": 16,
        "seed": 0, "dataset": "digits", "clean_logits": None, "device": None, "progress": None,
        "full_budget": np.arange(12) < 5,
    }  # fmt: skip
    result = runner({"forward": bound, "layout": bound.layout, **arguments})
    plan = image_plan(name, settings, depth=depth, layout=bound.layout, scoring="rollup")
    attacker = TextAttacker(bound, text_settings(name, settings))
    again = attacker.run(**arguments, attack_name=name, plan=plan).result  # type: ignore[arg-type]
    assert (result.verdict == again.verdict).all()
    assert torch.equal(result.adversarial, again.adversarial)
    assert result.severity is not None
    forwards = bound.model.text_forwards
    runner({"forward": bound, "layout": bound.layout, **arguments})
    assert bound.model.text_forwards == forwards  # the next chunk meets the same prompts


def test_what_is_missing_is_told_before_the_run(bound: BoundModel, tmp_path: Path) -> None:
    spec = SPECS["text_mlm"]
    assert spec.runner is not None
    with pytest.raises(InputError, match="language_model: "):
        spec.runner(bound, spec.settings({"language_model": str(tmp_path / "none")}))
    with pytest.raises(InputError, match="needs a model with a text side"):
        spec.runner(torch.nn.Identity(), spec.settings())


def test_a_folders_path_stays_out_of_the_record(tmp_path: Path) -> None:
    (tmp_path / "my-bert").mkdir()
    assert facts_of({"language_model": str(tmp_path / "my-bert")}) == {"language_model": "my-bert"}
    assert facts_of({"language_model": "google-bert/bert-base-uncased"}) == {}
    assert all(
        spec.prepare is not None and spec.prepare("model", spec.settings())[0] == "model" for spec in TEXT_ATTACKS
    )


def test_the_catalogues_entries_do_not_import_torch() -> None:
    code = (
        "import sys; from hierbench.attacks.text.specs import TEXT_ATTACKS, text_settings; "
        "[text_settings(s.name, s.settings()) for s in TEXT_ATTACKS]; assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


def test_settings_reach_the_attack() -> None:
    spec = SPECS["multimodal_coupled"]
    given = {
        "source": "mlm",
        "scope": "true",
        "span": "class_name",
        "offset": "released",
        "steps": "7",
        "revision": "x",
    }
    settings = spec.settings({**given, "text_weight": "2", "language_model": "some/model", "article": "keep"})
    assert text_settings(spec.name, settings) == TextSettings(
        source="mlm", images="coupled", scope="true", span="class_name", offset="released", revision="x",
        text_weight=2.0, language_model="some/model", article="keep",
    )  # fmt: skip
    layout = bind(load_model("clip"), load_hierarchy("digits"), template="{noun}").layout
    (stage,) = image_plan(spec.name, settings, depth=1, layout=layout, scoring="rollup")
    assert stage.optimiser.steps == 7
    assert (
        image_plan("text_synonyms", SPECS["text_synonyms"].settings(), depth=1, layout=layout, scoring="rollup") == ()
    )
    assert text_settings("text_features", SPECS["text_features"].settings({"text_eps": "2e-2"})).text_eps == 0.02


def test_only_the_text_attacks_are_text_attacks() -> None:
    assert all(is_text_attack(name) for name in SPECS)
    assert not is_text_attack("superclass_pgd")


def test_a_plan_of_stages_is_refused() -> None:
    layout = bind(load_model("clip"), load_hierarchy("digits"), template="{noun}").layout
    with pytest.raises(InputError, match="run by its own loop"):
        SPECS["text_synonyms"].plan(depth=1, layout=layout, scoring="rollup")


@pytest.mark.parametrize(("name", "given"), [("text_features", {"span": "any"}), ("text_synonyms", {"scope": "both"})])
def test_a_setting_it_does_not_have_is_refused(name: str, given: dict[str, str]) -> None:
    with pytest.raises(InputError, match=name):
        SPECS[name].settings(given)
