"""Describing a data set, against a real endpoint on this machine: what is asked, what is taken, what is kept."""

from __future__ import annotations

import asyncio
import base64
import io
import json
import re
import signal
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cli import chat_server
from cli.chat_server import KEY, Asked, ChatServer, Reply, completion, good, sentences
from PIL import Image

from hierbench.datasets.catalogue import get_spec
from hierbench.datasets.describing import asking, endpoint
from hierbench.datasets.describing.answers import Kept, UnusableAnswer, read_answer
from hierbench.datasets.describing.loops import run_to_the_end
from hierbench.datasets.describing.run import Describer, DescribeRequest, Outcome
from hierbench.datasets.descriptions import Descriptions, descriptions_from_content, load_descriptions
from hierbench.datasets.load import load_images
from hierbench.errors import HierbenchError, InputError

pytest.importorskip("openai", reason="the extra 'describe' is not installed")

DIGITS = get_spec("digits")
NAMES = [c.name for c in DIGITS.classes]


@pytest.fixture
def chat(monkeypatch: pytest.MonkeyPatch) -> Iterator[ChatServer]:
    chat_server.key_in_environment(monkeypatch)
    with chat_server.serving() as server:
        yield server


@pytest.fixture
def request_(chat: ChatServer, tmp_path: Path) -> DescribeRequest:
    return DescribeRequest(
        dataset="digits", model="toy-1", base_url=chat.url, out=tmp_path / "digits.json", count=2, concurrency=1
    )


def read(path: Path, at_least: int = 2) -> Descriptions:
    return load_descriptions("digits", DIGITS.class_ids, file=path, at_least=at_least)


def failure(request: DescribeRequest) -> str:
    """Run a request that fails and return its one line, which holds nothing of the key."""
    with pytest.raises(HierbenchError) as caught:
        Describer(request).run()
    line = str(caught.value)
    assert line.isprintable()
    assert KEY not in line and "SECRET" not in line
    assert caught.value.__suppress_context__ or caught.value.__context__ is None
    return line


# -- what is asked and what is written -----------------------------------------------------------------------


def test_the_file_holds_what_was_answered_and_says_from_where(chat: ChatServer, request_: DescribeRequest) -> None:
    seen: list[tuple[int, int, int]] = []
    done = Describer(replace(request_, seed=7, temperature=0.5, licence="CC0-1.0")).run(lambda *a: seen.append(a))
    assert done.file == request_.out and (done.complete, done.classes) == (10, 10)
    found = read(done.file)
    assert found.sentences[3] == ("A view of three, number 0-0.", "A view of three, number 0-1.")
    assert (found.dataset, found.language, found.licence) == ("digits", "en", "CC0-1.0")
    for words in ("toy-1", chat.host, "describe-v1", "class names only", "seed 7", "temperature 0.5"):
        assert words in found.source
    assert re.search(r"\d{4}-\d\d-\d\d$", found.source)
    assert seen[0] == (0, 10, 0) and seen[-1] == (10, 10, 20)
    assert sorted(p.name for p in done.file.parent.iterdir()) == ["digits.json"], "no journal, no lock"
    assert chat.names == NAMES
    asked = chat.asked[4]
    assert asked.path == "/v1/chat/completions"
    assert asked.headers["authorization"] == f"Bearer {KEY}"
    assert {k: v for k, v in asked.content.items() if k != "messages"} == {
        "model": "toy-1", "seed": 7, "temperature": 0.5
    }  # fmt: skip
    assert [m["role"] for m in asked.content["messages"]] == ["system", "user"]
    for words in ("the digit four", "Write 2 ", "zero, one, two, three, five", "tag en", '{"sentences":'):
        assert words in asked.text


def test_what_is_not_said_is_not_sent(chat: ChatServer, request_: DescribeRequest) -> None:
    Describer(request_).run()
    assert set(chat.asked[0].content) == {"model", "messages"}


