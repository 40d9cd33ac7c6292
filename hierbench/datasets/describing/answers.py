"""What a model answered, read as a stranger's text: strict JSON, and sentences that a descriptions file may hold."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from hierbench.datasets.descriptions import sentence_problem
from hierbench.errors import InputError
from hierbench.hierarchy.strict_json import parse_json
from hierbench.hierarchy.text import same_text_key

FENCE = "```"
THINKING = ("<think>", "</think>")
"""Between these, some models put their reasoning before the answer."""


class UnusableAnswer(Exception):  # noqa: N818 - it is asked again, and no user sees it as an error
    """An answer without a single sentence in it; the message says why, as the rest of "the answer ..."."""


@dataclass(frozen=True)
class Refused:
    """A sentence that a file may not hold, and the reason, as the rest of "the sentence ..."."""

    sentence: str
    reason: str
    repeated: bool
    """Whether it is a fine sentence that a class has already."""


class Kept:
    """The sentences of every class so far: at most ``count`` a class, and no two the same, in one class or in two."""

    def __init__(self, class_ids: Iterable[str], count: int) -> None:
        self.count = count
        self.sentences: dict[str, list[str]] = {class_id: [] for class_id in class_ids}
        self._owner: dict[str, str] = {}

    @property
    def total(self) -> int:
        """Sentences of all classes together."""
        return sum(map(len, self.sentences.values()))

    def missing(self, class_id: str) -> int:
        """Return how many sentences a class still needs."""
        return self.count - len(self.sentences[class_id])

    def offer(self, class_id: str, sentences: Sequence[object]) -> tuple[list[str], list[Refused]]:
        """Take what a class needs and may have, in order; return what was taken and what was refused."""
        taken: list[str] = []
        refused: list[Refused] = []
        for sentence in sentences:
            if not self.missing(class_id):
                break
            refusal = self._refusal(class_id, sentence)
            if refusal is not None:
                refused.append(refusal)
                continue
            assert isinstance(sentence, str)
            self._owner[_key(sentence)] = class_id
            self.sentences[class_id].append(sentence)
            taken.append(sentence)
        return taken, refused

    def _refusal(self, class_id: str, sentence: object) -> Refused | None:
        if not isinstance(sentence, str):
            return Refused("", "is not a string", repeated=False)
        problem = sentence_problem(sentence)
        if problem is not None:
            return Refused(sentence, problem, repeated=False)
        owner = self._owner.get(_key(sentence))
        if owner is None:
            return None
        whose = "" if owner == class_id else f" of class {owner!r}"
        return Refused(sentence, f"repeats one{whose}", repeated=True)


def read_answer(text: str) -> list[object]:
    """Return the sentences of an answer, unchecked.

    An answer is a JSON object with the one field ``sentences``, or its array alone; it may stand in one code fence, and
    reasoning between ``<think>`` tags may come first. Anything else raises ``UnusableAnswer``.

    >>> read_answer('{"sentences": ["A ripe apple."]}')
    ['A ripe apple.']
    """
    try:
        # surrogates, which are no text, are then refused with everything else that is not UTF-8
        value = parse_json(_bare(text).encode("utf-8", "surrogatepass"), where="the answer")
    except InputError as error:
        raise UnusableAnswer(str(error).removeprefix("the answer: ")) from None
    if isinstance(value, dict) and list(value) == ["sentences"]:
        value = value["sentences"]
    if not isinstance(value, list):
        raise UnusableAnswer('is not of the form {"sentences": ["...", "..."]}')
    if not value:
        raise UnusableAnswer("holds no sentence")
    return value


def _bare(text: str) -> str:
    """Return an answer without reasoning before it and without the code fence around it."""
    text = text.strip()
    begin, end = THINKING
    if text.startswith(begin):
        text = text.partition(end)[2].strip()
    if text.startswith(("{", "[")):
        return text
    parts = text.split(FENCE)
    if len(parts) != 3:
        return text
    language, _, rest = parts[1].partition("\n")
    return rest if language.strip().isalnum() or not language.strip() else parts[1]


def _key(sentence: str) -> str:
    """Return what two sentences share that a file takes for the same; as the file's own check has it."""
    return same_text_key(sentence).rstrip(" .!")
