"""hierbench: robust accuracy of vision-language models at every depth of a class tree."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hierbench.models.registration import register_when_imported

if TYPE_CHECKING:
    from hierbench.datasets.load import load_images
    from hierbench.evaluation.diagnosis import diagnose
    from hierbench.evaluation.replay.run import replay
    from hierbench.evaluation.runner import evaluate
    from hierbench.hierarchy.catalogue import load_hierarchy
    from hierbench.models.load import load_model

__version__ = "0.1.0"
__all__ = ["__version__", "diagnose", "evaluate", "load_hierarchy", "load_images", "load_model", "replay"]

_LAZY = {
    "evaluate": "hierbench.evaluation.runner",
    "diagnose": "hierbench.evaluation.diagnosis",
    "replay": "hierbench.evaluation.replay.run",
    "load_model": "hierbench.models.load",
    "load_images": "hierbench.datasets.load",
    "load_hierarchy": "hierbench.hierarchy.catalogue",
}

register_when_imported()


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        import importlib

        return getattr(importlib.import_module(_LAZY[name]), name)
    raise AttributeError(f"module 'hierbench' has no attribute {name!r}")