@pytest.mark.parametrize("concurrency", [1, 4])
def test_so_many_requests_are_under_way_at_a_time(
    chat: ChatServer, request_: DescribeRequest, concurrency: int
) -> None:
    under_way: set[str] = set()
    most = 0

    def slow(asked: Asked) -> Reply:
        nonlocal most
        under_way.add(asked.name)
        most = max(most, len(under_way))
        time.sleep(0.2)
        under_way.discard(asked.name)
        return good(asked)

    chat.script = slow
    Describer(replace(request_, concurrency=concurrency)).run()
    assert most == concurrency
    assert sorted(chat.names) == sorted(NAMES)


def test_file_and_journal_never_hold_the_key(chat: ChatServer, request_: DescribeRequest) -> None:
    def echo(asked: Asked) -> Reply:
        if asked.name == "two":
            return completion([f"The key is {KEY}.", "A two."])
        return good(asked)

    chat.script = echo
    assert "quotes OPENAI_API_KEY" in failure(request_)
    assert request_.out is not None
    for path in request_.out.parent.iterdir():
        assert KEY.encode() not in path.read_bytes(), path


# -- images --------------------------------------------------------------------------------------------------


def pictures(asked: Asked) -> list[np.ndarray[Any, Any]]:
    """The images of a request, decoded here: uint8 [height, width(, 3)]."""
    found = []
    for part in asked.parts[1:]:
        assert part["type"] == "image_url"
        head, _, data = part["image_url"]["url"].partition(",")
        assert head == "data:image/png;base64"
        image = Image.open(io.BytesIO(base64.b64decode(data, validate=True)))
        assert image.format == "PNG"
        found.append(np.asarray(image))
    return found


def test_images_are_the_classes_own_pixels_enlarged(chat: ChatServer, request_: DescribeRequest) -> None:
    done = Describer(replace(request_, images=3)).run()
    train = load_images("digits", split="train")
    for label, asked in enumerate(chat.asked):
        own = np.asarray(train.array)[train.labels == label][:, 0]
        assert "The 3 pictures are examples" in asked.text and "8 x 8" in asked.text
        found = pictures(asked)
        assert len(found) == 3
        places = []
        for picture in found:
            assert picture.shape == (64, 64) and picture.dtype == np.uint8
            blocks = picture.reshape(8, 8, 8, 8).transpose(0, 2, 1, 3).reshape(8, 8, 64)
            assert (blocks == blocks[..., :1]).all(), "every pixel is a block"
            (place,) = np.flatnonzero((own == blocks[..., 0]).all(axis=(1, 2)))
            places.append(place)
        assert len(set(places)) == 3
    assert done.file is not None
    assert "images (3 a class from train of digits, 8 x 8 pixels, enlarged 8 times" in read(done.file).source


def test_the_seed_chooses_the_images_and_a_second_question_has_the_same(
    chat: ChatServer, request_: DescribeRequest, tmp_path: Path
) -> None:
    chat.script = lambda asked: completion("no") if asked.attempt == 0 else good(asked)
    shown: dict[int | None, list[bytes]] = {}
    for seed in (None, 0, 1):
        chat.asked.clear()
        out = tmp_path / f"{seed}.json"
        Describer(replace(request_, images=2, seed=seed, classes=("zero",), out=out)).run()
        first, second = chat.asked
        shown[seed] = [p.tobytes() for p in pictures(first)]
        assert shown[seed] == [p.tobytes() for p in pictures(second)]
        assert [a.content.get("seed") for a in chat.asked] == ([None, None] if seed is None else [seed, seed + 1])
    assert shown[None] == shown[0] != shown[1]


