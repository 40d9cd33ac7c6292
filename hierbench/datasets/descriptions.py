"""Several sentences on what each class of a data set looks like: their file, its checks, and its writer.

A file is JSON, version 1: ``format``, ``dataset``, ``language``, ``source``, ``licence``, ``classes`` and ``hash``;
see docs/descriptions.md. It may come from anyone, a language model included, so nothing in it is trusted: sizes are
bounded, text is plain, every class is accounted for by name. METHODS.md 5.6; SAFT, arXiv 2602.12461.
"""

from __future__ import annotations

import difflib
import json
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from hierbench.errors import InputError
from hierbench.hierarchy.content import content_hash
from hierbench.hierarchy.errors import one_line, shown
from hierbench.hierarchy.strict_json import parse_json, read_bytes
from hierbench.hierarchy.text import MARKUP, MAX_ID, MAX_LINE, line_problem, same_text_key
from hierbench.hierarchy.write import write_atomically

FORMAT = 1
SHIPPED = "shipped"
"""Instead of a file's name: the project's own descriptions of the data set."""
MAX_FILE_BYTES = 32 * 2**20
MAX_CLASSES = 50_000
MAX_SENTENCES = 1_000
"""Sentences of one class."""
MAX_SENTENCE = 400
"""Characters of one sentence: several times what a text tower reads."""

_FIELDS = ("format", "dataset", "language", "source", "licence", "classes", "hash")
_SLUG = re.compile(r"[a-z0-9][a-z0-9_-]{0,79}")
_LANGUAGE = re.compile(r"[a-z]{2,3}(-[A-Za-z0-9]{2,8})*")


@dataclass(frozen=True)
class Descriptions:
    """Sentences for every class of a data set.

    Args:
        dataset: the data set's name, without its pixel grid.
        language: of the sentences, as a BCP 47 tag such as ``en``.
        source: who wrote them, from what.
        licence: of the sentences, as an SPDX identifier where there is one.
        class_ids: the classes in label order.
        sentences: for each class, its sentences in the file's order.
    """

    dataset: str
    language: str
    source: str
    licence: str
    class_ids: tuple[str, ...]
    sentences: tuple[tuple[str, ...], ...]

    @cached_property
    def content_hash(self) -> str:
        """``sha256:<hex>`` over the canonical JSON of all but the hash, classes in label order."""
        return content_hash(self._content())

    @property
    def fewest(self) -> int:
        """The smallest number of sentences a class has."""
        return min(map(len, self.sentences))

    def text(self) -> str:
        """Return the file's text: one sentence a line, so that a change reads as a change."""
        content = {**self._content(), "hash": self.content_hash}
        lines = [f"  {_compact(name)}: {_compact(value)}" for name, value in content.items() if name != "classes"]
        classes = ",\n".join(
            f'    {{"id": {_compact(class_id)}, "sentences": [\n'
            + ",\n".join(f"      {_compact(sentence)}" for sentence in sentences)
            + "\n    ]}"
            for class_id, sentences in zip(self.class_ids, self.sentences, strict=True)
        )
        lines.insert(-1, f'  "classes": [\n{classes}\n  ]')
        return "{\n" + ",\n".join(lines) + "\n}\n"

    def _content(self) -> dict[str, object]:
        pairs = zip(self.class_ids, self.sentences, strict=True)
        return {
            "format": FORMAT,
            "dataset": self.dataset,
            "language": self.language,
            "source": self.source,
            "licence": self.licence,
            "classes": [{"id": class_id, "sentences": list(sentences)} for class_id, sentences in pairs],
        }


def shipped_file(dataset: str) -> Path:
    """Return where the project's own descriptions of a data set are, or would be."""
    if _SLUG.fullmatch(dataset) is None:
        raise InputError(f"data set {shown(dataset)} is not the name of one")
    return Path(__file__).resolve().parent / "descriptions" / f"{dataset}.json"


