"""The losses of METHODS.md 5 in NumPy float64, and a defence in the middle of its training to compare with them.

Written from the page, on embeddings and text features, with one loop over the images.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from standin import SmallModel, make_task, mixed_forest
from torch import Tensor

from hierbench.defences.base import Batch
from hierbench.defences.catalogue import DEFENCES

Array = npt.NDArray[np.float64]
Values = dict[str, float]

EPS = "16/255"
CLASSES = [0, 1, 2, 5, 6, 8]
"""Some of the digits, so that there are more prompts than classes and a label is not a class's position."""

DEFENDED = ("tecoa", "clean_ft", "pmg_aft", "fare", "agft", "hxe", "soft_labels", "hier_aft")
KEEPS_ORIGINAL = ("pmg_aft", "fare", "agft")


@dataclass(frozen=True)
class Seen:
    """What the formulas speak of: embeddings of x' and x by f and by f0, text features, labels, s."""

    now_adversarial: Array
    now_clean: Array
    start_adversarial: Array
    start_clean: Array
    text: Array
    start_text: Array
    """The text features behind p_f0 and q, which are constant."""
    labels: list[int]
    s: float


def cosines(embedding: Array, text: Array) -> Array:
    rows = [[e @ t / (np.linalg.norm(e) * np.linalg.norm(t)) for t in text] for e in embedding]
    return np.array(rows)


def log_shares(z: Array) -> Array:
    top = z.max(axis=-1, keepdims=True)
    out: Array = z - top - np.log(np.exp(z - top).sum(axis=-1, keepdims=True))
    return out


def cross_entropies(z: Array, labels: list[int]) -> list[float]:
    return [-float(row[label]) for row, label in zip(log_shares(z), labels, strict=True)]


def divergences(p: Array, q: Array) -> list[float]:
    """KL(softmax(p) || softmax(q)) of logits, one an image."""
    pairs = zip(log_shares(p), log_shares(q), strict=True)
    return [sum(math.exp(a) * (a - b) for a, b in zip(*pair, strict=True)) for pair in pairs]


def accuracy(z: Array, labels: list[int]) -> float:
    return sum(int(np.argmax(row)) == label for row, label in zip(z, labels, strict=True)) / len(labels)


def clean_ft(seen: Seen) -> tuple[float, Values]:
    """The mean cross-entropy of the images under ``Perturbed``, which its attack leaves clean."""
    value, log = tecoa(seen)
    return value, {"ce_leaf": value, "clean_accuracy": log["adversarial_accuracy"]}


def tecoa(seen: Seen) -> tuple[float, Values]:
    """5.1: CE(s cos(f(x'), g(t)), y)."""
    z = seen.s * cosines(seen.now_adversarial, seen.text)
    mean = sum(cross_entropies(z, seen.labels)) / len(seen.labels)
    return mean, {"ce_leaf": mean, "adversarial_accuracy": accuracy(z, seen.labels)}


def pmg_aft(
    seen: Seen,
    *,
    scale: str = "model",
    kl_reduction: str = "batchmean",
    clean_weight: float = 1.0,
    original_weight: float = 1.0,
) -> tuple[float, Values]:
    """5.2: CE(p_f(x'), y) + KL(p_f0(x') || p_f(x')) + KL(p_f(x) || p_f(x'))."""
    s, count = seen.s if scale == "model" else 1.0, len(seen.labels)
    attacked, clean = s * cosines(seen.now_adversarial, seen.text), s * cosines(seen.now_clean, seen.text)
    original = s * cosines(seen.start_adversarial, seen.start_text)
    entropy = sum(cross_entropies(attacked, seen.labels)) / count
    to_original, to_clean = sum(divergences(original, attacked)), sum(divergences(clean, attacked))
    parts = 1 if kl_reduction == "sum" else count
    total = entropy + original_weight * to_original / parts + clean_weight * to_clean / parts
    return total, {
        "ce_leaf": entropy,
        "kl_original": to_original / count,
        "kl_clean": to_clean / count,
        "adversarial_accuracy": accuracy(attacked, seen.labels),
    }


def fare(seen: Seen) -> tuple[float, Values]:
    """5.3: ||f(x') - f0(x)||^2, not normalised, summed over dimensions, mean over the batch."""
    each = [float(((f - g) ** 2).sum()) for f, g in zip(seen.now_adversarial, seen.start_clean, strict=True)]
    norm = sum(float(np.linalg.norm(g)) for g in seen.start_clean) / len(each)
    return sum(each) / len(each), {"squared_distance": sum(each) / len(each), "target_norm": norm}


