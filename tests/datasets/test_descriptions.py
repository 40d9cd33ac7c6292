"""Descriptions: the committed files, and everything a stranger's file can have wrong with it."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from hierbench.datasets.descriptions import (
    MAX_SENTENCE,
    MAX_SENTENCES,
    Descriptions,
    descriptions_from_content,
    load_descriptions,
    shipped_file,
    write_descriptions,
)
from hierbench.datasets.spec import ClassName, read_class_table
from hierbench.errors import InputError

SHIPPED = ("digits", "cifar10", "cifar100", "tiny_imagenet")
SMALLEST_CONTEXT = 32  # tokens of tiny_clip-v1's text tower, start and end among them; OpenAI's reads 77
ALLOWED = {
    ("goldfish", "orange"),  # the colour
    ("monarch butterfly", "orange"),
    ("black widow", "hourglass"),  # the mark's shape
}
"""Pairs (class, other class) whose name a sentence may hold, because there it is another thing."""


@cache
def spoken_names(entry: ClassName) -> frozenset[str]:
    return frozenset({entry.name.lower(), re.sub(r"^(an?|the) ", "", entry.noun).lower()})


@cache
def naming(name: str) -> re.Pattern[str]:
    """A name as whole words, singular or plural."""
    forms = [re.escape(name) + "(?:s|es)?"]
    for ending, plural in (("y", "ies"), ("f", "ves"), ("man", "men"), ("mouse", "mice")):
        if name.endswith(ending):
            forms.append(re.escape(name.removesuffix(ending)) + plural)
    return re.compile(rf"\b(?:{'|'.join(forms)})\b")


@cache
def naming_any(table: tuple[ClassName, ...]) -> re.Pattern[str]:
    return re.compile("|".join(naming(name).pattern for entry in table for name in sorted(spoken_names(entry))))


def strangers_named(sentence: str, own: ClassName, table: tuple[ClassName, ...]) -> list[str]:
    """The other classes of the data set that a sentence names; its own name may hold another's ("sea slug")."""
    rest = sentence.lower()
    for name in spoken_names(own):
        rest = naming(name).sub("", rest)
    if naming_any(table).search(rest) is None:
        return []
    return [c.name for c in table if c != own and any(naming(name).search(rest) for name in spoken_names(c))]


@pytest.mark.parametrize("dataset", SHIPPED)
def test_committed_descriptions_are_enough_and_right(dataset: str) -> None:
    table = read_class_table(dataset)
    found = load_descriptions(dataset, [c.id for c in table], at_least=8)
    assert len(found.sentences) == len(table)
    assert found.fewest >= 8
    assert (found.language, found.licence) == ("en", "Apache-2.0")
    assert shipped_file(dataset).read_text(encoding="utf-8") == found.text()  # canonical, and its hash is there
    every = [sentence.lower() for own in found.sentences for sentence in own]
    assert len(set(every)) == len(every)
    for entry, own in zip(table, found.sentences, strict=True):
        for sentence in own:
            assert any(naming(name).search(sentence.lower()) for name in spoken_names(entry)), sentence
            others = [name for name in strangers_named(sentence, entry, table) if (entry.name, name) not in ALLOWED]
            assert not others, (sentence, others)
            assert sentence[0].isupper() and sentence.endswith("."), sentence
            assert len(sentence.split()) >= 5, sentence


def test_the_allow_list_holds_only_what_is_needed() -> None:
    used = set()
    for dataset in SHIPPED:
        table = read_class_table(dataset)
        found = load_descriptions(dataset, [c.id for c in table])
        for entry, own in zip(table, found.sentences, strict=True):
            used |= {(entry.name, name) for sentence in own for name in strangers_named(sentence, entry, table)}
    assert used == ALLOWED


def test_sentences_are_no_template_with_the_name_swapped() -> None:
    for dataset in SHIPPED:
        table = read_class_table(dataset)
        found = load_descriptions(dataset, [c.id for c in table])
        frames: dict[str, list[str]] = {}
        for entry, own in zip(table, found.sentences, strict=True):
            for sentence in own:
                frame = sentence.lower()
                for name in spoken_names(entry):
                    frame = naming(name).sub("*", frame)
                frames.setdefault(re.sub(r"\ban?\b", "a", frame), []).append(sentence)
        shared = [sentences for sentences in frames.values() if len(sentences) > 2]
        assert not shared, shared[:3]


