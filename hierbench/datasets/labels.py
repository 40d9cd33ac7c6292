"""Do a source's class names stand in the order of the class table?"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from functools import lru_cache
from importlib.resources import files

from hierbench.datasets.spec import DatasetSpec
from hierbench.errors import InputError


def plain(name: str) -> str:
    """Return a name without case, accents, separators and the like, so that spellings of one name agree.

    >>> plain("Boeing 707-320"), plain("boeing_707_320"), plain("AnnualCrop"), plain("Annual Crop")
    ('boeing707320', 'boeing707320', 'annualcrop', 'annualcrop')
    """
    folded = unicodedata.normalize("NFKD", name).casefold()
    return "".join(c for c in folded if c.isalnum())


@lru_cache(maxsize=64)
def spellings(table: str, names: tuple[tuple[str, str], ...]) -> tuple[frozenset[str], ...]:
    """Return all plain spellings of each class in label order.

    They are its id, its bare name, its id without a number before it (``001.Black_footed_Albatross``), and what
    ``labels/<table>.txt`` has, if there is one: the Hub's own label names where they are none of these, one class
    a line in label order, other spellings after tabs.
    """
    source = files("hierbench.datasets") / "labels" / f"{table}.txt"
    lines = source.read_text(encoding="utf-8").splitlines() if source.is_file() else [""] * len(names)
    if len(lines) != len(names):
        raise InputError(f"labels/{table}.txt: {len(lines)} lines; the class table has {len(names)} classes")
    found = []
    for (class_id, name), line in zip(names, lines, strict=True):
        given = {class_id, unnumbered(class_id), name, *line.split("\t")}
        found.append(frozenset(plain(g) for g in given if g))
    return tuple(found)


def unnumbered(name: str) -> str:
    """Return a folder or label name without a number and dot before it.

    >>> unnumbered("002.american-flag"), unnumbered("n01440764")
    ('american-flag', 'n01440764')
    """
    return re.sub(r"^\d+\.", "", name)


def species(name: str) -> str:
    """Return genus and species of an iNaturalist folder name, which spells the whole taxonomy.

    >>> species("06123_Plantae_Tracheophyta_Magnoliopsida_Sapindales_Sapindaceae_Acer_rubrum"), species("cat")
    ('Acer_rubrum', 'cat')
    """
    return re.sub(r"^\d{5}_(?:[^_]+_){5}", "", name)


def _spellings_of(spec: DatasetSpec) -> tuple[frozenset[str], ...]:
    return spellings(spec.class_table or spec.base_name, tuple((c.id, c.name) for c in spec.classes))


def check_label_order(names: Sequence[str], spec: DatasetSpec, *, where: str) -> None:
    """Refuse class names that are not those of the class table, each at its label; ``InputError`` names the first."""
    for index, (theirs, ours) in enumerate(zip(names, _spellings_of(spec), strict=False)):
        if plain(theirs) not in ours and plain(unnumbered(theirs)) not in ours:
            raise InputError(
                f"{where}: label {index} is {theirs!r} there and {spec.class_ids[index]!r} in {spec.name}'s class table"
            )
    if len(names) != len(spec.class_ids):
        raise InputError(f"{where}: {len(names)} class names; {spec.name} has {len(spec.class_ids)}")


def check_prose_names(names: Sequence[str], spec: DatasetSpec, *, where: str) -> None:
    """Refuse a file of prompt names that is out of order.

    Such names are free prose ("great white shark"), so one that the class table does not know says nothing; one
    that it knows must stand at its own label.
    """
    if len(names) != len(spec.class_ids):
        raise InputError(f"{where}: {len(names)} class names; {spec.name} has {len(spec.class_ids)}")
    ours = _spellings_of(spec)
    home: dict[str, set[int]] = {}
    for index, known in enumerate(ours):
        for spelling in known:
            home.setdefault(spelling, set()).add(index)
    for index, theirs in enumerate(names):
        places = home.get(plain(theirs), {index})
        if index not in places:
            raise InputError(
                f"{where}: label {index} is {theirs!r} there, which is label {min(places)} in {spec.name}'s class table"
            )


def find_class(folder: str, spec: DatasetSpec) -> int | None:
    """Return the label a class folder's name means, or None: an id, a name, a WordNet id, or one after a number."""
    exact = {c.id: i for i, c in enumerate(spec.classes)}
    if folder in exact:
        return exact[folder]
    wordnet = [i for i, c in enumerate(spec.classes) if c.wordnet == folder]
    if len(wordnet) == 1:
        return wordnet[0]
    wanted = {plain(folder), plain(unnumbered(folder)), plain(species(folder))}
    found = [i for i, known in enumerate(_spellings_of(spec)) if known & wanted]
    return found[0] if len(found) == 1 else None
