"""What a name, a noun phrase or a line of provenance may consist of: plain text, safe to print anywhere."""

from __future__ import annotations

import re
import unicodedata

MAX_ID = 200
MAX_NAME = 200
MAX_LINE = 2000

_PLAIN_ASCII = re.compile(r"[\x20-\x7e]+")
# Markup of terminals, HTML, Markdown tables, LaTeX and prompt templates: no English noun phrase needs any of it.
MARKUP = "<>[]{}\\|`"
_MARKUP = re.compile("[" + re.escape(MARKUP) + "]")
# Controls, formats (bidirectional overrides, zero-width marks), surrogates, private and unassigned, odd separators.
_REFUSED_CATEGORIES = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})


def line_problem(text: str, *, max_characters: int = MAX_LINE) -> str | None:
    r"""Say what is wrong with one line of plain text, or None: empty, too long, padded, or with control characters.

    >>> line_problem("fine") is None
    True
    >>> line_problem("a\tb")
    'holds the control character U+0009'
    """
    if not text or text.isspace():
        return "is empty"
    if len(text) > max_characters:
        return f"has {len(text)} characters, at most {max_characters} are allowed"
    if text != text.strip():
        return "begins or ends with a space"
    if _PLAIN_ASCII.fullmatch(text) is None:
        for character in text:
            category = unicodedata.category(character)
            if category in _REFUSED_CATEGORIES or (category == "Zs" and character != " "):
                kind = "space" if category == "Zs" else "control character"
                return f"holds the {kind} U+{ord(character):04X}"
    return None


def name_problem(text: str) -> str | None:
    """Say what is wrong with a name or noun phrase, or None: as ``line_problem``, and no markup, no doubled spaces.

    >>> name_problem("[bold]cat")
    "holds '[', which names may not: they are plain text"
    """
    problem = line_problem(text, max_characters=MAX_NAME)
    if problem is not None:
        return problem
    found = _MARKUP.search(text)
    if found is not None:
        return f"holds {found.group()!r}, which names may not: they are plain text"
    if "  " in text:
        return "holds two spaces in a row"
    return None


def same_text_key(text: str) -> str:
    """Return what two texts share if a text encoder, or a reader, takes them for the same.

    >>> same_text_key("A Cat") == same_text_key("a cat")
    True
    """
    return unicodedata.normalize("NFKC", text).casefold()