@pytest.mark.parametrize(
    ("sentence", "named"),
    [
        ("A lion beside an orange.", ["orange"]),
        ("A lion and its snails.", ["snail"]),
        ("A lion, a pair of oxen-like shoulders.", []),
        ("A lion on a flagpole.", ["flagpole"]),
        ("A lion near the barnyard.", []),
    ],
)
def test_the_check_for_other_classes_sees_them(sentence: str, named: list[str]) -> None:
    table = read_class_table("tiny_imagenet")
    lion = next(c for c in table if c.name == "lion")
    assert strangers_named(sentence, lion, table) == named


@pytest.mark.parametrize("dataset", SHIPPED)
def test_committed_sentences_fit_the_smallest_text_tower(dataset: str) -> None:
    from open_clip.tokenizer import SimpleTokenizer

    tokenizer = SimpleTokenizer()
    found = load_descriptions(dataset, [c.id for c in read_class_table(dataset)])
    too_long = [s for own in found.sentences for s in own if len(tokenizer.encode(s)) + 2 > SMALLEST_CONTEXT]
    assert not too_long


# -- files from strangers ------------------------------------------------------------------------------------

IDS = ("ant", "bee", "cow")


def content() -> dict[str, Any]:
    return {
        "format": 1,
        "dataset": "zoo",
        "language": "en",
        "source": "a test",
        "licence": "CC0-1.0",
        "classes": [{"id": i, "sentences": [f"A small {i}.", f"A large {i}."]} for i in reversed(IDS)],
    }


def read(value: object, *, at_least: int = 1) -> Descriptions:
    return descriptions_from_content(value, where="zoo.json", dataset="zoo", class_ids=IDS, at_least=at_least)


def test_classes_come_in_label_order_and_the_hash_may_be_left_out() -> None:
    found = read(content(), at_least=2)
    assert found.class_ids == IDS
    assert found.sentences[0] == ("A small ant.", "A large ant.")
    assert read(json.loads(found.text())) == found


def test_written_files_read_back(tmp_path: Path) -> None:
    found = read(content())
    path = write_descriptions(found, tmp_path / "deep" / "zoo.json")
    again = load_descriptions("zoo", IDS, file=path)
    assert (again, again.content_hash) == (found, found.content_hash)
    assert f'"hash": "{found.content_hash}"' in path.read_text()
    with pytest.raises(InputError, match="sentence 0"):
        write_descriptions(
            Descriptions("zoo", "en", "a test", "CC0-1.0", ("ant",), (("two\nlines",),)), tmp_path / "bad.json"
        )
    assert not (tmp_path / "bad.json").exists()


def put(*path: str | int, value: object) -> Callable[[dict[str, Any]], object]:
    def change(made: dict[str, Any]) -> object:
        place: Any = made
        for step in path[:-1]:
            place = place[step]
        place[path[-1]] = value
        return made

    return change


def drop(*path: str | int) -> Callable[[dict[str, Any]], object]:
    def change(made: dict[str, Any]) -> object:
        place: Any = made
        for step in path[:-1]:
            place = place[step]
        del place[path[-1]]
        return made

    return change


