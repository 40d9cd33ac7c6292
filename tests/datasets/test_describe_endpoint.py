"""Endpoints that fail a description run: waited for, asked again, or said in one line without the key."""

from __future__ import annotations

import time
from dataclasses import replace

import pytest
from cli import chat_server
from cli.chat_server import KEY, Asked, ChatServer, Reply, good
from cli.describing import NAMES, failure

from hierbench.datasets.describing import endpoint
from hierbench.datasets.describing.run import Describer, DescribeRequest

pytest.importorskip("openai", reason="the extra 'describe' is not installed")


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