def test_images_of_other_data_go_at_their_own_grid_in_colour(
    chat: ChatServer, request_: DescribeRequest, copies: Any, tmp_path: Path
) -> None:
    copies.cifar(tmp_path / "data", "cifar10", rows=5)
    ids = get_spec("cifar10").class_ids
    job = replace(
        request_, dataset="cifar10", images=1, split="test", data_root=tmp_path / "data", classes=ids[:5]
    )  # fmt: skip
    done = Describer(job).run()
    assert (done.file, done.complete) == (None, 5)
    expected = np.load(tmp_path / "data" / "expected.npy")
    for label, asked in enumerate(chat.asked):
        (picture,) = pictures(asked)
        assert np.array_equal(picture, expected[label].transpose(1, 2, 0))
        assert "block" not in asked.text
    with pytest.raises(InputError, match="--images: class 'airplane' has 1 images in test of cifar10, and 2 are asked"):
        Describer(replace(job, images=2))


# -- strangers' answers --------------------------------------------------------------------------------------

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


# -- endpoints that fail -------------------------------------------------------------------------------------


def test_a_rate_limit_is_waited_out(chat: ChatServer, request_: DescribeRequest) -> None:
    limited = chat_server.error(429, "slow down", retry_after_ms="5")
    chat.script = lambda asked: limited if asked.attempt < 2 else good(asked)
    assert Describer(replace(request_, classes=("zero",))).run().complete == 1
    assert chat.names == ["zero"] * 3


@pytest.mark.parametrize(("status", "times"), [(500, 3), (503, 3), (429, 3), (400, 1), (404, 1), (422, 1)])
def test_a_status_is_one_line_with_the_host_after_the_retries(
    chat: ChatServer, request_: DescribeRequest, monkeypatch: pytest.MonkeyPatch, status: int, times: int
) -> None:
    monkeypatch.setattr(endpoint, "MAX_RETRIES", 2)
    chat.script = lambda asked: (
        chat_server.error(status, "over\nthere \x1b[31mred", retry_after_ms="5") if asked.name == "two" else good(asked)
    )
    line = failure(request_)
    assert line.startswith(
        f"{chat.host}: answered with status {status}: 'over there \\x1b[31mred'; 4 sentences are kept"
    )
    assert chat.names == ["zero", "one"] + ["two"] * times
    chat.script = good
    chat.asked.clear()
    Describer(request_).run()
    assert chat.names == NAMES[2:]


@pytest.mark.parametrize("status", [401, 403])
def test_a_wrong_key_is_said_without_it(chat: ChatServer, request_: DescribeRequest, status: int) -> None:
    chat.script = lambda _: chat_server.error(status, f"Incorrect API key provided: {KEY[:9]}***")
    line = failure(request_)
    assert f"{chat.host}: answered with status {status}: it does not accept the key in OPENAI_API_KEY" in line
    assert KEY[:9] not in line and len(chat.asked) == 1


@pytest.mark.parametrize("quote", [KEY, KEY[4:12], f"Bearer {KEY}"])
def test_words_that_quote_the_key_are_not_shown(chat: ChatServer, request_: DescribeRequest, quote: str) -> None:
    chat.script = lambda _: chat_server.error(400, f"no such thing as {quote}")
    assert failure(request_) == f"{chat.host}: answered with status 400"


@pytest.mark.parametrize(
    "reply",
    [
        Reply(200, b"<html><body>Welcome</body></html>", kind="text/html"),
        Reply(200, b""),
        Reply(200, b"[]"),
        Reply(200, b'{"choices": []}'),
        Reply(200, b'{"choices": "x"}'),
        Reply(200, b"\xff\xfe"),
        Reply(200, b"[" * 50_000),
    ],
)
def test_a_page_that_is_no_completion_ends_the_run_at_once(
    chat: ChatServer, request_: DescribeRequest, reply: Reply
) -> None:
    chat.script = lambda _: reply
    line = failure(request_)
    assert f"{chat.host}: answered with status 200, but with no chat completion" in line and "/v1" in line
    assert len(chat.asked) == 1


