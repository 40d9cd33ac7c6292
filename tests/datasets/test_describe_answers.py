"""Strangers' answers to a description run: read in any dress, judged sentence by sentence, never trusted."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from cli.chat_server import Asked, ChatServer, Reply, completion, good, sentences
from cli.describing import NAMES, failure, read

from hierbench.datasets.describing import asking
from hierbench.datasets.describing.answers import Kept, UnusableAnswer, read_answer
from hierbench.datasets.describing.run import Describer, DescribeRequest
from hierbench.datasets.descriptions import descriptions_from_content
from hierbench.errors import InputError

pytest.importorskip("openai", reason="the extra 'describe' is not installed")


FENCED = "Here you are:\n```json\n{}\n```\nAnything else?"


@pytest.mark.parametrize(
    "dress",
    [
        lambda s: json.dumps({"sentences": s}),
        lambda s: json.dumps(s, indent=2),
        lambda s: FENCED.replace("{}", json.dumps({"sentences": s})),
        lambda s: "```\n" + json.dumps(s) + "\n```",
        lambda s: "```" + json.dumps(s) + "```",
        lambda s: "<think>\n```python\n[1]\n``` and [2]</think>\n" + json.dumps(s),
        lambda s: "<think>hm</think>\n```json\n" + json.dumps(s) + "\n```",
        lambda s: json.dumps([*s, "One too many."]),
    ],
    ids=["object", "array", "fenced", "plain fence", "fence on a line", "reasoning", "reasoning and fence", "too many"],
)
def test_answers_are_read_in_every_dress_models_give_them(
    chat: ChatServer, request_: DescribeRequest, dress: Any
) -> None:
    chat.script = lambda asked: completion(dress(sentences(asked)))
    done = Describer(request_).run()
    assert done.file is not None
    assert read(done.file).sentences[9] == ("A view of nine, number 0-0.", "A view of nine, number 0-1.")
    assert len(chat.asked) == 10


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "is empty"),
        ("I cannot help with that.", "is not complete JSON"),
        ('["a", "b"', "is not complete JSON"),
        ("['a']", "is not complete JSON"),
        ('["a"] ["b"]', "is not complete JSON"),
        ('{"sentences": "a"}', "is not of the form"),
        ('{"sentences": ["a"], "note": "x"}', "is not of the form"),
        ('{"sentences": ["a"], "sentences": ["b"]}', "occurs twice"),
        ("[]", "holds no sentence"),
        ("7", "is not of the form"),
        ("[" * 1000, "is nested more than"),
        ("[NaN]", "holds NaN"),
        ("[" + "9" * 5000 + "]", "a number that is too long"),
        ('["a \udc80 b"]', "is not UTF-8"),
        ("```json\n[1]\n```\n```json\n[2]\n```", "is not complete JSON"),
        ("<think>for ever", "is empty"),
    ],
)
def test_text_that_is_no_answer_says_why(text: str, problem: str) -> None:
    with pytest.raises(UnusableAnswer, match=problem):
        read_answer(text)


BAD = (
    ("A <b>view</b>.", "holds '<'"),
    ("a photo of {}", "holds '{'"),
    ("two\nlines", "control character"),
    ("\x1b[31mred", "control character"),
    ("a \u202eview", "control character"),
    ("a \ud800 view", "control character"),
    (" padded", "begins or ends with a space"),
    ("", "is empty"),
    ("12 34", "has no word"),
    ("word " * 90 + "end", "at most 400"),
    (7, "is not a string"),
    (None, "is not a string"),
    (["nested"], "is not a string"),
    ("A fine view!", "repeats one"),
)


@pytest.mark.parametrize(("bad", "reason"), BAD, ids=[str(i) for i in range(len(BAD))])
def test_a_bad_sentence_is_dropped_and_asked_for_again(
    chat: ChatServer, request_: DescribeRequest, bad: object, reason: str
) -> None:
    def script(asked: Asked) -> Reply:
        return completion(["a FINE view", bad]) if (asked.name, asked.attempt) == ("six", 0) else good(asked)

    chat.script = script
    done = Describer(request_).run()
    assert done.file is not None
    assert read(done.file).sentences[6] == ("a FINE view", "A view of six, number 1-0.")
    first, second = [a for a in chat.asked if a.name == "six"]
    assert (first.wanted, len(chat.asked)) == (2, 11)
    assert "Write 1 sentence " in second.text and "- a FINE view\n" in second.text
    assert reason in second.text
    assert "FINE" not in first.text


def test_what_another_class_has_is_not_taken_twice(chat: ChatServer, request_: DescribeRequest) -> None:
    def script(asked: Asked) -> Reply:
        own = sentences(asked)
        return completion([own[0], "A Round stroke."]) if asked.attempt == 0 and asked.wanted == 2 else good(asked)

    chat.script = script
    done = Describer(request_).run()
    assert done.file is not None
    found = read(done.file)
    assert found.sentences[0][1] == "A Round stroke."
    assert found.sentences[1] == ("A view of one, number 0-0.", "A view of one, number 1-0.")
    again = [a for a in chat.asked if a.attempt == 1]
    assert [a.name for a in again] == NAMES[1:]
    assert "repeats one of class '0'" in again[0].text and "- A Round stroke.\n" in again[0].text


@pytest.mark.parametrize(
    "pair",
    [
        ("A cat.", "a CAT"), ("A cat.", "A cat!"), ("A cat.", "A cat?"), ("A cat", "A  cat"), ("Ａ cat", "A cat"),
        ("A straße", "A STRASSE"), ("A cat...", "A cat"), ("A cat . !", "A cat"), ("A cat,", "A cat"),
        ("A café", "A cafe\u0301"),
    ],
)  # fmt: skip
def test_the_same_sentence_here_is_the_same_in_a_file(pair: tuple[str, str]) -> None:
    kept = Kept(("a", "b"), 1)
    both = all(kept.offer(class_id, [sentence])[0] for class_id, sentence in zip("ab", pair, strict=True))
    content = {"format": 1, "dataset": "d", "language": "en", "source": "s", "licence": "l"}
    content |= {"classes": [{"id": i, "sentences": [s]} for i, s in zip("ab", pair, strict=True)]}  # type: ignore[dict-item]
    try:
        descriptions_from_content(content, where="x", dataset="d", class_ids=("a", "b"))
    except InputError:
        assert not both
    else:
        assert both


def test_a_class_that_never_gets_its_sentences_is_named_and_nothing_is_lost(
    chat: ChatServer, request_: DescribeRequest
) -> None:
    chat.script = lambda asked: completion(["One view of a four."]) if asked.name == "four" else good(asked)
    line = failure(replace(request_, again=2))
    assert "class '4' has 1 of 2 sentences after 3 answers, of which the last holds a sentence that cannot be" in line
    assert "19 sentences are kept in" in line and "digits.json.journal" in line
    assert request_.out is not None and not request_.out.exists()
    assert chat.names.count("four") == 3
    chat.asked.clear()
    chat.script = good
    done = Describer(request_).run()
    assert [(a.name, a.wanted) for a in chat.asked] == [("four", 1)]
    assert "- One view of a four.\n" in chat.asked[0].text
    assert done.file is not None
    assert read(done.file).sentences[4] == ("One view of a four.", "A view of four, number 0-0.")


def test_a_model_that_answers_nothing_useful_is_not_asked_for_ever(chat: ChatServer, request_: DescribeRequest) -> None:
    chat.script = lambda _: completion("Sorry!")
    line = failure(replace(request_, again=1))
    assert line.startswith("class '0' has 0 of 2 sentences after 2 answers, of which the last is not complete JSON")
    assert "(and so for 4 more)" in line
    assert len(chat.asked) == 2 * asking.MAX_FAILED_CLASSES


def test_a_huge_answer_is_not_read_to_its_end(chat: ChatServer, request_: DescribeRequest) -> None:
    def script(asked: Asked) -> Reply:
        if (asked.name, asked.attempt) == ("zero", 0):
            return Reply(200, b'{"choices": ["' + b"x" * 2**20, endless=True)
        return good(asked)

    chat.script = script
    Describer(request_).run()
    assert "is larger than 4 MiB" in chat.asked[1].text
    assert chat.sent < 64 * 2**20


def test_an_answer_without_text_is_asked_for_again(chat: ChatServer, request_: DescribeRequest) -> None:
    nothing = Reply(200, b'{"choices": [{"message": {"role": "assistant", "content": null}}]}')
    chat.script = lambda asked: nothing if asked.attempt == 0 else good(asked)
    assert Describer(request_).run().complete == 10
    assert "holds no text" in chat.asked[1].text
