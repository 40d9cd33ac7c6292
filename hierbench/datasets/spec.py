"""What hierbench knows about a data set, without touching its images."""

from __future__ import annotations

import csv
from dataclasses import dataclass, field, replace
from functools import cached_property
from importlib.resources import files

from hierbench.errors import HierbenchError, InputError


@dataclass(frozen=True)
class ClassName:
    """One class: its id in the source's labels, its bare name, its noun phrase, and its WordNet 3.0 offset."""

    id: str
    name: str
    noun: str
    wordnet: str | None = None


@dataclass(frozen=True)
class SplitSource:
    """Where a split's rows come from: a folder of the data root, the file prefix in it, and the rows expected."""

    folder: str
    prefix: str
    rows: int | None = None
    """Rows of the complete split; a local copy may hold fewer and is then named by its count."""


@dataclass(frozen=True)
class DatasetSpec:
    """A data set at one pixel grid, and everything that has to be agreed before two results can be compared."""

    name: str
    title: str
    grid: tuple[int, int, int]
    """Height, width and channels of the pixels an attacker may change; part of the threat model."""
    template: str
    """Prompt with ``{noun}`` (noun phrase with article) or ``{}`` (bare name)."""
    splits: dict[str, SplitSource]
    evaluation_split: str
    image_column: str = "image"
    label_column: str = "label"
    hub_id: str | None = None
    hub_revision: str | None = None
    """Pinned Hub commit; None while nobody has confirmed one."""
    augmentation: str = "photo"
    """How training images vary: ``photo`` (padded crop and flip) or ``digit`` (one-pixel shifts)."""
    licence: str = ""
    citation: str = ""
    class_table: str = ""
    extra: dict[str, str] = field(default_factory=dict)

    @cached_property
    def classes(self) -> tuple[ClassName, ...]:
        """The classes in label order."""
        return read_class_table(self.class_table or self.base_name)

    @property
    def base_name(self) -> str:
        """The name without its pixel grid: ``tiny_imagenet`` of ``tiny_imagenet@32``."""
        return self.name.partition("@")[0]

    @property
    def class_ids(self) -> tuple[str, ...]:
        """Class ids in label order, as trees and splits name them."""
        return tuple(c.id for c in self.classes)

    def at_grid(self, side: int) -> DatasetSpec:
        """Return this data set resized to ``side`` x ``side`` pixels, under the name ``<name>@<side>``."""
        return replace(self, name=f"{self.base_name}@{side}", grid=(side, side, self.grid[2]))


def fill_template(template: str, name: str, noun: str) -> str:
    """Return the prompt of one node.

    >>> fill_template("This is a photo of {noun}.", "apple", "an apple")
    'This is a photo of an apple.'
    >>> fill_template("a photo of a {}", "apple", "an apple")
    'a photo of a apple'
    """
    if "{noun}" in template:
        return template.replace("{noun}", noun)
    if "{}" in template:
        return template.replace("{}", name)
    raise InputError(f"prompt template {template!r}: it needs {{noun}} (with article) or {{}} (bare name)")


def read_class_table(name: str) -> tuple[ClassName, ...]:
    """Read ``classes/<name>.tsv``: id, name, noun, wordnet, one class a line in label order."""
    source = files("hierbench.datasets") / "classes" / f"{name}.tsv"
    try:
        text = source.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise HierbenchError(f"no class table for {name!r}") from None
    rows = csv.DictReader(text.splitlines(), delimiter="\t", quoting=csv.QUOTE_NONE)
    return tuple(ClassName(row["id"], row["name"], row["noun"], row["wordnet"] or None) for row in rows)
