"""The named attacks. Light: importing it does not import torch; a plan does."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from hierbench.errors import InputError
from hierbench.registry import Registry

if TYPE_CHECKING:
    from hierbench.attacks.objectives import Objective
    from hierbench.attacks.optimiser import Stage
    from hierbench.attacks.verdict import Scoring
    from hierbench.models.layout import NodeLayout

Value = bool | int | float | str
Settings = Mapping[str, Value]


@dataclass(frozen=True, slots=True)
class Parameter:
    """One setting of an attack.

    Args:
        name: as given on the command line.
        default: its value when not given; its type is the setting's type.
        doc: one line.
        choices: the values allowed; empty allows any of the type.
        minimum: the smallest number allowed.
    """

    name: str
    default: Value
    doc: str
    choices: tuple[str, ...] = ()
    minimum: float | None = None

    def read(self, value: object, *, attack: str) -> Value:
        """Return a given value, a string from the command line too, in the setting's type; else ``InputError``."""
        kind = type(self.default)
        found = _as_kind(value, kind)
        wanted = {bool: "true or false", int: "a whole number", float: "a number", str: "text"}[kind]
        if self.choices:
            wanted = " or ".join(self.choices)
        if self.minimum is not None:
            wanted += f" of at least {self.minimum:g}"
        refused = found is None or (self.choices and found not in self.choices)
        if found is not None and self.minimum is not None:
            refused = refused or not float(found) >= self.minimum
        if refused or found is None:
            raise InputError(f"{attack}: {self.name} is {str(value)[:40]!r}, and should be {wanted}")
        return found


@dataclass(frozen=True)
class AttackSpec:
    """A named attack: what it is, where it comes from, its settings, and how its plan is made.

    Args:
        name: its name everywhere.
        summary: one sentence.
        source: METHODS.md section and arXiv id.
        depths: ``leaf`` attacks the deepest depth unless told otherwise, ``every`` each depth 1 .. D.
        parameters: its settings.
        components: from the settings to the names of the plan's stages, for the record.
        build: from depth, layout, scoring and settings to the plan.
    """

    name: str
    summary: str
    source: str
    depths: Literal["leaf", "every"]
    parameters: tuple[Parameter, ...]
    components: Callable[[Settings], tuple[str, ...]]
    build: Callable[[int, NodeLayout, Scoring, Settings], tuple[Stage, ...]]

    def default_depths(self, num_depths: int) -> tuple[int, ...]:
        """Return the depths it attacks in a tree of ``num_depths`` when none is named."""
        return (num_depths,) if self.depths == "leaf" else tuple(range(1, num_depths + 1))

    def settings(self, given: Mapping[str, object] | None = None) -> dict[str, Value]:
        """Return every setting, resolved; an unknown name or a wrong value is an ``InputError``."""
        given = given or {}
        names = [parameter.name for parameter in self.parameters]
        for name in given:
            if name not in names:
                near = difflib.get_close_matches(name, names, n=1)
                hint = f"did you mean {near[0]!r}?" if near else f"it has {', '.join(names)}"
                raise InputError(f"{self.name} has no setting {name!r}: {hint}")
        return {
            parameter.name: parameter.read(given.get(parameter.name, parameter.default), attack=self.name)
            for parameter in self.parameters
        }

    def plan(
        self, *, depth: int, layout: NodeLayout, scoring: Scoring, settings: Mapping[str, object] | None = None
    ) -> tuple[Stage, ...]:
        """Return the stages that attack one depth of a tree; see ``run_attack``."""
        return self.build(depth, layout, scoring, self.settings(settings))


_STEPS = Parameter("steps", 20, "gradient steps a run", minimum=1)
_ALPHA = Parameter("alpha", "auto", "step length: auto (eps/4; l2: 2.5 eps/steps), eps, eps/k, or a size such as 2/255")
_RESTARTS = Parameter("restarts", 1, "runs from different random starts", minimum=1)
_START = Parameter(
    "start", "uniform", "first point: uniform in the ball, or the clean image", choices=("uniform", "clean")
)
_PGD = (_STEPS, _ALPHA, _RESTARTS, _START)
_POOLING = Parameter(
    "pooling", "max", "how rollup makes a node's logit from its leaves' logits", choices=("max", "logsumexp")
)


