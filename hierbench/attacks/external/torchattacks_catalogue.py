"""Which attacks of torchattacks fit a ball around pixels, found from the library itself, and what can be set.

The library is imported when it is first asked for: it installs a top-level ``robustbench`` package beside itself.
"""

from __future__ import annotations

import difflib
import importlib
import inspect
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from hierbench.attacks.optimisers.pgd import step_size
from hierbench.attacks.spec import Parameter, Value
from hierbench.attacks.threat import NORMS, Norm, ThreatModel
from hierbench.errors import InputError

PREFIX = "torchattacks:"

RADIUS = ("eps", "max_epsilon")
"""What the library calls the radius."""
OURS = frozenset({"model", "norm", "n_classes", "seed", "verbose", *RADIUS})
"""Settled by the model, the threat model and the run's seed."""
ALIASES: dict[str, tuple[str, ...]] = {
    "steps": ("steps", "num_iter_set", "nb_iter", "max_iterations", "n_queries"),
    "restarts": ("n_restarts",),
}
"""Our names for settings, and the library's, of which an attack has one at most."""

_NORM_NAMES: dict[str, Norm] = {"Linf": "linf", "L2": "l2"}
_MEASURE = re.compile(r"Distance Measure\s*:\s*(.+)")
_NO_MEASURE: dict[str, tuple[Norm, ...]] = {"GN": NORMS}
"""States no norm: noise of its own size, that the projection cuts to any ball."""
_UNFIT = {"VANILA": "it gives the images back unchanged"}
_REAL = frozenset({"c", "kappa", "scale"})
"""Real numbers whose default happens to be a whole one."""


@dataclass(frozen=True)
class ForeignAttack:
    """One attack of the library.

    Args:
        name: the library's class name.
        maker: the class.
        norms: balls it searches.
        defaults: its constructor's arguments and defaults, without the model.
    """

    name: str
    maker: Any
    norms: tuple[Norm, ...]
    defaults: Mapping[str, Any]

    @property
    def full_name(self) -> str:
        """The name in records and on the command line."""
        return PREFIX + self.name

    def parameters(self) -> tuple[Parameter, ...]:
        """Return what a user can set: our ``steps``, ``alpha`` and ``restarts`` where it has them, then its own.

        ``alpha`` is text as everywhere (``auto``, ``eps/4``, ``2/255``); ``library``, the default, keeps the
        library's own share of eps.
        """
        found = []
        for key, default in self.defaults.items():
            name = _our_name(key)
            if key in OURS or not isinstance(default, (bool, int, float, str)):
                continue
            if name == "alpha":
                found.append(Parameter("alpha", "library", "step length; library: its own share of eps"))
            elif name in ALIASES:
                found.append(Parameter(name, default, f"the library's {key}", minimum=1))
            else:
                found.append(Parameter(name, float(default) if key in _REAL else default, "the library's own"))
        return tuple(found)

    def arguments(
        self, given: Mapping[str, object], *, threat: ThreatModel, candidates: int, seed: int
    ) -> dict[str, Value]:
        """Return every argument of the constructor but the model; a wrong setting is an ``InputError``."""
        known = {parameter.name: parameter for parameter in self.parameters()}
        for name in given:
            if name in OURS or name in RADIUS:
                raise InputError(f"{self.full_name}: {name} is settled by the threat model, the tree and the seed")
            if name not in known:
                near = difflib.get_close_matches(name, known, n=1)
                hint = f"did you mean {near[0]!r}?" if near else f"it has {', '.join(known) or 'none'}"
                raise InputError(f"{self.full_name} has no setting {name!r}: {hint}")
        values = {
            name: parameter.read(given.get(name, parameter.default), attack=self.full_name)
            for name, parameter in known.items()
        }
        found: dict[str, Value] = {}
        for key in self.defaults:
            if key in RADIUS:
                found[key] = threat.radius
            elif key == "norm":
                found[key] = next(name for name, norm in _NORM_NAMES.items() if norm == threat.norm)
            elif key == "n_classes":
                found[key] = candidates
            elif key == "seed":
                found[key] = seed
            elif key == "alpha":
                found[key] = self._alpha(str(values["alpha"]), threat, int(values.get("steps", 1)))
            elif _our_name(key) in values:
                found[key] = values[_our_name(key)]
        return found

    def _alpha(self, given: str, threat: ThreatModel, steps: int) -> float:
        if given != "library":
            return step_size(given, threat=threat, steps=steps)
        radius = next(self.defaults[key] for key in RADIUS if key in self.defaults)
        return float(self.defaults["alpha"] / radius * threat.radius)


