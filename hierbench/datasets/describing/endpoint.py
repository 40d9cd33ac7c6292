"""A chat endpoint with OpenAI's interface: one question, one answer of bounded size, and errors in one line."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from hierbench.datasets.describing.answers import UnusableAnswer
from hierbench.datasets.describing.prompt import Message
from hierbench.errors import HierbenchError, InputError
from hierbench.hierarchy.errors import one_line, shown
from hierbench.hierarchy.strict_json import parse_json

if TYPE_CHECKING:
    import openai

KEY_VARIABLE, URL_VARIABLE = "OPENAI_API_KEY", "OPENAI_BASE_URL"
DEFAULT_URL = "https://api.openai.com/v1"
"""The library's own, when neither a flag nor the environment names an endpoint."""
MAX_ANSWER_BYTES = 4 * 2**20
MAX_RETRIES = 5
"""How often the library sends a request again after a rate limit, a server's error or a lost connection."""
MAX_REASON = 160
"""Characters of an endpoint's own words in an error."""
KEY_PIECE = 6
"""An endpoint's words that hold so many consecutive characters of the key are not shown."""
LONG_KEY = 16
"""A key from this length on is a secret; shorter ones stand for none, and may be words."""
ABOUT_THE_KEY = (401, 403, 407)
"""Statuses whose explanation is likely to quote the key."""


class EndpointError(HierbenchError):
    """The endpoint cannot be used now; the line names its host, and nothing of the key."""


@dataclass(frozen=True)
class Endpoint:
    """Where and how a model is asked; what is None is not sent, so that the endpoint's default holds."""

    base_url: str
    model: str
    temperature: float | None = None
    seed: int | None = None
    timeout: float = 300.0
    """Seconds without a word from the endpoint, and seconds that an answer may take to come in."""

    @property
    def host(self) -> str:
        """The host, with its port where the address has one."""
        parts = urlsplit(self.base_url)
        return one_line(f"{parts.hostname}:{parts.port}" if parts.port else str(parts.hostname))


def find_base_url(given: str | None) -> str:
    """Return ``--base-url``, else ``OPENAI_BASE_URL``, else the library's; one that is no plain address is refused."""
    source = "--base-url" if given is not None else URL_VARIABLE
    url = given if given is not None else os.environ.get(URL_VARIABLE) or DEFAULT_URL
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError:
        raise InputError(f"{source}: is not a web address; give one such as {DEFAULT_URL}") from None
    # the address is not shown in these: it may hold a secret
    if parts.username is not None or parts.password is not None or parts.query or parts.fragment:
        raise InputError(f"{source}: give the address alone; the key belongs into the variable {KEY_VARIABLE}")
    if parts.scheme not in ("http", "https") or not host:
        raise InputError(f"{source}: {shown(url)} is not a web address; give one such as {DEFAULT_URL}")
    return url


def find_key() -> str:
    """Return the key, which comes from the environment only; its text is in no error."""
    key = os.environ.get(KEY_VARIABLE, "")
    if not key:
        raise InputError(f"{KEY_VARIABLE} is not set: put the endpoint's key there (any word, if it asks for none)")
    if not key.isascii() or not key.isprintable() or " " in key:
        raise InputError(f"{KEY_VARIABLE} holds a space, a line break or a character that no key has")
    return key


