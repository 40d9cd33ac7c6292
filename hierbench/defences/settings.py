"""Constants as frozen dataclasses, checked and with their provenance; a defence's own stand in its file.

[P] the paper's text, [C] the authors' code, [N] a reader's note on the paper, [D] our decision (METHODS.md). Nothing
here imports torch, so that a listing can show defaults quickly.
"""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Literal, Self

from hierbench.errors import InputError


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Base of all settings: built from names and values, checked, and written into records as plain JSON."""

    def __post_init__(self) -> None:
        hints = typing.get_type_hints(type(self))
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            problem = _problem(value, hints[field.name])
            if problem:
                raise InputError(f"setting {field.name} = {value!r}: {problem}")
        self.check()

    def check(self) -> None:
        """Raise ``InputError`` for values that fit their type but make no sense."""

    def as_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {
            name: list(value) if isinstance(value, tuple) else value for name, value in dataclasses.asdict(self).items()
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Build settings from names and values; an unknown name raises ``InputError`` with what exists."""
        known = [field.name for field in dataclasses.fields(cls)]
        for name in values:
            if name not in known:
                import difflib

                near = difflib.get_close_matches(name, known, n=1)
                hint = f"did you mean {near[0]!r}?" if near else f"known are {', '.join(known)}"
                raise InputError(f"unknown setting {name!r}: {hint}")
        return cls(**{name: tuple(value) if isinstance(value, list) else value for name, value in values.items()})

    def require(self, condition: bool, name: str, want: str) -> None:
        """Raise ``InputError`` saying what a setting should be, unless the condition holds."""
        if not condition:
            raise InputError(f"setting {name} = {getattr(self, name)!r}: {want}")


def _problem(value: object, hint: object) -> str | None:
    origin, choices = typing.get_origin(hint), typing.get_args(hint)
    if origin is Literal:
        return None if value in choices else f"choose {' or '.join(repr(choice) for choice in choices)}"
    if origin in (types.UnionType, typing.Union):
        return None if any(_problem(value, choice) is None for choice in choices) else f"it should be {hint}"
    if origin is tuple:
        if isinstance(value, tuple) and len(value) == len(choices):
            return next(filter(None, (_problem(v, c) for v, c in zip(value, choices, strict=True))), None)
        return f"it should be {len(choices)} values"
    if hint is float:
        return None if isinstance(value, int | float) and not isinstance(value, bool) else "it should be a number"
    if hint is int and isinstance(value, bool):
        return "it should be a whole number"
    if isinstance(hint, type) and not isinstance(value, hint):
        return f"it should be of type {hint.__name__}"
    return None


@dataclass(frozen=True, kw_only=True)
class DefenceSettings(Settings):
    """What every adversarial defence sets: its inner attack (METHODS.md 5, shared frame)."""

    attack_steps: int = 2
    alpha_share: float | None = 1.0
    """Step size of the inner attack as a share of eps; 1.0 is the TeCoA family's alpha = eps [C]."""

    def check(self) -> None:
        """See ``Settings.check``."""
        self.require(self.attack_steps >= 1, "attack_steps", "it should be 1 or more")
        self.require(self.alpha_share is None or self.alpha_share > 0, "alpha_share", "it should be above 0")

    def alpha(self, eps: Fraction) -> float:
        """Return the step size for one eps."""
        share = 1.0 if self.alpha_share is None else self.alpha_share
        return share * float(eps)
