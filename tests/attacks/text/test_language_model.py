"""A masked language model in the Hub's layout, made here: random, but for predictions planted in its bias."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import torch
from attacks.text.text_toys import TEMPLATE, toy_bound, toy_tree

from hierbench.attacks.text.attacker import TextAttacker
from hierbench.attacks.text.language_model import LEAST_LOGIT, TOP, MaskedLanguageModelSource, load_language_model
from hierbench.attacks.text.prompts import prompts_of
from hierbench.attacks.text.settings import TextSettings
from hierbench.errors import InputError

transformers = pytest.importorskip("transformers")

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
_PLAIN = "this is a an photo of . cat sea ##ot ##ter picture image feline print kitty the ##s ! icon scan"
WORDS = _PLAIN.split()
VOCABULARY = [*SPECIAL, *WORDS]


def save_bert(folder: Path, *, favourites: tuple[str, ...] = (), seed: int = 0) -> Path:
    """Write config.json, model.safetensors, vocab.txt and tokenizer_config.json, as a Hub repository has them."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        config = transformers.BertConfig(
            vocab_size=len(VOCABULARY),
            hidden_size=16,
            num_hidden_layers=1,
            num_attention_heads=2,
            intermediate_size=16,
            max_position_embeddings=24,
        )
        model = transformers.BertForMaskedLM(config)
    with torch.no_grad():
        for rank, word in enumerate(favourites):
            model.cls.predictions.bias[VOCABULARY.index(word)] = 50.0 - rank
    model.save_pretrained(folder)
    (folder / "vocab.txt").write_text("\n".join(VOCABULARY) + "\n", encoding="utf-8")
    names = {"tokenizer_class": "BertTokenizer", "do_lower_case": True, "model_max_length": 24}
    (folder / "tokenizer_config.json").write_text(json.dumps(names), encoding="utf-8")
    return folder


def edits_of(source: MaskedLanguageModelSource, word: str, *, node: int = 0) -> tuple[str, ...]:
    prompt = prompts_of(toy_tree(), TEMPLATE, 2)[node]
    site = next(s for s in source.sites(prompt, "any") if prompt.text[s.start : s.stop] == word)
    return source.edits(prompt, site)


def logits_of(folder: Path, text: str) -> tuple[list[str], torch.Tensor]:
    """The model by hand: its tokens with the special ones, and its logits."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    model = transformers.AutoModelForMaskedLM.from_pretrained(folder).eval()
    ids = tokenizer(text, return_tensors="pt").input_ids
    with torch.no_grad():
        return tokenizer.convert_ids_to_tokens(ids[0].tolist()), model(ids).logits[0]


@pytest.mark.parametrize(("offset", "shift"), [("correct", 0), ("released", -1)])
@pytest.mark.parametrize("seed", [0, 1])
def test_predictions_are_read_at_the_word_or_one_token_to_its_left(
    tmp_path: Path, offset: str, shift: int, seed: int
) -> None:
    folder = save_bert(tmp_path, seed=seed)
    model = transformers.BertForMaskedLM.from_pretrained(folder)
    with torch.no_grad():  # spread the logits, so that some are below the threshold and the order differs by place
        model.cls.predictions.decoder.weight.mul_(40)
    model.save_pretrained(folder)
    tokens, logits = logits_of(folder, "This is a photo of a cat.")
    row = logits[tokens.index("photo") + shift]
    expected = [
        VOCABULARY[token]
        for token in row.argsort(descending=True)[:TOP].tolist()
        if row[token] >= LEAST_LOGIT
        and VOCABULARY[token] not in (*SPECIAL, "##ot", "##ter", "##s", ".", "!")
        and VOCABULARY[token] not in ("this", "is", "a", "an", "of", "the")
    ]
    source = load_language_model(str(folder), offset=offset)  # type: ignore[arg-type]
    assert list(edits_of(source, "photo")) == expected
    other = load_language_model(str(folder), offset="released" if offset == "correct" else "correct")
    assert edits_of(other, "photo") != edits_of(source, "photo")


def test_pieces_function_words_and_low_logits_are_dropped_and_counted(tmp_path: Path) -> None:
    favourites = ("kitty", "##s", "the", "[MASK]", "!", "print", "of", "feline", "icon", "scan", "image")
    source = load_language_model(str(save_bert(tmp_path, favourites=favourites)))
    # The eleventh strongest is not read.
    assert edits_of(source, "cat") == ("kitty", "print", "feline", "icon", "scan")
    assert source.dropped == {"low_logit": 0, "piece": 3, "stop_word": 2}
    few = load_language_model(str(save_bert(tmp_path / "few", favourites=("kitty", "print"))))
    found = edits_of(few, "cat")
    assert found[:2] == ("kitty", "print")
    assert few.dropped["low_logit"] > 0


def test_a_whole_level_is_attacked_and_says_what_was_held_back(tmp_path: Path) -> None:
    folder = save_bert(tmp_path, favourites=("kitty", "##s", "the", "print"))
    bound = toy_bound()
    settings = TextSettings(source="mlm", language_model=str(folder), span="class_name")
    attacker = TextAttacker(bound, settings)
    fine, coarse = attacker.level(2), attacker.level(1)
    assert {prompt.new for prompt in (*fine.prompts, *coarse.prompts)} <= {"kitty", "print", *WORDS}
    assert all(prompt.changed for prompt in fine.prompts)
    # One word of each name is asked about: of each, one piece and one function word at least are held back.
    assert fine.counts["piece"] >= 6 and fine.counts["stop_word"] >= 6
    assert coarse.counts["stop_word"] < fine.counts["stop_word"]


def test_a_word_of_several_pieces_is_read_at_its_first(tmp_path: Path) -> None:
    folder = save_bert(tmp_path)
    tokens, _ = logits_of(folder, "a sea otter")
    assert tokens == ["[CLS]", "a", "sea", "[UNK]", "[SEP]"]
    source = load_language_model(str(folder))
    assert source.predictions("a seaot.").offsets == [(0, 0), (0, 1), (2, 5), (5, 7), (7, 8), (0, 0)]


def test_each_prompt_goes_through_the_model_once(tmp_path: Path) -> None:
    source = load_language_model(str(save_bert(tmp_path)))
    calls = []
    source.model.register_forward_hook(lambda *_: calls.append(1))
    edits_of(source, "photo")
    edits_of(source, "cat")
    assert len(calls) == 1
    edits_of(source, "photo", node=2)
    assert len(calls) == 2


def test_a_word_behind_the_models_reach_has_no_predictions(tmp_path: Path) -> None:
    source = load_language_model(str(save_bert(tmp_path, favourites=("kitty",))))
    prompt = prompts_of(toy_tree(), "a " * 30 + "{noun}", 2)[0]
    (site,) = source.sites(prompt, "any")
    assert source.edits(prompt, site) == ()


def test_without_transformers_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(InputError, match="pip install transformers"):
        load_language_model("anything")


@pytest.mark.parametrize("what", ["missing", "empty"])
def test_a_folder_without_a_model_is_one_line(tmp_path: Path, what: str) -> None:
    folder = tmp_path / "nothing"
    if what == "empty":
        folder.mkdir()
    with pytest.raises(InputError, match="language_model: ") as caught:
        load_language_model(str(folder))
    assert "\n" not in str(caught.value)
    assert str(folder) in str(caught.value)


def test_the_weights_must_be_safetensors(tmp_path: Path) -> None:
    folder = save_bert(tmp_path)
    model = transformers.BertForMaskedLM.from_pretrained(folder)
    torch.save(model.state_dict(), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    with pytest.raises(InputError, match="language_model: "):
        load_language_model(str(folder))
