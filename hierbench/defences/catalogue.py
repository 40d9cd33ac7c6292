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
    """Parameters that move by default: ``visual``, ``text``, ``text_projection``, ``head``."""
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
            implementation="hierbench.defences.methods.tecoa:TeCoA",
            settings="hierbench.defences.methods.tecoa:TeCoASettings",
        ),
        DefenceSpec(
            name="clean_ft",
            title="Clean fine-tuning",
            summary="Cross-entropy of clean images against the class prompts; no attack.",
            source="the control of every adversarial defence",
            trains=("visual",),
            implementation="hierbench.defences.methods.clean_ft:CleanFT",
            settings="hierbench.defences.methods.clean_ft:CleanFTSettings",
        ),
        DefenceSpec(
            name="pmg_aft",
            title="PMG-AFT",
            summary="TeCoA, held near the original model and near its own clean answers by two divergences.",
            source="Wang et al., CVPR 2024",
            trains=("visual",),
            implementation="hierbench.defences.methods.pmg_aft:PMGAFT",
            settings="hierbench.defences.methods.pmg_aft:PMGAFTSettings",
        ),
        DefenceSpec(
            name="fare",
            title="FARE",
            summary="Adversarial embeddings stay where the original model puts the clean ones; no labels.",
            source="Schlarmann et al., ICML 2024",
            trains=("visual",),
            implementation="hierbench.defences.methods.fare:FARE",
            settings="hierbench.defences.methods.fare:FARESettings",
        ),
        DefenceSpec(
            name="tga_zsr",
            title="TGA-ZSR",
            summary="TeCoA, with text-guided attention maps held near the original model's.",
            source="Yu et al., NeurIPS 2024",
            trains=("visual",),
            implementation="hierbench.defences.methods.tga_zsr:TGAZSR",
            settings="hierbench.defences.methods.tga_zsr:TGAZSRSettings",
        ),
        DefenceSpec(
            name="mmcoa",
            title="MMCoA",
            summary="In-batch contrastive training of both towers on attacked images and attacked prompts.",
            source="Zhou et al., arXiv 2404.19287",
            trains=("visual", "text", "text_projection", "head"),
            implementation="hierbench.defences.methods.mmcoa:MMCoA",
            settings="hierbench.defences.methods.mmcoa:MMCoASettings",
        ),
        DefenceSpec(
            name="saft",
            title="SAFT",
            summary="TeCoA over several descriptions of each class.",
            source="TMLR 2026, arXiv 2602.12461",
            trains=("visual",),
            implementation="hierbench.defences.methods.saft:SAFT",
            settings="hierbench.defences.methods.saft:SAFTSettings",
        ),
        DefenceSpec(
            name="agft",
            title="AGFT",
            summary="Cross-entropy to the original model's calibrated soft answer; no labels.",
            source="CVPR 2026, arXiv 2603.29410",
            trains=("visual",),
            implementation="hierbench.defences.methods.agft:AGFT",
            settings="hierbench.defences.methods.agft:AGFTSettings",
        ),
        DefenceSpec(
            name="hxe",
            title="HXE",
            summary="TeCoA with the hierarchical cross-entropy of a class tree.",
            source="Bertinetto et al., CVPR 2020, in TeCoA's place",
            trains=("visual",),
            implementation="hierbench.defences.methods.hxe:HXE",
            settings="hierbench.defences.methods.hxe:HXESettings",
        ),
        DefenceSpec(
            name="soft_labels",
            title="Soft labels",
            summary="TeCoA with targets softened by distance in a class tree.",
            source="Bertinetto et al., CVPR 2020, in TeCoA's place",
            trains=("visual",),
            implementation="hierbench.defences.methods.soft_labels:SoftLabels",
            settings="hierbench.defences.methods.soft_labels:SoftLabelSettings",
        ),
        DefenceSpec(
            name="hier_aft",
            title="Hier-AFT",
            summary="Cross-entropy at every level of one or more class trees, on the Poincare ball.",
            source="CVPR 2026, arXiv 2604.18867; a re-implementation, constants are ours (METHODS.md 5.8)",
            trains=("visual", "text_projection", "head"),
            implementation="hierbench.defences.methods.hier_aft.method:HierAFT",
            settings="hierbench.defences.methods.hier_aft.settings:HierAFTSettings",
        ),
    ):
        registry.add(spec.name, spec)


DEFENCES: Registry[DefenceSpec] = Registry("defence", fill=_fill)
