"""The committed files against WordNet itself, and against the trees they are for."""

from __future__ import annotations

import json
import random
from importlib.resources import files

import pytest
from attacks.text.text_toys import TREE, toy_tree
from requiring import require_or_skip

from hierbench.attacks.text import generate
from hierbench.attacks.text.synonyms import SYNONYMS_FILE, SynonymTable, shipped_synonyms, synonyms_for
from hierbench.attacks.text.words import STOP_WORDS, Dictionary, shipped_dictionary
from hierbench.datasets.catalogue import DATASETS
from hierbench.errors import InputError
from hierbench.hierarchy.catalogue import list_hierarchies, load_hierarchy

WHAT_TO_DO = "run: python -m hierbench.attacks.text.generate"


@pytest.fixture(scope="module")
def reader() -> object:
    try:
        made = generate.wordnet_reader()
        generate.make_table([], [], reader=made)
        return made
    except InputError as error:
        require_or_skip("wordnet", str(error))


def test_synonyms_are_those_of_wordnet(reader: object) -> None:
    made = generate.make_table(*generate.shipped_terms(), reader=reader)
    shipped = shipped_synonyms()
    assert shipped.to_json() == made.to_json(), WHAT_TO_DO
    committed = (files("hierbench.attacks.text") / SYNONYMS_FILE).read_text(encoding="utf-8")
    assert generate.synonyms_json(made) == committed, WHAT_TO_DO


def test_words_are_those_of_wordnet(reader: object) -> None:
    assert dict(shipped_dictionary().parts) == generate.make_words(reader=reader), WHAT_TO_DO


def test_inflection_agrees_with_wordnets_own(reader: object) -> None:
    words = shipped_dictionary()
    stream = random.Random(0)
    entries = stream.sample(sorted(words.parts), 400)
    tried = [word + end for word in entries for end in ("", "s", "es", "ed", "ing", "er", "est", "men", "q")]
    tried += [word[:-1] + end for word in entries for end in ("ies", "ing", "ed", "y")]
    tried = [word for word in tried if word.isalpha() and word.isascii() and len(word) > 2]
    for word in tried:
        known = any(reader.morphy(word, part) is not None for part in "nvar")  # type: ignore[attr-defined]
        assert (word in words) == (known or word in STOP_WORDS), word


def test_every_tree_is_covered_without_wordnet(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> SynonymTable:
        raise AssertionError(f"a tree needs WordNet; {WHAT_TO_DO}")

    monkeypatch.setattr(generate, "make_table", refuse)
    specs = {spec.base_name: spec for _, spec in DATASETS.items()}
    for dataset, tree in list_hierarchies():
        template = specs[dataset].template if dataset in specs else "This is a photo of {noun}."
        table = synonyms_for(load_hierarchy(dataset, tree), template)
        assert table is shipped_synonyms()


def test_the_file_names_its_licence() -> None:
    content = json.loads((files("hierbench.attacks.text") / SYNONYMS_FILE).read_text(encoding="utf-8"))
    assert "Princeton University" in content["licence"]
    assert content["source"] == "WordNet 3.0"


def test_a_tree_of_ones_own_needs_wordnet_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(terms: object, synsets: object) -> SynonymTable:
        raise InputError("WordNet 3.0 is not here: install it")

    monkeypatch.setattr(generate, "make_table", missing)
    odd = toy_tree({**TREE, "zorb": ("a zorb", {"quux": ("a quux", "n02121808"), "bear": ("a bear", "n02131653")})})
    with pytest.raises(InputError, match=r"no 'quux' of tree toys/toy; WordNet 3.0 is not here") as caught:
        synonyms_for(odd, "a photo of {noun}")
    assert "\n" not in str(caught.value)


def test_a_word_is_taken_in_the_sense_a_reader_takes_it_in(reader: object) -> None:
    terms = ["bat", "mouse", "plant", "walker", "white", "trees", "500", "b", "photo", "larger"]
    words = generate.make_table(terms, [], reader=reader).words
    assert words["photo"] == ("photograph", "exposure", "picture", "pic")
    assert words["plant"] == ("flora", "plant life")  # reviewed: its most frequent sense is a factory
    assert words["walker"] == ("pedestrian", "footer")  # no proper name
    assert "Caucasian" not in words["white"]  # more frequent as an adjective
    assert words["trees"] == words["500"] == words["b"] == ()
    assert words["larger"] == ("bigger",)
    assert words["bat"] == ("chiropteran",)
    assert generate.make_table(["bat"], ["n04292414"], reader=reader).words["bat"] == (
        "squash racket",
        "squash racquet",
    )


def test_an_offset_wordnet_does_not_have_is_refused(reader: object) -> None:
    with pytest.raises(InputError, match="'n00000007' is no noun synset"):
        generate.make_table([], ["n00000007"], reader=reader)


def test_a_name_is_taken_in_its_own_sense() -> None:
    table = SynonymTable({"n1": ("bat", "chiropteran"), "n2": ("Ursus", "bear")}, {"bat": ("club",), "red": ()})
    assert table.of("bat", synset="n1") == ("chiropteran",)
    assert table.of("Bat", synset="n2") == ("club",)
    assert table.of("bat") == ("club",)
    assert table.of("red") == table.of("unheard") == ()


def test_dictionary_of_nothing() -> None:
    assert "cat" not in Dictionary({})
    assert 3 not in Dictionary({"cat": "n"})
