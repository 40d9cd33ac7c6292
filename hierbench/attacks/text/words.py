"""Words: where they are in a prompt, which never count, and which are English."""

from __future__ import annotations

import gzip
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

WORD = re.compile(r"[^\W_]+(?:['’-][^\W_]+)*")
"""A word: letters and digits, with hyphens and apostrophes inside."""

WORDS_FILE = "words.tsv.gz"

# A text and not a list of strings: two hundred short words, one a line, would hide the rest of the file.
_FUNCTION_WORDS = """
a an the this that these those such same other another each every either neither any some no none all both few more
most many much several own
i me my myself we us our ours ourselves you your yours yourself he him his himself she her hers herself it its itself
they them their theirs themselves who whom whose which what there here
am is are was were be been being do does did done doing have has had having will would shall should may might must
could cannot
of in on at by for with without within from to into onto upon over under above below between among against through
during before after since until about around across along behind beside besides beyond near off out up down via per
as than like toward towards
and or nor but if then else so because while where when why how whether although though yet not only very too also
just again ever never once
"""

STOP_WORDS = frozenset(_FUNCTION_WORDS.split())
"""Function words: nothing is replaced by one, and none is replaced."""

# WordNet's entries of one or two letters are nearly all abbreviations and symbols; these are words.
_TWO_LETTERS = "a i ad ah am an as at ax be by do go ha he hi if in is it me my no of oh ok on or ox so to up us we"
_SHORT_WORDS = frozenset(_TWO_LETTERS.split())

# Detachment rules of WordNet's morphology (morphy(7WN)): ending, what takes its place, and for which part of speech.
_ENDINGS: tuple[tuple[str, str, str], ...] = (
    *(("n", old, new) for old, new in (("s", ""), ("ses", "s"), ("xes", "x"), ("zes", "z"), ("ches", "ch"))),
    *(("n", old, new) for old, new in (("shes", "sh"), ("men", "man"), ("ies", "y"))),
    *(("v", old, new) for old, new in (("s", ""), ("ies", "y"), ("es", "e"), ("es", ""))),
    *(("v", old, new) for old, new in (("ed", "e"), ("ed", ""), ("ing", "e"), ("ing", ""))),
    *(("a", old, new) for old, new in (("er", ""), ("est", ""), ("er", "e"), ("est", "e"))),
)

_SILENT_H = ("hour", "honest", "honor", "honour", "heir")
_LIKE_YOU = ("eu", "ewe", "uni", "use", "usu", "uku", "ute", "uti", "ura", "uri", "uro", "ubi", "uto", "one", "once")
_NOT_LIKE_YOU = ("unid", "unim", "unin")
_SPOKEN_WITH_VOWEL = "AEFHILMNORSX"
"""Letters whose names begin with a vowel sound."""


def words_in(text: str) -> Iterator[tuple[int, int, str]]:
    """Yield start, stop and text of every word, in order.

    >>> list(words_in("a T-shirt."))
    [(0, 1, 'a'), (2, 9, 'T-shirt')]
    """
    for found in WORD.finditer(text):
        yield found.start(), found.end(), found.group()


def is_stop_word(word: str) -> bool:
    """Say whether a word is a function word."""
    return word.lower() in STOP_WORDS


def article_of(phrase: str) -> str:
    """Return "a" or "an", by the sound a phrase begins with; it knows the common exceptions only.

    >>> [article_of(word) for word in ("apple", "hourglass", "unicycle", "umbrella", "European robin", "X-ray", "SUV")]
    ['an', 'an', 'a', 'an', 'a', 'an', 'an']
    """
    start = phrase[:2]
    if len(start) == 2 and start[0].isupper() and (start[1].isupper() or start[1] == "-"):
        return "an" if start[0] in _SPOKEN_WITH_VOWEL else "a"
    lower = phrase.lower()
    if lower.startswith(_LIKE_YOU) and not lower.startswith(_NOT_LIKE_YOU):
        return "a"
    return "an" if lower.startswith(("a", "e", "i", "o", "u", "8", *_SILENT_H)) else "a"


@dataclass(frozen=True)
class Dictionary:
    """English words: WordNet's, its irregular forms, and what its rules of inflection derive from them.

    Args:
        parts: for each lower-case word the parts of speech it is an entry of (``n``, ``v``, ``a``, ``r``), and ``x``
            for an irregular form.
    """

    parts: Mapping[str, str]

    def __contains__(self, word: object) -> bool:
        if not isinstance(word, str):
            return False
        word = word.lower()
        if len(word) <= 2:
            return word in _SHORT_WORDS
        if word in self.parts or word in STOP_WORDS:
            return True
        return any(
            part in self.parts.get(word[: len(word) - len(old)] + new, "")
            for part, old, new in _ENDINGS
            if word.endswith(old) and len(word) > len(old)
        )


@cache
def shipped_dictionary() -> Dictionary:
    """Return the dictionary made from WordNet 3.0 that comes with hierbench."""
    content = gzip.decompress((files("hierbench.attacks.text") / WORDS_FILE).read_bytes()).decode("utf-8")
    pairs = (line.partition("\t")[::2] for line in content.splitlines())
    return Dictionary(dict(pairs))
