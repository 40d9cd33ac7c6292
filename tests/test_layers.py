"""Imports point downward only, and what must be light imports nothing heavy."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import hierbench

PACKAGE = Path(hierbench.__file__).parent
FLOORS = [
    {"errors"},
    {"registry", "paths", "processes", "locking"},
    {"hierarchy", "wordnet"},
    {"datasets"},
    {"models"},
    {"attacks"},
    {"defences", "evaluation"},
    {"board", "sweep"},
    {"reporting", "pretraining"},
    {"cli"},
]
HEIGHT = {name: height for height, names in enumerate(FLOORS) for name in names}
LIGHT = (
    "hierbench",
    "hierbench.cli",
    "hierbench.registry",
    "hierbench.hierarchy.catalogue",
    "hierbench.datasets.catalogue",
    "hierbench.models.catalogue",
    "hierbench.models.backbones",
    "hierbench.attacks.catalogue",
    "hierbench.defences.catalogue",
)


def imported(path: Path) -> set[str]:
    """The parts of the package that a file imports, wherever in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        names = []
        if isinstance(node, ast.ImportFrom) and node.module:
            names = [node.module]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        found |= {n.split(".")[1] for n in names if n.startswith("hierbench.")}
    return found


@pytest.mark.parametrize("part", sorted(HEIGHT))
def test_imports_point_downward(part: str) -> None:
    folder = PACKAGE / part
    files = sorted(folder.rglob("*.py")) if folder.is_dir() else [PACKAGE / f"{part}.py"]
    assert files
    for path in files:
        for other in imported(path) - {part}:
            assert HEIGHT[other] < HEIGHT[part], f"{path.relative_to(PACKAGE)} imports hierbench.{other}"


@pytest.mark.parametrize("module", LIGHT)
def test_light_modules_import_nothing_heavy(module: str) -> None:
    code = f"import sys, {module}; print([m for m in ('torch', 'pandas', 'open_clip', 'pyarrow') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
