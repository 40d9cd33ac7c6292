"""Makes the project's backbones known to timm and open_clip, as soon as either is imported."""

from __future__ import annotations

import importlib
import importlib.abc
import importlib.machinery
import importlib.util
import json
import sys
from collections.abc import Sequence
from types import ModuleType
from typing import TYPE_CHECKING

from hierbench.paths import data_dir

if TYPE_CHECKING:
    from _typeshed.importlib import LoaderProtocol


def register_backbones() -> None:
    """Register the image tower with timm and every shipped backbone's configuration with open_clip."""
    from open_clip import factory

    importlib.import_module("hierbench.models.tiny")
    for config in sorted((data_dir() / "weights").glob("*/open_clip_config.json")):
        name = config.parent.name
        if name not in factory._MODEL_CONFIGS:
            factory._MODEL_CONFIGS[name] = json.loads(config.read_text(encoding="utf-8"))["model_cfg"]


class _AfterOpenClip(importlib.abc.MetaPathFinder):
    """Lets ``import hierbench`` stay light: registration waits until someone imports open_clip."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if fullname != "open_clip":
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(fullname)
        if spec is not None and spec.loader is not None:
            spec.loader = _RegisteringLoader(spec.loader)
        return spec


class _RegisteringLoader(importlib.abc.Loader):
    def __init__(self, loader: LoaderProtocol) -> None:
        self._loader = loader

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType | None:
        create = getattr(self._loader, "create_module", None)
        return None if create is None else create(spec)

    def exec_module(self, module: ModuleType) -> None:
        execute = getattr(self._loader, "exec_module")  # noqa: B009 (the protocol's type lacks it)
        execute(module)
        register_backbones()

    def __getattr__(self, name: str) -> object:
        return getattr(self._loader, name)


def register_when_imported() -> None:
    """Register now if open_clip is loaded, else when it is."""
    if "open_clip" in sys.modules:
        register_backbones()
    elif not any(isinstance(f, _AfterOpenClip) for f in sys.meta_path):
        sys.meta_path.insert(0, _AfterOpenClip())
