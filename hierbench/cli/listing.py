"""``hierbench list`` and ``hierbench show``."""

from __future__ import annotations

import dataclasses
import importlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hierbench.cli.common import console

if TYPE_CHECKING:
    from hierbench.datasets.spec import DatasetSpec
    from hierbench.models.catalogue import ModelSpec
    from hierbench.registry import Registry

CATALOGUES = {
    "models": "hierbench.models.catalogue:MODELS",
    "backbones": "hierbench.models.backbones:BACKBONES",
    "published": "hierbench.models.published:PUBLISHED",
    "attacks": "hierbench.attacks.catalogue:ATTACKS",
    "defences": "hierbench.defences.catalogue:DEFENCES",
    "recipes": "hierbench.defences.recipe:RECIPES",
    "datasets": "hierbench.datasets.catalogue:DATASETS",
    "hierarchies": "hierbench.hierarchy.catalogue:HIERARCHIES",
    "protocols": "hierbench.evaluation.protocol:PROTOCOLS",
}


def add_to(app: typer.Typer) -> None:
    """Add the commands."""
    app.command("list")(list_names)
    app.command("show")(show)


def catalogue(kind: str) -> Registry[Any]:
    """Return the registry of one kind; only then is its module imported."""
    module, _, name = CATALOGUES[kind].partition(":")
    registry: Registry[Any] = getattr(importlib.import_module(module), name)
    return registry


def list_names(
    kind: Annotated[str | None, typer.Argument(help=f"{', '.join(CATALOGUES)}; without it all of them.")] = None,
) -> None:
    """List the names of one kind, with a word on each."""
    kinds = list(CATALOGUES) if kind is None else [_kind(kind)]
    out = console()
    for one in kinds:
        entries = list(catalogue(one).items())
        if kind is None:
            out.print(f"{one}: {', '.join(name for name, _ in entries) or 'none'}", soft_wrap=True)
            continue
        _print_entries(entries)
        if one == "models":
            _print_exposures([entry for _, entry in entries])
        if one == "backbones":
            _print_published()


def show(name: Annotated[str, typer.Argument(help="A name of any kind; of a tree: dataset/tree.")]) -> None:
    """Show everything known about one name."""
    found = [(kind, catalogue(kind).get(name)) for kind in CATALOGUES if name in catalogue(kind)]
    if not found:
        raise _unknown(name)
    out = console()
    for kind, entry in found:
        if kind == "hierarchies":
            from hierbench.cli.hierarchy import draw

            dataset, _, tree = name.partition("/")
            draw(dataset, tree)
            continue
        out.print(f"{name} ({catalogue(kind).kind})", soft_wrap=True)
        lines = dataset_facts(entry) if kind == "datasets" else facts(entry)
        for label, value in lines + (defaults(entry) if kind == "defences" and name != "none" else []):
            out.print(f"  {label}: {value}", soft_wrap=True)


def _print_entries(entries: list[tuple[str, Any]]) -> None:
    width = max((len(name) for name, _ in entries), default=0)
    for name, entry in entries:
        console().print(f"{name:{width}}  {summary(entry)}".rstrip(), soft_wrap=True)


def _print_published() -> None:
    """Name the models that others published apart from the shipped backbones: these are fetched when they are used."""
    console().print("\npublished by others, fetched from the Hub when used (hierbench show NAME):", soft_wrap=True)
    _print_entries(list(catalogue("published").items()))


def _print_exposures(models: list[ModelSpec]) -> None:
    """Say once for each backbone, and for each model, what images its training saw."""
    from hierbench.models.exposure import exposure

    out = console()
    found = {model.name: exposure(model) for model in models if model.folder is not None}
    out.print()
    for name, text, split in dict.fromkeys(
        (model.backbone, found[model.name].backbone, found[model.name].split) for model in models if model.name in found
    ):
        unseen = f"; never a class that split {split} calls unseen" if split else ""
        out.print(f"backbone {name} saw {text or 'no images that a record names'}{unseen}", soft_wrap=True)
    for name, seen in found.items():
        out.print(f"{name} then saw {seen.defence or 'no images that a record names'}", soft_wrap=True)


def summary(entry: object) -> str:
    """Return a few words on an entry: its summary or title, and what to know of a data set before it is used."""
    for attribute in ("summary", "title"):
        text = getattr(entry, attribute, None)
        if isinstance(text, str) and text:
            marks = dataset_marks(entry) or published_marks(entry)
            return f"{text} [{', '.join(marks)}]" if marks else text
    return ""


def published_marks(entry: object) -> list[str]:
    """Return ``unconfirmed`` of a published model of which something was not seen in a public source."""
    from hierbench.models.published import PublishedModel

    return ["unconfirmed"] if isinstance(entry, PublishedModel) and not entry.confirmed else []


