"""Which of pyautoattack's attacks can run on a number of candidates, and what runs where one cannot."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from hierbench.attacks.objectives.margins import DLR_CANDIDATES, TARGETED_DLR_CANDIDATES
from hierbench.attacks.threat import Norm
from hierbench.errors import InputError

Version = Literal["standard", "plus", "rand", "custom"]
VERSIONS: tuple[Version, ...] = get_args(Version)

NAMES = ("apgd-ce", "apgd-dlr", "apgd-t", "fab", "fab-t", "square")
"""Every attack of the library."""

LISTS: dict[str, tuple[str, ...]] = {
    "standard": ("apgd-ce", "apgd-t", "fab-t", "square"),
    "plus": ("apgd-ce", "apgd-dlr", "fab", "square", "apgd-t", "fab-t"),
    "rand": ("apgd-ce", "apgd-dlr"),
}
"""What the versions run, in order. METHODS.md 2."""

_WANTED = {"apgd-dlr": DLR_CANDIDATES, "apgd-t": TARGETED_DLR_CANDIDATES}
"""Candidates without which the DLR losses raise ``IndexError``."""
_SMALLEST_L2_SQUARE = 5
"""Square tiles an image by five under l2, and divides by zero on a smaller one."""


@dataclass(frozen=True)
class Components:
    """What runs, and in words what does not."""

    names: tuple[str, ...]
    substitutions: tuple[str, ...]


def listed(version: str, attacks: Sequence[str] | None) -> tuple[str, ...]:
    """Return the attacks that a version or a list of one's own names; anything else is an ``InputError``."""
    if version not in VERSIONS:
        raise InputError(f"pyautoattack: version {version!r} is unknown: use {', '.join(VERSIONS)}")
    if version != "custom":
        if attacks is not None:
            raise InputError(f"pyautoattack: version {version!r} names its own attacks: use version 'custom'")
        return LISTS[version]
    if not attacks:
        raise InputError(f"pyautoattack: version 'custom' needs attacks: some of {', '.join(NAMES)}")
    for name in attacks:
        if name not in NAMES:
            near = difflib.get_close_matches(name, NAMES, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"it has {', '.join(NAMES)}"
            raise InputError(f"pyautoattack has no attack {name!r}: {hint}")
    if len(set(attacks)) != len(attacks):
        raise InputError(f"pyautoattack: {', '.join(attacks)} names an attack twice")
    return tuple(attacks)


def runnable(names: Sequence[str], *, candidates: int, norm: Norm, height: int) -> Components:
    """Return what runs of ``names`` on that many candidates and on images of that height.

    A DLR loss with too few candidates gives way to cross-entropy: ``apgd-ce`` runs in its place, unless it runs
    anyway. An ``InputError`` says so where nothing is left. METHODS.md 2.
    """
    kept: list[str] = []
    said: list[str] = []
    for name in names:
        wanted = _WANTED.get(name, 2)
        if name == "square" and norm == "l2" and height < _SMALLEST_L2_SQUARE:
            said.append(f"square left out: under l2 it needs images of at least {_SMALLEST_L2_SQUARE} pixels a side")
        elif candidates >= wanted:
            kept.append(name)
        elif "apgd-ce" in names or "apgd-ce" in kept:
            said.append(f"{name} left out: its loss needs {wanted} candidates and there are {candidates}")
        else:
            kept.append("apgd-ce")
            said.append(f"apgd-ce in place of {name}: its loss needs {wanted} candidates and there are {candidates}")
    if not kept:
        raise InputError(f"pyautoattack has nothing to run: {'; '.join(said)}")
    return Components(tuple(kept), tuple(said))
