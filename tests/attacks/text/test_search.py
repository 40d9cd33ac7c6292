"""The search against brute force, and its measures against NumPy."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import pytest
import torch
from attacks.text.text_toys import TEMPLATE, WIDTH, toy_bound, toy_tree, vector_of

from hierbench.attacks.text.encoder import PromptEncoder, kl_shift, squared_distance
from hierbench.attacks.text.level import attack_level
from hierbench.attacks.text.prompts import Prompt, Site, prompts_of, replaced
from hierbench.attacks.text.rules import LevelRules
from hierbench.attacks.text.search import attack_prompt
from hierbench.attacks.text.settings import Span
from hierbench.attacks.text.sources import MASK, CharacterSource, Measure, WordNetSource, word_sites
from hierbench.attacks.text.synonyms import SynonymTable
from hierbench.attacks.text.words import Dictionary, shipped_dictionary

FAR = 40 * vector_of("a far place")


@dataclass(frozen=True)
class ListedSource:
    """Gives each word the replacements it is told."""

    words: Mapping[str, tuple[str, ...]]
    breadth: int = 1
    component: str = "listed"
    measure: Measure = "kl"
    agree: bool = False
    asked: list[str] = field(default_factory=list)
    dropped: dict[str, int] = field(default_factory=dict)

    def sites(self, prompt: Prompt, span: Span) -> tuple[Site, ...]:
        return word_sites(prompt, span)

    def edits(self, prompt: Prompt, site: Site) -> tuple[str, ...]:
        word = prompt.text[site.start : site.stop]
        self.asked.append(word)
        return self.words.get(word, ())


def cat_prompt() -> Prompt:
    return prompts_of(toy_tree(), TEMPLATE, 2)[0]


def rules_of(dictionary: Dictionary | None = None) -> LevelRules:
    return LevelRules.of(toy_tree().level(2), dictionary=dictionary)


def numpy_kl(clean: np.ndarray, other: np.ndarray) -> float:
    """KL(softmax(u) || softmax(v)) of normalised vectors, by its definition."""
    u, v = clean / np.sqrt((clean**2).sum()), other / np.sqrt((other**2).sum())
    p, q = np.exp(u) / np.exp(u).sum(), np.exp(v) / np.exp(v).sum()
    return float(sum(p[i] * np.log(p[i] / q[i]) for i in range(len(p))))


def test_kl_has_the_clean_text_in_front() -> None:
    stream = np.random.default_rng(0)
    clean, others = stream.normal(size=32), stream.normal(size=(5, 32)) * 3
    found = kl_shift(torch.from_numpy(clean), torch.from_numpy(others)).numpy()
    np.testing.assert_allclose(found, [numpy_kl(clean, other) for other in others], rtol=1e-10)
    backwards = [numpy_kl(other, clean) for other in others]
    assert (np.abs(found - backwards) > 1e-5 * np.abs(found)).all()


def test_squared_distance_is_of_features_as_they_are() -> None:
    stream = np.random.default_rng(1)
    clean, others = stream.normal(size=8), stream.normal(size=(4, 8))
    found = squared_distance(torch.from_numpy(clean), torch.from_numpy(others)).numpy()
    np.testing.assert_allclose(found, ((others - clean) ** 2).sum(axis=1), rtol=1e-12)
    assert (squared_distance(torch.from_numpy(clean), torch.from_numpy(2 * others)).numpy() != found).all()


def test_scores_are_those_of_the_models_projected_features() -> None:
    model = toy_bound().model
    projection = torch.randn(WIDTH, WIDTH, generator=torch.Generator().manual_seed(3))
    model.clip.text_projection.data = projection
    encoder = PromptEncoder(model)
    texts = ["a photo of a cat", "a photo of a feline", "an image of a cat"]
    features = (model.text_hidden(texts).double() @ projection.double()).numpy()
    expected = [numpy_kl(features[0], other) for other in features[1:]]
    np.testing.assert_allclose(encoder.shifts(texts[0], texts[1:], "kl"), expected, rtol=1e-6)


WORDS = ("photo", "cat")
REPLACEMENTS = {"photo": ("print", "shot", "icon"), "cat": ("feline", "kitty", "true cat", "mouser")}


def brute_force(texts: list[str], measure: Measure) -> tuple[float, str]:
    model = toy_bound().model
    features = (model.text_hidden([cat_prompt().text, *texts]) @ model.text_projection).double().numpy()
    if measure == "kl":
        scores = [numpy_kl(features[0], other) for other in features[1:]]
    else:
        scores = [float(((other - features[0]) ** 2).sum()) for other in features[1:]]
    best = int(np.argmax(scores))
    return scores[best], texts[best]


def test_all_sites_together_find_the_best_single_edit() -> None:
    source = ListedSource(REPLACEMENTS, breadth=0)
    found = attack_prompt(
        cat_prompt(), source=source, rules=rules_of(), encoder=PromptEncoder(toy_bound().model), span="any"
    )
    texts = [cat_prompt().text.replace(old, new) for old in WORDS for new in REPLACEMENTS[old]]
    score, text = brute_force(texts, "kl")
    assert found.text == text
    assert found.score == pytest.approx(score, rel=1e-5)
    assert found.candidates == 7


def test_one_site_is_the_most_important_one_and_its_best_edit() -> None:
    masked = [cat_prompt().text.replace(word, MASK) for word in WORDS]
    _, most = brute_force(masked, "kl")
    word = WORDS[masked.index(most)]
    source = ListedSource(REPLACEMENTS)
    found = attack_prompt(
        cat_prompt(), source=source, rules=rules_of(), encoder=PromptEncoder(toy_bound().model), span="any"
    )
    _, text = brute_force([cat_prompt().text.replace(word, new) for new in REPLACEMENTS[word]], "kl")
    assert (found.text, found.old) == (text, word)
    assert source.asked == [word]


@pytest.mark.parametrize("order", itertools.permutations(range(2)))
def test_the_next_word_is_tried_where_the_first_has_nothing(order: tuple[int, int]) -> None:
    keep = WORDS[order[0]]
    source = ListedSource({keep: REPLACEMENTS[keep]})
    found = attack_prompt(
        cat_prompt(), source=source, rules=rules_of(), encoder=PromptEncoder(toy_bound().model), span="any"
    )
    assert found.old == keep
    assert found.new in REPLACEMENTS[keep]


def test_an_edit_the_model_cannot_tell_apart_leaves_the_prompt_as_it_is() -> None:
    # The toy tokeniser drops punctuation: "cat" and "cat!" are one text to it.
    source = ListedSource({"cat": ("cat!",), "photo": ("photo?",)})
    found = attack_prompt(
        cat_prompt(), source=source, rules=rules_of(), encoder=PromptEncoder(toy_bound().model), span="any"
    )
    assert not found.changed
    assert (found.score, found.old, found.new, found.candidates) == (0.0, "", "", 2)
    assert source.asked == ["photo", "cat"] or source.asked == ["cat", "photo"]


def test_rounding_is_no_gain(monkeypatch: pytest.MonkeyPatch) -> None:
    encoder = PromptEncoder(toy_bound().model)
    monkeypatch.setattr(encoder, "shifts", lambda text, others, measure: [1e-12] * len(others))
    source = ListedSource(REPLACEMENTS)
    found = attack_prompt(cat_prompt(), source=source, rules=rules_of(), encoder=encoder, span="any")
    assert not found.changed
    assert len(source.asked) == 2


def test_refused_edits_are_not_encoded_and_are_counted() -> None:
    rules = rules_of()
    source = ListedSource({"cat": ("car", "CAT", "kitty")})
    model = toy_bound().model
    encoder = PromptEncoder(model)
    encoder.clean([cat_prompt().text])
    found = attack_prompt(cat_prompt(), source=source, rules=rules, encoder=encoder, span="class_name")
    assert found.text == "This is a photo of a kitty."
    assert rules.refused() == {"unchanged": 1, "names_another_node": 1, "dictionary_word": 0}
    assert rules.counts["proposed"] == 3
    assert encoder.forwards == 1  # one word may change, so no probe is needed; of three edits one is allowed


def test_class_name_keeps_the_template() -> None:
    source = ListedSource({"photo": ("icon",), "cat": ("kitty",)}, breadth=0)
    found = attack_prompt(
        cat_prompt(), source=source, rules=rules_of(), encoder=PromptEncoder(toy_bound().model), span="class_name"
    )
    assert source.asked == ["cat"]
    assert found.new == "kitty"


def levenshtein_one(text: str, alphabet: str, low: int, high: int) -> set[str]:
    """Every text one edit away inside [low, high], by definition."""
    found = {text[:i] + text[i + 1 :] for i in range(low, high)}
    found |= {text[:i] + c + text[i + 1 :] for i in range(low, high) for c in alphabet}
    found |= {text[:i] + c + text[i:] for i in range(low, high + 1) for c in alphabet}
    return found - {text}


@pytest.mark.parametrize("span", ["any", "class_name"])
def test_characters_reach_exactly_the_texts_at_distance_one(span: Span) -> None:
    prompt = prompts_of(toy_tree(), "a {noun} :", 2)[1]
    source = CharacterSource(alphabet="ab ")
    found = {
        replaced(prompt.text, site, new) for site in source.sites(prompt, span) for new in source.edits(prompt, site)
    }
    low, high = prompt.regions(span)[0]
    assert found - {prompt.text} == levenshtein_one(prompt.text, "ab ", low, high)


def test_every_place_tried_is_brute_force_over_distance_one() -> None:
    bound = toy_bound(characters=True)
    prompt = prompts_of(bound.hierarchy, "a {noun}", 2)[4]
    assert prompt.text == "a an apple"
    rules = rules_of(shipped_dictionary())
    source = CharacterSource(breadth=0, alphabet="abcdeln ")
    found = attack_prompt(prompt, source=source, rules=rules, encoder=PromptEncoder(bound.model), span="class_name")
    allowed = []
    for text in sorted(levenshtein_one(prompt.text, "abcdeln ", 2, len(prompt.text))):
        runs = [run for run in text.lower().split() if run not in ("a", "an", "apple")]
        if not any(run in shipped_dictionary() for run in runs):
            allowed.append(text)
    model = toy_bound(characters=True).model
    features = (model.text_hidden([prompt.text, *allowed]) @ model.text_projection).double()
    scores = (features[1:] - features[0]).square().sum(dim=1)
    assert found.score == pytest.approx(float(scores.max()), rel=1e-5)
    assert found.text in [allowed[i] for i in torch.nonzero(scores > scores.max() * (1 - 1e-6))[:, 0].tolist()]


def test_few_places_try_the_characters_at_the_most_sensitive_ones() -> None:
    bound = toy_bound(characters=True)
    prompt = prompts_of(bound.hierarchy, "a {noun}", 2)[4]
    source = CharacterSource(breadth=3)
    sites = source.sites(prompt, "any")
    probes = [replaced(prompt.text, site, site.probe) for site in sites]
    assert all(abs(len(probe) - len(prompt.text)) <= 1 and probe != prompt.text for probe in probes)
    features = (bound.model.text_hidden([prompt.text, *probes]) @ bound.model.text_projection).double()
    scores = (features[1:] - features[0]).square().sum(dim=1)
    top = [sites[i] for i in scores.argsort(descending=True)[:3].tolist()]
    found = attack_prompt(prompt, source=source, rules=rules_of(), encoder=PromptEncoder(bound.model), span="any")
    reachable = {replaced(prompt.text, site, new) for site in top for new in source.edits(prompt, site)}
    assert found.text in reachable


def test_names_of_several_words_are_replaced_as_one() -> None:
    table = SynonymTable({"n02445715": ("sea otter", "Enhydra lutris")}, {"sea": (), "otter": (), "photo": ()})
    source = WordNetSource(table)
    prompt = prompts_of(toy_tree(), TEMPLATE, 2)[1]
    sites = source.sites(prompt, "any")
    assert [prompt.text[site.start : site.stop] for site in sites] == ["photo", "sea", "otter", "sea otter"]
    found = attack_prompt(prompt, source=source, rules=rules_of(), encoder=PromptEncoder(toy_bound().model), span="any")
    assert found.text == "This is a photo of an Enhydra lutris."


def test_a_function_word_that_is_the_name_may_be_replaced() -> None:
    prompt = Prompt(0, "the other of a", ((4, 9),), "other")
    assert [prompt.text[site.start : site.stop] for site in word_sites(prompt, "any")] == ["other"]


def test_a_level_is_the_same_twice_and_encodes_no_prompt_twice() -> None:
    results = []
    for _ in range(2):
        bound = toy_bound()
        before = bound.model.text_forwards
        level = attack_level(bound, depth=2, source=ListedSource(REPLACEMENTS, breadth=0), span="any")
        assert bound.model.text_forwards - before == level.text_forwards
        results.append(level)
    assert results[0].prompts == results[1].prompts
    assert torch.equal(results[0].points, results[1].points)
    # Six prompts with three edits of "photo", and four of "cat": the clean ones were encoded when the model was bound.
    assert results[0].text_forwards == 6 * 3 + 4
    assert results[0].counts == {"proposed": 22, "unchanged": 0, "names_another_node": 0, "dictionary_word": 0}
