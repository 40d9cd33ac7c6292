"""One small registry for everything that has a name."""

from __future__ import annotations

import difflib
import fnmatch
import importlib.metadata
from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

from hierbench.errors import HierbenchError, InputError

Entry = TypeVar("Entry")


class UnknownNameError(InputError):
    """A name that no entry has; the message offers the nearest ones."""


class RegistryCollisionError(HierbenchError):
    """Two entries claim one name."""


class Registry(Generic[Entry]):
    """Named entries of one kind, in the order they were added.

    Entries are light descriptions: what is heavy is imported when it is used, so that listing stays quick.
    Other packages add entries through the entry-point group ``hierbench.<kind>``, each point naming a
    callable that takes the registry; one that fails is reported by ``plugin_errors`` and hides nothing.

    >>> fruit = Registry[int]("fruit")
    >>> _ = fruit.add("apple", 1)
    >>> fruit.get("apple")
    1
    >>> fruit.get("aple")
    Traceback (most recent call last):
    ...
    hierbench.registry.UnknownNameError: unknown fruit 'aple': did you mean 'apple'?
    """

    def __init__(
        self,
        kind: str,
        *,
        plural: str | None = None,
        fill: Callable[[Registry[Entry]], None] | None = None,
    ) -> None:
        self.kind = kind
        self.plural = plural or f"{kind}s"
        self.plugin_errors: list[str] = []
        self._entries: dict[str, Entry] = {}
        self._fill = fill
        self._filled = False

    def add(self, name: str, entry: Entry) -> Entry:
        """Add an entry; a name that is taken raises ``RegistryCollisionError``."""
        if name in self._entries:
            raise RegistryCollisionError(f"{self.kind} {name!r} is registered twice: names are unique")
        self._entries[name] = entry
        return entry

    def get(self, name: str) -> Entry:
        """Return one entry; an unknown name raises ``UnknownNameError`` with suggestions."""
        self._ensure_filled()
        try:
            return self._entries[name]
        except KeyError:
            raise UnknownNameError(f"unknown {self.kind} {name!r}: {self.suggest(name)}") from None

    def match(self, pattern: str) -> list[str]:
        """Return the names a wildcard pattern matches, in order; none is an ``UnknownNameError``."""
        self._ensure_filled()
        if not any(mark in pattern for mark in "*?["):
            self.get(pattern)
            return [pattern]
        names = [name for name in self._entries if fnmatch.fnmatchcase(name, pattern)]
        if not names:
            raise UnknownNameError(
                f"no {self.kind} matches {pattern!r}: 'hierbench list {self.plural}' shows all {len(self._entries)}"
            )
        return names

    def suggest(self, name: str) -> str:
        """Say which names are near, or list some that exist."""
        self._ensure_filled()
        near = difflib.get_close_matches(name, self._entries, n=3, cutoff=0.5)
        if near:
            return "did you mean " + " or ".join(repr(n) for n in near) + "?"
        some = ", ".join(list(self._entries)[:8])
        return f"known are {some}" if some else f"there are no {self.plural}"

    def names(self) -> list[str]:
        """All names, in order."""
        self._ensure_filled()
        return list(self._entries)

    def items(self) -> Iterator[tuple[str, Entry]]:
        """All names with their entries, in order."""
        self._ensure_filled()
        yield from self._entries.items()

    def __contains__(self, name: object) -> bool:
        self._ensure_filled()
        return name in self._entries

    def __len__(self) -> int:
        self._ensure_filled()
        return len(self._entries)

    def _ensure_filled(self) -> None:
        if self._filled:
            return
        self._filled = True
        if self._fill is not None:
            self._fill(self)
        group = f"hierbench.{self.plural}"
        for point in importlib.metadata.entry_points(group=group):
            try:
                point.load()(self)
            except Exception as error:  # noqa: BLE001 (a stranger's code may raise anything; ours must go on)
                self.plugin_errors.append(f"{group}: {point.name} ({point.value}): {type(error).__name__}: {error}")