def test_an_error_with_status_200_is_an_error(chat: ChatServer, request_: DescribeRequest) -> None:
    chat.script = lambda _: Reply(200, b'{"error": {"message": "no credit left", "code": 402}}')
    assert failure(request_) == f"{chat.host}: answered with an error: no credit left"


def test_nobody_there_is_one_line(request_: DescribeRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(endpoint, "MAX_RETRIES", 0)
    line = failure(replace(request_, base_url="http://127.0.0.1:9/v1"))
    assert line.startswith("127.0.0.1:9: cannot be reached (")


def test_silence_is_not_waited_for_longer_than_said(
    chat: ChatServer, request_: DescribeRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(endpoint, "MAX_RETRIES", 1)

    def silent(asked: Asked) -> Reply:
        time.sleep(2)
        return good(asked)

    chat.script = silent
    assert f"{chat.host}: no answer within 0.3 s" in failure(replace(request_, timeout=0.3))
    assert len(chat.asked) == 2


def test_an_answer_that_breaks_off_is_asked_for_again(chat: ChatServer, request_: DescribeRequest) -> None:
    cut = Reply(200, b'{"choices"', announced=5000)
    chat.script = lambda asked: cut if asked.attempt == 0 else good(asked)
    assert Describer(replace(request_, classes=("zero",))).run().complete == 1
    assert "Your last answer did not do: it broke off" in chat.asked[1].text


# -- the journal ---------------------------------------------------------------------------------------------


def stopped(chat: ChatServer, request: DescribeRequest, at: str = "three") -> Path:
    """Run until a class at which the endpoint fails, and return the journal."""
    chat.script = lambda asked: chat_server.error(400, "stop") if asked.name == at else good(asked)
    failure(request)
    chat.script = good
    chat.asked.clear()
    assert request.out is not None
    return request.out.with_name(request.out.name + ".journal")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"model": "toy-2"}, "model 'toy-1', and now it is 'toy-2'"),
        ({"count": 3}, "count 2, and now it is 3"),
        ({"temperature": 0.0}, "temperature null, and now it is 0.0"),
        ({"seed": 1}, "seed null, and now it is 1"),
        ({"language": "de"}, "language 'en', and now it is 'de'"),
        ({"images": 1}, "images 0, and now it is 1"),
        ({"dataset": "cifar10"}, "dataset 'digits', and now it is 'cifar10'"),
        ({"base_url": "http://127.0.0.1:1/v1"}, "endpoint '127.0.0.1:"),
    ],
)
def test_another_question_does_not_go_on_from_a_journal(
    chat: ChatServer, request_: DescribeRequest, change: dict[str, Any], said: str
) -> None:
    journal = stopped(chat, request_)
    before = journal.read_bytes()
    line = failure(replace(request_, **change))
    assert said in line and "--no-resume" in line and str(journal) in line
    with pytest.raises(InputError):
        Describer(replace(request_, **change)).preview()
    assert journal.read_bytes() == before and not chat.asked


def test_a_journal_without_answers_binds_nobody(chat: ChatServer, request_: DescribeRequest) -> None:
    journal = stopped(chat, request_, at="zero")
    assert journal.exists()
    assert Describer(replace(request_, model="toy-2")).run().complete == 10


def test_no_resume_begins_anew(chat: ChatServer, request_: DescribeRequest) -> None:
    stopped(chat, request_)
    assert Describer(replace(request_, model="toy-2", resume=False)).run().file is not None
    assert chat.names == NAMES


