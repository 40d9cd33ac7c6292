"""The attack on all prompts of one depth."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from hierbench.attacks.engine.precision import exact_float32
from hierbench.attacks.text.encoder import PromptEncoder
from hierbench.attacks.text.outcome import AttackedLevel
from hierbench.attacks.text.prompts import prompts_of
from hierbench.attacks.text.rules import LevelRules
from hierbench.attacks.text.search import attack_prompt
from hierbench.attacks.text.settings import Span, TextSettings
from hierbench.attacks.text.sources import CandidateSource, CharacterSource, WordNetSource
from hierbench.attacks.text.synonyms import shipped_synonyms, synonyms_for
from hierbench.attacks.text.words import shipped_dictionary
from hierbench.errors import InputError

if TYPE_CHECKING:
    from hierbench.models.binding import BoundModel


def make_source(settings: TextSettings, bound: BoundModel) -> CandidateSource:
    """Return the source of candidates that the settings name, for a bound model's tree and template."""
    agree = settings.article == "agree"
    if settings.source == "wordnet":
        return WordNetSource(synonyms_for(bound.hierarchy, bound.template), agree=agree)
    if settings.source == "characters":
        return CharacterSource(breadth=settings.positions)
    if settings.source == "mlm":
        from hierbench.attacks.text.language_model import load_language_model

        return load_language_model(
            settings.language_model,
            revision=settings.revision,
            offset=settings.offset,
            agree=agree,
            device=bound.model.device,
        )
    raise InputError(f"source {settings.source!r} replaces no words")


def make_rules(source: CandidateSource, bound: BoundModel, depth: int) -> LevelRules:
    """Return the rules for a source at one depth: the dictionary is for typing errors only."""
    table = source.table if isinstance(source, WordNetSource) else shipped_synonyms()
    dictionary = shipped_dictionary() if isinstance(source, CharacterSource) else None
    return LevelRules.of(bound.hierarchy.level(depth), synonyms=table, dictionary=dictionary)


@torch.no_grad()
def attack_level(
    bound: BoundModel, *, depth: int, source: CandidateSource, span: Span, rules: LevelRules | None = None
) -> AttackedLevel:
    """Return every prompt of one depth after the attack, with its points under the model's own head.

    The search compares projected text features, whatever the head; what it finds goes through the head as the clean
    prompt does, at its own level. The clean prompts are not encoded again. METHODS.md 3.
    """
    model, steps = bound.model, bound.hierarchy.num_depths - depth
    encoder = PromptEncoder(model)
    rules = rules if rules is not None else make_rules(source, bound, depth)
    dropped = dict(source.dropped)
    prompts = prompts_of(bound.hierarchy, bound.template, depth)
    with exact_float32(model.device):
        clean = encoder.clean([prompt.text for prompt in prompts])
        found = tuple(
            attack_prompt(prompt, source=source, rules=rules, encoder=encoder, span=span) for prompt in prompts
        )
        features = encoder.hidden([attacked.text for attacked in found]) @ model.text_projection
        return AttackedLevel(
            depth=depth,
            prompts=found,
            points=model.head.points(features, steps),
            features=features,
            clean_features=clean @ model.text_projection,
            component=source.component,
            counts={
                "proposed": rules.counts["proposed"],
                **rules.refused(),
                **{reason: count - dropped.get(reason, 0) for reason, count in source.dropped.items()},
            },
            text_forwards=encoder.forwards,
        )
