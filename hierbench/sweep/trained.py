"""The models that a plan trains itself: seeds, controls and ablations that nobody ships."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from hierbench.errors import HierbenchError, InputError
from hierbench.evaluation.storage import atomic_write, digest_json, make_folder
from hierbench.models.storage import read_description
from hierbench.sweep.notes import NOTES_FOLDER
from hierbench.sweep.training import MODELS_FOLDER, Report, TrainRequest, resolve_recipe, run_training

KEYS: Mapping[str, type] = {
    "recipe": str, "variant": str, "seeds": list, "trees": list, "eps": str, "settings": dict, "shuffle_trees": list,
}  # fmt: skip
TrainingState = Literal["missing", "begun", "trained", "failed"]


@dataclass(frozen=True)
class PlannedTraining:
    """One model of a plan that is trained before its cells run: ``<defence>.<variant>``, with ``-s1`` for seed 1."""

    name: str
    request: TrainRequest

    @property
    def folder(self) -> Path:
        """Where the model is written."""
        assert self.request.out is not None  # set by ``planned``
        return self.request.out

    @property
    def key(self) -> str:
        """Eight characters that name the training among the notes of a results folder."""
        request = self.request
        said = [request.recipe, request.variant, request.trees, request.eps, request.seed, dict(request.settings)]
        return "t" + digest_json(said).removeprefix("sha256:")[:8]

    @property
    def title(self) -> str:
        """The training in words."""
        request = self.request
        words = [f"train {self.name}", f"from {request.recipe}"]
        words += [f"trees {' '.join(request.trees)}"] if request.trees else []
        words += [f"eps {request.eps}"] if request.eps else []
        return " ".join([*words, *(f"{name} {value}" for name, value in request.settings.items())])


def planned(
    table: Mapping[str, Any], *, models: Path | None, device: str | None, data_root: Path | None
) -> list[PlannedTraining]:
    """Return the trainings of one ``[[train]]`` table, one a seed; ``InputError`` begins with the key at fault."""
    seeds = table.get("seeds", [0])
    if not seeds or not all(isinstance(s, int) and not isinstance(s, bool) and s >= 0 for s in seeds):
        raise InputError("seeds: must be a list of whole numbers from 0 on")
    shuffles = table.get("shuffle_trees", [None] * len(seeds))
    if len(shuffles) != len(seeds):
        raise InputError(f"shuffle_trees: must have one entry for each of the {len(seeds)} seeds")
    trees = table.get("trees", [])
    if not all(isinstance(tree, str) for tree in trees):
        raise InputError("trees: must be a list of names")
    found = []
    for seed, shuffle in zip(seeds, shuffles, strict=True):
        settings = dict(table.get("settings", {})) | ({} if shuffle is None else {"shuffle_tree": shuffle})
        request = TrainRequest(
            defence=None, recipe=table["recipe"], dataset=None, backbone=None, trees=tuple(trees),
            eps=table.get("eps"), norm=None, variant=table.get("variant"), seen=None, settings=settings, limit=None,
            seed=seed, protocol=None, device=device, out=None, data_root=data_root, resume=True,
        )  # fmt: skip
        try:
            recipe = resolve_recipe(request)
        except HierbenchError as error:
            raise InputError(f"recipe: {error}") from None
        variant = recipe.variant + (f"-s{seed}" if seed else "")
        name = f"{recipe.defence}.{variant}"
        folder = (models or Path(MODELS_FOLDER)) / name
        found.append(PlannedTraining(name, _with(request, variant=variant, out=folder)))
    return found


def _with(request: TrainRequest, **values: Any) -> TrainRequest:
    import dataclasses

    return dataclasses.replace(request, **values)


@dataclass(frozen=True)
class TrainingJob:
    """One training as a job of its own, for this process or another one."""

    training: PlannedTraining
    folder: Path
    """Of the results, where the notes are."""

    @property
    def key(self) -> str:
        """The training's."""
        return self.training.key

    @property
    def title(self) -> str:
        """The training's."""
        return self.training.title

    def finish(self) -> str:
        """Train, or go on from a checkpoint, as submitit calls it; return the model's name."""
        self.run(lambda *_: None)
        return self.training.name

    def run(self, report: Report) -> Path:
        """Train and leave a note; an interrupted training goes on from its checkpoint."""
        _note(self.folder, self.training)
        try:
            made = run_training(self.training.request, report=report, should_stop=lambda: False)
        except Exception as error:
            text = str(error) if isinstance(error, HierbenchError) else f"{type(error).__name__}: {error}"
            _note(self.folder, self.training, error=" ".join(text.split())[:500])
            raise
        weights = str(read_description(self.training.folder).get("weights_hash"))
        _note(self.folder, self.training, weights=weights)
        return made or self.training.folder


def training_state(training: PlannedTraining, folder: Path) -> tuple[TrainingState, str | None]:
    """Return how far a training is, and in one line why it failed; a model that was changed since is missing."""
    try:
        said = json.loads(_path(folder, training).read_text(encoding="utf-8"))
        weights, error = said["weights"], said["error"]
    except (OSError, ValueError, KeyError, TypeError):
        return "missing", None
    if error is not None:
        return "failed", str(error)
    if weights is None:
        return "begun", None
    try:
        there = read_description(training.folder).get("weights_hash")
    except HierbenchError:
        return "missing", None
    return ("trained" if there == weights else "missing"), None


def untrained(trainings: Sequence[PlannedTraining], folder: Path) -> list[PlannedTraining]:
    """Return the trainings that are still to be done."""
    return [t for t in trainings if training_state(t, folder)[0] != "trained"]


def _path(folder: Path, training: PlannedTraining) -> Path:
    return folder / NOTES_FOLDER / f"{training.key}.json"


def _note(folder: Path, training: PlannedTraining, *, weights: str | None = None, error: str | None = None) -> None:
    make_folder(folder / NOTES_FOLDER)
    text = json.dumps({"title": training.title, "weights": weights, "error": error}, ensure_ascii=False, indent=1)
    atomic_write(_path(folder, training), text.encode())
