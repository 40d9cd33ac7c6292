"""Bad input of a description run is said before anything is sent, and a notebook may start one."""

from __future__ import annotations

import asyncio
import signal
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from cli.chat_server import ChatServer
from cli.describing import failure

from hierbench.datasets.describing.loops import run_to_the_end
from hierbench.datasets.describing.run import Describer, DescribeRequest, Outcome
from hierbench.errors import InputError

pytest.importorskip("openai", reason="the extra 'describe' is not installed")


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
