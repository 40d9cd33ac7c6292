"""Recipes: files that say everything a training is made of, to be read, diffed, and given to ``train --recipe``."""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hierbench.errors import InputError
from hierbench.registry import Registry

FOLDER = Path(__file__).parent / "recipes"
MAX_BYTES = 1 << 20

Value = str | int | float | bool | list[float]


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """One training, all but the seed and the place of its data.

    ``settings`` are the defence's and ``training`` the trainer's; what is not named keeps its default.
    """

    name: str
    """``<folder>/<file>`` of a shipped one, the path of another."""
    title: str
    source: str
    """Whose settings these are, and which of them are ours."""
    defence: str
    backbone: str
    dataset: str
    trees: tuple[str, ...] = ()
    """Names of trees; none is the data set's default tree."""
    norm: str = "linf"
    eps: str
    seen: str | None = None
    """Class split whose unseen classes take no part; None trains on all."""
    variant: str
    settings: Mapping[str, Value]
    training: Mapping[str, Value]

    @property
    def shared_name(self) -> str:
        """The name for files that travel: of a user's recipe the file's name, without the folder it lies in."""
        return self.name if self.name in RECIPES else Path(self.name).name


_TEXT = ("title", "source", "defence", "backbone", "dataset", "eps", "variant")
_OPTIONAL = {"norm": "linf", "seen": None}


def load_recipe_file(path: Path, *, name: str | None = None) -> Recipe:
    """Read one recipe; anything wrong in it is an ``InputError`` naming the file and the key."""
    try:
        if path.stat().st_size > MAX_BYTES:
            raise InputError(f"{path}: larger than 1 MiB, which no recipe is")
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"{path}: no such recipe file") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, OSError) as error:
        raise InputError(f"{path}: not readable as TOML ({error})") from None
    known = [*_TEXT, *_OPTIONAL, "trees", "settings", "training"]
    for key in content:
        if key not in known:
            near = difflib.get_close_matches(key, known, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"known are {', '.join(known)}"
            raise InputError(f"{path}: unknown key {key!r}: {hint}")
    values: dict[str, Any] = {}
    for key in _TEXT:
        if key not in content:
            raise InputError(f"{path}: key {key!r} is missing")
    for key in (*_TEXT, *_OPTIONAL):
        value = content.get(key, _OPTIONAL.get(key))
        if value is not None and not isinstance(value, str):
            raise InputError(f"{path}: key {key!r} is {value!r}; text is needed")
        values[key] = value
    trees = content.get("trees", [])
    if not (isinstance(trees, list) and all(isinstance(tree, str) for tree in trees)):
        raise InputError(f"{path}: key 'trees' is {trees!r}; a list of names is needed")
    for key in ("settings", "training"):
        table = content.get(key, {})
        if not isinstance(table, dict):
            raise InputError(f"{path}: key {key!r} is {table!r}; a table of settings is needed")
        values[key] = table
    return Recipe(name=name or str(path), trees=tuple(trees), **values)


def _fill(registry: Registry[Recipe]) -> None:
    for path in sorted(FOLDER.glob("*/*.toml")):
        name = f"{path.parent.name}/{path.stem}"
        registry.add(name, load_recipe_file(path, name=name))


RECIPES: Registry[Recipe] = Registry("recipe", fill=_fill)


def find_recipe(name: str) -> Recipe:
    """Return a shipped recipe by its name, or the one in a file that ends in ``.toml``."""
    if name.endswith(".toml"):
        return load_recipe_file(Path(name))
    return RECIPES.get(name)
