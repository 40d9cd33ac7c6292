"""Where replacements come from: one small protocol, and the sources that need no other model."""

from __future__ import annotations

import string
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, Protocol

from hierbench.attacks.text.prompts import Prompt, Site
from hierbench.attacks.text.settings import COMPONENTS, Span
from hierbench.attacks.text.synonyms import SynonymTable
from hierbench.attacks.text.words import is_stop_word, words_in

Measure = Literal["kl", "l2"]

MASK = "[UNK]"
"""What stands for a word while its importance is measured [C]."""

ALPHABET = string.ascii_lowercase + " " + string.digits + string.punctuation
"""Characters that may be put in [C]; capitals are left out, as CLIP's tokenisers fold case [D]."""


class CandidateSource(Protocol):
    """Says where a prompt may change, and into what; it knows neither the model nor the rules."""

    @property
    def component(self) -> str:
        """Its name in a record."""
        ...

    @property
    def measure(self) -> Measure:
        """How far an edit moves the text: ``kl`` or ``l2``."""
        ...

    @property
    def agree(self) -> bool:
        """Whether an article before the edit follows it."""
        ...

    @property
    def breadth(self) -> int:
        """From how many of the most important sites the best edit is taken; 0: from all."""
        ...

    @property
    def dropped(self) -> Mapping[str, int]:
        """How many candidates it held back itself so far, and why."""
        ...

    def sites(self, prompt: Prompt, span: Span) -> tuple[Site, ...]:
        """Return the places that may change, in order."""
        ...

    def edits(self, prompt: Prompt, site: Site) -> tuple[str, ...]:
        """Return what may stand at a site, in order; not yet checked against the rules."""
        ...


def word_sites(prompt: Prompt, span: Span) -> tuple[Site, ...]:
    """Return the words that may be replaced: no function words, but always a word that is the whole name."""
    name = prompt.name.lower()
    return tuple(
        Site(start, stop, MASK)
        for start, stop, word in words_in(prompt.text)
        if (not is_stop_word(word) or word.lower() == name)
        and any(low <= start and stop <= high for low, high in prompt.regions(span))
    )


@dataclass(frozen=True)
class WordNetSource:
    """WordNet synonyms: of a word, or of a class name of several words that WordNet has as one entry.

    A name is taken in the sense of its node's synset where it has one, any other word in its first sense. A
    replacement may have several words ("oak tree"). METHODS.md 3 [D].
    """

    table: SynonymTable
    agree: bool = True
    component: str = COMPONENTS["wordnet"]
    measure: Measure = "kl"
    breadth: int = 1

    @property
    def dropped(self) -> Mapping[str, int]:
        """Nothing: every synonym is offered."""
        return {}

    def sites(self, prompt: Prompt, span: Span) -> tuple[Site, ...]:
        """Return the words, then the whole name wherever it has several words and stands in the prompt."""
        words = word_sites(prompt, span)
        if len(prompt.name.split()) < 2:
            return words
        whole = []
        for low, high in prompt.spans:
            at = prompt.text.find(prompt.name, low, high)
            if at >= 0:
                whole.append(Site(at, at + len(prompt.name), MASK))
        return (*words, *whole)

    def edits(self, prompt: Prompt, site: Site) -> tuple[str, ...]:
        """Return the synonyms of what stands at the site."""
        return self.table.of(prompt.text[site.start : site.stop], synset=prompt.synset)


@dataclass(frozen=True)
class CharacterSource:
    """All texts at Levenshtein distance 1: a character replaced, deleted or put in.

    Every place is first tried with a space (deleted, where it is one), and at the ``breadth`` places that move the
    text furthest every character is tried. Charmer (arXiv 2405.04346) and LEAF (arXiv 2506.03355), whose evaluation
    takes 10 places [C].
    """

    breadth: int = 10
    alphabet: str = ALPHABET
    component: str = COMPONENTS["characters"]
    measure: Measure = "l2"
    agree: bool = False

    @property
    def dropped(self) -> Mapping[str, int]:
        """Nothing: every character is offered."""
        return {}

    def sites(self, prompt: Prompt, span: Span) -> tuple[Site, ...]:
        """Return the gaps and characters of the regions, from left to right."""
        found: dict[tuple[int, int], Site] = {}
        for low, high in prompt.regions(span):
            for at in range(low, high + 1):
                found[at, at] = Site(at, at, " ")
                if at < high:
                    found[at, at + 1] = Site(at, at + 1, "" if prompt.text[at] == " " else " ")
        return tuple(found.values())

    def edits(self, prompt: Prompt, site: Site) -> tuple[str, ...]:
        """Return every character; at a character also nothing, and not the character itself."""
        own = prompt.text[site.start : site.stop]
        return tuple(new for new in (*([""] if own else []), *self.alphabet) if new != own)
