"""A named text attack on one bound model, as the runner of evaluations calls it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hierbench.attacks.engine.result import AttackResult
from hierbench.attacks.spec import Settings, Value
from hierbench.attacks.text.attacker import TextAttacker
from hierbench.attacks.text.specs import image_plan, text_settings
from hierbench.errors import InputError
from hierbench.models.binding import BoundModel

_NOT_OURS = ("forward", "layout")
"""Arguments of ``run_attack`` that the bound model itself answers."""


class PromptRunner:
    """Attacks chunk after chunk; made once a cell, and the prompts of a depth are attacked once.

    The source of candidates is opened here, so that a language model that cannot be loaded, or words that no file
    knows, are told before anything is written. ``attacker.level(depth)`` has the attacked prompts.
    """

    def __init__(self, bound: Any, name: str, settings: Settings) -> None:
        if not isinstance(bound, BoundModel):
            raise InputError(f"{name} needs a model with a text side: it encodes changed prompts")
        _ = bound.template  # an ensemble of templates is refused here: there is no one prompt to change
        self.name = name
        self.settings = settings
        self.attacker = TextAttacker(bound, text_settings(name, settings))
        if self.attacker.settings.source != "continuous":
            self.attacker.open_source()

    def refused(self) -> dict[str, int]:
        """Return how many edits were proposed at the depths attacked so far, and how many each rule refused."""
        total: dict[str, int] = {}
        for level in self.attacker.levels.values():
            for reason, count in level.counts.items():
                total[reason] = total.get(reason, 0) + count
        return total

    def __call__(self, arguments: Mapping[str, Any]) -> AttackResult:
        """Attack one chunk, given the arguments of ``run_attack`` without plan, name and pooling."""
        layout = self.attacker.bound.layout
        plan = image_plan(
            self.name, self.settings, depth=arguments["depth"], layout=layout, scoring=arguments["scoring"]
        )
        given = {name: value for name, value in arguments.items() if name not in _NOT_OURS}
        return self.attacker.run(**given, attack_name=self.name, plan=plan).result


def facts_of(settings: Mapping[str, Value]) -> dict[str, Value]:
    """Return what a record's parameters say otherwise than the settings: a folder's name without its path."""
    model = settings.get("language_model")
    return {"language_model": Path(model).name} if isinstance(model, str) and Path(model).is_dir() else {}
