"""``hierbench hierarchy validate|show|build|diff``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hierbench.cli.common import console
from hierbench.errors import InputError

if TYPE_CHECKING:
    from hierbench.hierarchy.class_table import LeafClass
    from hierbench.hierarchy.tree import Hierarchy

SOURCES = ("outline", "wordnet", "shuffle")
MOVED_SHOWN = 20


def add_to(app: typer.Typer) -> None:
    """Add the group."""
    group = typer.Typer(help="Check, draw, build and compare class trees.", no_args_is_help=True, rich_markup_mode=None)
    group.command("validate")(validate)
    group.command("show")(show)
    group.command("build")(build)
    group.command("diff")(diff)
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
    picture: Annotated[Path | None, typer.Option(help="Draw into this .svg, .png or .pdf file instead.")] = None,
    layout: Annotated[
        str | None, typer.Option(help="Of the picture: layered or radial. [by the number of classes]")
    ] = None,
) -> None:
    """Draw a tree."""
    hierarchy = open_tree(tree)
    if picture is None:
        if layout is not None:
            raise InputError("--layout is of a picture: give --picture FILE too")
        _draw(hierarchy, depth)
        return
    if depth is not None:
        raise InputError("--depth folds the drawing in the terminal; a picture shows every depth")
    from hierbench.hierarchy.picture import draw as draw_picture

    console().print(f"{draw_picture(hierarchy, picture, layout=layout)}: written", soft_wrap=True)


def open_tree(tree: str) -> Hierarchy:
    """Return the tree of a file ending in ``.json``, or a shipped one by ``dataset`` or ``dataset/tree``."""
    from hierbench.hierarchy.catalogue import load_hierarchy
    from hierbench.hierarchy.load import load_hierarchy_file

    if tree.endswith(".json"):
        return load_hierarchy_file(Path(tree))
    dataset, slash, name = tree.partition("/")
    return load_hierarchy(dataset, name if slash else None)


def draw(dataset: str, tree: str | None, depth: int | None = None) -> None:
    """Print one shipped tree."""
    from hierbench.hierarchy.catalogue import load_hierarchy

    _draw(load_hierarchy(dataset, tree), depth)


def _draw(hierarchy: Hierarchy, depth: int | None) -> None:
    from hierbench.hierarchy.draw import render, summary

    out = console(markup=True)  # names in it are escaped
    out.print(render(hierarchy, depth))
    out.print(summary(hierarchy))


def build(
    outline: Annotated[Path | None, typer.Option(help="Indented outline of the tree.")] = None,
    dataset: Annotated[str | None, typer.Option(help="Dataset whose tree is built.")] = None,
    source: Annotated[str | None, typer.Option(help="What it is built from: outline, wordnet or shuffle.")] = None,
    recipe: Annotated[Path | None, typer.Option(help="Recipe of a WordNet tree. [the dataset's own]")] = None,
    tree: Annotated[str | None, typer.Option(help="Tree to shuffle. [the dataset's default]")] = None,
    seed: Annotated[int, typer.Option(help="Seed of the shuffle.", min=0)] = 0,
    classes: Annotated[
        Path | None, typer.Option(help="Class table (TSV: id, name, noun, wordnet). [the dataset's own]")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="File to write. [beside the outline or recipe, .json; a shuffle needs it]")
    ] = None,
) -> None:
    """Build a tree file from an outline, from WordNet, or by permuting another tree's leaves."""
    kind = source or ("outline" if outline is not None else "wordnet" if recipe is not None else None)
    if kind is None:
        raise InputError("give --outline FILE, --recipe FILE, or --dataset NAME with --source wordnet or shuffle")
    if kind not in SOURCES:
        raise InputError(f"--source: {kind!r} is none of {', '.join(SOURCES)}")
    _refuse_others(kind, outline=outline, recipe=recipe, tree=tree, classes=classes, seed=seed or None, dataset=dataset)
    if kind == "shuffle":
        if out is None:
            raise InputError("--out: name the file of the shuffled tree")
        _save(_shuffled(dataset, tree, seed), out)
        return
    if kind == "outline":
        hierarchy, target = _from_outline(outline, dataset, classes)
    else:
        hierarchy, target = _from_wordnet(recipe, dataset, classes)
    _save(hierarchy, out or target)


