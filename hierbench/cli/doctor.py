"""``hierbench doctor``: what works on this machine."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from typing import Annotated

import typer

from hierbench.cli.common import console
from hierbench.errors import ExitCode, HierbenchError

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
    data_root: Annotated[str | None, typer.Option(help="Folder of the image data. [HIERBENCH_DATA_ROOT]")] = None,
) -> int:
    """Say what works on this machine: packages, device, data, plugins."""
    bad = False
    for state, what, words in findings(data_root):
        bad = bad or state == "bad"
        console().print(f"{state:4}  {what}: {words}", soft_wrap=True)
    return ExitCode.FAILED if bad else ExitCode.DONE


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