def agft(seen: Seen, *, target_factor: float = 0.72, prediction_factor: float = 1.8) -> tuple[float, Values]:
    """5.7: - sum_j q_j log softmax_j(1.8 s cos(f(x'), g(t))), q = softmax(0.72 s cos(f0(x), g(t)))."""
    q = np.exp(log_shares(target_factor * seen.s * cosines(seen.start_clean, seen.start_text)))
    attacked = seen.s * cosines(seen.now_adversarial, seen.text)
    each = [-float(a @ b) for a, b in zip(q, log_shares(prediction_factor * attacked), strict=True)]
    mean = sum(each) / len(each)
    return mean, {
        "soft_cross_entropy": mean,
        "target_confidence": float(q.max(axis=1).mean()),
        "adversarial_accuracy": accuracy(attacked, seen.labels),
    }


FORMULAS: dict[str, Callable[..., tuple[float, Values]]] = {
    "clean_ft": clean_ft,
    "tecoa": tecoa,
    "pmg_aft": pmg_aft,
    "fare": fare,
    "agft": agft,
}


CASES: list[tuple[str, dict[str, Any]]] = [
    ("clean_ft", {}),
    ("tecoa", {}),
    ("pmg_aft", {}),
    ("pmg_aft", {"scale": "one"}),
    ("pmg_aft", {"kl_reduction": "sum"}),
    ("pmg_aft", {"scale": "one", "kl_reduction": "sum"}),
    ("pmg_aft", {"original_weight": 2.5, "clean_weight": 0.4}),
    ("fare", {}),
    ("agft", {}),
    ("agft", {"target_factor": 1.0, "prediction_factor": 1.0}),
    ("agft", {"target_factor": 2.0, "prediction_factor": 0.5}),
]


def moved(model: SmallModel) -> SmallModel:
    """Move the image tower, so that f is no longer f0."""
    generator = torch.Generator().manual_seed(11)
    with torch.no_grad():
        for parameter in model.visual.parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype))
    return model


@dataclass(frozen=True)
class Scene:
    defence: Any
    model: SmallModel
    batch: Batch
    adversarial: Tensor
    """Some images near the clean ones, not those of an attack."""

    @property
    def text(self) -> Tensor:
        """Features of all prompts, on the graph of a leaf of their own."""
        features: Tensor = self.defence.task.text_features(self.model)
        return features.detach().requires_grad_()

    def seen(self, adversarial: Tensor | None = None, text: Array | None = None) -> Seen:
        start, now, task = SmallModel(double=True), self.model, self.defence.task
        given = self.adversarial if adversarial is None else adversarial
        original = (task.hidden[: len(CLASSES)] @ start.text_projection).detach().numpy()
        return Seen(
            now_adversarial=now.embed(given).detach().numpy(),
            now_clean=now.embed(self.batch.pixels).detach().numpy(),
            start_adversarial=start.embed(given).detach().numpy(),
            start_clean=start.embed(self.batch.pixels).detach().numpy(),
            text=original if text is None else text[: len(CLASSES)],
            start_text=original,
            labels=self.batch.labels.tolist(),
            s=math.exp(2.0),
        )


def scene(name: str, settings: dict[str, Any] | None = None, *, eps: str = EPS, count: int = 9) -> Scene:
    spec = DEFENCES.get(name)
    model = SmallModel(double=True)
    task = make_task(model, mixed_forest(), eps=eps, classes=CLASSES)
    defence = spec.load()(spec.settings_type()(**(settings or {})), task)
    defence.attach(model)
    generator = torch.Generator().manual_seed(5)
    pixels = torch.rand(count, 1, 8, 8, generator=generator, dtype=torch.float64)
    labels = torch.randint(0, len(CLASSES), (count,), generator=generator)
    noise = torch.rand(count, 1, 8, 8, generator=generator, dtype=torch.float64)
    adversarial = (pixels + 0.4 * (noise - 0.5)).clamp(0, 1)
    return Scene(defence, moved(model), Batch(pixels, labels, generator), adversarial)


def slope(function: Callable[[float], float], step: float = 1e-5) -> float:
    """Central difference at 0."""
    return (function(step) - function(-step)) / (2 * step)


def some_direction(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(23), dtype=torch.float64)
