"""The registry: collisions, suggestions, wildcards, and plugins of other packages."""

from __future__ import annotations

import importlib.metadata
from pathlib import Path
from typing import Any

import pytest

from hierbench.errors import InputError
from hierbench.paths import cache_dir, data_dir, data_root
from hierbench.registry import Registry, RegistryCollisionError, UnknownNameError


def fruit() -> Registry[int]:
    registry = Registry[int]("fruit", plural="fruit")
    for number, name in enumerate(["apple.red", "apple.green", "pear"]):
        registry.add(name, number)
    return registry


def test_a_name_is_taken_once() -> None:
    registry = fruit()
    with pytest.raises(RegistryCollisionError, match="'pear' is registered twice"):
        registry.add("pear", 9)
    assert registry.get("pear") == 2


def test_wildcards_match_in_order_and_say_when_they_do_not() -> None:
    registry = fruit()
    assert registry.match("apple.*") == ["apple.red", "apple.green"]
    assert registry.match("pear") == ["pear"]
    with pytest.raises(UnknownNameError, match=r"no fruit matches 'plum\*'"):
        registry.match("plum*")
    with pytest.raises(UnknownNameError, match="did you mean 'pear'"):
        registry.match("paer")


class Point:
    """As much of an entry point as the registry uses."""

    def __init__(self, name: str, function: Any) -> None:
        self.name, self.value, self._function = name, f"elsewhere:{name}", function

    def load(self) -> Any:
        if isinstance(self._function, Exception):
            raise self._function
        return self._function


def test_plugins_add_entries_and_a_broken_one_hides_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    points = [
        Point("broken", ImportError("no module named elsewhere")),
        Point("greedy", lambda registry: registry.add("apple.red", 7)),
        Point("good", lambda registry: registry.add("plum", 8)),
    ]
    monkeypatch.setattr(
        importlib.metadata, "entry_points", lambda *, group: points if group == "hierbench.fruit" else []
    )
    registry = fruit()
    assert registry.names() == ["apple.red", "apple.green", "pear", "plum"]
    assert registry.get("apple.red") == 0
    assert len(registry.plugin_errors) == 2
    assert "broken" in registry.plugin_errors[0] and "registered twice" in registry.plugin_errors[1]


def test_paths_come_from_flags_then_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert (data_dir() / "hierarchies").is_dir()
    monkeypatch.delenv("HIERBENCH_DATA_ROOT", raising=False)
    assert data_root() is None
    monkeypatch.setenv("HIERBENCH_DATA_ROOT", str(tmp_path))
    assert data_root() == tmp_path
    other = tmp_path / "other"
    with pytest.raises(InputError, match=r"--data-root: .*other is not a folder"):
        data_root(other)
    monkeypatch.setenv("HIERBENCH_CACHE", str(tmp_path / "deep" / "cache"))
    assert cache_dir().is_dir()
