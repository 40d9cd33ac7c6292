"""The named attacks. Light: importing it does not import torch; making a plan does."""

from __future__ import annotations

from hierbench.attacks.named.adaptive import ADAPTIVE_ATTACKS
from hierbench.attacks.named.autoattack import AUTOATTACKS
from hierbench.attacks.named.external import EXTERNAL_ATTACKS
from hierbench.attacks.named.pgd import PGD_ATTACKS
from hierbench.attacks.named.semantic import SEMANTIC_ATTACKS
from hierbench.attacks.spec import AttackSpec, Parameter, Part, Settings, Surroundings, Value
from hierbench.attacks.text.specs import TEXT_ATTACKS
from hierbench.registry import Registry

__all__ = ["ATTACKS", "AttackSpec", "Parameter", "Part", "Settings", "Surroundings", "Value"]


def _fill(registry: Registry[AttackSpec]) -> None:
    for spec in (*PGD_ATTACKS, *AUTOATTACKS, *SEMANTIC_ATTACKS, *ADAPTIVE_ATTACKS, *TEXT_ATTACKS, *EXTERNAL_ATTACKS):
        registry.add(spec.name, spec)


ATTACKS: Registry[AttackSpec] = Registry("attack", fill=_fill)
"""Every named attack."""
