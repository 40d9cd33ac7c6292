"""The class trees that hierbench ships or a plug-in adds, by data set and name."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from hierbench.errors import InputError
from hierbench.paths import data_dir
from hierbench.registry import Registry, UnknownNameError

if TYPE_CHECKING:
    from hierbench.hierarchy.tree import Forest, Hierarchy

_NAME = re.compile(r"[a-z0-9][a-z0-9_-]*")
_CONTROL = re.compile(r"(?P<tree>.+)-shuffled(?P<seed>0|[1-9][0-9]{0,8})")
"""A control tree that is made when it is asked for: the leaves of a listed tree, permuted with a seed."""


def _add_shipped(registry: Registry[Path]) -> None:
    for path in sorted((data_dir() / "hierarchies").glob("*/*.json")):
        if _NAME.fullmatch(path.parent.name) and _NAME.fullmatch(path.stem):
            registry.add(f"{path.parent.name}/{path.stem}", path)


# The files by "<dataset>/<tree>"; the folder is read when the registry is first asked.
HIERARCHIES: Registry[Path] = Registry("hierarchy", plural="hierarchies", fill=_add_shipped)


def list_hierarchies(*, registry: Registry[Path] = HIERARCHIES) -> list[tuple[str, str]]:
    """Return (data set, tree) of every tree, sorted; no file is opened."""
    pairs = (name.partition("/") for name in registry.names())
    return sorted((dataset, tree) for dataset, _, tree in pairs)


def load_hierarchy(
    dataset: str,
    tree: str | None = None,
    *,
    classes: Sequence[str] | None = None,
    registry: Registry[Path] = HIERARCHIES,
) -> Hierarchy:
    """Return a data set's tree by name, or its default tree.

    ``dataset`` may carry a pixel grid (``tiny_imagenet@32``), which changes no tree. ``classes``, the data set's class
    ids in label order, are checked against the file's. ``<tree>-shuffled<seed>`` is a listed tree with its leaves
    permuted (``shuffle``): random groups of the same sizes. An unknown name raises ``InputError`` with the nearest
    ones, a broken file ``HierarchyError``. A file is parsed once and again when it changes.
    """
    base = _base_dataset(dataset, registry)
    if tree is not None:
        return _open(base, _one_tree(base, tree, registry), classes, registry)
    trees = _trees_of(base, registry)
    defaults = [name for name in trees if _open(base, name, None, registry).default]
    if len(defaults) != 1:
        said = " and ".join(repr(name) for name in defaults) if defaults else "none"
        raise InputError(
            f"dataset '{base}' needs one default hierarchy and has {said}: name a tree of {', '.join(trees)}"
        )
    return _open(base, defaults[0], classes, registry)


def load_forest(
    dataset: str,
    trees: Sequence[str] | None = None,
    classes: Sequence[str] | None = None,
    *,
    registry: Registry[Path] = HIERARCHIES,
) -> Forest:
    """Return several trees of a data set, by names or wildcards in the order given; None is all, the default one first.

    Errors as in ``load_hierarchy``.
    """
    from hierbench.hierarchy.tree import Forest

    base = _base_dataset(dataset, registry)
    known = _trees_of(base, registry)
    if trees is None:
        first = load_hierarchy(base, registry=registry).tree
        names = [first, *(name for name in known if name != first)]
    else:
        found: dict[str, None] = {}
        for pattern in trees:
            if any(mark in pattern for mark in "*?["):
                matched = [name for name in known if fnmatch.fnmatchcase(name, pattern)]
                if not matched:
                    raise UnknownNameError(
                        f"no tree of dataset '{base}' matches {pattern!r}: known are {', '.join(known)}"
                    )
                found.update(dict.fromkeys(matched))
            else:
                found[_one_tree(base, pattern, registry)] = None
        names = list(found)
    return Forest(tuple(_open(base, name, classes, registry) for name in names))


def _base_dataset(dataset: str, registry: Registry[Path]) -> str:
    """Return the data set's name without its pixel grid, or refuse it."""
    base, _, _ = dataset.partition("@")
    _refuse_path("dataset", base)
    known = dict.fromkeys(name for name, _ in list_hierarchies(registry=registry))
    if base not in known:
        raise UnknownNameError(f"no hierarchies for dataset {base!r}: {_near(base, list(known))}")
    return base


def _trees_of(dataset: str, registry: Registry[Path]) -> list[str]:
    return [tree for name, tree in list_hierarchies(registry=registry) if name == dataset]


def _one_tree(dataset: str, tree: str, registry: Registry[Path]) -> str:
    _refuse_path("tree", tree)
    known = _trees_of(dataset, registry)
    control = _CONTROL.fullmatch(tree)
    if tree not in known and (control is None or control["tree"] not in known):
        raise UnknownNameError(f"unknown hierarchy {tree!r} of dataset '{dataset}': {_near(tree, known)}")
    return tree


def _refuse_path(kind: str, name: str) -> None:
    """Names come from command lines and files: one never reaches into another folder."""
    if _NAME.fullmatch(name) is None:
        raise InputError(f"{kind} {name!r} is not a name: lower-case letters, digits, '_' and '-', no path")


def _near(name: str, known: list[str]) -> str:
    import difflib

    near = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
    if near:
        return "did you mean " + " or ".join(repr(n) for n in near) + "?"
    return f"known are {', '.join(known[:12])}" if known else "there are none"


def _open(dataset: str, tree: str, classes: Sequence[str] | None, registry: Registry[Path]) -> Hierarchy:
    """Parse a file once per state on disk, then check that it is what its place says, and the classes."""
    from hierbench.hierarchy.errors import HierarchyError, shown
    from hierbench.hierarchy.validate import check_class_order

    control = _CONTROL.fullmatch(tree)
    listed = tree if control is None or f"{dataset}/{tree}" in registry.names() else control["tree"]
    path = registry.get(f"{dataset}/{listed}")
    try:
        status = path.stat()
    except OSError:
        raise HierarchyError(str(path), "no such file") from None
    hierarchy = _parsed(path, status.st_mtime_ns, status.st_size)
    for field, said, place in (("dataset", hierarchy.dataset, dataset), ("tree", hierarchy.tree, listed)):
        if said != place:
            raise HierarchyError(str(path), f"field {field!r} is {shown(said)}, the file's place says {shown(place)}")
    if classes is not None:
        check_class_order([leaf.id for leaf in hierarchy.leaves], classes, where=str(path))
    return hierarchy if control is None or listed == tree else _shuffled(hierarchy, int(control["seed"]))


@lru_cache(maxsize=64)
def _shuffled(hierarchy: Hierarchy, seed: int) -> Hierarchy:
    from hierbench.hierarchy.shuffle import shuffle

    return shuffle(hierarchy, seed)


@lru_cache(maxsize=64)
def _parsed(path: Path, modified_ns: int, size: int) -> Hierarchy:
    """Keep parsed files by path and state; the two numbers are only there to be part of the key."""
    from hierbench.hierarchy.load import load_hierarchy_file

    return load_hierarchy_file(path)
