"""The trainer all defences share: data order, inner attack, weights' step, schedule, checkpoints, resume, record."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from hierbench.defences.base import TrainingTask
from hierbench.defences.catalogue import DEFENCES
from hierbench.defences.checkpoint import CHECKPOINT_FILE, write_json
from hierbench.defences.nodes import training_nodes
from hierbench.defences.order import plan_batches
from hierbench.defences.record import data_hash, training_record
from hierbench.defences.run import TrainingInterruptedError, TrainingRun, TrainProgress
from hierbench.defences.settings import DefenceSettings, TrainingSettings
from hierbench.errors import InputError

if TYPE_CHECKING:
    from hierbench.attacks.threat import ThreatModel
    from hierbench.datasets.images import ImageSet
    from hierbench.hierarchy.tree import Forest
    from hierbench.models.zeroshot import ZeroShotModel

RECORD_FILE = "training.json"

__all__ = ["RECORD_FILE", "TrainProgress", "TrainResult", "TrainingInterruptedError", "train"]


@dataclass(frozen=True)
class TrainResult:
    """A finished run: the trained model (the one given, changed in place) and its record."""

    model: ZeroShotModel
    record: dict[str, Any]
    steps: int
    seconds: float


def train(
    defence_name: str,
    *,
    model: ZeroShotModel,
    images: ImageSet,
    forest: Forest,
    template: str,
    threat: ThreatModel,
    out_dir: Path,
    seed: int = 0,
    settings: DefenceSettings | None = None,
    training: TrainingSettings | None = None,
    classes: Sequence[int] | None = None,
    resume: bool = True,
    progress: Callable[[TrainProgress], None] | None = None,
    should_stop: Callable[[], bool] | None = None,
) -> TrainResult:
    """Train one defence from a backbone and return the model, changed in place, with its record.

    Args:
        defence_name: an entry of ``DEFENCES`` other than ``none``.
        model: the untouched backbone with its cosine head.
        images: training images only; those of classes outside ``classes`` are left out.
        forest: trees over the data set's classes; restricted to ``classes``.
        template: prompt of a node, with ``{noun}`` or ``{}``.
        threat: norm and eps of the inner attack.
        out_dir: gets ``checkpoint.safetensors`` while training and ``training.json`` at the end.
        seed: of data order, augmentation and the attack's starts.
        settings: the method's; None takes its defaults.
        training: the recipe; None takes the defaults.
        classes: labels that may be seen; None for all.
        resume: go on from a checkpoint in ``out_dir``; one of another run raises ``InputError``.
        progress: called after every step.
        should_stop: asked after every step; True writes a checkpoint and raises ``TrainingInterruptedError``.

    Same seed, threads and device give bit-equal weights, also when killed and resumed. METHODS.md 5.
    """
    spec = DEFENCES.get(defence_name)
    method = spec.load()
    expected = spec.settings_type()
    settings = settings if settings is not None else expected()
    if not isinstance(settings, expected):
        raise InputError(f"defence {defence_name!r} takes {expected.__name__}, not {type(settings).__name__}")
    training = training or TrainingSettings()
    nodes = training_nodes(forest, template=template, classes=classes).to(model.device)
    task = TrainingTask(nodes=nodes, hidden=model.text_hidden(nodes.prompts), threat=threat)
    position = np.full(forest.trees[0].num_leaves, -1, dtype=np.int64)
    position[list(nodes.classes)] = np.arange(nodes.num_classes)
    used = np.flatnonzero(position[images.labels] >= 0)
    if not len(used):
        raise InputError(f"{images.spec.name} {images.split}: no image of the {nodes.num_classes} trained classes")
    plan = plan_batches(
        len(used), batch_size=training.batch_size, epochs=training.epochs, steps=training.steps, seed=seed
    )
    identity = {
        "defence": defence_name,
        "settings": settings.as_dict(),
        "training": training.as_dict(),
        "seed": seed,
        "data": data_hash(images, used),
        "classes": list(nodes.classes),
        "template": template,
        "trees": [tree.content_hash for tree in forest.trees],
        "threat": {"norm": threat.norm, "eps": str(threat.eps)},
        "backbone": {"name": model.backbone, "weights": model.weights_hash},
    }
    run = TrainingRun(
        defence=method(settings, task),
        model=model,
        images=images,
        used=used,
        labels=position[images.labels[used]],
        plan=plan,
        training=training,
        identity=identity,
        path=Path(out_dir) / CHECKPOINT_FILE,
    )
    run.open(resume=resume)
    run.go(progress, should_stop)
    record = training_record(
        identity=identity, model=model, images=images, plan=plan, training=training, run=run.summary()
    )
    write_json(Path(out_dir) / RECORD_FILE, record)
    return TrainResult(model=model, record=record, steps=plan.steps, seconds=run.seconds)
