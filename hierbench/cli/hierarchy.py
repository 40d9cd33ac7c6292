"""``hierbench hierarchy validate|show|build``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hierbench.cli.common import console

if TYPE_CHECKING:
    from hierbench.hierarchy.tree import Hierarchy


def add_to(app: typer.Typer) -> None:
    """Add the group."""
    group = typer.Typer(help="Check, draw and build class trees.", no_args_is_help=True, rich_markup_mode=None)
    group.command("validate")(validate)
    group.command("show")(show)
    group.command("build")(build)
    app.add_typer(group, name="hierarchy")


def validate(
    files: Annotated[list[Path] | None, typer.Argument(help="Files to check. [all shipped trees]")] = None,
) -> None:
    """Check tree files: each error is one line that names the file and the node."""
    from hierbench.datasets.catalogue import DATASETS, get_spec
    from hierbench.hierarchy.catalogue import HIERARCHIES
    from hierbench.hierarchy.load import load_hierarchy_file

    for path in files or [path for _, path in HIERARCHIES.items()]:
        hierarchy = load_hierarchy_file(path)
        if hierarchy.dataset in DATASETS:
            hierarchy = load_hierarchy_file(path, classes=get_spec(hierarchy.dataset).class_ids)
        nodes = "/".join(str(len(level)) for level in hierarchy.levels)
        console().print(f"{path}: good, {hierarchy.dataset}/{hierarchy.tree}, nodes {nodes}", soft_wrap=True)


def show(
    tree: Annotated[str, typer.Argument(help="dataset, dataset/tree, or a tree file.")],
    depth: Annotated[int | None, typer.Option(help="Fold everything below this depth.")] = None,
) -> None:
    """Draw a tree."""
    if tree.endswith(".json"):
        draw_file(Path(tree), depth)
    else:
        dataset, _, name = tree.partition("/")
        draw(dataset, name or None, depth)


def draw(dataset: str, tree: str | None, depth: int | None = None) -> None:
    """Print one shipped tree."""
    from hierbench.hierarchy.catalogue import load_hierarchy

    _draw(load_hierarchy(dataset, tree), depth)


def draw_file(path: Path, depth: int | None) -> None:
    """Print the tree of a file."""
    from hierbench.hierarchy.load import load_hierarchy_file

    _draw(load_hierarchy_file(path), depth)


def _draw(hierarchy: Hierarchy, depth: int | None) -> None:
    from hierbench.hierarchy.draw import render, summary

    out = console(markup=True)  # names in it are escaped
    out.print(render(hierarchy, depth))
    out.print(summary(hierarchy))


def build(
    outline: Annotated[Path, typer.Option(help="Indented outline of the tree.")],
    classes: Annotated[
        Path | None, typer.Option(help="Class table (TSV: id, name, noun, wordnet). [the dataset's own]")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="File to write. [beside the outline, .json]")] = None,
) -> None:
    """Build a tree file from an outline."""
    from hierbench.cli.classes import classes_for
    from hierbench.hierarchy.outline import build_outline_file
    from hierbench.hierarchy.write import write_hierarchy

    hierarchy = build_outline_file(outline, classes_for(outline, classes))
    target = write_hierarchy(hierarchy, out or outline.with_suffix(".json"))
    nodes = "/".join(str(len(level)) for level in hierarchy.levels)
    console().print(f"{target}: {hierarchy.dataset}/{hierarchy.tree}, nodes {nodes}", soft_wrap=True)
