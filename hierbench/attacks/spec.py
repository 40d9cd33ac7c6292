"""What a named attack is: its settings, its parts, and how they become the stages of a plan. Torch-free."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from hierbench.errors import InputError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from hierbench.attacks.engine.result import AttackResult
    from hierbench.attacks.optimisers.base import Stage
    from hierbench.attacks.universal import Fitter
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
        tacit: its default goes without saying: it came after the first records, and theirs stay the same cells.
    """

    name: str
    default: Value
    doc: str
    choices: tuple[str, ...] = ()
    minimum: float | None = None
    tacit: bool = False

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
class Ground:
    """Where an attack is aimed: what its parts may depend on without a model.

    Args:
        depth: the attacked depth.
        nodes: number of nodes at the depths 1 .. D.
        scoring: whose verdict stops the search.
    """

    depth: int
    nodes: tuple[int, ...]
    scoring: Scoring

    @property
    def candidates(self) -> int:
        """How many nodes the attacked depth has."""
        return self.nodes[self.depth - 1]

    def at(self, depth: int) -> Ground:
        """Return the same at another depth."""
        return Ground(depth, self.nodes, self.scoring)


@dataclass(frozen=True)
class Surroundings:
    """What a part may need besides, to become a stage.

    Args:
        layout: which logit belongs to which node.
        heights: long [C, C], the height of the lowest common ancestor of two leaves in the tree; None if the caller
            has no tree.
        bound: the model bound to the tree's prompts, for attacks on more than its logits; None if there is none.
        fitter: fits one perturbation for all images on images that are not scored; None if there are none.
    """

    layout: NodeLayout
    heights: NDArray[Any] | None = None
    bound: Any = None
    fitter: Fitter | None = None


@dataclass(frozen=True)
class Part:
    """One elementary attack of a named one.

    Args:
        component: its name in the record.
        make: builds its stage.
        instead: what it stands in for and why, in words; empty where it is what the name says.
    """

    component: str
    make: Callable[[Surroundings], Stage]
    instead: str = ""


Runner = Callable[[Mapping[str, Any]], "AttackResult"]
"""Attacks one chunk: from the arguments of ``run_attack`` to its result."""


@dataclass(frozen=True)
class AttackSpec:
    """A named attack: what it is, where it comes from, its settings, and how its plan is made.

    Args:
        name: its name everywhere.
        summary: one sentence.
        source: METHODS.md section and arXiv id.
        depths: ``leaf`` attacks the deepest depth unless told otherwise, ``every`` each depth 1 .. D, ``pooled`` all
            depths in one search under roll-up (each depth by itself under direct scoring).
        parameters: its settings.
        parts: from the settings and where it is aimed to its elementary attacks, the cheaper first.
        leaf_only: it is defined at the leaves' depth alone.
        prepare: called once a cell, before anything is written: from the bound model and the settings to the model that
            is attacked and judged, and what the record's parameters say besides; None leaves the model as it is.
        runner: another loop in place of a plan's stages, made once a cell from the bound model and the settings: from
            the arguments of ``run_attack`` (less its plan, name and pooling) to its result.
        engine: whose loop runs.
        open_settings: settings it does not list are handed on as they are given.
        universal: it is one perturbation for all images, and needs a ``fitter`` (``hierbench.attacks.universal``).
    """

    name: str
    summary: str
    source: str
    depths: Literal["leaf", "every", "pooled"]
    parameters: tuple[Parameter, ...]
    parts: Callable[[Settings, Ground], tuple[Part, ...]]
    leaf_only: bool = field(default=False)
    prepare: Callable[[Any, Settings], tuple[Any, Mapping[str, Value]]] | None = field(default=None)
    runner: Callable[[Any, Settings], Runner] | None = field(default=None)
    engine: str = field(default="hierbench")
    open_settings: bool = field(default=False)
    universal: bool = field(default=False)

    def default_depths(self, num_depths: int, scoring: Scoring = "rollup") -> tuple[int, ...]:
        """Return the depths it attacks in a tree of ``num_depths`` when none is named."""
        if self.depths == "leaf" or self.pools(scoring):
            return (num_depths,)
        return tuple(range(1, num_depths + 1))

    def pools(self, scoring: Scoring) -> bool:
        """Return whether it searches all depths at once: only roll-up's cuts allow it."""
        return self.depths == "pooled" and scoring == "rollup"

    def searches_in_full(self, scoring: Scoring) -> bool:
        """Return whether it can go on after a success, for the severity of mistakes: our loop, at one depth."""
        return self.engine == "hierbench" and not self.pools(scoring)

    def settings(self, given: Mapping[str, object] | None = None) -> dict[str, Value]:
        """Return every setting, resolved; an unknown name or a wrong value is an ``InputError``."""
        given = given or {}
        names = [parameter.name for parameter in self.parameters]
        if self.open_settings:
            return {
                name: value if isinstance(value, (bool, int, float)) else str(value) for name, value in given.items()
            }
        for name in given:
            if name not in names:
                near = difflib.get_close_matches(name, names, n=1)
                hint = f"did you mean {near[0]!r}?" if near else f"it has {', '.join(names)}"
                raise InputError(f"{self.name} has no setting {name!r}: {hint}")
        return {
            parameter.name: parameter.read(given.get(parameter.name, parameter.default), attack=self.name)
            for parameter in self.parameters
        }

    def stated(self, settings: Settings) -> dict[str, Value]:
        """Return the settings as a record states them: all but tacit ones at their default."""
        tacit = {parameter.name: parameter.default for parameter in self.parameters if parameter.tacit}
        return {name: value for name, value in settings.items() if name not in tacit or value != tacit[name]}

    def components(
        self, settings: Settings, *, nodes: Sequence[int], depths: Sequence[int], scoring: Scoring
    ) -> tuple[str, ...]:
        """Return the names of the elementary attacks that run at these depths, each once."""
        return tuple(dict.fromkeys(part.component for part in self._all_parts(settings, nodes, depths, scoring)))

    def substitutions(
        self, settings: Settings, *, nodes: Sequence[int], depths: Sequence[int], scoring: Scoring
    ) -> tuple[str, ...]:
        """Return what ran in place of parts that are undefined at some depth, in words."""
        parts = self._all_parts(settings, nodes, depths, scoring)
        return tuple(dict.fromkeys(part.instead for part in parts if part.instead))

    def plan(
        self,
        *,
        depth: int,
        layout: NodeLayout,
        scoring: Scoring,
        settings: Mapping[str, object] | None = None,
        heights: NDArray[Any] | None = None,
        bound: Any = None,
        fitter: Fitter | None = None,
    ) -> tuple[Stage, ...]:
        """Return the stages that attack one depth of a tree (or pool all); see ``run_attack``."""
        if self.leaf_only and depth != layout.num_depths:
            raise InputError(f"{self.name} is defined at the leaves alone: depth {layout.num_depths}, not {depth}")
        around = Surroundings(layout, heights, bound, fitter)
        ground = Ground(layout.check_depth(depth), layout.node_counts, scoring)
        return tuple(part.make(around) for part in self.parts(self.settings(settings), ground))

    def _all_parts(
        self, settings: Settings, nodes: Sequence[int], depths: Sequence[int], scoring: Scoring
    ) -> list[Part]:
        return [part for depth in depths for part in self.parts(settings, Ground(depth, tuple(nodes), scoring))]


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
