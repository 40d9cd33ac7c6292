"""Replacements from a masked language model, by ``transformers``: from the Hub or from a local folder."""

from __future__ import annotations

import importlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import torch

from hierbench.attacks.engine.precision import exact_float32
from hierbench.attacks.text.prompts import Prompt, Site
from hierbench.attacks.text.settings import COMPONENTS, LANGUAGE_MODEL, Offset, Span
from hierbench.attacks.text.sources import Measure, word_sites
from hierbench.attacks.text.words import WORD, is_stop_word
from hierbench.errors import InputError

TOP = 10
"""Predictions read at a word [C]."""

LEAST_LOGIT = 0.3
"""A prediction counts from this raw logit on [C]; practically all do."""


class Predictions(NamedTuple):
    """What the model says of one prompt: the strongest predictions at each of its T tokens."""

    offsets: list[tuple[int, int]]
    """Where each token stands in the text; (0, 0) for the special ones."""
    logits: list[list[float]]
    """[T, 10], strongest first."""
    tokens: list[list[int]]
    """[T, 10]"""


@dataclass(frozen=True, eq=False)
class MaskedLanguageModelSource:
    """Words that a masked language model expects at a word's place, given the unmasked prompt.

    The ten strongest predictions are read at the word's first token, those with a raw logit of at least 0.3 are kept,
    and pieces of words, function words and the word itself are dropped. ``released`` reads one token further left, as
    the released code does, which takes its word positions without the opening token. Punctuation is no part of a word
    here [D]. METHODS.md 3, arXiv 2404.19287.

    Args:
        tokenizer: a ``transformers`` tokenizer that knows where its tokens stand in the text.
        model: a ``transformers`` masked language model in evaluation mode.
        offset: where predictions are read.
        agree: see ``CandidateSource``.
        dropped: how many predictions were dropped, and why.
    """

    tokenizer: Any
    model: Any
    offset: Offset = "correct"
    agree: bool = True
    component: str = COMPONENTS["mlm"]
    measure: Measure = "kl"
    breadth: int = 1
    dropped: dict[str, int] = field(default_factory=lambda: {"low_logit": 0, "piece": 0, "stop_word": 0})
    _read: dict[str, Predictions] = field(default_factory=dict)

    def sites(self, prompt: Prompt, span: Span) -> tuple[Site, ...]:
        """Return the words."""
        return word_sites(prompt, span)

    def edits(self, prompt: Prompt, site: Site) -> tuple[str, ...]:
        """Return the predictions for the word at the site, strongest first; none for a word cut off as too long."""
        seen = self.predictions(prompt.text)
        places = [place for place, (start, stop) in enumerate(seen.offsets) if start < site.stop and stop > site.start]
        if not places:
            return ()
        place = places[0] - (1 if self.offset == "released" else 0)
        words = []
        for logit, token in zip(seen.logits[place], seen.tokens[place], strict=True):
            word = str(self.tokenizer.convert_ids_to_tokens(token))
            reason = _refusal(logit, word, token in self.tokenizer.all_special_ids)
            if reason is None:
                words.append(word)
            else:
                self.dropped[reason] += 1
        return tuple(words)

    @torch.no_grad()
    def predictions(self, text: str) -> Predictions:
        """Return the strongest predictions at each token of a text; each text goes through the model once."""
        if text not in self._read:
            tokens = self.tokenizer(text, return_tensors="pt", return_offsets_mapping=True, truncation=True)
            offsets = [(int(start), int(stop)) for start, stop in tokens.pop("offset_mapping")[0].tolist()]
            with exact_float32(self.model.device):
                logits = self.model(**tokens.to(self.model.device)).logits[0].float()
            top = logits.topk(min(TOP, logits.shape[1]))
            self._read[text] = Predictions(offsets, top.values.tolist(), top.indices.tolist())
        return self._read[text]


def load_language_model(
    name: str = LANGUAGE_MODEL,
    *,
    revision: str = "main",
    offset: Offset = "correct",
    agree: bool = True,
    device: torch.device | str = "cpu",
) -> MaskedLanguageModelSource:
    """Return a source that asks a masked language model: a Hub id, or a folder in the Hub's layout.

    Weights are read from safetensors only, and no code that comes with a model is run. Without ``transformers``, for a
    name that cannot be loaded, and for a tokenizer that does not say where its tokens stand, ``InputError``.
    """
    try:
        transformers = importlib.import_module("transformers")
    except ImportError:
        raise InputError("source mlm: it needs the package transformers: pip install transformers") from None
    options: dict[str, Any] = {"revision": revision, "trust_remote_code": False}
    if Path(name).is_dir():
        options["local_files_only"] = True
    elif name.startswith((".", "/", "~")):
        raise InputError(f"language_model: {name} is no folder; it should hold config.json, weights and a vocabulary")
    try:
        tokenizer = transformers.AutoTokenizer.from_pretrained(name, use_fast=True, **options)
        model = transformers.AutoModelForMaskedLM.from_pretrained(
            name, use_safetensors=True, dtype=torch.float32, **options
        )
    except (OSError, ValueError, KeyError, RuntimeError, ImportError) as error:
        first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise InputError(
            f"language_model: {name!r} cannot be loaded ({first}); name a masked language model of the Hub, or a folder"
        ) from None
    if not getattr(tokenizer, "is_fast", False):
        raise InputError(f"language_model: {name!r} has no fast tokenizer, which says where its tokens stand")
    model = model.eval().requires_grad_(False).to(device)
    return MaskedLanguageModelSource(tokenizer, model, offset=offset, agree=agree)


def _refusal(logit: float, word: str, special: bool) -> str | None:
    """Say why a prediction does not count, or None."""
    if not logit >= LEAST_LOGIT:
        return "low_logit"
    if special or WORD.fullmatch(word) is None:  # "##s", "[UNK]", "."
        return "piece"
    return "stop_word" if is_stop_word(word) else None
