"""MMCoA's inner attack on the prompts: those of a batch's classes, attacked anew as the text tower moves.

The search is the one of METHODS.md 3; it knows neither the images nor how long what it found is kept.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import torch

from hierbench.attacks.text.encoder import PromptEncoder
from hierbench.attacks.text.prompts import prompt_of
from hierbench.attacks.text.rules import LevelRules
from hierbench.attacks.text.search import attack_prompt
from hierbench.attacks.text.settings import LANGUAGE_MODEL, Article, Offset, Span
from hierbench.attacks.text.sources import CandidateSource, CharacterSource, WordNetSource
from hierbench.attacks.text.synonyms import shipped_synonyms, synonyms_for
from hierbench.attacks.text.words import shipped_dictionary
from hierbench.defences.settings import DefenceSettings

if TYPE_CHECKING:
    from hierbench.defences.base import TrainingTask
    from hierbench.models.zeroshot import ZeroShotModel


@dataclass(frozen=True, kw_only=True)
class PromptAttackSettings(DefenceSettings):
    """How prompts are attacked; each setting is, but for its prefix, one of the multimodal attacks in evaluation."""

    text_source: Literal["wordnet", "characters", "mlm"] = "wordnet"
    """Where replacements come from: synonyms, which need no other model [D]; ``mlm`` is the released code's [C]."""
    text_span: Span = "any"
    """Which words may change: ``any`` of the prompt's [C], or the ``class_name``'s [D]."""
    text_article: Article = "agree"
    """``agree`` sets a or an before a replaced word [D], ``keep`` leaves it [C]."""
    text_positions: int = 10
    """characters: at how many places every character is tried; 0: at all (LEAF's [C])."""
    language_model: str = LANGUAGE_MODEL
    """mlm: a Hub id or a folder."""
    language_model_revision: str = "main"
    """mlm: the Hub commit."""
    text_offset: Offset = "correct"
    """mlm: where predictions are read; ``released`` is one token too far left [C]."""
    text_every: int = 1
    """For how many steps an attacked prompt is kept before its class is searched anew: 1 searches in every step [C],
    more saves text forwards and lets the attack lag behind the tower [D]."""

    def check(self) -> None:
        """See ``Settings.check``."""
        super().check()
        self.require(self.text_positions >= 0, "text_positions", "it should be 0 (all places) or more")
        self.require(self.text_every >= 1, "text_every", "it should be 1 or more")


@dataclass(frozen=True)
class Kept:
    """An attacked prompt: its text, the step it was found at, and how far it moved then (0: it did not change)."""

    text: str
    step: int
    moved: float


class PromptAttack:
    """Attacks the prompts of trained classes and keeps what it finds for ``text_every`` steps.

    A word that names any other class of the data set is refused, one that is not trained too: training must not
    teach that class's name for another one.
    """

    def __init__(self, settings: PromptAttackSettings, task: TrainingTask) -> None:
        tree = task.forest.trees[0]
        leaves = tree.level(tree.num_depths)
        self.every = settings.text_every
        self.span = settings.text_span
        self.source = open_source(settings, task)
        table = self.source.table if isinstance(self.source, WordNetSource) else shipped_synonyms()
        dictionary = shipped_dictionary() if isinstance(self.source, CharacterSource) else None
        self.rules = LevelRules.of(leaves, synonyms=table, dictionary=dictionary)
        places = [int(leaves.leaf_to_node[label]) for label in task.nodes.classes]
        self.prompts = [prompt_of(leaves.nodes[place], place, task.template) for place in places]
        self.kept: dict[int, Kept] = {}
        """By position among the trained classes."""
        self.text_forwards = 0
        """Texts that the last search encoded."""

    def search(self, model: ZeroShotModel, classes: Iterable[int], step: int) -> None:
        """Attack the prompts of those among ``classes`` for which nothing is kept that is recent enough.

        The encoder is a fresh one: what it keeps is true of the weights of this step only.
        """
        encoder = PromptEncoder(model)
        for place in classes:
            if place in self.kept and step - self.kept[place].step < self.every:
                continue
            prompt = self.prompts[place]
            found = attack_prompt(prompt, source=self.source, rules=self.rules, encoder=encoder, span=self.span)
            self.kept[place] = Kept(found.text, step, found.score)
        self.text_forwards = encoder.forwards

    def changed(self, classes: Iterable[int]) -> dict[int, str]:
        """Return the attacked prompts of ``classes`` that are other ones than the clean prompts."""
        return {place: self.kept[place].text for place in classes if self.kept[place].text != self.prompts[place].text}

    def state(self) -> dict[str, Any]:
        """Return what outlives a step, by clean prompt: attacked prompt, step and how far it moved."""
        if self.every == 1:
            return {}
        return {self.prompts[place].text: [k.text, k.step, k.moved] for place, k in sorted(self.kept.items())}

    def load_state(self, state: dict[str, Any]) -> None:
        """Restore what ``state`` returned."""
        place_of = {prompt.text: place for place, prompt in enumerate(self.prompts)}
        self.kept = {place_of[clean]: Kept(text, step, moved) for clean, (text, step, moved) in state.items()}


def open_source(settings: PromptAttackSettings, task: TrainingTask) -> CandidateSource:
    """Return where the candidates come from; what is missing for it is an ``InputError``."""
    agree = settings.text_article == "agree"
    if settings.text_source == "wordnet":
        return WordNetSource(synonyms_for(task.forest.trees[0], task.template), agree=agree)
    if settings.text_source == "characters":
        return CharacterSource(breadth=settings.text_positions)
    from hierbench.attacks.text.language_model import load_language_model

    device: torch.device = task.hidden.device
    return load_language_model(
        settings.language_model,
        revision=settings.language_model_revision,
        offset=settings.text_offset,
        agree=agree,
        device=device,
    )
