"""A chat endpoint on this machine: it answers as a script says, and remembers what it was asked."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

KEY = "sk-test-0123456789abcdefSECRET"


@dataclass
class Reply:
    status: int
    body: bytes
    headers: dict[str, str] = field(default_factory=dict)
    kind: str = "application/json"
    endless: bool = False
    """The body is sent again and again, until the reader hangs up."""
    announced: int | None = None
    """The length that is announced, where it is not the body's."""


@dataclass
class Asked:
    """One request: its path, its headers, its content, and its number among those about the same class."""

    path: str
    headers: dict[str, str]
    content: dict[str, Any]
    attempt: int = 0

    @property
    def parts(self) -> list[dict[str, Any]]:
        content = self.content["messages"][-1]["content"]
        return [{"type": "text", "text": content}] if isinstance(content, str) else list(content)

    @property
    def text(self) -> str:
        return str(self.parts[0]["text"])

    @property
    def name(self) -> str:
        found = re.search(r"^Class: (.+) \(in a sentence", self.text, re.MULTILINE)
        assert found is not None
        return found[1]

    @property
    def wanted(self) -> int:
        found = re.search(r"^Write (\d+) ", self.text, re.MULTILINE)
        assert found is not None
        return int(found[1])


Script = Callable[[Asked], Reply]


def completion(content: object) -> Reply:
    """What a server sends for an answer's text; anything else than text is sent as JSON text."""
    text = content if isinstance(content, str) else json.dumps(content)
    choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": text}}
    body = {"id": "x", "object": "chat.completion", "created": 0, "model": "m", "choices": [choice]}
    return Reply(200, json.dumps(body).encode())


def error(status: int, message: str, **headers: str) -> Reply:
    body = json.dumps({"error": {"message": message, "type": "t"}}).encode()
    return Reply(status, body, {name.replace("_", "-"): value for name, value in headers.items()})


def sentences(asked: Asked) -> list[str]:
    return [f"A view of {asked.name}, number {asked.attempt}-{i}." for i in range(asked.wanted)]


def good(asked: Asked) -> Reply:
    return completion({"sentences": sentences(asked)})


class ChatServer:
    def __init__(self, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}/v1"
        self.host = f"127.0.0.1:{port}"
        self.script: Script = good
        self.asked: list[Asked] = []
        self.sent = 0
        """Bytes of endless answers."""
        self.arrived = threading.Condition()

    @property
    def names(self) -> list[str]:
        return [asked.name for asked in self.asked]

    def wait_for(self, count: int, timeout: float = 60.0) -> None:
        with self.arrived:
            assert self.arrived.wait_for(lambda: len(self.asked) >= count, timeout)

    def reply(self, asked: Asked) -> Reply:
        with self.arrived:
            asked.attempt = self.names.count(asked.name)
            self.asked.append(asked)
            self.arrived.notify_all()
        return self.script(asked)


@contextmanager
def serving() -> Iterator[ChatServer]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            length = int(self.headers["Content-Length"])
            asked = Asked(
                self.path,
                {name.lower(): value for name, value in self.headers.items()},
                json.loads(self.rfile.read(length)),
            )
            reply = chat.reply(asked)
            self.send_response(reply.status)
            for name, value in {"Content-Type": reply.kind, **reply.headers}.items():
                self.send_header(name, value)
            if not reply.endless:
                self.send_header("Content-Length", str(len(reply.body) if reply.announced is None else reply.announced))
            self.end_headers()
            try:
                self.wfile.write(reply.body)
                while reply.endless and chat.sent < 2**30:
                    self.wfile.write(reply.body)
                    chat.sent += len(reply.body)
            except OSError:
                pass  # the reader has had enough

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    server.block_on_close = False
    chat = ChatServer(server.server_address[1])
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield chat
    finally:
        server.shutdown()
        server.server_close()


def key_in_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """The key, and no proxy or address of the machine's own."""
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "OPENAI_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
