"""What ``hierbench train`` calls: names become a backbone, images, trees and settings; the result is a model folder."""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from hierbench.errors import InputError

if TYPE_CHECKING:
    from hierbench.defences.recipe import Recipe
    from hierbench.defences.settings import DefenceSettings, Settings
    from hierbench.defences.training.settings import TrainingSettings

MODELS_FOLDER = "hierbench-models"

Report = Callable[[str, int, int, Mapping[str, float]], None]
"""Hears of (phase, step, steps, figures by name)."""


@dataclass(frozen=True, kw_only=True)
class TrainRequest:
    """What was said; None means the recipe's value, or the protocol's."""

    defence: str | None
    recipe: str | None
    dataset: str | None
    backbone: str | None
    trees: tuple[str, ...]
    eps: str | None
    norm: str | None
    variant: str | None
    seen: str | None
    settings: Mapping[str, object]
    limit: int | None
    seed: int
    protocol: str | None
    device: str | None
    out: Path | None
    data_root: Path | None
    resume: bool


def resolve_recipe(request: TrainRequest) -> Recipe:
    """Return the recipe with what was said in place of what it says.

    The recipe is the one named; else ``<variant>/<defence>`` of the protocol, for the data set that protocol trains
    on; else the protocol's own training settings.
    """
    from hierbench.datasets.catalogue import get_spec
    from hierbench.defences.catalogue import DEFENCES
    from hierbench.defences.local import is_local, register_local
    from hierbench.defences.recipe import RECIPES, Recipe, find_recipe
    from hierbench.evaluation.protocol import choose_protocol, ready_protocols

    if request.defence is not None and is_local(request.defence):
        request = dataclasses.replace(request, defence=register_local(request.defence))
    if request.recipe is not None:
        recipe = find_recipe(request.recipe)
        if request.defence not in (None, recipe.defence):
            raise InputError(
                f"--defence {request.defence}: recipe {recipe.name} is of {recipe.defence}; give one of them"
            )
    elif request.defence is None:
        raise InputError("--defence: say which (hierbench list defences), or give a --recipe (hierbench list recipes)")
    else:
        DEFENCES.get(request.defence).load()
        protocol = choose_protocol(request.protocol, None)
        if request.protocol is None and request.dataset is not None:
            trained = [p for p in ready_protocols() if p.train_dataset == request.dataset]
            protocol = trained[0] if trained else choose_protocol(None, request.dataset)
        dataset = request.dataset or protocol.train_dataset
        name = f"{protocol.variant}/{request.defence}"
        if dataset == protocol.train_dataset and name in RECIPES:
            recipe = RECIPES.get(name)
        else:
            entry = protocol.dataset(dataset)
            recipe = Recipe(
                name=protocol.name,
                title="",
                source="",
                defence=request.defence,
                backbone=protocol.backbone,
                dataset=dataset,
                trees=(entry.tree,) if entry and entry.tree else (),
                eps=protocol.train_eps,
                seen=protocol.seen_split,
                variant=protocol.variant,
                settings={},
                training=protocol.train_settings if dataset == protocol.train_dataset else {},
            )
    said = {
        name: value
        for name in ("dataset", "backbone", "eps", "norm", "variant", "seen")
        if (value := getattr(request, name)) is not None
    }
    if request.dataset not in (None, recipe.dataset) and not request.trees:
        get_spec(str(request.dataset))
        said["trees"] = ()
    if request.trees:
        said["trees"] = request.trees
    return dataclasses.replace(recipe, **said)


