"""What a text or multimodal attack may be told. Light: importing it does not import torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeVar, get_args

from hierbench.errors import InputError

SourceKind = Literal["wordnet", "characters", "mlm", "continuous"]
Span = Literal["any", "class_name"]
Scope = Literal["all", "true"]
Offset = Literal["correct", "released"]
Article = Literal["agree", "keep"]
Images = Literal["clean", "independent", "coupled"]

SOURCES: tuple[SourceKind, ...] = get_args(SourceKind)
SPANS: tuple[Span, ...] = get_args(Span)
SCOPES: tuple[Scope, ...] = get_args(Scope)
OFFSETS: tuple[Offset, ...] = get_args(Offset)
ARTICLES: tuple[Article, ...] = get_args(Article)
IMAGES: tuple[Images, ...] = get_args(Images)

COMPONENTS: dict[SourceKind, str] = {
    "wordnet": "wordnet-kl",
    "characters": "characters-l2",
    "mlm": "mlm-kl",
    "continuous": "features-pgd-ce",
}
"""What a record calls the text half of an attack."""

COUPLED_COMPONENT = "pgd-coupled-kl"
"""What it calls the image half of the coupled attack."""

LANGUAGE_MODEL = "google-bert/bert-base-uncased"
"""The masked language model of the released code, by its Hub id."""

Choice = TypeVar("Choice", bound=str)


@dataclass(frozen=True, kw_only=True)
class TextSettings:
    """One text attack, alone or with an image attack.

    Args:
        source: where replacements come from; ``continuous`` moves the text features instead of the words.
        images: ``clean`` leaves the pixels alone, ``independent`` takes those of an image attack on the clean prompts,
            ``coupled`` moves them against the attacked prompts.
        span: which words may change: ``any`` of the prompt's, or those of the ``class_name``.
        scope: whose prompts are attacked: ``all`` nodes', or only the image's ``true`` node's.
        positions: characters: at how many of the most sensitive places every character is tried; 0 tries all places.
        article: ``agree`` sets "a" or "an" before a replaced word, ``keep`` leaves it as it was (released).
        language_model, revision: masked language model: a Hub id or a folder, and the Hub commit.
        offset: ``correct`` reads its predictions at the word, ``released`` one token further left.
        text_eps: continuous: linf radius on the normalised text feature; 2e-2 is the strong variant.
        text_steps: continuous: gradient steps; a step's length is a quarter of the radius.
        text_weight: coupled: weight of the divergence from the attacked prompt.

    A value that is none of the allowed raises ``InputError``. METHODS.md 3.
    """

    source: SourceKind = "wordnet"
    images: Images = "clean"
    span: Span = "any"
    scope: Scope = "all"
    positions: int = 10
    article: Article = "agree"
    language_model: str = LANGUAGE_MODEL
    revision: str = "main"
    offset: Offset = "correct"
    text_eps: float = 2e-4
    text_steps: int = 20
    text_weight: float = 3.0

    def __post_init__(self) -> None:
        for name, allowed in (
            ("source", SOURCES),
            ("images", IMAGES),
            ("span", SPANS),
            ("scope", SCOPES),
            ("article", ARTICLES),
            ("offset", OFFSETS),
        ):
            value = getattr(self, name)
            if value not in allowed:
                raise InputError(f"{name} {value!r} is unknown: use {' or '.join(allowed)}")
        for name, least in (("positions", 0), ("text_eps", 0), ("text_steps", 1), ("text_weight", 0)):
            value = getattr(self, name)
            if not value >= least:
                raise InputError(f"{name} {value!r} is too small: at least {least}")
        if self.source == "continuous" and self.images != "clean":
            raise InputError(f"images {self.images!r}: a continuous text attack leaves the images clean")