def foreign_attack(name: str, *, norm: Norm | None = None) -> ForeignAttack:
    """Return the attack of that class name, with or without ``torchattacks:``.

    A name that the library does not have, an attack that does not fit and why, and one of another ``norm`` are an
    ``InputError``.
    """
    bare = name.removeprefix(PREFIX)
    if bare not in _classes():
        near = difflib.get_close_matches(bare.upper(), {known.upper(): known for known in _classes()}, n=1)
        known = next((known for known in _classes() if near and known.upper() == near[0]), None)
        hint = f"did you mean {known!r}?" if known else "see torchattacks' own list"
        raise InputError(f"torchattacks has no attack {bare[:40]!r}: {hint}")
    found = _read(bare)
    if isinstance(found, str):
        raise InputError(f"{PREFIX}{bare} does not fit: {found}")
    if norm is not None and norm not in found.norms:
        others = [other for other in fitting_names(norm) if other.startswith(bare)]
        hint = f"; {PREFIX}{others[0]} does" if others else ""
        raise InputError(f"{PREFIX}{bare} does not search a {norm} ball, but {' or '.join(found.norms)}{hint}")
    return found


def fitting_names(norm: Norm | None = None) -> tuple[str, ...]:
    """Return the class names of the attacks that fit, of one norm or of any, in the library's order."""
    found = ((name, _read(name)) for name in _classes())
    return tuple(
        name for name, attack in found if not isinstance(attack, str) and (norm is None or norm in attack.norms)
    )


def unfit_reasons() -> dict[str, str]:
    """Return why each of the others does not fit."""
    found = ((name, _read(name)) for name in _classes())
    return {name: reason for name, reason in found if isinstance(reason, str)}


@cache
def _classes() -> dict[str, Any]:
    try:
        library = importlib.import_module("torchattacks")
    except ImportError:
        raise InputError("torchattacks is missing: pip install torchattacks") from None
    return {name: getattr(library, name) for name in library.__all__}


@cache
def _read(name: str) -> ForeignAttack | str:
    """Return the attack, or why it does not fit."""
    if name in _UNFIT:
        return _UNFIT[name]
    maker = _classes()[name]
    signature = inspect.signature(maker.__init__).parameters
    arguments = {key: entry for key, entry in list(signature.items())[1:] if entry.kind is not entry.VAR_KEYWORD}
    missing = [key for key, entry in arguments.items() if entry.default is entry.empty and key != "model"]
    if missing or "model" not in arguments:
        return f"it needs {', '.join(missing) or 'other attacks'}, which a setting cannot give"
    stated = _MEASURE.search(inspect.getdoc(maker) or "")
    norms = _NO_MEASURE.get(name, ())
    if stated:
        norms = tuple(norm for word, norm in _NORM_NAMES.items() if re.search(rf"\b{word}\b", stated[1]))
    if not norms:
        return f"it searches {stated[1].strip() if stated else 'no stated norm'}, not a linf or l2 ball"
    defaults = {key: entry.default for key, entry in arguments.items() if key != "model"}
    return ForeignAttack(name, maker, norms, defaults)


def _our_name(key: str) -> str:
    return next((ours for ours, theirs in ALIASES.items() if key in theirs), key)