def run_training(request: TrainRequest, *, report: Report, should_stop: Callable[[], bool]) -> Path | None:
    """Train and write a model folder that ``hierbench eval --model <folder>`` takes; return it.

    Of several processes the first writes; the others return None.
    """
    from hierbench.attacks.threat import NORMS, ThreatModel, parse_eps
    from hierbench.datasets.catalogue import get_spec
    from hierbench.datasets.load import load_images
    from hierbench.datasets.seen import load_seen
    from hierbench.defences.catalogue import DEFENCES
    from hierbench.defences.training.trainer import TrainProgress
    from hierbench.defences.training.trainer import train as train_defence
    from hierbench.evaluation.prepare import choose_device
    from hierbench.evaluation.storage import make_folder
    from hierbench.hierarchy.catalogue import load_forest, load_hierarchy
    from hierbench.hierarchy.tree import Forest
    from hierbench.models.load import load_model
    from hierbench.models.storage import save_model
    from hierbench.processes import own_device

    recipe = resolve_recipe(request)
    defence = DEFENCES.get(recipe.defence)
    defence.load()
    if recipe.norm not in NORMS:
        raise InputError(f"--norm: {recipe.norm!r} is none of {', '.join(NORMS)}")
    spec = get_spec(recipe.dataset)
    eps = parse_eps(recipe.eps, norm=recipe.norm, name="--eps:")
    settings, training = split_settings(
        {**recipe.settings, **recipe.training, **request.settings}, defence.settings_type()
    )
    known = load_seen(recipe.seen).known_mask(recipe.dataset) if recipe.seen else None
    if recipe.trees:
        forest = load_forest(spec.tree_dataset, recipe.trees, spec.class_ids)
    else:
        forest = Forest((load_hierarchy(spec.tree_dataset, None, classes=spec.class_ids),))
    name = f"{recipe.defence}.{recipe.variant}"
    device = own_device(str(choose_device(request.device)))
    try:
        model = load_model("clip", backbone=recipe.backbone, device=device)
    except InputError as error:
        raise InputError(f"recipe {recipe.name} starts from {recipe.backbone}: {error}") from None
    folder = make_folder(request.out or Path(MODELS_FOLDER) / name)
    images = load_images(recipe.dataset, split="train", limit=request.limit, root=request.data_root)
    watched = (
        load_images(recipe.dataset, split="heldout", root=request.data_root) if training.validation_images else None
    )

    def progress(now: TrainProgress) -> None:
        report("training", now.step, now.steps, {"loss": now.loss, "rate": now.rate})

    result = train_defence(
        recipe.defence,
        model=model,
        images=images,
        forest=forest,
        template=spec.template,
        threat=ThreatModel(cast(Any, recipe.norm), Fraction(eps)),
        out_dir=folder,
        seed=request.seed,
        settings=settings,
        training=training,
        classes=None if known is None else [label for label, shown in enumerate(known) if shown],
        validation=watched,
        recipe=recipe.shared_name,
        resume=request.resume,
        progress=progress,
        should_stop=should_stop,
    )
    if not result.leads:
        return None
    trained_model = result.model
    trained_model.info = dataclasses.replace(
        trained_model.info,
        name=name,
        defence=recipe.defence,
        variant=recipe.variant,
        trained_on=recipe.dataset,
        seen=recipe.seen,
        settings={
            "eps": str(eps),
            "norm": recipe.norm,
            "trees": [t.tree for t in forest.trees],
            "seed": request.seed,
            **settings.as_dict(),
            **training.as_dict(),
        },
        guards=flat_guards(result.record["run"]["guards"]),
        guard_flags=tuple(result.record["run"]["guards"].get("flags", ())),
        backbone_hash=result.record["given"]["backbone"]["weights"],
    )
    return save_model(trained_model, folder, extra={"record": "training.json"})


def flat_guards(guards: Mapping[str, Any]) -> dict[str, float]:
    """Return the numbers among a training's collapse guards, nested ones as ``group/name``.

    >>> flat_guards({"flags": [], "tau": 0.5, "text_radius": {"leaf": 0.4}})
    {'tau': 0.5, 'text_radius/leaf': 0.4}
    """
    flat: dict[str, float] = {}
    for name, value in guards.items():
        if isinstance(value, Mapping):
            flat |= {f"{name}/{inner}": float(number) for inner, number in value.items()}
        elif isinstance(value, int | float):
            flat[name] = float(value)
    return flat


def split_settings(
    given: Mapping[str, object], kind: type[DefenceSettings]
) -> tuple[DefenceSettings, TrainingSettings]:
    """Return the defence's settings and the recipe's from one list of names; an unknown one raises ``InputError``."""
    from hierbench.defences.training.settings import TrainingSettings

    own, recipe = _hints(kind), _hints(TrainingSettings)
    for name in given:
        if name not in own and name not in recipe:
            import difflib

            near = difflib.get_close_matches(name, [*own, *recipe], n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"known are {', '.join([*own, *recipe])}"
            raise InputError(f"--set: there is no setting {name!r}: {hint}")
    return (
        kind.from_dict({n: read_value(n, v, own[n]) for n, v in given.items() if n in own}),
        TrainingSettings.from_dict({n: read_value(n, v, recipe[n]) for n, v in given.items() if n in recipe}),
    )


def _hints(kind: type[Settings]) -> dict[str, Any]:
    return typing.get_type_hints(kind)


def read_value(name: str, value: object, hint: Any) -> object:
    """Return a value of the command line in a setting's type; the settings themselves refuse what does not fit.

    >>> read_value("steps", "none", int | None), read_value("betas", "0.9,0.99", tuple)
    (None, (0.9, 0.99))
    """
    if not isinstance(value, str):
        return value
    choices = typing.get_args(hint) if typing.get_origin(hint) not in (None, typing.Literal, tuple) else (hint,)
    if type(None) in choices and value.lower() == "none":
        return None
    if tuple in choices or typing.get_origin(hint) is tuple:
        return tuple(read_value(name, part.strip(), float) for part in value.split(","))
    if bool in choices:
        return {"true": True, "yes": True, "false": False, "no": False}.get(value.lower(), value)
    for number in (int, float):
        if number in choices:
            try:
                return number(value)
            except ValueError:
                continue
    return value
