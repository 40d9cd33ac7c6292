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
    from hierbench.cli.bars import PhaseReport
    from hierbench.defences.settings import DefenceSettings, Settings, TrainingSettings

MODELS_FOLDER = "hierbench-models"


@dataclass(frozen=True, kw_only=True)
class TrainRequest:
    """What was said; None means the protocol's value."""

    defence: str
    dataset: str | None
    backbone: str | None
    trees: tuple[str, ...]
    eps: str | None
    norm: str
    variant: str | None
    settings: Mapping[str, object]
    limit: int | None
    seed: int
    protocol: str | None
    device: str | None
    out: Path | None
    data_root: Path | None
    resume: bool


def run_training(request: TrainRequest, *, report: PhaseReport, should_stop: Callable[[], bool]) -> Path:
    """Train and write a model folder that ``hierbench eval --model <folder>`` takes; return it."""
    from hierbench.attacks.threat import NORMS, ThreatModel, parse_eps
    from hierbench.datasets.catalogue import get_spec
    from hierbench.datasets.load import load_images
    from hierbench.datasets.seen import load_seen
    from hierbench.defences.catalogue import DEFENCES
    from hierbench.defences.trainer import TrainProgress
    from hierbench.defences.trainer import train as train_defence
    from hierbench.evaluation.prepare import choose_device
    from hierbench.evaluation.protocol import PROTOCOLS, choose_protocol
    from hierbench.evaluation.storage import make_folder
    from hierbench.hierarchy.catalogue import load_forest, load_hierarchy
    from hierbench.hierarchy.tree import Forest
    from hierbench.models.load import load_model
    from hierbench.models.storage import save_model

    defence = DEFENCES.get(request.defence)
    defence.load()
    if request.norm not in NORMS:
        raise InputError(f"--norm: {request.norm!r} is none of {', '.join(NORMS)}")
    protocol = choose_protocol(request.protocol, None)
    if request.protocol is None and request.dataset is not None:
        trained = [p for _, p in PROTOCOLS.items() if p.train_dataset == request.dataset]
        protocol = trained[0] if trained else choose_protocol(None, request.dataset)
    dataset = request.dataset or protocol.train_dataset
    spec = get_spec(dataset)
    eps = parse_eps(request.eps or protocol.train_eps, name="--eps:")
    recipe = protocol.train_settings if dataset == protocol.train_dataset else {}
    settings, training = split_settings({**recipe, **request.settings}, defence.settings_type())
    known = load_seen(protocol.seen_split).known_mask(dataset) if protocol.seen_split else None
    if request.trees:
        forest = load_forest(spec.tree_dataset, request.trees, spec.class_ids)
    else:
        entry = protocol.dataset(dataset)
        tree = entry.tree if entry else None
        forest = Forest((load_hierarchy(spec.tree_dataset, tree, classes=spec.class_ids),))
    name = f"{request.defence}.{request.variant or protocol.variant}"
    folder = make_folder(request.out or Path(MODELS_FOLDER) / name)
    model = load_model(
        "clip", backbone=request.backbone or protocol.backbone, device=str(choose_device(request.device))
    )
    images = load_images(dataset, split="train", limit=request.limit, root=request.data_root)

    def progress(now: TrainProgress) -> None:
        report("training", now.step, now.steps, {"loss": now.loss, "rate": now.rate})

    result = train_defence(
        request.defence,
        model=model,
        images=images,
        forest=forest,
        template=spec.template,
        threat=ThreatModel(cast(Any, request.norm), Fraction(eps)),
        out_dir=folder,
        seed=request.seed,
        settings=settings,
        training=training,
        classes=None if known is None else [label for label, shown in enumerate(known) if shown],
        resume=request.resume,
        progress=progress,
        should_stop=should_stop,
    )
    trained_model = result.model
    trained_model.info = dataclasses.replace(
        trained_model.info,
        name=name,
        defence=request.defence,
        variant=name.partition(".")[2],
        trained_on=dataset,
        seen=protocol.seen_split,
        settings={
            "eps": str(eps),
            "norm": request.norm,
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
    from hierbench.defences.settings import TrainingSettings

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
