"""The defences by name. Importing this file imports neither torch nor any method."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hierbench.defences.settings import DefenceSettings
from hierbench.errors import HierbenchError, InputError
from hierbench.registry import Registry

if TYPE_CHECKING:
    from hierbench.defences.base import Defence


@dataclass(frozen=True, kw_only=True)
class DefenceSpec:
    """One defence: what it is, where it comes from, what it trains, and where its code is."""

    name: str
    title: str
    summary: str
    source: str
    trains: tuple[str, ...]
    """Parameters that move by default: ``visual``, ``text_projection``, ``head``."""
    implementation: str | None
    """``module:class`` of the method; None for the undefended backbone."""
    settings: str | None = None
    """``module:class`` of its settings."""

    def load(self) -> type[Defence[Any]]:
        """Import the method; the undefended backbone raises ``InputError``."""
        if self.implementation is None:
            raise InputError(f"defence {self.name!r} is the undefended backbone: there is nothing to train")
        found = _load(self.implementation)
        if not isinstance(found, type):
            raise HierbenchError(f"defence {self.name!r}: {self.implementation} is no class")
        return found

    def settings_type(self) -> type[DefenceSettings]:
        """Import the settings, which say their defaults."""
        if self.settings is None:
            raise InputError(f"defence {self.name!r} has no settings")
        found = _load(self.settings)
        if not (isinstance(found, type) and issubclass(found, DefenceSettings)):
            raise HierbenchError(f"defence {self.name!r}: {self.settings} is no DefenceSettings")
        return found


def _load(target: str) -> object:
    module, _, attribute = target.partition(":")
    return getattr(importlib.import_module(module), attribute)


def _fill(registry: Registry[DefenceSpec]) -> None:
    for spec in (
        DefenceSpec(
            name="none",
            title="Undefended",
            summary="The backbone as it is; its model is called clip.",
            source="",
            trains=(),
            implementation=None,
        ),
        DefenceSpec(
            name="tecoa",
            title="TeCoA",
            summary="Cross-entropy of adversarial images against the class prompts.",
            source="Mao et al., ICLR 2023, arXiv 2212.07016",
            trains=("visual",),
            implementation="hierbench.defences.tecoa:TeCoA",
            settings="hierbench.defences.settings:TeCoASettings",
        ),
        DefenceSpec(
            name="hier_aft",
            title="Hier-AFT",
            summary="Cross-entropy at every level of one or more class trees, on the Poincare ball.",
            source="CVPR 2026, arXiv 2604.18867; a re-implementation, constants are ours (METHODS.md 5.8)",
            trains=("visual", "text_projection", "head"),
            implementation="hierbench.defences.hier_aft:HierAFT",
            settings="hierbench.defences.settings:HierAFTSettings",
        ),
    ):
        registry.add(spec.name, spec)


DEFENCES: Registry[DefenceSpec] = Registry("defence", fill=_fill)
