"""Files of the Hugging Face Hub: from the local cache, or fetched, or one line that says how to do without."""

from __future__ import annotations

import logging
import socket
import urllib.parse
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from hierbench.errors import InputError

PAGE = "docs/checkpoints.md"


def hub_file(repository: str, names: Sequence[str], *, what: str, revision: str | None = None) -> Path:
    """Return the first of some files that a Hub repository has, on this disk.

    Raises ``InputError``, one line, saying what could not be fetched, why, and how to give a local folder.
    """
    from huggingface_hub import hf_hub_download

    reachable = _reachable()
    missing = ""
    with quiet():
        for name in names:
            try:
                return Path(hf_hub_download(repository, name, revision=revision, local_files_only=not reachable))
            except Exception as error:  # noqa: BLE001 (the client raises what its transport raises)
                missing = missing or _reason(error, reachable)
    raise InputError(
        f"{what}: {' or '.join(names)} of {repository} on the Hugging Face Hub could not be fetched ({missing}); where "
        f"there is no network, bring a copy of that repository and say --backbone local-dir:FOLDER ({PAGE})"
    )


def commit_of(path: Path) -> str | None:
    """Return the commit that a file of the Hub's cache belongs to.

    >>> commit_of(Path("hub/models--a--b/snapshots/0123abc/config.json"))
    '0123abc'
    """
    parts = path.parts
    return parts[parts.index("snapshots") + 1] if "snapshots" in parts[:-2] else None


def _reachable() -> bool:
    """Return whether asking the network has a chance: the client itself retries for most of a minute."""
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:
        return False
    if urllib.request.getproxies():
        return True  # a proxy knows names that this machine does not
    host = urllib.parse.urlsplit(constants.ENDPOINT).hostname or ""
    try:
        socket.getaddrinfo(host, 443)
    except OSError:
        return False
    return True


def _reason(error: Exception, reachable: bool) -> str:
    if not reachable:
        return "no network here, and it is not in the cache"
    first = " ".join(str(error).split("\n", 1)[0].split())
    return f"{type(error).__name__}: {first[:200]}"


@contextmanager
def quiet() -> Iterator[None]:
    """Silence what open_clip and the Hub's client tell the log: they announce fallbacks that are ours to report."""
    loggers = [logging.getLogger(), logging.getLogger("huggingface_hub")]
    before = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        for logger, level in zip(loggers, before, strict=True):
            logger.setLevel(level)
