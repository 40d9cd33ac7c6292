"""What the text tower learns English nouns from: WordNet's names, glosses and hypernyms."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

from hierbench.wordnet import open_wordnet

# Nouns of things one could point at, and the abstractions that name kinds of them.
_LEXNAMES = {
    "noun.Tops", "noun.animal", "noun.artifact", "noun.body", "noun.food", "noun.object", "noun.person",
    "noun.phenomenon", "noun.plant", "noun.substance", "noun.shape", "noun.group", "noun.location",
    "noun.quantity", "noun.event",
}  # fmt: skip

TEMPLATES = (
    "This is a photo of {noun}.",
    "This is a picture of {noun}.",
    "a photo of a {}",
    "a picture of {noun}",
    "{}",
    "{noun}",
    "a photo of {noun}, a type of {parent}.",
    "an image that shows {noun}.",
    "{noun} seen from the front",
    "a small picture of {noun}.",
    "there is {noun} in this picture.",
    "We see {noun} here.",
)


@dataclass(frozen=True)
class NounEntry:
    """One noun sense: the names that may stand for it, its gloss, and the row of its hypernym (-1: none)."""

    key: str
    names: tuple[str, ...]
    nouns: tuple[str, ...]
    gloss: str
    hypernym: int


def article(name: str) -> str:
    """Return ``a`` or ``an`` before a name, by its first letter."""
    return "an" if name[:1].lower() in "aeiou" and not name.lower().startswith(("uni", "one", "eu", "use")) else "a"


def wordnet_entries() -> list[NounEntry]:
    """Return the concrete noun synsets of WordNet 3.0, in offset order.

    A lemma names a synset only where it is that lemma's first or second sense: rarer senses would pull a
    common word towards a meaning nobody intends in a caption.
    """
    reader = open_wordnet()
    synsets = [s for s in reader.all_synsets("n") if s.lexname() in _LEXNAMES and not s.instance_hypernyms()]
    synsets.sort(key=lambda s: s.offset())
    rows = {s.offset(): i for i, s in enumerate(synsets)}
    entries = []
    for synset in synsets:
        names = []
        for lemma in synset.lemmas():
            senses = [s.offset() for s in reader.synsets(lemma.name(), "n")[:2]]
            if synset.offset() in senses:
                names.append(lemma.name().replace("_", " "))
        if not names:
            names = [synset.lemmas()[0].name().replace("_", " ")]
        parents = [rows[h.offset()] for h in synset.hypernyms() if h.offset() in rows]
        nouns = tuple(f"{article(n)} {n}" for n in names)
        gloss = synset.definition()
        entries.append(NounEntry(f"n{synset.offset():08d}", tuple(names), nouns, gloss, parents[0] if parents else -1))
    return entries


def misspell(word: str, rng: random.Random) -> str:
    """Return ``word`` with one letter dropped, doubled, swapped or replaced."""
    if len(word) < 4:
        return word
    place = rng.randrange(1, len(word) - 1)
    kind = rng.randrange(4)
    if kind == 0:
        return word[:place] + word[place + 1 :]
    if kind == 1:
        return word[:place] + word[place] + word[place:]
    if kind == 2:
        return word[:place] + word[place + 1] + word[place] + word[place + 2 :]
    return word[:place] + rng.choice("abcdefghijklmnopqrstuvwxyz") + word[place + 1 :]


def render(entry: NounEntry, parent: NounEntry | None, rng: random.Random, *, noise: float) -> str:
    """Return one sentence for a noun: a random name of it in a random template, sometimes its gloss."""
    pick = rng.randrange(len(entry.names))
    name, noun = entry.names[pick], entry.nouns[pick]
    if entry.gloss and rng.random() < 0.15:
        gloss = " ".join(entry.gloss.split()[:8])
        return f"{name}: {gloss}" if rng.random() < 0.5 else gloss
    if rng.random() < noise:
        spoiled = misspell(name, rng)
        noun = noun.replace(name, spoiled)
        name = spoiled
    template = rng.choice(TEMPLATES)
    if "{parent}" in template and parent is None:
        template = TEMPLATES[0]
    text = template.replace("{noun}", noun).replace("{}", name)
    return text.replace("{parent}", parent.names[0]) if parent is not None else text


def merged(entries: Sequence[NounEntry], phrases: Sequence[tuple[str, str]]) -> list[NounEntry]:
    """Return the WordNet entries followed by our own (name, noun phrase) pairs of classes and superclasses."""
    own = [NounEntry(f"own:{noun}", (name,), (noun,), "", -1) for name, noun in phrases]
    return [*entries, *own]
