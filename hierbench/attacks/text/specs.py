"""The named text and multimodal attacks, for the catalogue. Light: importing it does not import torch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from hierbench.attacks.named.pgd import PGD_SETTINGS, POOLING, pgd_part, pooling_of
from hierbench.attacks.spec import AttackSpec, Ground, Parameter, Part, Runner, Settings, Surroundings, Value
from hierbench.attacks.text.settings import (
    ARTICLES,
    COMPONENTS,
    COUPLED_COMPONENT,
    LANGUAGE_MODEL,
    OFFSETS,
    SCOPES,
    SPANS,
    Images,
    SourceKind,
    TextSettings,
)
from hierbench.errors import InputError

if TYPE_CHECKING:
    from hierbench.attacks.objectives.base import Objective
    from hierbench.attacks.optimisers.base import Stage
    from hierbench.attacks.verdict import Scoring
    from hierbench.models.layout import NodeLayout

WORD_SOURCES: tuple[SourceKind, ...] = ("wordnet", "characters", "mlm")

# Source (None: a setting of the attack) and what happens to the images.
_NAMES: dict[str, tuple[SourceKind | None, Images, str, str]] = {
    "text_synonyms": ("wordnet", "clean", "One word of a prompt becomes a WordNet synonym.", "METHODS.md 3"),
    "text_characters": (
        "characters",
        "clean",
        "One character of a prompt is replaced, deleted or put in.",
        "METHODS.md 3; arXiv 2405.04346, 2506.03355",
    ),
    "text_mlm": (
        "mlm",
        "clean",
        "One word of a prompt becomes what a masked language model expects in its place.",
        "METHODS.md 3; arXiv 2404.19287",
    ),
    "text_features": (
        "continuous",
        "clean",
        "PGD on the projected text features, for each image its own.",
        "METHODS.md 3, 5.8",
    ),
    "multimodal_independent": (
        None,
        "independent",
        "PGD on the image against the clean prompts, scored with attacked prompts.",
        "METHODS.md 3; arXiv 2404.19287",
    ),
    "multimodal_coupled": (
        None,
        "coupled",
        "The prompts are attacked first, then the image is moved away from itself and from them.",
        "METHODS.md 3; arXiv 2404.19287",
    ),
}


def is_text_attack(name: str) -> bool:
    """Say whether an attack runs through ``TextAttacker``."""
    return name in _NAMES


def text_settings(name: str, settings: Mapping[str, Any]) -> TextSettings:
    """Return what a named text attack's settings, resolved by its specification, mean."""
    source, images, _, _ = _NAMES[name]
    known = TextSettings.__dataclass_fields__
    given = {key: value for key, value in settings.items() if key in known}
    if source is not None:
        given["source"] = source
    return TextSettings(images=images, **given)


def image_plan(name: str, settings: Settings, *, depth: int, layout: NodeLayout, scoring: Scoring) -> tuple[Stage, ...]:
    """Return the stages of a multimodal attack's image half; none for an attack on the text alone.

    ``TextAttacker.run`` takes it as ``plan``; for a coupled attack it replaces the objective by its own.
    """
    if _NAMES[name][1] == "clean":
        return ()
    part = _image_part("pgd-node-ce", settings, Ground(layout.check_depth(depth), layout.node_counts, scoring))
    return (part.make(Surroundings(layout)),)


def _image_part(component: str, settings: Settings, ground: Ground) -> Part:
    def objective(around: Surroundings) -> Objective:
        from hierbench.attacks.objectives.base import NodeObjective

        return NodeObjective(depth=ground.depth, scoring=ground.scoring, pooling=pooling_of(settings))

    return pgd_part(component, objective, settings)


def _parts(name: str) -> Callable[[Settings, Ground], tuple[Part, ...]]:
    """Return the parts of a named attack: for its record only, as none of them is a stage of the engine by itself."""

    def refuse(around: Surroundings) -> Stage:
        raise InputError(f"{name} attacks the prompts: it has no plan of stages, and is run by its own loop")

    def parts(settings: Settings, ground: Ground) -> tuple[Part, ...]:
        found = text_settings(name, settings)
        text = Part(COMPONENTS[found.source], refuse)
        image = {"clean": None, "independent": "pgd-node-ce", "coupled": COUPLED_COMPONENT}[found.images]
        return (text,) if image is None else (text, Part(image, refuse))

    return parts


def _prepare(bound: Any, settings: Settings) -> tuple[Any, Mapping[str, Value]]:
    """Return the model as it is, and what its record says otherwise than the settings."""
    from hierbench.attacks.text.runner import facts_of

    return bound, facts_of(settings)


def _runner(name: str) -> Callable[[Any, Settings], Runner]:
    def runner(bound: Any, settings: Settings) -> Runner:
        from hierbench.attacks.text.runner import PromptRunner

        return PromptRunner(bound, name, settings)

    return runner


def _parameters(source: SourceKind | None) -> tuple[Parameter, ...]:
    scope = Parameter("scope", "all", "whose prompts: of all nodes, or of the image's true node", choices=SCOPES)
    if source == "continuous":
        return (
            scope,
            Parameter(
                "text_eps", 2e-4, "linf radius on the normalised text feature; 0.02 is the strong one", minimum=0
            ),
            Parameter("text_steps", 20, "gradient steps, each of a quarter of the radius", minimum=1),
        )
    found = [scope, Parameter("span", "any", "which words may change: any, or the class name's", choices=SPANS)]
    if source is None:
        found.append(Parameter("source", "wordnet", "where replacements come from", choices=WORD_SOURCES))
    if source in ("wordnet", "mlm", None):
        found.append(Parameter("article", "agree", "a or an before a replaced word", choices=ARTICLES))
    if source in ("characters", None):
        found.append(Parameter("positions", 10, "places at which every character is tried; 0: all places", minimum=0))
    if source in ("mlm", None):
        found += [
            Parameter("language_model", LANGUAGE_MODEL, "Hub id or folder of a masked language model"),
            Parameter("revision", "main", "its Hub commit"),
            Parameter("offset", "correct", "where its predictions are read", choices=OFFSETS),
        ]
    if source is None:
        found.append(Parameter("text_weight", 3.0, "coupled: weight of the attacked prompt's divergence", minimum=0))
    return tuple(found)


TEXT_ATTACKS = tuple(
    AttackSpec(
        name=name,
        summary=summary,
        source=reference,
        depths="every",
        parameters=(*((*PGD_SETTINGS, POOLING) if images != "clean" else ()), *_parameters(source)),
        parts=_parts(name),
        prepare=_prepare,
        runner=_runner(name),
    )
    for name, (source, images, summary, reference) in _NAMES.items()
)
"""The named attacks on text, and on image and text together."""
