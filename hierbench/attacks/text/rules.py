"""Which edits are allowed: none may name another node of the level, and no typing error may make another word."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, get_args

from hierbench.attacks.text.words import Dictionary
from hierbench.hierarchy.text import same_text_key

if TYPE_CHECKING:
    from hierbench.attacks.text.prompts import Prompt, Site
    from hierbench.attacks.text.synonyms import SynonymTable
    from hierbench.hierarchy.tree import Level

Refusal = Literal["unchanged", "names_another_node", "dictionary_word"]
REFUSALS: tuple[Refusal, ...] = get_args(Refusal)

_LETTERS = re.compile(r"[^\W\d_]+")

_ARTICLES = ("a ", "an ", "the ")


def name_key(text: str) -> str:
    """Return what two names share that a reader takes for the same: no case, article, doubled spaces or full stop.

    >>> name_key("An  Apple.") == name_key("apple")
    True
    """
    key = " ".join(same_text_key(text).strip(" .").split())
    for article in _ARTICLES:
        key = key.removeprefix(article)
    return key


@dataclass(frozen=True)
class LevelRules:
    """The rules of one level.

    Args:
        owners: the nodes that go by each name, by ``name_key``.
        dictionary: given, an edit that makes a word of it is refused: characters only.
        counts: how many edits each rule refused, and under ``proposed`` how many there were.
    """

    owners: Mapping[str, frozenset[int]]
    dictionary: Dictionary | None = None
    counts: Counter[str] = field(default_factory=Counter)

    @staticmethod
    def of(level: Level, *, synonyms: SynonymTable | None = None, dictionary: Dictionary | None = None) -> LevelRules:
        """Return a level's rules; a node goes by its name, its noun and, with ``synonyms``, its synset's names."""
        owners: dict[str, set[int]] = {}
        for index, node in enumerate(level.nodes):
            named = [node.name, node.noun]
            if synonyms is not None and node.wordnet is not None:
                named += synonyms.synsets.get(node.wordnet, ())
            for text in named:
                owners.setdefault(name_key(text), set()).add(index)
        return LevelRules({key: frozenset(nodes) for key, nodes in owners.items()}, dictionary)

    def refusal(self, prompt: Prompt, site: Site, replacement: str, text: str) -> Refusal | None:
        """Say which rule refuses the edit that turns the prompt into ``text``, or None; both are counted."""
        self.counts["proposed"] += 1
        found = self._refusal(prompt, site, replacement, text)
        if found is not None:
            self.counts[found] += 1
        return found

    def _refusal(self, prompt: Prompt, site: Site, replacement: str, text: str) -> Refusal | None:
        if same_text_key(text) == same_text_key(prompt.text):
            return "unchanged"
        # A word is judged as it stands in; of a typing error, the words it leaves behind.
        inserted = [replacement] if self.dictionary is None else new_letters(prompt.text, text)
        if any(self._is_anothers(name, prompt.node) for name in (*inserted, *_edited_names(prompt, site, replacement))):
            return "names_another_node"
        if self.dictionary is not None and any(word in self.dictionary for word in inserted):
            return "dictionary_word"
        return None

    def _is_anothers(self, name: str, node: int) -> bool:
        return bool(self.owners.get(name_key(name), frozenset()) - {node})

    def refused(self) -> dict[str, int]:
        """Return how many edits each rule refused."""
        return {name: self.counts[name] for name in REFUSALS}


def new_letters(before: str, after: str) -> list[str]:
    """Return the runs of letters of ``after`` that ``before`` has not, or has fewer times.

    Runs of letters and not words: who reads "4owl" reads "owl".

    >>> new_letters("a photo of a bowl", "a photo of a 4owl")
    ['owl']
    """
    left = Counter(_LETTERS.findall(before.lower()))
    found = []
    for run in _LETTERS.findall(after.lower()):
        if left[run] > 0:
            left[run] -= 1
        else:
            found.append(run)
    return found


def _edited_names(prompt: Prompt, site: Site, replacement: str) -> list[str]:
    """Return the class name after the edit, where the edit touches it."""
    return [
        prompt.text[start : site.start] + replacement + prompt.text[site.stop : stop]
        for start, stop in prompt.spans
        if start <= site.start and site.stop <= stop
    ]
