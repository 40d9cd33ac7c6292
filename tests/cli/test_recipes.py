"""Recipes: the shipped ones say what was published or shipped, and a wrong one gets one line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from hierbench.datasets.catalogue import get_spec
from hierbench.datasets.seen import load_seen
from hierbench.defences.catalogue import DEFENCES
from hierbench.defences.recipe import RECIPES, find_recipe, load_recipe_file
from hierbench.errors import InputError
from hierbench.evaluation.protocol import PROTOCOLS
from hierbench.hierarchy.catalogue import load_forest
from hierbench.paths import data_dir
from hierbench.sweep.training import TrainRequest, resolve_recipe, split_settings

TRAINABLE = [name for name, spec in DEFENCES.items() if spec.implementation]
SHIPPED = sorted(path.parent.name for path in (data_dir() / "weights").glob("*/training.json"))


def request(**said: Any) -> TrainRequest:
    nothing: dict[str, Any] = dict.fromkeys(
        ("defence", "recipe", "dataset", "backbone", "eps", "norm", "variant", "seen", "limit", "protocol", "device",
         "out", "data_root")
    )  # fmt: skip
    return TrainRequest(**{**nothing, "trees": (), "settings": {}, "seed": 0, "resume": True, **said})


@pytest.mark.parametrize("name", RECIPES.names())
def test_every_shipped_recipe_is_whole(name: str) -> None:
    recipe = RECIPES.get(name)
    spec = get_spec(recipe.dataset)
    settings, training = split_settings(
        {**recipe.settings, **recipe.training}, DEFENCES.get(recipe.defence).settings_type()
    )
    assert settings.attack_steps == 0 or recipe.defence != "clean_ft"
    assert training.learning_rate > 0 and recipe.title and recipe.source
    assert name.partition("/")[2].startswith(recipe.defence)
    if recipe.trees:
        assert len(load_forest(spec.tree_dataset, recipe.trees, spec.class_ids).trees) == len(recipe.trees)
    if recipe.seen:
        assert any(load_seen(recipe.seen).known_mask(recipe.dataset))


@pytest.mark.parametrize("folder", ["paper", "tiny", "digits"])
def test_every_defence_has_a_recipe_of_each_kind(folder: str) -> None:
    assert {f"{folder}/{name}" for name in TRAINABLE} <= set(RECIPES.names())


COSTLY = ("agft", "fare", "mmcoa", "pmg_aft", "tga_zsr")
"""Their steps pass the original tower too, or attack texts: on digits they train for fewer epochs."""


SEARCH = data_dir() / "leaderboard" / "measurements" / "learning_rates.json"
SEARCHED = {row["defence"]: row["rate"] for row in json.loads(SEARCH.read_text(encoding="utf-8"))["summary"]}


@pytest.mark.parametrize("variant", ["tiny", "digits"])
@pytest.mark.parametrize("defence", TRAINABLE)
def test_small_recipes_are_their_protocols(variant: str, defence: str) -> None:
    recipe = RECIPES.get(f"{variant}/{defence}")
    protocol = next(p for _, p in PROTOCOLS.items() if p.variant == variant)
    assert (recipe.backbone, recipe.dataset, recipe.eps, recipe.seen, recipe.variant) == (
        protocol.backbone,
        protocol.train_dataset,
        protocol.train_eps,
        protocol.seen_split,
        variant,
    )
    given = {name: value for name, value in recipe.training.items() if name in protocol.train_settings}
    usual = dict(protocol.train_settings)
    if variant == "tiny":
        assert given.pop("learning_rate") == SEARCHED[defence], "the rate that the search found"
        usual.pop("learning_rate")
    if variant == "digits" and defence in COSTLY:
        assert given.pop("epochs") < usual.pop("epochs"), "a costly step is bought with fewer epochs"
    assert given == usual


@pytest.mark.parametrize("model", SHIPPED)
def test_a_shipped_model_was_trained_by_its_recipe(model: str) -> None:
    folder = data_dir() / "weights" / model
    given = json.loads((folder / "training.json").read_text(encoding="utf-8"))["given"]
    defence, _, variant = model.partition(".")
    recipe = RECIPES.get(f"{variant}/{defence}")
    settings, training = split_settings({**recipe.settings, **recipe.training}, DEFENCES.get(defence).settings_type())
    assert given["settings"] == {name: settings.as_dict()[name] for name in given["settings"]}
    assert given["training"] == {name: training.as_dict()[name] for name in given["training"]}
    assert given["threat"] == {"norm": recipe.norm, "eps": recipe.eps}
    assert given["backbone"]["name"] == recipe.backbone


def test_published_figures_stand_in_the_paper_recipes() -> None:
    def of(name: str) -> dict[str, Any]:
        recipe = RECIPES.get(f"paper/{name}")
        return {**recipe.settings, **recipe.training, "eps": recipe.eps, "dataset": recipe.dataset}

    assert of("tecoa")["learning_rate"] == 1e-5 and of("tecoa")["optimiser"] == "sgd"
    assert (of("pmg_aft_released")["scale"], of("pmg_aft_released")["kl_reduction"]) == ("one", "sum")
    assert of("fare")["steps"] == 20000 and of("fare")["warmup_limit"] == 1400 and of("fare")["eps"] == "4/255"
    assert of("mmcoa")["optimiser"] == "adam" and of("mmcoa")["betas"] == [0.9, 0.98]
    assert of("mmcoa")["weight_decay"] == 0.2 and of("mmcoa")["epochs"] == 30
    assert of("agft")["learning_rate"] == 4e-4 and of("saft")["count"] == 5
    assert {of(name)["eps"] for name in TRAINABLE if name != "fare"} == {"1/255"}


def test_what_is_said_takes_the_place_of_what_the_recipe_says() -> None:
    plain = resolve_recipe(request(defence="tecoa"))
    assert plain.name == "digits/tecoa"
    assert resolve_recipe(request(defence="tecoa", protocol="tiny-v1")).name == "tiny/tecoa"
    assert resolve_recipe(request(defence="tecoa", dataset="tiny_imagenet@32")).name == "tiny/tecoa"
    assert resolve_recipe(request(defence="tecoa", dataset="imagenet")).backbone == "tiny_clip-v1", (
        "a protocol whose backbone is not here must be named"
    )
    said = resolve_recipe(request(recipe="tiny/tecoa", eps="1/255", norm="l2", variant="mine", trees=("wordnet",)))
    assert (said.eps, said.norm, said.variant, said.trees) == ("1/255", "l2", "mine", ("wordnet",))
    assert said.training == RECIPES.get("tiny/tecoa").training
    other = resolve_recipe(request(defence="tecoa", dataset="cifar100"))
    assert other.name == "tiny-v1" and other.dataset == "cifar100" and other.training == {}


@pytest.mark.parametrize(
    ("said", "complaint"),
    [
        ({}, "--defence: say which"),
        ({"defence": "fare", "recipe": "tiny/tecoa"}, "recipe tiny/tecoa is of tecoa"),
        ({"recipe": "tiny/tekoa"}, "unknown recipe 'tiny/tekoa'"),
        ({"recipe": "nothere.toml"}, "nothere.toml: no such recipe file"),
    ],
)
def test_a_wrong_request_gets_one_line(said: dict[str, Any], complaint: str) -> None:
    with pytest.raises(InputError, match=complaint) as caught:
        resolve_recipe(request(**said))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (("defence = ", "defense = "), "unknown key 'defense': did you mean 'defence'"),
        (('eps = "4/255"', "eps = 4"), "key 'eps' is 4; text is needed"),
        (('eps = "4/255"\n', ""), "key 'eps' is missing"),
        (('trees = ["semantic"]', 'trees = "semantic"'), "key 'trees' is 'semantic'; a list"),
        (("[training]", "[[training]]"), "key 'training' is"),
        (("title = ", "title == "), "not readable as TOML"),
    ],
)
def test_a_wrong_file_gets_one_line(tmp_path: Path, change: tuple[str, str], complaint: str) -> None:
    import hierbench.defences.recipe as module

    text = (module.FOLDER / "tiny" / "tecoa.toml").read_text(encoding="utf-8")
    assert change[0] in text
    file = tmp_path / "mine.toml"
    file.write_text(text.replace(*change), encoding="utf-8")
    with pytest.raises(InputError, match=r"mine\.toml") as caught:
        find_recipe(str(file))
    assert complaint in str(caught.value) and "\n" not in str(caught.value)


def test_a_file_of_ones_own_is_a_recipe(tmp_path: Path) -> None:
    import hierbench.defences.recipe as module

    file = tmp_path / "mine.toml"
    file.write_bytes((module.FOLDER / "tiny" / "fare.toml").read_bytes())
    recipe = load_recipe_file(file)
    assert recipe.name == str(file) and recipe.settings == RECIPES.get("tiny/fare").settings


def test_a_backbone_that_is_not_shipped_is_asked_for(tmp_path: Path) -> None:
    from hierbench.sweep.training import run_training

    with pytest.raises(
        InputError, match=r"starts from ViT-B-32-quickgelu/openai.*--backbone local-dir:FOLDER"
    ) as caught:
        run_training(
            request(recipe="paper/fare", out=tmp_path / "m"), report=lambda *_: None, should_stop=lambda: False
        )
    assert "\n" not in str(caught.value) and not (tmp_path / "m").exists()