def diff(
    before: Annotated[str, typer.Argument(help="dataset, dataset/tree, or a tree file.")],
    after: Annotated[str, typer.Argument(help="The tree to compare it with, over the same classes.")],
    moved: Annotated[bool, typer.Option("--moved", help="List every class that moved, not the first ones.")] = False,
) -> None:
    """Say what differs between two trees: shapes, agreement per depth, superclasses, and the classes that moved."""
    from hierbench.cli.tree_diff import print_diff
    from hierbench.hierarchy.diff import diff as compare

    print_diff(compare(open_tree(before), open_tree(after)), shown=None if moved else MOVED_SHOWN)


_TAKES = {
    "outline": ("outline", "classes", "dataset"),
    "wordnet": ("recipe", "classes", "dataset"),
    "shuffle": ("dataset", "tree", "seed"),
}


def _refuse_others(kind: str, **given: object) -> None:
    for name, value in given.items():
        if value is not None and name not in _TAKES[kind]:
            raise InputError(f"--{name} is of no use with --source {kind}")


def _from_outline(outline: Path | None, dataset: str | None, classes: Path | None) -> tuple[Hierarchy, Path]:
    from hierbench.cli.classes import classes_for
    from hierbench.hierarchy.outline import build_outline_file

    if outline is None:
        raise InputError("--outline: name the outline")
    hierarchy = build_outline_file(outline, classes_for(outline, classes))
    if dataset not in (None, hierarchy.dataset):
        raise InputError(f"--dataset: {outline} is a tree of '{hierarchy.dataset}', not of {dataset!r}")
    return hierarchy, outline.with_suffix(".json")


def _from_wordnet(recipe: Path | None, dataset: str | None, classes: Path | None) -> tuple[Hierarchy, Path]:
    from hierbench.hierarchy.builders.recipe import read_recipe
    from hierbench.hierarchy.builders.wordnet import build_wordnet_file, recipe_path
    from hierbench.wordnet import open_wordnet

    if recipe is None:
        if dataset is None:
            raise InputError("--dataset: name the dataset whose WordNet tree is built, or give --recipe FILE")
        recipe = recipe_path(dataset)
    said = read_recipe(recipe).dataset
    if dataset is not None and dataset.partition("@")[0] != said:
        raise InputError(f"--dataset: {recipe} is a recipe for '{said}', not for {dataset!r}")

    def classes_of(name: str) -> tuple[LeafClass, ...]:
        return _class_rows(name, classes if name == said else None)

    return build_wordnet_file(recipe, classes_of, open_wordnet()), recipe.with_suffix(".json")


def _class_rows(dataset: str, table: Path | None) -> tuple[LeafClass, ...]:
    from hierbench.datasets.spec import read_class_table as shipped
    from hierbench.hierarchy.class_table import LeafClass, read_class_table

    if table is not None:
        return read_class_table(table)
    return tuple(LeafClass(c.id, c.name, c.noun, c.wordnet) for c in shipped(dataset))


def _shuffled(dataset: str | None, tree: str | None, seed: int) -> Hierarchy:
    from hierbench.hierarchy.catalogue import load_hierarchy
    from hierbench.hierarchy.shuffle import shuffle

    if dataset is None:
        raise InputError("--dataset: name the dataset whose tree is shuffled")
    return shuffle(load_hierarchy(dataset, tree), seed)


def _save(hierarchy: Hierarchy, target: Path) -> None:
    from hierbench.hierarchy.write import hierarchy_text, write_hierarchy

    nodes = "/".join(str(len(level)) for level in hierarchy.levels)
    # a tree that is already there is left alone: an installed package need not be writable
    same = target.is_file() and target.read_bytes() == hierarchy_text(hierarchy).encode("utf-8")
    if not same:
        try:
            write_hierarchy(hierarchy, target)
        except OSError as error:
            raise InputError(f"--out: cannot write {target} ({error.strerror or error})") from None
    name = f"{hierarchy.dataset}/{hierarchy.tree}"
    console().print(f"{target}: {'unchanged, ' if same else ''}{name}, nodes {nodes}", soft_wrap=True)