def load_descriptions(
    dataset: str,
    class_ids: Sequence[str],
    *,
    file: str | os.PathLike[str] = SHIPPED,
    at_least: int = 1,
) -> Descriptions:
    """Return the descriptions of a data set, in its label order.

    Args:
        dataset: its name without the pixel grid; of several over the same classes, the one whose trees they use.
        class_ids: its class ids in label order.
        file: a file of your own, or ``shipped``.
        at_least: the fewest sentences that will do for a class (K).

    Raises ``InputError``, one line: no file (it names the one wanted), or what in it is wrong, with the class.
    """
    if os.fspath(file) == SHIPPED:
        path = shipped_file(dataset)
        if not path.is_file():
            raise InputError(
                f"{dataset} has no descriptions: {path.parent.name}/{path.name} is wanted in hierbench/datasets, "
                "or name a file of your own with its format (docs/descriptions.md)"
            )
    else:
        path = Path(file)
    content = parse_json(read_bytes(path, max_bytes=MAX_FILE_BYTES), where=str(path))
    return descriptions_from_content(content, where=str(path), dataset=dataset, class_ids=class_ids, at_least=at_least)


def descriptions_from_content(
    content: object, *, where: str, dataset: str, class_ids: Sequence[str], at_least: int = 1
) -> Descriptions:
    """Check the parsed content of a file and return its ``Descriptions``; ``where`` names it in errors.

    The classes may stand in any order; a hash may be left out by who writes by hand, but one that is there must agree.
    """
    where = one_line(where)
    if not isinstance(content, dict):
        raise InputError(f"{where}: is not a JSON object with the fields {', '.join(_FIELDS)}")
    version = content.get("format")
    if type(version) is not int or version != FORMAT:
        found = f"is {shown(version)}" if "format" in content else "is missing"
        raise InputError(f"{where}: field 'format' {found}; this version reads format {FORMAT}")
    _check_fields(content, _FIELDS, optional=("hash",), where=where)
    texts = {name: _text(content[name], f"field {name!r}", where) for name in _FIELDS[1:5]}
    if texts["dataset"] != dataset:
        raise InputError(f"{where}: field 'dataset' is {shown(texts['dataset'])}, and {dataset!r} was asked for")
    if _LANGUAGE.fullmatch(texts["language"]) is None:
        raise InputError(f"{where}: field 'language' is {shown(texts['language'])}; a tag such as 'en' is needed")
    found_sentences = _classes(content["classes"], where=where)
    known = set(class_ids)
    for class_id in found_sentences:
        if class_id not in known:
            near = difflib.get_close_matches(class_id, class_ids, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise InputError(f"{where}: class {shown(class_id)} is none of {dataset}'s {len(known)} classes{hint}")
    for class_id in class_ids:
        count = len(found_sentences.get(class_id, ()))
        if class_id not in found_sentences:
            raise InputError(f"{where}: class {class_id!r} of {dataset} is missing")
        if count < at_least:
            raise InputError(f"{where}: class {class_id!r} has {count} sentences, and {at_least} are needed")
    _check_distinct(found_sentences, where=where)
    _check_hash(content, where=where)
    return Descriptions(
        **texts, class_ids=tuple(class_ids), sentences=tuple(found_sentences[class_id] for class_id in class_ids)
    )


def write_descriptions(descriptions: Descriptions, path: str | os.PathLike[str]) -> Path:
    """Check descriptions as a stranger's would be, write them whole or not at all, and return the path."""
    target = Path(path)
    text = descriptions.text()
    descriptions_from_content(
        json.loads(text), where=str(target), dataset=descriptions.dataset, class_ids=descriptions.class_ids
    )
    write_atomically(text, target)
    return target


def sentence_problem(text: str) -> str | None:
    """Say what is wrong with a sentence, or None: it is one line of plain text, without markup or placeholders.

    >>> sentence_problem("A ripe apple on a branch.") is None
    True
    >>> sentence_problem("a photo of {noun}")
    "holds '{', which plain sentences do not"
    """
    problem = line_problem(text, max_characters=MAX_SENTENCE)
    if problem is not None:
        return problem
    marks = [character for character in text if character in MARKUP]
    if marks:
        return f"holds {marks[0]!r}, which plain sentences do not"
    if "  " in text:
        return "holds two spaces in a row"
    if not any(character.isalpha() for character in text):
        return "has no word"
    return None


def _classes(value: object, *, where: str) -> dict[str, tuple[str, ...]]:
    """Return each class's sentences as the file has them; a class that stands there twice is refused."""
    entries = _array(value, "field 'classes'", MAX_CLASSES, where)
    found: dict[str, tuple[str, ...]] = {}
    for number, entry in enumerate(entries):
        place = f"class number {number} (from 0)"
        if not isinstance(entry, dict):
            raise InputError(f"{where}: {place} is {shown(entry)}, an object is needed")
        class_id = entry.get("id")
        if isinstance(class_id, str) and class_id:
            place = f"class {shown(class_id)}"
        _check_fields(entry, ("id", "sentences"), where=f"{where}: {place}")
        class_id = _text(class_id, f"{place}: field 'id'", where, max_characters=MAX_ID)
        if class_id in found:
            raise InputError(f"{where}: {place} occurs twice")
        sentences = _array(entry["sentences"], f"{place}: field 'sentences'", MAX_SENTENCES, where)
        for position, sentence in enumerate(sentences):
            spot = f"{where}: {place}: sentence {position} (from 0)"
            if not isinstance(sentence, str):
                raise InputError(f"{spot} is {shown(sentence)}, a string is needed")
            problem = sentence_problem(sentence)
            if problem is not None:
                raise InputError(f"{spot} {problem}")
        found[class_id] = tuple(map(str, sentences))
    return found


def _check_distinct(sentences: Mapping[str, Iterable[str]], *, where: str) -> None:
    """Refuse one sentence twice: as one class's it is a weight nobody chose, as two classes' it tells neither."""
    owner: dict[str, str] = {}
    for class_id, own in sentences.items():
        for sentence in own:
            key = same_text_key(sentence).rstrip(" .!")
            if key in owner:
                other = owner[key]
                second = "twice" if other == class_id else f"that class {other!r} has too"
                raise InputError(f"{where}: class {class_id!r} has the sentence {shown(sentence)} {second}")
            owner[key] = class_id


def _check_fields(
    found: Mapping[str, object], names: Sequence[str], *, where: str, optional: Sequence[str] = ()
) -> None:
    for name in names:
        if name not in found and name not in optional:
            raise InputError(f"{where}: field {name!r} is missing")
    for name in found:
        if name not in names:
            raise InputError(f"{where}: field {shown(name)} is not of the format: it has {', '.join(names)}")


def _check_hash(content: Mapping[str, object], *, where: str) -> None:
    if "hash" not in content:
        return
    given, computed = content["hash"], content_hash(content)
    if given != computed:
        raise InputError(
            f"{where}: field 'hash' is {shown(given)} but the content's is {computed}: "
            "the file was changed; put that one there, or leave the field out"
        )


def _text(value: object, place: str, where: str, *, max_characters: int = MAX_LINE) -> str:
    if not isinstance(value, str):
        raise InputError(f"{where}: {place} is {shown(value)}, a string is needed")
    problem = line_problem(value, max_characters=max_characters)
    if problem is not None:
        raise InputError(f"{where}: {place} {problem}")
    return value


def _array(value: object, place: str, limit: int, where: str) -> list[object]:
    if not isinstance(value, list):
        raise InputError(f"{where}: {place} is {shown(value)}, an array is needed")
    if len(value) > limit:
        raise InputError(f"{where}: {place} has {len(value)} entries, at most {limit} are allowed")
    return value


def _compact(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False)
