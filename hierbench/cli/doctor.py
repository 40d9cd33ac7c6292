"""``hierbench doctor``: what works on this machine, and whether a model can be attacked honestly."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hierbench.cli.common import console
from hierbench.cli.convert import BACKBONE_HELP, LAYOUT_HELP
from hierbench.errors import ExitCode, HierbenchError, InputError

if TYPE_CHECKING:
    from hierbench.evaluation.diagnosis import Diagnosis
    from hierbench.reporting.table import Report

NEEDED = (
    "torch", "torchvision", "open_clip_torch", "timm", "safetensors", "numpy", "scipy", "scikit-learn", "pandas",
    "pyarrow", "datasets", "pillow", "nltk", "pydantic", "rich", "typer", "torchattacks", "pyautoattack",
)  # fmt: skip

Finding = tuple[str, str, str]
"""(good, note or bad; what; words)"""


def add_to(app: typer.Typer) -> None:
    """Add the command."""
    app.command("doctor")(doctor)


def doctor(
    model: Annotated[str | None, typer.Option(help="Model to check instead of this machine.")] = None,
    backbone: Annotated[str | None, typer.Option(help=BACKBONE_HELP)] = None,
    weights_layout: Annotated[str | None, typer.Option(help=LAYOUT_HELP)] = None,
    dataset: Annotated[str | None, typer.Option(help="Dataset.")] = None,
    tree: Annotated[str | None, typer.Option(help="Class tree of the dataset.")] = None,
    depth: Annotated[int | None, typer.Option(help="Depth to attack: 1 is the coarsest. [the leaves]")] = None,
    scoring: Annotated[str | None, typer.Option(help="rollup or direct.")] = None,
    eps: Annotated[str | None, typer.Option(help="Radius, such as 4/255.")] = None,
    norm: Annotated[str | None, typer.Option(help="linf or l2.")] = None,
    limit: Annotated[int | None, typer.Option(help="First n samples of the stratified list. [64]")] = None,
    steps: Annotated[int | None, typer.Option(help="Gradient steps of the strongest attacks. [50]")] = None,
    queries: Annotated[int | None, typer.Option(help="Queries of the black-box attack. [300]")] = None,
    split: Annotated[str | None, typer.Option(help="Split of the dataset.")] = None,
    protocol: Annotated[str | None, typer.Option(help="Protocol that fixes what is not said.")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Images in a forward.")] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of every random draw.")] = None,
    device: Annotated[str | None, typer.Option(help="cpu, cuda, cuda:1, ... [cuda if there is one]")] = None,
    data_root: Annotated[str | None, typer.Option(help="Folder of the image data. [HIERBENCH_DATA_ROOT]")] = None,
) -> int:
    """Say what works on this machine; with --model, whether attacks on that model can be believed.

    The machine: packages, device, data, plugins. A model: trust checks by forwards, gradients and attacks, each with
    one sentence on what it means. Exit code 3 says that a check failed.
    """
    settings = {
        "backbone": backbone, "weights_layout": weights_layout,
        "dataset": dataset, "tree": tree, "depth": depth, "scoring": scoring, "eps": eps, "norm": norm,
        "limit": limit, "split": split, "protocol": protocol, "batch_size": batch_size, "seed": seed, "device": device,
    }  # fmt: skip
    budget = {"steps": steps, "queries": queries}
    if model is not None:
        return _check_model(model, settings | {"data_root": data_root}, budget)
    for name, value in (settings | budget).items():
        if value is not None:
            raise InputError(f"--{name.replace('_', '-')}: it needs --model; without, doctor looks at this machine")
    bad = False
    for state, what, words in findings(data_root):
        bad = bad or state == "bad"
        console().print(f"{state:4}  {what}: {words}", soft_wrap=True)
    return ExitCode.FAILED if bad else ExitCode.DONE


def _check_model(model: str, settings: dict[str, Any], budget: dict[str, int | None]) -> int:
    from hierbench.evaluation.diagnosis import Budget, diagnose
    from hierbench.reporting.formats import render_rich

    for name, value in budget.items():
        if value is not None and value < 1:
            raise InputError(f"--{name}: {value} is too few; give 1 or more")
    given = {name: value for name, value in settings.items() if value is not None}
    chosen = Budget(**{name: value for name, value in budget.items() if value is not None})
    with console(stderr=True).status("loading") as status:
        found = diagnose(model, **given, budget=chosen, report=lambda stage: status.update(f"checking: {stage}"))
    console().print(render_rich(diagnosis_report(found)))
    failed = [check.name for check in found.checks if check.level == "fail"]
    if failed:
        console().print(f"failed: {', '.join(failed)}", soft_wrap=True)
    return ExitCode.UNTRUSTED if found.failed else ExitCode.DONE


def diagnosis_report(found: Diagnosis) -> Report:
    """Return a diagnosis as a table: one line a check, with its sentence."""
    from hierbench.evaluation.request import spell_eps
    from hierbench.reporting.table import Report, Table, Value

    rows = tuple(
        (Value(check.name), Value(check.level), Value(check.value), Value(check.sentence)) for check in found.checks
    )
    threat = found.threat
    notes = (
        f"{found.samples} images of {found.dataset}, depth {found.depth}, scoring {found.scoring}, "
        f"{threat.norm} eps {spell_eps(threat.eps)}",
        "a failed check: robustness figures of this model mean nothing until it is understood",
    )
    title = f"{found.model}: can attacks on it be believed?"
    return Report((Table(title, ("check", "result", "figure", "meaning"), rows, notes),), ())


def findings(data_root: str | None) -> Iterator[Finding]:
    """Yield one finding after the other."""
    yield "good", "python", sys.version.split()[0]
    yield from _packages()
    yield from _devices()
    yield from _robustbench()
    yield from _own_data()
    yield from _user_data(data_root)
    yield from _plugins()


def _packages() -> Iterator[Finding]:
    from hierbench.evaluation.environment import package_version

    for name in NEEDED:
        version = package_version(name)
        yield ("bad", name, "not installed") if version is None else ("good", name, version)


def _devices() -> Iterator[Finding]:
    import torch

    yield "good", "cpu", f"{torch.get_num_threads()} threads, {torch.backends.cpu.get_cpu_capability()}"
    if torch.cuda.is_available():
        for index in range(torch.cuda.device_count()):
            yield "good", f"cuda:{index}", torch.cuda.get_device_name(index)
    else:
        yield "note", "cuda", "none: everything runs on the CPU"


def _robustbench() -> Iterator[Finding]:
    """torchattacks installs a package of this name at the top level, which hides the real one."""
    import importlib.metadata

    def ships(name: str) -> bool:
        try:
            files = importlib.metadata.files(name) or []
        except importlib.metadata.PackageNotFoundError:
            return False
        return any(file.parts[:1] == ("robustbench",) for file in files)

    if ships("torchattacks"):
        state = "bad" if ships("robustbench") else "note"
        yield state, "robustbench", "the package of this name that imports is the one torchattacks installed"


def _own_data() -> Iterator[Finding]:
    from hierbench.cli.listing import CATALOGUES, catalogue

    for kind in CATALOGUES:
        try:
            count = len(catalogue(kind))
        except HierbenchError as error:
            yield "bad", kind, str(error)
            continue
        yield ("good" if count else "bad"), kind, f"{count} known"


def _user_data(given: str | None) -> Iterator[Finding]:
    from hierbench.datasets.catalogue import DATASETS
    from hierbench.paths import cache_dir, data_root

    try:
        root = data_root(given)
        yield "good", "cache", str(cache_dir())
    except (HierbenchError, OSError) as error:
        yield "bad", "data", str(error)
        return
    if root is None:
        yield "note", "data root", "none; set HIERBENCH_DATA_ROOT for datasets other than digits"
        return
    yield "good", "data root", str(root)
    for name, spec in DATASETS.items():
        folders = {source.folder for source in spec.splits.values() if source.folder}
        for folder in sorted(folders):
            files = len(list((root / folder).glob("*.parquet")))
            yield ("good" if files else "note"), name, f"{files} files in {folder}{os.sep}"


def _plugins() -> Iterator[Finding]:
    from hierbench.cli.listing import CATALOGUES, catalogue

    errors = [error for kind in CATALOGUES for error in catalogue(kind).plugin_errors]
    for error in errors:
        yield "bad", "plugin", error
    if not errors:
        yield "good", "plugins", "none failed"