def test_a_line_that_a_kill_cut_off_is_left_out(chat: ChatServer, request_: DescribeRequest) -> None:
    journal = stopped(chat, request_)
    whole = journal.read_bytes()
    lines = whole.splitlines(keepends=True)
    assert len(lines) == 4
    last = len(whole) - len(lines[-1])
    for cut in (last + 1, last + len(lines[-1]) // 2, len(whole) - 1):
        journal.write_bytes(whole[:cut])
        chat.asked.clear()
        stopped(chat, request_, at="four")
        assert "requests: 6," in Describer(request_).preview(), "the cut line is gone before another is written"
        journal.write_bytes(whole[:cut])
        assert Describer(request_).preview().count("requests: 8,") == 1
    journal.write_bytes(whole[:cut])
    chat.asked.clear()
    done = Describer(request_).run()
    assert chat.names == NAMES[2:]
    assert done.file is not None and read(done.file)
    assert not journal.exists()


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda lines: [b"{}\n", *lines[1:]], "is not a journal of descriptions"),
        (lambda lines: [b"\x00\n", *lines[1:]], "line 1"),
        (lambda lines: [lines[0].replace(b'"format": 1', b'"format": 2'), *lines[1:]], "is not a journal"),
        (lambda lines: [*lines[:2], b"[]\n", *lines[2:]], "line 3 is not an answer"),
        (lambda lines: [*lines[:2], b'{"class": "x"}\n'], "line 3 is not an answer"),
        (lambda lines: [*lines[:2], b"{\n"], "line 3"),
        (lambda lines: [*lines, b'{"class": "ten", "sentences": ["A ten."]}\n'], "'ten' is no class of digits"),
    ],
)
def test_a_damaged_journal_is_one_line(chat: ChatServer, request_: DescribeRequest, damage: Any, said: str) -> None:
    journal = stopped(chat, request_)
    journal.write_bytes(b"".join(damage(journal.read_bytes().splitlines(keepends=True))))
    before = journal.read_bytes()
    assert said in failure(request_)
    assert journal.read_bytes() == before and not chat.asked


def test_a_journal_that_was_tampered_with_brings_in_no_markup(chat: ChatServer, request_: DescribeRequest) -> None:
    journal = stopped(chat, request_)
    journal.write_bytes(journal.read_bytes().replace(b"view of two", b"<b>of two"))
    Describer(request_).run()
    assert chat.names == NAMES[2:]


def test_classes_are_asked_about_in_parts(chat: ChatServer, request_: DescribeRequest) -> None:
    done = Describer(replace(request_, classes=("t*", "0"))).run()
    assert (done.file, done.complete, done.classes) == (None, 3, 10)
    assert chat.names == ["zero", "two", "three"]
    chat.asked.clear()
    done = Describer(request_).run()
    assert done.file is not None and read(done.file)
    assert chat.names == [n for n in NAMES if n not in ("zero", "two", "three")]


def test_two_runs_do_not_write_one_file(chat: ChatServer, request_: DescribeRequest) -> None:
    lines: list[str] = []

    def script(asked: Asked) -> Reply:
        if asked.name == "five" and not lines:
            lines.append("it was let in")
            with pytest.raises(InputError) as caught:
                Describer(request_).run()
            lines[0] = str(caught.value)
        return good(asked)

    chat.script = script
    assert Describer(request_).run().file is not None
    assert len(lines) == 1 and "another run is writing" in lines[0]
    assert len(chat.asked) == 10


# -- bad input -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"count": 0}, "--count: 0 is not from 1 to 1000"),
        ({"count": 1001}, "--count"),
        ({"images": -1}, "--images: -1 is not from 0"),
        ({"concurrency": 0}, "--concurrency"),
        ({"temperature": float("nan")}, "--temperature"),
        ({"temperature": -1.0}, "--temperature"),
        ({"seed": -1}, "--seed"),
        ({"timeout": 0.0}, "--timeout"),
        ({"again": -1}, "--again"),
        ({"model": " "}, "--model: is empty"),
        ({"model": "a\nb"}, "field 'source' holds the control character"),
        ({"language": "English"}, "field 'language' is 'English'"),
        ({"licence": ""}, "field 'licence' is empty"),
        ({"dataset": "digit"}, "did you mean 'digits'"),
        ({"classes": ("zero", "x*")}, "--classes: no class of digits has an id or a name like 'x*'"),
        ({"images": 2, "split": "tets"}, "--split"),
        ({"images": 2, "dataset": "cifar10", "data_root": Path("/no/such")}, "--data-root"),
        ({"base_url": "ftp://x/v1"}, "--base-url: 'ftp://x/v1' is not a web address"),
        ({"base_url": "localhost:8000"}, "--base-url"),
        ({"base_url": "http://[::1/v1"}, "--base-url"),
        ({"base_url": "http://h:99999/v1"}, "--base-url"),
        ({"base_url": ""}, "--base-url"),
    ],
)
def test_bad_input_is_said_before_anything_is_asked(
    chat: ChatServer, request_: DescribeRequest, tmp_path: Path, change: dict[str, Any], said: str
) -> None:
    with pytest.raises(InputError) as caught:
        Describer(replace(request_, **change)).run()
    assert said in str(caught.value) and str(caught.value).isprintable()
    assert not chat.asked and not list(tmp_path.iterdir())


