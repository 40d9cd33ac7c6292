"""What a model's backbone and its defence have been shown, read from the records of their trainings."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hierbench.models.backbones import BACKBONES
from hierbench.models.catalogue import ModelSpec
from hierbench.models.storage import read_description


@dataclass(frozen=True)
class Exposure:
    """Images seen, in words; empty where no record says."""

    backbone: str
    defence: str
    split: str
    """Class split whose unseen classes were in neither."""


def exposure(spec: ModelSpec) -> Exposure:
    """Return what the catalogue's own records say; a record that is missing or of another form says nothing."""
    split = ""
    defence = ""
    if spec.folder is not None:
        split = str(read_description(spec.folder).get("seen") or "")
        record = _read(spec.folder / "training.json")
        defence = _images(record.get("run", {}).get("images"), record.get("dataset", {}))
    backbone = ""
    if spec.backbone is not None and spec.backbone in BACKBONES:
        content = _read(BACKBONES.get(spec.backbone).record)
        parts = [_images(part.get("n"), part) for part in content.get("training_images", [])]
        backbone = "; ".join(part for part in parts if part)
        split = split or str(content.get("class_split") or "")
    return Exposure(backbone=backbone, defence=defence, split=split)


def _images(count: object, source: dict[str, Any]) -> str:
    """Say how many images of which split.

    >>> _images(1294, {"dataset": "digits", "split": "train"})
    '1,294 of digits (train)'
    """
    name = source.get("dataset") or source.get("name")
    return f"{count:,} of {name} ({source.get('split')})" if isinstance(count, int) and name else ""


def _read(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}
