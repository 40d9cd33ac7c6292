from __future__ import annotations

import pytest
from attacks.text.text_toys import toy_tree

from hierbench.attacks.text.prompts import Site, prompt_of, prompts_of, replaced
from hierbench.attacks.text.rules import LevelRules, name_key, new_letters
from hierbench.attacks.text.words import Dictionary, article_of, shipped_dictionary, words_in
from hierbench.hierarchy.tree import Node
from hierbench.models.binding import level_prompts

SMALL = Dictionary({"bear": "n", "pear": "n", "run": "v", "geese": "x", "big": "a", "box": "n", "now": "r"})


@pytest.mark.parametrize("word", ["bear", "Bears", "boxes", "running"[:3] + "ing", "geese", "now", "the", "of"])
def test_the_dictionary_knows_words_and_their_forms(word: str) -> None:
    assert word in SMALL


@pytest.mark.parametrize("word", ["", "b", "xs", "bearing", "nows", "gees", "pairs", "bearest", "runed" + "x"])
def test_the_dictionary_derives_no_form_of_another_part_of_speech(word: str) -> None:
    assert word not in SMALL


def test_the_shipped_dictionary_has_the_language() -> None:
    words = shipped_dictionary()
    assert all(word in words for word in ("pear", "pears", "geese", "went", "bigger", "hardly", "photograph", "ox"))
    assert not any(word in words for word in ("bera", "appple", "qear", "xs", "pple"))
    assert len(words.parts) > 80_000


@pytest.mark.parametrize(
    ("phrase", "article"),
    [
        *(("apple", "an"), ("European hare", "a"), ("one-way street", "a"), ("hourglass", "an"), ("unicorn", "a")),
        *(("unidentified object", "an"), ("umbrella", "an"), ("SUV", "an"), ("T-shirt", "a"), ("8", "an")),
    ],
)
def test_articles_follow_the_sound(phrase: str, article: str) -> None:
    assert article_of(phrase) == article


@pytest.mark.parametrize("template", ["This is a photo of {noun}.", "a photo of a {}", "{} beside {}", "{noun}"])
def test_prompts_are_those_of_the_bound_model_and_know_where_the_name_stands(template: str) -> None:
    tree = toy_tree()
    for depth, texts in enumerate(level_prompts(tree, template), start=1):
        prompts = prompts_of(tree, template, depth)
        assert [prompt.text for prompt in prompts] == texts
        for prompt, node in zip(prompts, tree.level(depth).nodes, strict=True):
            wanted = node.noun if "{noun}" in template else node.name
            assert {prompt.text[start:stop] for start, stop in prompt.spans} == {wanted}
            assert len(prompt.spans) == template.count("{")


def test_only_an_article_right_before_the_word_follows_it() -> None:
    assert replaced("a photo of an apple", Site(14, 19, ""), "pear", agree=True) == "a photo of a pear"
    assert replaced("a photo of an apple", Site(14, 19, ""), "pear") == "a photo of an pear"
    assert replaced("A pear", Site(2, 6, ""), "apple", agree=True) == "An apple"
    assert replaced("a photo of the pear", Site(15, 19, ""), "apple", agree=True) == "a photo of the apple"
    assert replaced("banana pear", Site(7, 11, ""), "apple", agree=True) == "banana apple"


def test_new_letters_count_how_often_a_run_occurs() -> None:
    assert new_letters("a bear", "a pear") == ["pear"]
    assert new_letters("a bear", "a 2ear") == ["ear"]
    assert new_letters("bear bear", "bear bear bear") == ["bear"]
    assert new_letters("a T-shirt", "a T-shirt!") == []


def _refusals(
    name: str, *edits: tuple[Site, str], dictionary: Dictionary | None
) -> tuple[list[str | None], LevelRules]:
    level = toy_tree().level(2)
    index = level.names.index(name)
    rules = LevelRules.of(level, dictionary=dictionary)
    prompt = prompt_of(level.nodes[index], index, "a photo of {noun}")
    found: list[str | None] = []
    for site, new in edits:
        found.append(rules.refusal(prompt, site, new, replaced(prompt.text, site, new)))
    return found, rules


def test_a_typing_error_may_make_no_word_and_no_other_class() -> None:
    at = len("a photo of a ")
    found, rules = _refusals(
        "cat",
        (Site(at, at + 1, ""), "r"),  # rat: a word
        (Site(at, at + 2, ""), "c"),  # ct
        (Site(at + 2, at + 3, ""), "r"),  # car: another class
        (Site(at, at, ""), "9"),  # 9cat leaves "cat" as it was
        (Site(at, at, ""), "s"),  # scat: a word
        (Site(at, at + 1, ""), "C"),  # the same text to a reader
        (Site(2, 3, ""), "q"),  # qhoto
        dictionary=shipped_dictionary(),
    )
    assert found == ["dictionary_word", None, "names_another_node", None, "dictionary_word", "unchanged", None]
    assert rules.refused() == {"unchanged": 1, "names_another_node": 1, "dictionary_word": 2}
    assert rules.counts["proposed"] == 7


def test_a_word_may_not_name_another_class_wherever_it_stands() -> None:
    at = len("a photo of a ")
    found, _ = _refusals(
        "cat",
        (Site(at, at + 3, ""), "truck"),
        (Site(at, at + 3, ""), "Sea  otter"),
        (Site(2, 7, ""), "pear"),  # a pear of a cat
        (Site(at, at + 3, ""), "true cat"),
        (Site(at, at + 3, ""), "rat"),  # a word, which is what words are replaced by
        dictionary=None,
    )
    assert found == ["names_another_node", "names_another_node", "names_another_node", None, None]


def test_a_node_goes_by_its_synset_names_too() -> None:
    from hierbench.attacks.text.synonyms import SynonymTable

    level = toy_tree().level(2)
    table = SynonymTable({"n02958343": ("car", "auto", "automobile")}, {})
    rules = LevelRules.of(level, synonyms=table)
    cat = prompt_of(level.nodes[0], 0, "{noun}")
    assert rules.refusal(cat, Site(2, 5, ""), "auto", "an auto") == "names_another_node"
    car = prompt_of(level.nodes[2], 2, "{noun}")
    assert rules.refusal(car, Site(2, 5, ""), "auto", "an auto") is None


def test_a_word_may_not_turn_the_whole_name_into_anothers() -> None:
    rules = LevelRules({"oak tree": frozenset({0}), "palm tree": frozenset({1})})
    palm = prompt_of(Node("palm", None, "palm tree", "a palm tree"), 1, "a photo of {noun}.")
    assert rules.refusal(palm, Site(13, 17, ""), "oak", "a photo of an oak tree.") == "names_another_node"
    assert rules.refusal(palm, Site(13, 17, ""), "date", "a photo of a date tree.") is None
    assert rules.refusal(palm, Site(2, 7, ""), "oak", "a oak of a palm tree.") is None


def test_names_are_compared_as_a_reader_reads_them() -> None:
    assert name_key("The  Sea Otter.") == name_key("a sea otter") == "sea otter"
    assert [word for _, _, word in words_in("It's a T-shirt, or 2.")] == ["It's", "a", "T-shirt", "or", "2"]


def test_a_leaf_keeps_its_synset() -> None:
    assert prompt_of(Node("x", None, "x", "an x", "n00000001"), 3, "{}").synset == "n00000001"
