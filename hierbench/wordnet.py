"""WordNet 3.0 through nltk, from nltk's own data or from a folder of the database files."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

from hierbench.errors import InputError
from hierbench.paths import cache_dir

_FILES = tuple(f"{kind}.{pos}" for kind in ("data", "index") for pos in ("noun", "verb", "adj", "adv"))
_EXCEPTIONS = tuple(f"{pos}.exc" for pos in ("noun", "verb", "adj", "adv"))
SENSES = "index.sense"
"""How frequent a sense is; a package of its own with Debian, and part of nltk's data."""
_FOLDERS = (Path("/usr/share/wordnet"), Path("/usr/local/share/wordnet"), Path("/usr/share/wordnet/dict"))

# The lexicographer files of WordNet 3.0 in their numbered order (lexnames(5WN)); Debian leaves the list out.
_LEXNAMES = (
    "adj.all", "adj.pert", "adv.all", "noun.Tops", "noun.act", "noun.animal", "noun.artifact",
    "noun.attribute", "noun.body", "noun.cognition", "noun.communication", "noun.event", "noun.feeling",
    "noun.food", "noun.group", "noun.location", "noun.motive", "noun.object", "noun.person",
    "noun.phenomenon", "noun.plant", "noun.possession", "noun.process", "noun.quantity",
    "noun.relation", "noun.shape", "noun.state", "noun.substance", "noun.time", "verb.body",
    "verb.change", "verb.cognition", "verb.communication", "verb.competition", "verb.consumption",
    "verb.contact", "verb.creation", "verb.emotion", "verb.motion", "verb.perception",
    "verb.possession", "verb.social", "verb.stative", "verb.weather", "adj.ppl",
)  # fmt: skip
_POS_NUMBER = {"noun": 1, "verb": 2, "adj": 3, "adv": 4}


def open_wordnet() -> Any:
    """Return nltk's reader of WordNet 3.0.

    Looks at ``HIERBENCH_WORDNET``, nltk's own data (``nltk.download("wordnet")``), then the folder where
    Debian's ``wordnet-base`` puts it. nltk refuses links and wants two files Debian lacks, so such a folder
    is copied once into the cache. Raises ``InputError`` where there is none.
    """
    import nltk
    from nltk.corpus.reader.wordnet import WordNetCorpusReader

    named = os.environ.get("HIERBENCH_WORDNET")
    if named:
        return WordNetCorpusReader(_pointer(_prepared(Path(named))), None)
    try:
        return WordNetCorpusReader(nltk.data.find("corpora/wordnet"), None)
    except LookupError:
        pass
    for folder in _FOLDERS:
        if (folder / "data.noun").is_file():
            return WordNetCorpusReader(_pointer(_prepared(folder)), None)
    raise InputError(
        "WordNet 3.0 is not here: install Debian's wordnet-base, run nltk.download('wordnet'), "
        "or name a folder of its files in HIERBENCH_WORDNET"
    )


def _pointer(folder: Path) -> Any:
    """Return nltk's handle of a folder; nltk reads only below the folders on its own search path."""
    import nltk

    root = str(folder.parent.parent)
    if root not in nltk.data.path:
        nltk.data.path.append(root)
    return nltk.data.FileSystemPathPointer(str(folder))


def _prepared(source: Path) -> Path:
    missing = [name for name in _FILES if not (source / name).is_file()]
    if missing:
        raise InputError(f"HIERBENCH_WORDNET: {source} has no {missing[0]}")
    target = cache_dir() / "wordnet-3.0" / "corpora" / "wordnet"
    if (target / "complete").is_file():
        _copy_senses(source, target)
        return target
    target.mkdir(parents=True, exist_ok=True)
    for name in (*_FILES, *_EXCEPTIONS):
        if (source / name).is_file():
            shutil.copyfile(source / name, target / name)
        else:
            (target / name).write_text("", encoding="utf-8")
    lines = (f"{i:02d}\t{name}\t{_POS_NUMBER[name.split('.')[0]]}" for i, name in enumerate(_LEXNAMES))
    (target / "lexnames").write_text("\n".join(lines) + "\n", encoding="utf-8")
    _copy_senses(source, target)
    (target / "complete").write_text("", encoding="utf-8")
    return target


def _copy_senses(source: Path, target: Path) -> None:
    """Copy the frequencies of senses, which may have been installed after the rest; an empty file stands for none."""
    sense, copy = source / SENSES, target / SENSES
    if sense.is_file() and not (copy.is_file() and copy.stat().st_size == sense.stat().st_size):
        whole = copy.with_name(f"{SENSES}.{os.getpid()}")  # another process may be reading the copy
        shutil.copyfile(sense, whole)
        whole.replace(copy)
    elif not copy.is_file():
        copy.write_text("", encoding="utf-8")