def dataset_marks(entry: object) -> list[str]:
    """Return ``gated``, ``unpinned``, ``unconfirmed`` and ``no Hub copy`` of a data set, where they are so."""
    from hierbench.datasets.spec import DatasetSpec

    if not isinstance(entry, DatasetSpec) or entry.base_name == "digits":
        return []
    on_hub = entry.hub_id is not None
    found = {
        "gated": entry.gated,
        "no Hub copy": not on_hub,
        "unpinned": on_hub and entry.hub_revision is None,
        "unconfirmed": on_hub and not entry.confirmed,
    }
    return [mark for mark, so in found.items() if so]


def dataset_facts(spec: DatasetSpec) -> list[tuple[str, str]]:
    """Return what is known of a data set: grid, splits, prompts, source, terms."""
    from hierbench.hierarchy.catalogue import list_hierarchies

    height, width, channels = spec.grid
    trees = [tree for dataset, tree in list_hierarchies() if dataset == spec.tree_dataset]
    lines = [
        ("title", spec.title),
        ("grid", f"{height} x {width} pixels, {channels} channel{'s' if channels > 1 else ''}"),
        ("classes", f"{len(spec.classes)} ({spec.class_order_hash[:19]})"),
        ("trees", (", ".join(trees) or "none") + (f" (of {spec.trees_of})" if spec.trees_of else "")),
    ]
    for name, source in spec.splits.items():
        rows = "any number of" if source.rows is None else f"{'' if source.exact else 'about '}{source.rows}"
        used = ", evaluated" if name == spec.evaluation_split else ""
        place = f"; {source.folder}/ in the data root" if source.folder else ""
        lines.append(("split", f"{name}: {rows} samples{used}{place}"))
    if spec.hub_id is not None:
        lines.append(("Hub", f"{spec.hub_id} @ {spec.revision_shown}{', gated' if spec.gated else ''}"))
        lines.append(("columns", f"{spec.image_column}, {spec.label_column} ({spec.hub_layout})"))
    lines += [
        ("confirmed", f"{'yes' if spec.confirmed else 'not all of it'}: {spec.confirmation}"),
        ("template", spec.template),
        ("literature's template", spec.literature_template),
        ("ensemble", " | ".join(spec.ensemble)),
        ("licence", spec.licence),
        ("citation", spec.citation),
    ]
    return [(label, text) for label, text in lines if text]


def facts(entry: object) -> list[tuple[str, str]]:
    """Return the fields of an entry that can be shown, in order."""
    if not dataclasses.is_dataclass(entry):
        return [("value", str(entry))]
    shown = []
    for field in dataclasses.fields(entry):
        value = getattr(entry, field.name)
        if field.name == "name" or value is None or value in ("", (), {}) or callable(value):
            continue
        if isinstance(value, (tuple, list)):
            shown += (
                [(field.name, _words(item)) for item in value] if _is_nested(value) else [(field.name, _words(value))]
            )
        else:
            shown.append((field.name, _words(value)))
    return shown


def defaults(entry: Any) -> list[tuple[str, str]]:
    """Return the settings of a defence and of the recipe with their defaults, as ``--set`` takes them."""
    from hierbench.defences.training.settings import TrainingSettings

    kinds = (("set", entry.settings_type()), ("set (recipe)", TrainingSettings))
    return [
        (label, f"{field.name}={_words(field.default)}") for label, kind in kinds for field in dataclasses.fields(kind)
    ]


def _is_nested(values: tuple[Any, ...] | list[Any]) -> bool:
    return any(dataclasses.is_dataclass(value) for value in values)


def _words(value: object) -> str:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        parts = [(f.name, getattr(value, f.name)) for f in dataclasses.fields(value)]
        return ", ".join(f"{name} {_words(part)}" for name, part in parts if part not in (None, (), ""))
    if isinstance(value, (tuple, list)):
        return ", ".join(map(_words, value))
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {_words(part)}" for name, part in value.items())
    return str(value)


def _kind(kind: str) -> str:
    plural = {catalogue_name.removesuffix("s"): catalogue_name for catalogue_name in CATALOGUES} | {
        "hierarchy": "hierarchies"
    }
    kind = plural.get(kind, kind)
    if kind not in CATALOGUES:
        from hierbench.errors import InputError

        raise InputError(f"cannot list {kind!r}: {_near(kind, list(CATALOGUES))}")
    return kind


def _unknown(name: str) -> Exception:
    from hierbench.registry import UnknownNameError

    everything = [known for kind in CATALOGUES for known in catalogue(kind).names()]
    return UnknownNameError(f"nothing is called {name!r}: {_near(name, everything)}")


def _near(name: str, known: list[str]) -> str:
    import difflib

    near = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
    return "did you mean " + " or ".join(map(repr, near)) + "?" if near else f"known are {', '.join(known[:8])}"
