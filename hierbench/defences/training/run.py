"""One training run: everything that changes from step to step, its checkpoints and its checks."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch

from hierbench.defences.base import Batch, Defence
from hierbench.defences.perturb import Cost, weights_frozen
from hierbench.defences.training import checkpoint as files
from hierbench.defences.training.augment import augment, named_augmentation
from hierbench.defences.training.averaging import WeightAverage
from hierbench.defences.training.narrow import narrow_towers
from hierbench.defences.training.order import BatchPlan, numpy_stream, stream_key, torch_stream
from hierbench.defences.training.processes import Processes
from hierbench.defences.training.schedule import rate_at, warmup_steps
from hierbench.defences.training.settings import TrainingSettings
from hierbench.defences.training.trainlog import TrainLog, mean_of_parts
from hierbench.defences.training.trust import check_first_step, check_moved
from hierbench.defences.training.validation import Watch, overfits
from hierbench.defences.training.weights import (
    TrainedWeights,
    build_optimiser,
    digest,
    frozen_digest,
    scope_digests,
    scopes_of,
    select_weights,
    weights_step_mode,
)
from hierbench.errors import ExitCode, HierbenchError, InputError
from hierbench.models.folding import Pair, batch_norms_folded, foldable_pairs
from hierbench.models.heads import head_from_config

if TYPE_CHECKING:
    from hierbench.datasets.images import ImageSet
    from hierbench.models.zeroshot import ZeroShotModel


class TrainingInterruptedError(HierbenchError):
    """Training was asked to stop; the checkpoint is written and the same call goes on from it."""

    exit_code = ExitCode.INTERRUPTED


@dataclass(frozen=True)
class TrainProgress:
    """Where a run stands, after each step."""

    step: int
    steps: int
    epoch: int
    loss: float
    rate: float
    seconds: float
    resumed_at: int


class TrainingRun:
    """One training run: everything that changes from step to step."""

    def __init__(
        self,
        *,
        defence: Defence[Any],
        model: ZeroShotModel,
        images: ImageSet,
        used: npt.NDArray[np.int64],
        labels: npt.NDArray[np.int64],
        plan: BatchPlan,
        training: TrainingSettings,
        identity: dict[str, Any],
        path: Path,
        watch: Watch | None = None,
        processes: Processes | None = None,
    ) -> None:
        self.defence, self.model, self.images, self.used, self.labels = defence, model, images, used, labels
        self.plan, self.training, self.identity, self.path = plan, training, identity, path
        self.watch, self.processes = watch, processes or Processes()
        name = images.spec.augmentation if training.augmentation == "dataset" else training.augmentation
        self.augmentation = named_augmentation(name)
        self.warmup = warmup_steps(plan.steps, share=training.warmup_share, limit=training.warmup_limit)
        self.log = TrainLog(every=max(1, plan.steps // training.log_points))
        self.step = self.resumed_at = 0
        self.seconds = 0.0
        self.cost = Cost()
        self.resumes = 0
        self.before: dict[str, str] = {}
        self.frozen = ""
        self.folded: list[Pair] = []
        self.validation: list[dict[str, Any]] = []
        self.weights: TrainedWeights
        self.average: WeightAverage | None = None
        self.scaler = torch.amp.GradScaler(model.device.type, enabled=training.precision == "fp16")
        self.optimiser: torch.optim.Optimizer

    # -- start and resume ---------------------------------------------------------------------------------------------

    def open(self, *, resume: bool) -> None:
        """Prepare the defence, or go on from the checkpoint."""
        self.model.eval()
        self.model.visual.to(memory_format=torch.channels_last)
        everything = np.arange(len(self.used))
        sample = numpy_stream(self.plan.seed, "prepare", 0).permutation(everything)[: self.training.prepare_images]
        clean = self._batch(np.sort(sample), "prepare", 0, augmented=False)
        if self.training.fold_batch_norm:
            self.folded = foldable_pairs(self.model.visual, self.model.embed, clean.pixels[:16])
        self.defence.attach(self.model)
        if resume and self.path.exists():
            tensors, state = files.read_checkpoint(self.path)
            self._check_identity(state.get("identity", {}))
            self.model.head = head_from_config(state["head"]).to(self.model.device)
            self.defence.load_state(state["defence"])
            self._select()
            self._restore(tensors, state)
        else:
            self.defence.prepare(self.model, clean)
            self._select()
            self.before, self.frozen = scope_digests(self.weights), frozen_digest(self.model, self.weights)
        self.processes.agree([self.step, self.frozen, digest(dict(self.weights.named))], "do not start from one state")

    def _select(self) -> None:
        scope = self.training.train_scope
        self.weights = select_weights(self.model, scopes_of(self.defence.trains, scope), train_scope=scope)
        self.optimiser = build_optimiser(self.weights, self.training)
        if self.training.ema_decay is not None:
            self.average = WeightAverage(self.training.ema_decay, self.weights.named)

    def _check_identity(self, theirs: dict[str, Any]) -> None:
        for name, value in self.identity.items():
            if theirs.get(name) != value:
                raise InputError(
                    f"{self.path}: checkpoint of another run ({name} differs: {_difference(theirs.get(name), value)}); "
                    "choose another folder, or train without resuming"
                )

    def _restore(self, tensors: dict[str, torch.Tensor], state: dict[str, Any]) -> None:
        own = dict(self.model.state_dict())
        try:
            with torch.no_grad():
                for name in self._kept_names():
                    stored = tensors[f"model/{name}"]
                    if stored.shape != own[name].shape:
                        raise RuntimeError(f"{name} is {tuple(stored.shape)}, not {tuple(own[name].shape)}")
                    own[name].copy_(stored)
            files.restore_optimiser(self.optimiser, tensors, self.weights.named)
            if self.average is not None:
                self.average.restore(tensors)
            self.scaler.load_state_dict(state["scaler"])
        except (KeyError, RuntimeError) as error:
            raise InputError(f"{self.path}: the checkpoint does not fit the model ({error})") from None
        self.step = self.resumed_at = int(state["step"])
        self.seconds = float(state["seconds"])
        self.cost = Cost(*state["cost"])
        self.resumes = int(state["resumes"]) + 1
        self.before, self.frozen = dict(state["before"]), str(state["frozen"])
        self.log = TrainLog.from_state(state["log"])
        self.validation = list(state["validation"])
        if frozen_digest(self.model, self.weights) != self.frozen:
            raise InputError(f"{self.path}: the frozen weights are not those this run started from")

    def _kept_names(self) -> list[str]:
        """Tensors a checkpoint holds: what trains, and all of the head."""
        head = [name for name in self.model.state_dict() if name.startswith("head.")]
        return list(dict.fromkeys([*self.weights.named, *head]))

    def save(self) -> None:
        """Write the checkpoint; of several processes the first does."""
        if not self.processes.leads:
            return
        own = self.model.state_dict()
        tensors = {f"model/{name}": own[name] for name in self._kept_names()}
        tensors |= files.optimiser_tensors(self.optimiser, self.weights.names)
        tensors |= self.average.tensors() if self.average is not None else {}
        state = {
            "identity": self.identity,
            "head": self.model.head.config(),
            "defence": self.defence.state(),
            "step": self.step,
            "seconds": self.seconds,
            "cost": [self.cost.forwards, self.cost.backwards],
            "resumes": self.resumes,
            "before": self.before,
            "frozen": self.frozen,
            "log": self.log.state(),
            "validation": self.validation,
            "scaler": self.scaler.state_dict(),
        }
        files.write_checkpoint(self.path, tensors=tensors, state=state)

    # -- the loop -----------------------------------------------------------------------------------------------------

    def go(self, progress: Callable[[TrainProgress], None] | None, should_stop: Callable[[], bool] | None) -> None:
        """Train to the end, then check that what should move has moved and nothing else has."""
        epoch, permutation = -1, np.empty(0, dtype=np.int64)
        saved, began = time.monotonic(), time.monotonic() - self.seconds
        while self.step < self.plan.steps and not self._ended():
            if self.plan.epoch(self.step) != epoch:
                epoch = self.plan.epoch(self.step)
                permutation = self.plan.permutation(epoch)
            loss, rate = self._one_step(permutation)
            self.step += 1
            self.seconds = time.monotonic() - began
            if progress is not None:
                progress(TrainProgress(self.step, self.plan.steps, epoch, loss, rate, self.seconds, self.resumed_at))
            if self._watched():
                self._look()
            last = self.step == self.plan.steps or self._ended()
            asked = should_stop is not None and should_stop()
            stopping = self.processes.any(asked, self.model.device) and not last
            every = self.training.checkpoint_steps
            due = time.monotonic() - saved >= self.training.checkpoint_seconds or (every and self.step % every == 0)
            if stopping or (due and not last):
                self.save()
                saved = time.monotonic()
            if stopping:
                raise TrainingInterruptedError(
                    f"stopped at step {self.step} of {self.plan.steps}; the same command goes on from {self.path}"
                )
        self.log.close(self.step)
        if self.average is not None:
            self.average.adopt()
        check_moved(self.defence, self.model, self.weights, before=self.before, frozen=self.frozen)
        self.processes.agree(digest(dict(self.weights.named)), "ended with different weights")
        self.model.forget_text()
        # As a reader of the stored weights finds them: nothing trains, plain memory layout.
        self.model.eval().requires_grad_(False)
        self.model.visual.to(memory_format=torch.contiguous_format)
        self.save()

    def _one_step(self, permutation: npt.NDArray[np.int64]) -> tuple[float, float]:
        """Take one step of the weights; a batch is shared by the processes, and worked through in parts by each."""
        step = self.step
        whole = self.plan.batch(step, permutation)
        parts = np.array_split(self.processes.share(whole), self.training.accumulate)
        found: list[tuple[int, dict[str, float], Cost]] = []
        for number, positions in enumerate(parts):
            if not len(positions):
                continue
            # One stream a part; the only part of the only process has the plain step's own.
            place = self.processes.rank * self.training.accumulate + number
            lot = f"/{place}" if len(parts) * self.processes.count > 1 else ""
            part = self._batch(positions, f"start{lot}", step, augmented=True, lot=lot)
            batch = replace(part, whole=len(whole))
            found.append((len(positions), *self._one_part(batch, share=len(positions) / len(whole), lot=lot)))
        found = [part for process in self.processes.gather(found) for part in process]
        values = mean_of_parts([(size, log) for size, log, _ in found])
        self.cost = sum((cost for _, _, cost in found), self.cost)
        parameters = list(self.weights.named.values())
        self.processes.sum_gradients(parameters)
        self.scaler.unscale_(self.optimiser)
        norm = torch.nn.utils.clip_grad_norm_(parameters, self.training.clip_norm or float("inf"))
        rate = rate_at(step, steps=self.plan.steps, warmup=self.warmup, peak=self.training.learning_rate)
        for group in self.optimiser.param_groups:
            group["lr"] = rate * group["share"]
        self.scaler.step(self.optimiser)
        self.scaler.update()
        self.optimiser.zero_grad(set_to_none=True)
        if self.average is not None:
            self.average.update()
        values |= {"rate": rate, "gradient_norm": float(norm)}
        if self.scaler.is_enabled():
            # Too large a scale: the scaler left this step out and goes on with a smaller one.
            values["steps_left_out"] = float(not math.isfinite(norm))
            values["gradient_norm"] = float(norm) if math.isfinite(norm) else 0.0
        elif not math.isfinite(norm):
            raise HierbenchError(
                f"{self.defence.name}: the gradient's norm is {float(norm)} at step {step}; lower the learning rate"
            )
        self.log.add(step + 1, values)
        return values["loss"], rate

    def _one_part(self, batch: Batch, *, share: float, lot: str) -> tuple[dict[str, float], Cost]:
        """Attack a part of the batch, add its share of the gradient; return what is logged of it and its cost."""
        step, model, kind = self.step, self.model, self.model.device.type
        devices = [model.device] if kind == "cuda" else []
        # Dropout and the like draw from torch's own generator: keyed by the step here, and left as it was after.
        with torch.random.fork_rng(devices=devices):
            torch.manual_seed(stream_key(self.plan.seed, f"dropout{lot}", step))
            with (
                torch.autocast(kind, enabled=False),
                weights_frozen(model, self.weights.named.values()),
                batch_norms_folded(self.folded),
                narrow_towers(model, self.training.attack_precision),
            ):
                with torch.no_grad():
                    text = self.defence.task.text_features(model)
                perturbed = self.defence.perturb(model, batch, text)
            weights_step_mode(model)
            first = step == 0
            if first:
                perturbed.pixels.requires_grad_(True)
            with narrow_towers(model, self.training.precision):
                text = self.defence.task.text_features(model)
                loss, log = self.defence.loss(model, batch, perturbed, text)
            value = float(loss.detach())
            if not np.isfinite(value):
                raise HierbenchError(
                    f"{self.defence.name}: the loss is {value} at step {step}; lower the learning rate"
                )
            torch.autograd.backward(self.scaler.scale(loss * share))
        if first:
            check_first_step(self.defence, self.weights, batch, perturbed)
        forwards, backwards = self.defence.passes
        extra, count = len(perturbed.others), len(batch.labels)
        values = {"loss": value, **{k: float(v) for k, v in log.items()}}
        if perturbed.gain is not None:
            values["attack_gain"] = float(perturbed.gain)
        return values, perturbed.cost + Cost(count * (forwards + extra), count * (backwards + extra))

    def _watched(self) -> bool:
        """Whether the run is looked at after this step: spread evenly, the last step among them."""
        points, steps = self.training.validation_points, self.plan.steps
        return self.watch is not None and self.step * points // steps > (self.step - 1) * points // steps

    def _look(self) -> None:
        """Measure the model on the validation images; the first process does, for all."""
        measured: dict[str, float] = {}
        cost = Cost()
        if self.watch is not None and self.processes.leads:
            average = self.average.in_place() if self.average is not None else nullcontext()
            with average, weights_frozen(self.model, self.weights.named.values()), batch_norms_folded(self.folded):
                measured, cost = self.watch.measure(self.model)
        measured, cost = self.processes.gather((measured, cost))[0]
        self.cost += cost
        self.validation.append({"step": self.step, **measured})

    def _ended(self) -> bool:
        """Whether the run ends before its last step."""
        return self.training.stop_on_overfitting and overfits(self.validation)

    def _batch(
        self, positions: npt.NDArray[np.int64], purpose: str, step: int, *, augmented: bool, lot: str = ""
    ) -> Batch:
        pixels = self.images.pixels(self.used[positions])
        if augmented:
            pixels = augment(pixels, self.augmentation, numpy_stream(self.plan.seed, f"augment{lot}", step))
        device = self.model.device
        floats = pixels.to(device, torch.float32).div_(255.0).contiguous(memory_format=torch.channels_last)
        return Batch(
            pixels=floats,
            labels=torch.from_numpy(self.labels[positions]).to(device),
            generator=torch_stream(self.plan.seed, purpose, step, device=device),
            step=step,
        )

    def summary(self) -> dict[str, Any]:
        """What the record says about the run itself."""
        recent = self.log.recent(points=max(1, len(self.log.points) // 10))
        guards = self.defence.guards(self.model, recent)
        if overfits(self.validation):
            guards = {**guards, "flags": [*guards.get("flags", ()), "catastrophic_overfitting"]}
        parts = self.training.accumulate * self.processes.count
        return {
            "steps": self.step,
            "epochs": self.step / self.plan.per_epoch,
            "warmup_steps": self.warmup,
            "batch_size": self.plan.batch_size,
            "images": self.plan.images,
            "alpha": self.defence.inner_attack.alpha if self.defence.adversarial else None,
            "prepared": self.defence.state(),
            "head": self.model.head.config(),
            "trains": list(self.weights.scopes),
            "trained_parameters": sum(p.numel() for p in self.weights.named.values()),
            "batch_norm": "statistics frozen, in the attack and in the weights' step",
            "batch_norms_folded_in_attack": len(self.folded),
            "seconds": round(self.seconds, 3),
            "resumes": self.resumes,
            "forwards": self.cost.forwards,
            "backwards": self.cost.backwards,
            "checks": {"frozen_unmoved": True, "trained_moved": True, "loss_uses_attack": self.defence.adversarial},
            "processes": self.processes.count,
            "images_compared": math.ceil(self.plan.batch_size / parts) if self.defence.couples_images else None,
            "precision": {"weights_step": self.training.precision, "attack": self.training.attack_precision},
            "validation": self.validation,
            "guards": guards,
            "curve": self.log.curve(),
        }


def _difference(theirs: object, ours: object) -> str:
    if isinstance(theirs, dict) and isinstance(ours, dict):
        for name in ours:
            if theirs.get(name) != ours[name]:
                return f"{name} was {theirs.get(name)!r}, is {ours[name]!r}"
    return f"was {str(theirs)[:60]}, is {str(ours)[:60]}"
