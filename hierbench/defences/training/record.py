"""The training record: what was asked, what was resolved, on which data, with which packages."""

from __future__ import annotations

import hashlib
import importlib.metadata
import platform
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch

from hierbench.defences.training.order import BatchPlan
from hierbench.defences.training.settings import TrainingSettings

if TYPE_CHECKING:
    from hierbench.datasets.images import ImageSet
    from hierbench.models.zeroshot import ZeroShotModel

RECORD_FORMAT = 1
PACKAGES = ("hierbench", "torch", "torchvision", "open_clip_torch", "timm", "numpy", "safetensors")


def data_hash(images: ImageSet, used: npt.NDArray[np.int64]) -> str:
    """Content hash of the images a run trains on: data set, split, revision, sample list and selection."""
    digest = hashlib.sha256(f"{images.spec.name}|{images.split}|{images.revision}|{images.sample_hash}|".encode())
    digest.update(np.ascontiguousarray(used, dtype="<i8").tobytes())
    return f"sha256:{digest.hexdigest()}"


def training_record(
    *,
    identity: dict[str, Any],
    model: ZeroShotModel,
    images: ImageSet,
    plan: BatchPlan,
    training: TrainingSettings,
    run: dict[str, Any],
) -> dict[str, Any]:
    """Return the record as plain JSON values."""
    return {
        "format": RECORD_FORMAT,
        "given": identity,
        "dataset": {"name": images.spec.name, "split": images.split, "revision": images.revision},
        "weights_hash": model.weights_hash,
        "steps_per_epoch": plan.per_epoch,
        "augmentation": images.spec.augmentation if training.augmentation == "dataset" else training.augmentation,
        "run": run,
        "environment": environment(model.device),
    }


def environment(device: torch.device) -> dict[str, Any]:
    """Return package versions, Python, device and threads."""
    versions: dict[str, str | None] = {}
    for package in PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            versions[package] = None
    return {
        "python": platform.python_version(),
        "packages": versions,
        "device": device.type,
        "threads": torch.get_num_threads(),
    }
