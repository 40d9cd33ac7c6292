"""Reads what a person decided about a WordNet tree: its recipe, and the English names of synsets.

A recipe is ``hierarchies/<dataset>/wordnet.recipe``::

    # dataset: cifar10
    # title: WordNet
    # description: By the hypernyms of WordNet 3.0.
    # default: no
    # source: written for hierbench
    # licence: Apache-2.0
    # sizes: 6, 4, 2
    name n00019613 | drink or soap | a drink or soap
    place touring_bike n02834778

``# sizes: 6, 4, 2`` is the levelling: depth d holds the topmost nodes with at most the d-th number of leaves.
``# restrict: imagenet`` stands in its place where the tree is another data set's, restricted to these classes.
``name`` names a synset for this tree alone; ``place`` hangs a class below a synset, for want of one of its own.
``##`` begins a comment.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from hierbench.hierarchy.content import MAX_FILE_BYTES
from hierbench.hierarchy.errors import HierarchyError, shown
from hierbench.hierarchy.strict_json import decode_text, read_bytes

_HEADER = re.compile(r"#\s*([a-z]+)\s*:\s*(.*)")
_NEEDED = ("dataset", "title", "description", "default", "source", "licence")
_LEVELLING = ("sizes", "restrict")
_WNID = re.compile(r"n[0-9]{8}")
NAME_COLUMNS = ("wordnet", "name", "noun")


@dataclass(frozen=True, slots=True)
class Words:
    """What a node is called: its bare name, and the noun phrase with its article."""

    name: str
    noun: str


@dataclass(frozen=True)
class Recipe:
    """One recipe; exactly one of ``sizes`` and ``restrict`` is given."""

    where: str
    dataset: str
    title: str
    description: str
    default: bool
    source: str
    licence: str
    sizes: tuple[int, ...] = ()
    restrict: str | None = None
    names: Mapping[str, Words] = field(default_factory=dict)
    places: Mapping[str, str] = field(default_factory=dict)


def read_recipe(path: str | os.PathLike[str]) -> Recipe:
    """Read a recipe file; what is wrong with it raises ``HierarchyError`` naming the line."""
    file = Path(path)
    text = decode_text(read_bytes(file, max_bytes=MAX_FILE_BYTES), where=str(file))
    header: dict[str, str] = {}
    names: dict[str, Words] = {}
    places: dict[str, str] = {}
    for number, line in enumerate(text.splitlines(), start=1):
        here = f"{file}:{number}"
        bare = line.strip()
        if not bare or bare.startswith("##"):
            continue
        if bare.startswith("#"):
            _add_header(header, bare, here=here)
        elif bare.startswith("name "):
            _add_name(names, bare, here=here)
        elif bare.startswith("place "):
            _add_place(places, bare, here=here)
        else:
            raise HierarchyError(
                here, f"{shown(bare)}: a line reads '# field: value', 'name n... | name | noun' or 'place class n...'"
            )
    for name in _NEEDED:
        if name not in header:
            raise HierarchyError(str(file), f"the header line '# {name}: ...' is missing")
    if ("sizes" in header) == ("restrict" in header):
        raise HierarchyError(str(file), "needs one of '# sizes: ...' and '# restrict: ...'")
    if header["default"] not in ("yes", "no"):
        raise HierarchyError(str(file), f"header 'default' is {shown(header['default'])}: write yes or no")
    return Recipe(
        where=str(file),
        dataset=header["dataset"],
        title=header["title"],
        description=header["description"],
        default=header["default"] == "yes",
        source=header["source"],
        licence=header["licence"],
        sizes=_sizes(header["sizes"], where=str(file)) if "sizes" in header else (),
        restrict=header.get("restrict"),
        names=names,
        places=places,
    )


def read_names(path: str | os.PathLike[str]) -> dict[str, Words]:
    """Read the names of synsets from a tab-separated table (wordnet, name, noun), by WordNet id."""
    file = Path(path)
    lines = decode_text(read_bytes(file, max_bytes=MAX_FILE_BYTES), where=str(file)).splitlines()
    if not lines or tuple(lines[0].split("\t")) != NAME_COLUMNS:
        raise HierarchyError(f"{file}:1", f"the header should be {' '.join(NAME_COLUMNS)}, separated by tabs")
    names: dict[str, Words] = {}
    for number, line in enumerate(lines[1:], start=2):
        fields = line.split("\t")
        here = f"{file}:{number}"
        if len(fields) != len(NAME_COLUMNS) or not all(value.strip() for value in fields):
            raise HierarchyError(here, f"{len(NAME_COLUMNS)} fields separated by tabs are needed, none empty")
        _refuse_twice(fields[0], names, here=here)
        names[_wnid(fields[0], here=here)] = Words(fields[1], fields[2])
    return names


def _add_header(header: dict[str, str], line: str, *, here: str) -> None:
    found = _HEADER.fullmatch(line)
    known = _NEEDED + _LEVELLING
    if found is None or found.group(1) not in known:
        raise HierarchyError(here, f"a header line reads '# field: value' with a field of {', '.join(known)}")
    name, value = found.group(1), found.group(2).strip()
    if name in header:
        raise HierarchyError(here, f"header {name!r} occurs twice")
    if not value:
        raise HierarchyError(here, f"header {name!r} is empty")
    header[name] = value


def _add_name(names: dict[str, Words], line: str, *, here: str) -> None:
    parts = [part.strip() for part in line.removeprefix("name ").split("|")]
    if len(parts) != 3 or not all(parts):
        raise HierarchyError(here, "reads 'name n00000000 | name | noun phrase'")
    _refuse_twice(parts[0], names, here=here)
    names[_wnid(parts[0], here=here)] = Words(parts[1], parts[2])


def _add_place(places: dict[str, str], line: str, *, here: str) -> None:
    parts = line.split()
    if len(parts) != 3:
        raise HierarchyError(here, "reads 'place class n00000000'")
    _refuse_twice(parts[1], places, here=here)
    places[parts[1]] = _wnid(parts[2], here=here)


def _refuse_twice(key: str, seen: Mapping[str, object], *, here: str) -> None:
    if key in seen:
        raise HierarchyError(here, f"{shown(key)} occurs twice")


def _wnid(text: str, *, here: str) -> str:
    if _WNID.fullmatch(text) is None:
        raise HierarchyError(here, f"{shown(text)} is no WordNet id of a noun: n and eight digits")
    return text


def _sizes(text: str, *, where: str) -> tuple[int, ...]:
    parts = [part.strip() for part in text.split(",")]
    if all(part.isascii() and part.isdigit() for part in parts):
        sizes = tuple(int(part) for part in parts)
        if sizes == tuple(sorted(set(sizes), reverse=True)) and sizes[-1] >= 2:
            return sizes
    raise HierarchyError(
        where, f"header 'sizes' is {shown(text)}: descending numbers of leaves from 2 up, as in '60, 9'"
    )
