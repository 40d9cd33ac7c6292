"""Makes the two files that the text attacks take from WordNet 3.0.

``python -m hierbench.attacks.text.generate`` writes them anew beside this module: run it when a class table or a tree
has changed. It needs WordNet (see ``hierbench.wordnet``); the attacks do not.
"""

from __future__ import annotations

import gzip
import io
import json
import re
import warnings
from collections.abc import Container, Iterable, Mapping
from pathlib import Path
from typing import Any

from hierbench.attacks.text.synonyms import SYNONYMS_FILE, SynonymTable, template_texts, terms_of
from hierbench.attacks.text.words import WORDS_FILE
from hierbench.errors import InputError
from hierbench.wordnet import SENSES, open_wordnet

LICENCE = (
    "WordNet 3.0 Copyright 2006 by Princeton University. All rights reserved. Used, copied and modified under the "
    "WordNet 3.0 licence, which permits it for any purpose provided that its notice is kept: see NOTICE."
)

# Words of the prompt templates that zero-shot papers use, so that a changed --template seldom needs WordNet.
_TEMPLATE_WORDS = (
    "photo picture image drawing sketch painting photograph view scene object surface texture satellite aerial",
    "centered type kind sort aircraft flower pet food animal car breed dish digit number handwritten healthy tumor",
    "lymph node tissue small large close-up cropped blurry bright dark good low resolution",
)

# Senses that a reader takes a word in, where WordNet's most frequent one is another: a factory, an amphibious vehicle.
_SENSES = {"plant": "n00017222", "amphibian": "n01627424"}

_NOT_FOR_PRINT = {"ethnic_slur.n.01", "disparagement.n.01", "obscenity.n.02", "vulgarism.n.01"}

_PLAIN_TERM = re.compile(r"[a-z][a-z' -]{2,}")

_OFFSET = re.compile(r"n\d{8}")

_PLAIN_WORD = re.compile(r"[a-z]+(?:['-][a-z]+)*")


def wordnet_reader() -> Any:
    """Return nltk's reader of WordNet 3.0; opening it takes seconds. Without WordNet, ``InputError``."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The multilingual functions", category=UserWarning)
        return open_wordnet()


def make_table(terms: Iterable[str], synsets: Iterable[str], *, reader: Any = None) -> SynonymTable:
    """Return the synonyms of lower-case terms and of synsets (``n`` and offset) from an installed WordNet 3.0.

    A term is taken as a noun or an adjective, whichever is more frequent in WordNet's counts, and only else as a verb
    or an adverb; in a reviewed sense where we know better, else a sense among ``synsets``, else its most frequent one.
    The name must be spelled in lower case: "walker" is no John Walker. Without WordNet, or for an offset it does not
    have, ``InputError``.
    """
    reader = reader if reader is not None else wordnet_reader()
    named = {key: _names(_noun_synset(reader, key)) for key in sorted(set(synsets))}
    counts = _counts(reader)
    words = {}
    for term in sorted(set(terms)):
        sense = _sense(reader, term, named, counts)
        words[term] = () if sense is None else tuple(name for name in _names(sense) if name.lower() != term)
    return SynonymTable(named, words)


def shipped_terms() -> tuple[set[str], set[str]]:
    """Return the terms and synsets of every class table and tree in the repository, and of the data sets' templates."""
    from hierbench.datasets.catalogue import DATASETS
    from hierbench.hierarchy.class_table import read_class_table
    from hierbench.hierarchy.load import load_hierarchy_file
    from hierbench.paths import data_dir

    texts: set[str] = set(_TEMPLATE_WORDS)
    names: set[str] = set()
    synsets: set[str] = set()
    for _, spec in DATASETS.items():
        texts.update(template_texts(spec.template))
    rows: list[Any] = []
    for path in sorted((Path(__file__).parents[2] / "datasets" / "classes").glob("*.tsv")):
        rows += read_class_table(path)
    for path in sorted((data_dir() / "hierarchies").glob("*/*.json")):
        rows += [node for level in load_hierarchy_file(path).levels for node in level.nodes]
    for row in rows:
        names.add(row.name)
        texts.add(row.noun)
        if row.wordnet is not None:
            synsets.add(row.wordnet)
    return terms_of(texts, names), synsets


