"""The trainer all defences share: data order, inner attack, weights' step, schedule, checkpoints, resume, record."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch

from hierbench.defences.base import TrainingTask
from hierbench.defences.catalogue import DEFENCES
from hierbench.defences.nodes import training_nodes
from hierbench.defences.settings import DefenceSettings
from hierbench.defences.training.checkpoint import CHECKPOINT_FILE, write_json
from hierbench.defences.training.order import numpy_stream, plan_batches
from hierbench.defences.training.processes import join_processes
from hierbench.defences.training.record import data_hash, training_record
from hierbench.defences.training.run import TrainingInterruptedError, TrainingRun, TrainProgress
from hierbench.defences.training.settings import TrainingSettings
from hierbench.defences.training.validation import Watch
from hierbench.defences.training.weights import scopes_of
from hierbench.errors import InputError
from hierbench.hierarchy.shuffle import shuffle
from hierbench.hierarchy.tree import Forest
from hierbench.locking import sole_writer

if TYPE_CHECKING:
    from hierbench.attacks.threat import ThreatModel
    from hierbench.datasets.images import ImageSet
    from hierbench.models.zeroshot import ZeroShotModel

RECORD_FILE = "training.json"
LOCK_FILE = ".training.lock"

__all__ = ["RECORD_FILE", "TrainProgress", "TrainResult", "TrainingInterruptedError", "train"]


@dataclass(frozen=True)
class TrainResult:
    """A finished run: the trained model (the one given, changed in place) and its record."""

    model: ZeroShotModel
    record: dict[str, Any]
    steps: int
    seconds: float
    leads: bool = True
    """Whether this process writes; False in the others of several."""


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
    validation: ImageSet | None = None,
    recipe: str | None = None,
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
        validation: images that nothing trains on; the first ``training.validation_images`` of the trained classes, in
            the order of ``ImageSet.limited``, are watched. None watches nothing.
        recipe: where the settings come from, for the record.
        resume: go on from a checkpoint in ``out_dir``; one of another run raises ``InputError``, and so does another
            run that is writing there.
        progress: called after every step.
        should_stop: asked after every step; True writes a checkpoint and raises ``TrainingInterruptedError``.

    Same seed, threads and device give bit-equal weights, also when killed and resumed. Under ``torchrun`` every process
    works on its part of each batch. METHODS.md 5.
    """
    spec = DEFENCES.get(defence_name)
    method = spec.load()
    expected = spec.settings_type()
    settings = settings if settings is not None else expected()
    if not isinstance(settings, expected):
        raise InputError(f"defence {defence_name!r} takes {expected.__name__}, not {type(settings).__name__}")
    training = training or TrainingSettings()
    if training.precision == "fp16" and model.device.type != "cuda":
        raise InputError(f"setting precision = 'fp16': it needs CUDA, not {model.device.type}; choose bf16 or fp32")
    if training.shuffle_tree is not None:
        forest = Forest(tuple(shuffle(tree, training.shuffle_tree) for tree in forest.trees))
    nodes = training_nodes(forest, template=template, classes=classes).to(model.device)
    processes = join_processes(model.device)
    position = np.full(forest.trees[0].num_leaves, -1, dtype=np.int64)
    position[list(nodes.classes)] = np.arange(nodes.num_classes)
    used = np.flatnonzero(position[images.labels] >= 0)
    if not len(used):
        raise InputError(f"{images.spec.name} {images.split}: no image of the {nodes.num_classes} trained classes")
    if training.shots is not None:
        used = draw_shots(images, nodes.classes, shots=training.shots, seed=seed)
    plan = plan_batches(
        len(used), batch_size=training.batch_size, epochs=training.epochs, steps=training.steps, seed=seed
    )
    if plan.batch_size < processes.count:
        raise InputError(f"a batch of {plan.batch_size} images cannot be shared by {processes.count} processes")
    task = TrainingTask(
        nodes=nodes,
        hidden=model.text_hidden(nodes.prompts),
        threat=threat,
        forest=forest,
        template=template,
        images_of=images.spec,
    )
    defence = method(settings, task)
    if "text" in scopes_of(defence.trains, training.train_scope):
        task = replace(task, text_moves=True)
        defence = method(settings, task)
    watch = watch_images(validation, task, position, training=training, seed=seed, device=model.device)
    identity = {
        "defence": defence_name,
        "recipe": recipe,
        "settings": settings.as_dict(),
        "training": training.as_dict(),
        "seed": seed,
        "data": data_hash(images, used),
        "validation": None if watch is None else watch.data,
        "classes": list(nodes.classes),
        "template": template,
        "trees": [tree.content_hash for tree in forest.trees],
        "threat": {"norm": threat.norm, "eps": str(threat.eps)},
        "backbone": {"name": model.backbone, "weights": model.weights_hash},
        "processes": processes.count,
    }
    run = TrainingRun(
        defence=defence,
        model=model,
        images=images,
        used=used,
        labels=position[images.labels[used]],
        plan=plan,
        training=training,
        identity=identity,
        path=Path(out_dir) / CHECKPOINT_FILE,
        watch=watch,
        processes=processes,
    )
    out_dir = Path(out_dir)
    with sole_writer(out_dir / LOCK_FILE, out_dir) if processes.leads else nullcontext():
        run.open(resume=resume)
        run.go(progress, should_stop)
        record = training_record(
            identity=identity, model=model, images=images, plan=plan, training=training, run=run.summary()
        )
        if processes.leads:
            write_json(out_dir / RECORD_FILE, record)
    return TrainResult(model=model, record=record, steps=run.step, seconds=run.seconds, leads=processes.leads)


def draw_shots(images: ImageSet, classes: Sequence[int], *, shots: int, seed: int) -> npt.NDArray[np.int64]:
    """Return the places of ``shots`` images of each class, in order; a class with fewer is an ``InputError``."""
    drawn = []
    for label in classes:
        places = np.flatnonzero(images.labels == label)
        if len(places) < shots:
            name = images.spec.classes[label].name
            raise InputError(f"setting shots = {shots}: class {name!r} has {len(places)} training images")
        drawn.append(numpy_stream(seed, "shots", label).permutation(places)[:shots])
    return np.sort(np.concatenate(drawn))


def watch_images(
    images: ImageSet | None,
    task: TrainingTask,
    position: npt.NDArray[np.int64],
    *,
    training: TrainingSettings,
    seed: int,
    device: torch.device,
) -> Watch | None:
    """Return what the run is watched on, or None; ``position`` maps a label to its trained class, or to -1."""
    if images is None and training.stop_on_overfitting:
        raise InputError("setting stop_on_overfitting = True: there are no validation images to see it on")
    if images is None or training.validation_images == 0:
        return None
    if images.spec.name != task.images_of.name:
        raise InputError(f"validation images of {images.spec.name}, training images of {task.images_of.name}")
    chosen = np.flatnonzero(position[images.labels] >= 0)
    if not len(chosen):
        raise InputError(f"{images.spec.name} {images.split}: no validation image of a trained class")
    images = images.take(chosen).limited(training.validation_images)
    pixels = images.pixels(np.arange(len(images))).to(device, torch.float32).div_(255.0)
    labels = torch.from_numpy(position[images.labels]).to(device)
    data = data_hash(images, np.arange(len(images)))
    return Watch(pixels, labels, task, steps=training.validation_steps, seed=seed, data=data)