FAULTS: tuple[tuple[str, Callable[[dict[str, Any]], object], str], ...] = (
    ("not an object", lambda made: [made], "is not a JSON object"),
    ("no format", drop("format"), "field 'format' is missing; this version reads format 1"),
    ("another format", put("format", value=2), "field 'format' is 2"),
    ("a boolean format", put("format", value=True), "field 'format' is true"),
    ("no licence", drop("licence"), "field 'licence' is missing"),
    ("an unknown field", put("author", value="me"), "field 'author' is not of the format"),
    ("another data set", put("dataset", value="farm"), "field 'dataset' is 'farm', and 'zoo' was asked for"),
    ("a number as source", put("source", value=3), "field 'source' is 3, a string is needed"),
    ("an empty licence", put("licence", value=""), "field 'licence' is empty"),
    ("a language in words", put("language", value="English"), "a tag such as 'en' is needed"),
    ("classes as an object", put("classes", value={}), "field 'classes' is a JSON object, an array is needed"),
    ("a class as a string", put("classes", 0, value="cow"), "class number 0 (from 0) is 'cow', an object is needed"),
    ("a class without id", drop("classes", 1, "id"), "class number 1 (from 0): field 'id' is missing"),
    ("an id that is a number", put("classes", 1, "id", value=7), "field 'id' is 7, a string is needed"),
    ("an unknown class", put("classes", 0, "id", value="cov"), "class 'cov' is none of zoo's 3 classes; did you mean"),
    ("a missing class", drop("classes", 1), "class 'bee' of zoo is missing"),
    ("a class twice", put("classes", 0, "id", value="bee"), "class 'bee' occurs twice"),
    ("too few", drop("classes", 2, "sentences", 0), "class 'ant' has 1 sentences, and 2 are needed"),
    ("none at all", put("classes", 2, "sentences", value=[]), "class 'ant' has 0 sentences"),
    ("a sentence as a number", put("classes", 0, "sentences", 1, value=4), "class 'cow': sentence 1 (from 0) is 4"),
    ("a field in a class", put("classes", 0, "name", value="x"), "class 'cow': field 'name' is not of the format"),
    ("a sentence twice", put("classes", 0, "sentences", 1, value="a SMALL cow"), "class 'cow' has the sentence"),
    (
        "two classes' sentence",
        put("classes", 1, "sentences", 1, value="A small cow!"),
        "class 'bee' has the sentence 'A small cow!' that class 'cow' has too",
    ),
    ("a line break", put("classes", 0, "sentences", 0, value="a\nb"), "holds the control character U+000A"),
    ("an escape", put("classes", 0, "sentences", 0, value="a\x1b[31mb"), "holds the control character U+001B"),
    ("a hidden direction", put("classes", 0, "sentences", 0, value="a \u202ecow"), "control character U+202E"),
    ("a placeholder", put("classes", 0, "sentences", 0, value="a {noun}"), "holds '{', which plain sentences do not"),
    ("markup", put("classes", 0, "sentences", 0, value="a <b>cow"), "holds '<'"),
    ("a padded one", put("classes", 0, "sentences", 0, value=" a cow"), "begins or ends with a space"),
    ("a gap", put("classes", 0, "sentences", 0, value="a  cow"), "holds two spaces in a row"),
    ("no word", put("classes", 0, "sentences", 0, value="12 ..."), "has no word"),
    ("a long one", put("classes", 0, "sentences", 0, value="cow" * MAX_SENTENCE), f"at most {MAX_SENTENCE} are"),
    (
        "very many",
        put("classes", 0, "sentences", value=[f"cow {i}" for i in range(MAX_SENTENCES + 1)]),
        f"has {MAX_SENTENCES + 1} entries, at most {MAX_SENTENCES} are allowed",
    ),
    ("another hash", put("hash", value="sha256:" + "0" * 64), "the file was changed"),
    ("a hash that is none", put("hash", value=None), "field 'hash' is null"),
)


@pytest.mark.parametrize(("change", "said"), [fault[1:] for fault in FAULTS], ids=[fault[0] for fault in FAULTS])
def test_every_fault_is_one_line_that_names_it(change: Callable[[dict[str, Any]], object], said: str) -> None:
    read(content(), at_least=2)  # without the fault it reads
    with pytest.raises(InputError) as caught:
        read(change(content()), at_least=2)
    assert said in str(caught.value)
    assert str(caught.value).startswith("zoo.json: ")
    assert str(caught.value).isprintable()


def test_a_changed_sentence_is_noticed_where_the_file_has_its_hash() -> None:
    sealed = json.loads(read(content()).text())
    sealed["classes"][0]["sentences"][0] = "A tiny ant."
    with pytest.raises(InputError, match="the file was changed"):
        read(sealed)


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "is empty"),
        (b"{", "is not complete JSON"),
        (b'{"format": 1, "format": 1}', "field 'format' occurs twice"),
        (b"\xff", "is not UTF-8"),
        (b"[" * 100_000, "is nested more than"),
        (b'{"format": NaN}', "holds NaN"),
    ],
)
def test_broken_files_are_refused(tmp_path: Path, data: bytes, said: str) -> None:
    path = tmp_path / "zoo.json"
    path.write_bytes(data)
    with pytest.raises(InputError, match=said):
        load_descriptions("zoo", IDS, file=path)


def test_a_file_that_is_too_large_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "zoo.json"
    with path.open("wb") as file:
        file.truncate(33 * 2**20)
    with pytest.raises(InputError, match="larger than 32 MiB"):
        load_descriptions("zoo", IDS, file=path)


def test_no_descriptions_names_the_file_wanted(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"stl10 has no descriptions: descriptions/stl10\.json is wanted"):
        load_descriptions("stl10", ("airplane",))
    with pytest.raises(InputError, match=r"mine\.json: no such file"):
        load_descriptions("stl10", ("airplane",), file=tmp_path / "mine.json")
    with pytest.raises(InputError, match="not the name"):
        load_descriptions("../secrets", ("airplane",))


def test_reading_descriptions_does_not_import_torch() -> None:
    code = (
        "import sys; from hierbench.datasets.descriptions import load_descriptions; "
        "assert load_descriptions('digits', [str(d) for d in range(10)]).fewest >= 8; assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)