def make_words(*, reader: Any = None) -> dict[str, str]:
    """Return WordNet's single words with their parts of speech, and the irregular forms of them with ``x``."""
    reader = reader if reader is not None else wordnet_reader()
    found: dict[str, set[str]] = {}
    for part, name in (("n", "noun"), ("v", "verb"), ("a", "adj"), ("r", "adv")):
        for lemma in reader.all_lemma_names(part):
            found.setdefault(lemma.lower(), set()).add(part)
        for line in reader.open(f"{name}.exc").read().splitlines():
            form, *bases = line.lower().split() or [""]
            if any(part in found.get(base, ()) for base in bases):
                found.setdefault(form, set()).add("x")
    return {
        word: "".join(part for part in "nvarx" if part in found[word])
        for word in sorted(found)
        if _PLAIN_WORD.fullmatch(word) and len(word) > 2
    }


def synonyms_json(table: SynonymTable) -> str:
    """Return the synonym file's text: its licence first, one entry a line."""
    head = {"format": 1, "source": "WordNet 3.0", "licence": LICENCE}
    parts = [f"{json.dumps(key)}: {json.dumps(value)}" for key, value in head.items()]
    for section, entries in table.to_json().items():
        lines = ",\n".join(
            f"  {json.dumps(key, ensure_ascii=False)}: {json.dumps(names, ensure_ascii=False)}"
            for key, names in entries.items()
        )
        parts.append(f"{json.dumps(section)}: {{\n{lines}\n }}")
    return "{\n " + ",\n ".join(parts) + "\n}\n"


def words_bytes(words: dict[str, str]) -> bytes:
    """Return the word file's bytes, the same for the same words and zlib."""
    text = "".join(f"{word}\t{parts}\n" for word, parts in words.items())
    buffer = io.BytesIO()
    with gzip.GzipFile(fileobj=buffer, mode="wb", compresslevel=9, mtime=0, filename="") as packed:
        packed.write(text.encode("utf-8"))
    return buffer.getvalue()


def write_files(folder: Path) -> None:
    """Write both files into a folder."""
    reader = wordnet_reader()
    table = make_table(*shipped_terms(), reader=reader)
    (folder / SYNONYMS_FILE).write_text(synonyms_json(table), encoding="utf-8")
    (folder / WORDS_FILE).write_bytes(words_bytes(make_words(reader=reader)))


def _noun_synset(reader: Any, key: str) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", category=UserWarning)  # nltk warns and answers None
        found = reader.synset_from_pos_and_offset("n", int(key[1:])) if _OFFSET.fullmatch(key) else None
    if found is None:
        raise InputError(f"synonyms: {key!r} is no noun synset of WordNet 3.0")
    return found


def _names(synset: Any) -> tuple[str, ...]:
    """Return a synset's names, without those that WordNet marks as slurs or obscene."""
    return tuple(
        lemma.name().replace("_", " ")
        for lemma in synset.lemmas()
        if not {domain.synset().name() for domain in lemma.usage_domains()} & _NOT_FOR_PRINT
    )


def _counts(reader: Any) -> dict[tuple[str, str, int], int]:
    """Return how often each (lower-case name, part of speech, offset) was met in WordNet's tagged texts."""
    parts = {"1": "n", "2": "v", "3": "a", "4": "r", "5": "s"}
    found = {}
    for line in reader.open(SENSES).read().splitlines():
        key, offset, _, count = line.split()
        name, _, rest = key.partition("%")
        found[name, parts[rest[0]], int(offset)] = int(count)
    if not found:
        raise InputError(
            "synonyms: WordNet's index.sense, which says how frequent a sense is, is not here: install Debian's "
            "wordnet-sense-index, or run nltk.download('wordnet')"
        )
    return found


def _sense(reader: Any, term: str, preferred: Container[str], counts: Mapping[tuple[str, str, int], int]) -> Any:
    """Return the synset a term is taken for, or None."""
    if not _PLAIN_TERM.fullmatch(term):
        return None
    lemma = term.replace(" ", "_")
    for parts in ("nas", "v", "r"):
        # Only synsets with exactly this name: nltk answers with those of a plural's singular too.
        senses = [s for part in parts for s in reader.synsets(lemma, part) if lemma in s.lemma_names()]
        for known in (_SENSES.get(term), *preferred_keys(senses, preferred)):
            for sense in senses:
                if _key(sense) == known:
                    return sense
        if senses:
            # The first of equal ones: nouns before adjectives, in WordNet's own order.
            return max(senses, key=lambda sense: counts.get((lemma, sense.pos(), sense.offset()), 0))
    return None


def preferred_keys(senses: Iterable[Any], preferred: Container[str]) -> list[str]:
    """Return those of the senses' keys that are among ``preferred``, in order."""
    return [key for sense in senses if (key := _key(sense)) in preferred]


def _key(synset: Any) -> str:
    return f"{synset.pos()}{synset.offset():08d}"


if __name__ == "__main__":
    write_files(Path(__file__).parent)
