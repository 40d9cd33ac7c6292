"""What an attack changes: only attacks that change the same thing stand in one worst case."""

from __future__ import annotations

from typing import Literal, TypeAlias

from hierbench.attacks.text.specs import is_text_attack
from hierbench.evaluation.records import Record

Kind: TypeAlias = Literal["image", "text", "both"]
TEXT_ONLY_PREFIX = "text_"


def kind_of(record: Record) -> Kind:
    """Say what a record's attack changed: images, texts, or both."""
    name = record.identity.attack.name
    texts = is_text_attack(name) or record.checks.text_rejected is not None
    if not texts:
        return "image"
    return "text" if name.startswith(TEXT_ONLY_PREFIX) or record.checks.max_linf == 0 else "both"
