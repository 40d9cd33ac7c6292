"""What hierbench knows about a data set, without touching its images."""

from __future__ import annotations

import csv
import hashlib
from dataclasses import dataclass, replace
from functools import cached_property
from importlib.resources import files

from hierbench.datasets.ensembles import ENSEMBLE
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
    """Where a split's rows come from: a folder of the data root, the Hub's split name, and the rows expected."""

    folder: str
    prefix: str
    """The Hub's name of the split: its Parquet files are ``<prefix>-*.parquet``, its tars lie in ``<prefix>/``."""
    rows: int | None = None
    """Rows of the complete split; a local copy may hold fewer and is then named by its count."""
    exact: bool = True
    """Whether ``rows`` is known to the last sample; False where a source only shows it rounded."""
    on_hub: bool = True


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
    check_column: str | None = None
    """Column that names each row's class id beside its label, where the source has one: checked against it."""
    hub_id: str | None = None
    hub_revision: str | None = None
    """Pinned Hub commit, 40 hexadecimal digits; None while nobody has confirmed one."""
    hub_config: str | None = None
    """Configuration on the Hub, where the repository has several."""
    hub_layout: str = "parquet"
    """How the Hub copy lies there: ``parquet`` or ``webdataset``."""
    gated: bool = False
    """Whether the Hub asks for a login and accepted terms first."""
    confirmed: bool = False
    """Whether id, revision, split names and columns were all found in public sources."""
    confirmation: str = ""
    """What was confirmed from where, and what was not."""
    augmentation: str = "photo"
    """How training images vary: ``photo`` (padded crop and flip) or ``digit`` (one-pixel shifts)."""
    literature_template: str = ""
    """The literature's single prompt, with ``{}`` for the bare name (METHODS.md 6)."""
    ensemble: tuple[str, ...] = ()
    """Prompt ensemble as in CLIP's zero-shot evaluation, with ``{}`` for the bare name: ``--template ensemble``."""
    licence: str = ""
    citation: str = ""
    class_table: str = ""
    """Whose class table it uses; its own if empty."""
    other_classes: bool = False
    """Whether the source has classes beyond the table, whose folders are passed over."""
    trees_of: str = ""
    """Whose class trees it uses; its own if empty."""
    class_order_hash: str = ""
    """Hash of the class ids in label order: see ``class_hash``."""

    @cached_property
    def classes(self) -> tuple[ClassName, ...]:
        """The classes in label order."""
        return read_class_table(self.class_table or self.base_name)

    @property
    def base_name(self) -> str:
        """The name without its pixel grid: ``tiny_imagenet`` of ``tiny_imagenet@32``."""
        return self.name.partition("@")[0]

    @property
    def tree_dataset(self) -> str:
        """The data set whose trees are over the same classes: ``imagenet`` of ``nips2017@32``."""
        return self.trees_of or self.base_name

    @property
    def class_ids(self) -> tuple[str, ...]:
        """Class ids in label order, as trees and splits name them."""
        return tuple(c.id for c in self.classes)

    @property
    def revision_shown(self) -> str:
        """The pinned revision, or the word ``unpinned``."""
        return self.hub_revision or "unpinned"

    def templates(self, template: str) -> tuple[str, ...]:
        """Return the templates that ``template`` stands for: itself, or those of the ensemble for ``ensemble``.

        A data set without an ensemble raises ``InputError``.
        """
        if template != ENSEMBLE:
            return (template,)
        if not self.ensemble:
            raise InputError(
                f"--template {ENSEMBLE}: dataset {self.name} has no ensemble of templates; give one template"
            )
        return self.ensemble

    def at_grid(self, side: int) -> DatasetSpec:
        """Return this data set resized to ``side`` x ``side`` pixels, under the name ``<name>@<side>``."""
        return replace(self, name=f"{self.base_name}@{side}", grid=(side, side, self.grid[2]))


def class_hash(class_ids: tuple[str, ...]) -> str:
    """Return the hash of class ids in label order: SHA-256 of one id a line."""
    return "sha256:" + hashlib.sha256("".join(f"{i}\n" for i in class_ids).encode()).hexdigest()


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
