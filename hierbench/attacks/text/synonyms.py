"""Synonyms of the words in node names, from a file made of WordNet 3.0."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from hierbench.attacks.text.words import is_stop_word, words_in
from hierbench.errors import InputError

if TYPE_CHECKING:
    from hierbench.hierarchy.tree import Hierarchy

SYNONYMS_FILE = "synonyms.json"


@dataclass(frozen=True)
class SynonymTable:
    """Which words may stand for which.

    Args:
        synsets: the names of each synset that a node has, by ``n`` and offset, in WordNet's order.
        words: for each lower-case word or phrase the other names of its first sense; empty where there are none.
    """

    synsets: Mapping[str, tuple[str, ...]]
    words: Mapping[str, tuple[str, ...]]

    def of(self, phrase: str, *, synset: str | None = None) -> tuple[str, ...]:
        """Return the synonyms of a word or phrase, in the sense of ``synset`` where that is one of its senses."""
        key = phrase.lower()
        names = self.synsets.get(synset, ()) if synset is not None else ()
        if key in (name.lower() for name in names):
            return tuple(name for name in names if name.lower() != key)
        return self.words.get(key, ())

    def to_json(self) -> dict[str, Any]:
        """Return the tables as plain values, sorted."""
        return {
            "synsets": {key: list(self.synsets[key]) for key in sorted(self.synsets)},
            "words": {key: list(self.words[key]) for key in sorted(self.words)},
        }


@cache
def shipped_synonyms() -> SynonymTable:
    """Return the synonyms for all class tables and trees that come with hierbench."""
    content = json.loads((files("hierbench.attacks.text") / SYNONYMS_FILE).read_text(encoding="utf-8"))
    synsets = {key: tuple(names) for key, names in content["synsets"].items()}
    return SynonymTable(synsets, {key: tuple(names) for key, names in content["words"].items()})


def synonyms_for(hierarchy: Hierarchy, template: str, *, shipped: SynonymTable | None = None) -> SynonymTable:
    """Return a table that covers a tree's nodes and a template.

    That is the shipped one, or, for a tree of the user's own, one made by the same rule from an installed WordNet 3.0.
    Without WordNet such a tree is an ``InputError`` that names the first word that is missing.
    """
    table = shipped if shipped is not None else shipped_synonyms()
    synsets = {node.wordnet for level in hierarchy.levels for node in level.nodes if node.wordnet is not None}
    nodes = [node for level in hierarchy.levels for node in level.nodes]
    terms = terms_of([*template_texts(template), *(node.noun for node in nodes)], [node.name for node in nodes])
    missing = sorted((terms - table.words.keys()) | (synsets - table.synsets.keys()))
    if not missing:
        return table
    from hierbench.attacks.text.generate import make_table

    try:
        return make_table(terms, synsets)
    except InputError as error:
        raise InputError(
            f"synonyms: the shipped file has no {missing[0]!r} of tree {hierarchy.dataset}/{hierarchy.tree}; {error}"
        ) from None


def terms_of(texts: Iterable[str], names: Iterable[str]) -> set[str]:
    """Return what a synonym could stand for, in lower case: the content words of texts and names, and whole names."""
    names = set(names)
    words = {word.lower() for text in (*texts, *names) for _, _, word in words_in(text) if not is_stop_word(word)}
    return words | {name.lower() for name in names}


def template_texts(template: str) -> list[str]:
    """Return what stands around the class name in a template."""
    return template.replace("{noun}", "{}").split("{}")
