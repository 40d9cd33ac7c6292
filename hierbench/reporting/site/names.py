"""Names of files and links in the site: never a stranger's text as it stands."""

from __future__ import annotations

import hashlib
import re
from urllib.parse import urlsplit

_SLUG = re.compile(r"[a-z0-9][a-z0-9_-]*([.@+][a-z0-9_-]+)*")
_DEVICES = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?")
"""Names that Windows keeps for its devices."""
_KEPT_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_@+-]*(\.[A-Za-z0-9_@+-]+)*")
_LONGEST = 60
_LONGEST_KEPT = 150


def short_hash(*texts: str) -> str:
    """Return ten hexadecimal digits that stand for some texts.

    >>> short_hash("a", "b") == short_hash("ab")
    False
    """
    return hashlib.sha256("\0".join(texts).encode()).hexdigest()[:10]


def slug(text: str) -> str:
    """Return a file name's stem for a text: the text itself if it is plain, else what is plain in it and a hash.

    >>> slug("tiny_imagenet@32"), slug("../../etc/passwd").startswith("etc-passwd-")
    ('tiny_imagenet@32', True)
    """
    if _SLUG.fullmatch(text) and len(text) <= _LONGEST and not _DEVICES.fullmatch(text):
        return text
    return f"{_plain(text)}-{short_hash(text)}"


def model_page(protocol: str, model: str, weights_hash: str) -> str:
    """Return the name of a model's page: readable, and its own for every protocol, name and weights."""
    return f"{_plain(model)}-{short_hash(protocol, model, weights_hash)}.html"


def kept_name(name: str, ending: str, digest: str) -> str:
    """Return a copied file's name: its own if it is plain and ends as it should, else its hash's first digits."""
    if _KEPT_NAME.fullmatch(name) and name.endswith(ending) and len(name) <= _LONGEST_KEPT:
        return name
    return digest.removeprefix("sha256:")[:16] + ending


def safe_link(address: str | None) -> str | None:
    """Return an https address, or None for anything else: ``javascript:``, ``data:``, a path, another scheme.

    >>> safe_link("https://example.org/x"), safe_link("javascript:alert(1)"), safe_link("http://example.org")
    ('https://example.org/x', None, None)
    """
    if address is None or not address.startswith("https://") or not address.isprintable():
        return None
    try:
        parts = urlsplit(address)
    except ValueError:
        return None
    return address if parts.scheme == "https" and parts.hostname and "@" not in parts.netloc else None


def _plain(text: str) -> str:
    words = re.findall(r"[a-z0-9_]+", text.lower())
    return "-".join(words)[:_LONGEST].strip("-") or "x"