@pytest.mark.parametrize("url", ["https://me:hunter2@h/v1", "https://h/v1?key=hunter2", "https://h/v1#hunter2"])
def test_an_address_with_a_secret_is_refused_and_not_shown(
    request_: DescribeRequest, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(InputError, match="--base-url") as caught:
        Describer(replace(request_, base_url=url))
    assert "hunter2" not in str(caught.value)
    monkeypatch.setenv("OPENAI_BASE_URL", url)
    with pytest.raises(InputError, match="OPENAI_BASE_URL") as caught:
        Describer(replace(request_, base_url=None))
    assert "hunter2" not in str(caught.value)


def test_the_environment_names_the_endpoint(
    chat: ChatServer, request_: DescribeRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert Describer(replace(request_, base_url=None)).endpoint.host == "api.openai.com"
    monkeypatch.setenv("OPENAI_BASE_URL", chat.url)
    assert Describer(replace(request_, base_url=None)).run().complete == 10


@pytest.mark.parametrize(("key", "said"), [("", "is not set"), ("sk SECRET", "holds a space"), ("sk\nSECRET", "holds")])
def test_a_key_that_is_none_is_said_before_anything_is_sent(
    chat: ChatServer, request_: DescribeRequest, monkeypatch: pytest.MonkeyPatch, key: str, said: str
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", key)
    line = failure(request_)
    assert line.startswith("OPENAI_API_KEY") and said in line
    assert not chat.asked


def test_a_file_that_is_there_is_not_written_over(chat: ChatServer, request_: DescribeRequest) -> None:
    assert request_.out is not None
    request_.out.write_text("mine")
    assert "--out" in failure(request_) and not chat.asked
    assert request_.out.read_text() == "mine"
    assert "cannot write" in failure(replace(request_, out=request_.out / "below.json"))


def test_a_notebook_can_call_it_under_its_own_event_loop(chat: ChatServer, request_: DescribeRequest) -> None:
    async def cell() -> Outcome:
        return Describer(request_).run()

    outcome = asyncio.run(cell())
    assert outcome.file is not None and outcome.complete == outcome.classes == 10


def test_an_interrupt_in_a_notebook_ends_the_requests_under_way() -> None:
    begun, ended = threading.Event(), threading.Event()

    async def work() -> None:
        begun.set()
        try:
            await asyncio.sleep(60)
        finally:
            ended.set()

    async def cell() -> None:
        main = threading.get_ident()

        def interrupt() -> None:
            begun.wait()
            time.sleep(0.2)  # until the cell waits
            signal.pthread_kill(main, signal.SIGINT)

        threading.Thread(target=interrupt).start()
        before = signal.signal(signal.SIGINT, signal.default_int_handler)  # as a notebook's kernel has it
        try:
            with pytest.raises(KeyboardInterrupt):
                run_to_the_end(work)
        finally:
            signal.signal(signal.SIGINT, before)
        assert ended.is_set()

    asyncio.run(cell())