class Chat:
    """An open connection to an endpoint; see ``open_chat``."""

    def __init__(self, endpoint: Endpoint, client: openai.AsyncOpenAI, key: str) -> None:
        self._endpoint = endpoint
        self._client = client
        self._key = key

    async def ask(self, messages: Sequence[Message], *, attempt: int = 0) -> str:
        """Return the text of the answer.

        Raises ``UnusableAnswer`` where asking again may help, else ``EndpointError``. A repeated question is sent with
        the next seed: with the same one, the answer would be the same.
        """
        import openai

        host = self._endpoint.host
        seed = self._endpoint.seed
        sent: dict[str, Any] = {
            "temperature": self._endpoint.temperature,
            "seed": None if seed is None else seed + attempt,
        }
        sent = {name: value for name, value in sent.items() if value is not None}
        content: Any = messages
        streamed = self._client.chat.completions.with_streaming_response
        try:
            async with streamed.create(model=self._endpoint.model, messages=content, **sent) as response:
                body = await self._read(response.iter_bytes())
        # "from None" below: a cause may hold the request, and the request holds the key
        except openai.APITimeoutError:
            raise EndpointError(f"{host}: no answer within {self._endpoint.timeout:g} s") from None
        except openai.APIConnectionError as error:
            cause = type(error.__cause__ or error).__name__
            raise EndpointError(f"{host}: cannot be reached ({cause})") from None
        except openai.APIStatusError as error:
            raise EndpointError(self._status_line(error.status_code, error.body)) from None
        except openai.OpenAIError as error:
            raise EndpointError(f"{host}: the request failed ({type(error).__name__})") from None
        return self._text(body)

    async def _read(self, chunks: AsyncIterator[bytes]) -> bytes:
        """Return the whole answer; the library itself would read one of any size, and for any time."""
        body = bytearray()
        try:
            async with asyncio.timeout(self._endpoint.timeout):
                async for chunk in chunks:
                    body += chunk
                    if len(body) > MAX_ANSWER_BYTES:
                        break
        except Exception as error:  # noqa: BLE001 - the transport's errors have other names in each of its versions
            raise UnusableAnswer(f"broke off ({type(error).__name__})") from None
        if len(body) > MAX_ANSWER_BYTES:
            raise UnusableAnswer(f"is larger than {MAX_ANSWER_BYTES // 2**20} MiB")
        return bytes(body)

    def _text(self, body: bytes) -> str:
        try:
            value = parse_json(body, where="the answer")
        except InputError:
            value = None
        match value:
            case {"choices": [{"message": {"content": str(text)}}, *_]}:
                if len(self._key) >= LONG_KEY and self._key in text:
                    raise UnusableAnswer(f"quotes {KEY_VARIABLE}")  # what is written down must not hold it
                return text
            case {"choices": [{"message": {}}, *_]}:
                raise UnusableAnswer("holds no text")
            case {"error": _}:  # with status 200, as some gateways have it
                raise EndpointError(f"{self._endpoint.host}: answered with an error{self._reason(value)}")
        raise EndpointError(
            f"{self._endpoint.host}: answered with status 200, but with no chat completion: "
            "--base-url is the address of the interface itself, which often ends in /v1"
        )

    def _status_line(self, status: int, body: object) -> str:
        line = f"{self._endpoint.host}: answered with status {status}"
        if status in ABOUT_THE_KEY:
            return f"{line}: it does not accept the key in {KEY_VARIABLE}, or not for this model"
        return line + self._reason(body)

    def _reason(self, body: object) -> str:
        """Return the endpoint's own words as the end of a line, or nothing where they might hold a part of the key."""
        match body:
            case {"error": {"message": str(words)}} | {"message": str(words)} | {"error": str(words)}:
                words = one_line(" ".join(words.split()))
            case _:
                return ""
        pieces = {self._key[i : i + KEY_PIECE] for i in range(max(1, len(self._key) - KEY_PIECE + 1))}
        if not words or any(piece in words for piece in pieces):
            return ""
        return ": " + (words if len(words) <= MAX_REASON else words[:MAX_REASON] + "...")


@asynccontextmanager
async def open_chat(endpoint: Endpoint) -> AsyncIterator[Chat]:
    """Open a chat with the key of the environment; without the library it is an ``InputError`` that names the extra."""
    openai = require_library()
    key = find_key()
    client = openai.AsyncOpenAI(
        api_key=key, base_url=endpoint.base_url, timeout=endpoint.timeout, max_retries=MAX_RETRIES
    )
    async with client:
        yield Chat(endpoint, client, key)


def require_library() -> Any:
    """Return the module ``openai``; where it is missing, an ``InputError`` says how to get it."""
    try:
        import openai
    except ImportError:
        raise InputError('describe: the package openai is missing: pip install "hierbench[describe]"') from None
    return openai