def _pgd_stage(component: str, objective: Objective, settings: Settings) -> Stage:
    from hierbench.attacks.optimiser import Stage
    from hierbench.attacks.pgd import PGD

    start: Literal["uniform", "clean"] = "clean" if settings["start"] == "clean" else "uniform"
    optimiser = PGD(steps=int(settings["steps"]), alpha=str(settings["alpha"]), start_at=start)
    return Stage(component, objective, optimiser, restarts=int(settings["restarts"]))


def _pooling(settings: Settings) -> Literal["max", "logsumexp"]:
    return "max" if settings["pooling"] == "max" else "logsumexp"


def _leaf_plan(depth: int, layout: NodeLayout, scoring: Scoring, settings: Settings) -> tuple[Stage, ...]:
    from hierbench.attacks.objectives import LeafObjective

    return (_pgd_stage("pgd-leaf-ce", LeafObjective(), settings),)


def _superclass_plan(depth: int, layout: NodeLayout, scoring: Scoring, settings: Settings) -> tuple[Stage, ...]:
    from hierbench.attacks.objectives import NodeObjective

    objective = NodeObjective(depth=depth, scoring=scoring, pooling=_pooling(settings))
    return (_pgd_stage("pgd-node-ce", objective, settings),)


def _multilevel_components(settings: Settings) -> tuple[str, ...]:
    if not settings["targeted"]:
        return ("pgd-levels-ce",)
    return ("pgd-path-t",) if settings["path"] else ("pgd-node-t",)


def _multilevel_plan(depth: int, layout: NodeLayout, scoring: Scoring, settings: Settings) -> tuple[Stage, ...]:
    from hierbench.attacks.objectives import LevelsObjective, TargetedObjective

    pooling = _pooling(settings)
    objective: Objective = LevelsObjective(scoring=scoring, pooling=pooling)
    if settings["targeted"]:
        objective = TargetedObjective(
            depth=depth,
            scoring=scoring,
            pooling=pooling,
            targets=int(settings["targets"]),
            path=bool(settings["path"]),
        )
    (component,) = _multilevel_components(settings)
    return (_pgd_stage(component, objective, settings),)


def _fill(registry: Registry[AttackSpec]) -> None:
    for spec in (
        AttackSpec(
            name="leaf_pgd",
            summary="PGD on the cross-entropy of the true leaf: the usual flat attack.",
            source="METHODS.md 2; arXiv 1706.06083",
            depths="leaf",
            parameters=_PGD,
            components=lambda settings: ("pgd-leaf-ce",),
            build=_leaf_plan,
        ),
        AttackSpec(
            name="superclass_pgd",
            summary="PGD on the cross-entropy of the true node at the attacked depth.",
            source="METHODS.md 2; max pooling: NHA, arXiv 2108.11785",
            depths="every",
            parameters=(*_PGD, _POOLING),
            components=lambda settings: ("pgd-node-ce",),
            build=_superclass_plan,
        ),
        AttackSpec(
            name="multilevel_pgd",
            summary="PGD on all depths at once: the weighted sum of losses, or towards the strongest wrong nodes.",
            source="METHODS.md 1, 2",
            depths="every",
            parameters=(
                *_PGD,
                _POOLING,
                Parameter(
                    "targeted", False, "aim at the strongest wrong nodes of the attacked depth, one after another"
                ),
                Parameter("targets", 9, "how many of them (fewer where the depth has fewer)", minimum=1),
                Parameter("path", False, "aim at a target's ancestors too, each with its depth's weight"),
            ),
            components=_multilevel_components,
            build=_multilevel_plan,
        ),
    ):
        registry.add(spec.name, spec)


ATTACKS: Registry[AttackSpec] = Registry("attack", fill=_fill)
"""Every named attack."""


def _as_kind(value: object, kind: type) -> Value | None:
    """Return the value in a setting's type, or None where it is not of that type."""
    if kind is bool:
        words = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}
        return value if isinstance(value, bool) else words.get(str(value).strip().lower())
    if isinstance(value, bool):
        return None
    if kind is str:
        return str(value).strip() or None
    try:
        number = float(str(value))
    except ValueError:
        return None
    if kind is float:
        return number
    return int(number) if number.is_integer() else None
