"""A description run that was stopped goes on with what is missing, whatever happened to its journal."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from cli import chat_server
from cli.chat_server import Asked, ChatServer, Reply, good
from cli.describing import NAMES, failure, read

from hierbench.datasets.describing.run import Describer, DescribeRequest
from hierbench.errors import InputError

pytest.importorskip("openai", reason="the extra 'describe' is not installed")


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
