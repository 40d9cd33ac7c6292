"""The question that is asked about a class; a change of a word in it is another version."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from hierbench.datasets.describing.answers import Refused
from hierbench.datasets.describing.pictures import Picture
from hierbench.datasets.spec import DatasetSpec

PROMPT_VERSION = "describe-v1"
MAX_OTHERS = 50
"""Classes up to which the question lists the other ones; more would cost more than they tell."""
MAX_REPEATS = 20
"""Refused repetitions that a second question names."""

Message = dict[str, object]

_SYSTEM = (
    "You say what things look like, for a benchmark of image classifiers. You answer with JSON and with nothing else."
)
_FORM = '{"sentences": ["...", "..."]}'


@dataclass(frozen=True)
class Sofar:
    """What earlier answers left: the sentences a class has, those refused last, and what was wrong with the answer."""

    sentences: Sequence[str] = ()
    refused: Sequence[Refused] = ()
    problem: str = ""


def question_text(
    spec: DatasetSpec, label: int, *, wanted: int, language: str, pictures: Sequence[Picture] = (), sofar: Sofar
) -> str:
    """Return the text that asks for ``wanted`` sentences on a class, with the pictures it comes with described."""
    entry = spec.classes[label]
    rules = [
        f"Write in the language with the tag {language}.",
        "Name the class in every sentence; each stands by itself and has at most 20 words.",
        "Say only what can be seen. No two sentences say the same.",
    ]
    if pictures:
        rules.append(_about(pictures))
    others = [c.name for c in spec.classes if c != entry]
    if 0 < len(others) < MAX_OTHERS:
        rules.append(f"The other classes are {', '.join(others)}: name none of them, and say nothing that fits one.")
    rules.append("Plain text on one line: no markup, brackets, braces, back quotes, numbering or placeholders.")
    lines = [
        f"Data set: {spec.title}.",
        f"Class: {entry.name} (in a sentence: {entry.noun}).",
        "",
        f"Write {wanted} {'sentence' if wanted == 1 else 'different sentences'} on what {entry.noun} looks like in a "
        "picture: shape, parts, colours, surface, posture, surroundings, point of view.",
        "",
        *(f"- {rule}" for rule in rules),
        *_again(sofar),
        "",
        f"Answer with a JSON object of this form: {_FORM}",
    ]
    return "\n".join(lines)


def messages(text: str, pictures: Sequence[Picture] = ()) -> list[Message]:
    """Return a question as the messages of a chat: the text, then each picture as a PNG data URL."""
    content: object = text
    if pictures:
        content = [
            {"type": "text", "text": text},
            *({"type": "image_url", "image_url": {"url": picture.data_url}} for picture in pictures),
        ]
    return [{"role": "system", "content": _SYSTEM}, {"role": "user", "content": content}]


def shown_messages(text: str, pictures: Sequence[Picture] = ()) -> str:
    """Return a question as a person reads it: the same words, and a line for each picture."""
    lines = [f"system: {_SYSTEM}", f"user: {text}"]
    lines += [f"picture: PNG, {p.width} x {p.height} pixels, {len(p.png)} bytes" for p in pictures]
    return "\n".join(lines)


def _about(pictures: Sequence[Picture]) -> str:
    factor = pictures[0].factor
    size = f" Each pixel is shown as a block of {factor} x {factor}; do not mention the blocks." if factor > 1 else ""
    few = "The picture is an example" if len(pictures) == 1 else f"The {len(pictures)} pictures are examples"
    return f"{few} of the class: describe the class as shown, and nothing that only one picture has.{size}"


def _again(sofar: Sofar) -> list[str]:
    """Return what a second question adds: what is there already, and why the last answer did not do."""
    taken = [*sofar.sentences, *[r.sentence for r in sofar.refused if r.repeated][:MAX_REPEATS]]
    lines = ["", "Write others than these, which are taken:", *(f"- {sentence}" for sentence in taken)] if taken else []
    return [*lines, "", f"Your last answer did not do: it {sofar.problem}."] if sofar.problem else lines
