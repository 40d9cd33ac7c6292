"""One training run: everything that changes from step to step, its checkpoints and its checks."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch

from hierbench.defences import checkpoint as files
from hierbench.defences.augment import augment, named_augmentation
from hierbench.defences.base import Batch, Defence, Perturbed
from hierbench.defences.folding import Pair, batch_norms_folded, foldable_pairs
from hierbench.defences.order import BatchPlan, numpy_stream, stream_key, torch_stream
from hierbench.defences.perturb import Cost, weights_frozen
from hierbench.defences.schedule import rate_at, warmup_steps
from hierbench.defences.settings import TrainingSettings
from hierbench.defences.trainlog import TrainLog
from hierbench.defences.weights import (
    TrainedWeights,
    build_optimiser,
    frozen_digest,
    scope_digests,
    select_weights,
    weights_step_mode,
)
from hierbench.errors import ExitCode, HierbenchError, InputError
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
    ) -> None:
        self.defence, self.model, self.images, self.used, self.labels = defence, model, images, used, labels
        self.plan, self.training, self.identity, self.path = plan, training, identity, path
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
        self.weights: TrainedWeights
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
            return
        self.defence.prepare(self.model, clean)
        self._select()
        self.before, self.frozen = scope_digests(self.weights), frozen_digest(self.model, self.weights)

    def _select(self) -> None:
        self.weights = select_weights(self.model, self.defence.trains)
        self.optimiser = build_optimiser(self.weights, self.training)

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
        except (KeyError, RuntimeError) as error:
            raise InputError(f"{self.path}: the checkpoint does not fit the model ({error})") from None
        self.step = self.resumed_at = int(state["step"])
        self.seconds = float(state["seconds"])
        self.cost = Cost(*state["cost"])
        self.resumes = int(state["resumes"]) + 1
        self.before, self.frozen = dict(state["before"]), str(state["frozen"])
        self.log = TrainLog.from_state(state["log"])
        if frozen_digest(self.model, self.weights) != self.frozen:
            raise InputError(f"{self.path}: the frozen weights are not those this run started from")

    def _kept_names(self) -> list[str]:
        """Tensors a checkpoint holds: what trains, and all of the head."""
        head = [name for name in self.model.state_dict() if name.startswith("head.")]
        return list(dict.fromkeys([*self.weights.named, *head]))

    def save(self) -> None:
        """Write the checkpoint."""
        own = self.model.state_dict()
        tensors = {f"model/{name}": own[name] for name in self._kept_names()}
        tensors |= files.optimiser_tensors(self.optimiser, self.weights.names)
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
        }
        files.write_checkpoint(self.path, tensors=tensors, state=state)

    # -- the loop -----------------------------------------------------------------------------------------------------

    def go(self, progress: Callable[[TrainProgress], None] | None, should_stop: Callable[[], bool] | None) -> None:
        """Train to the end, then check that what should move has moved and nothing else has."""
        epoch, permutation = -1, np.empty(0, dtype=np.int64)
        saved, began = time.monotonic(), time.monotonic() - self.seconds
        while self.step < self.plan.steps:
            if self.plan.epoch(self.step) != epoch:
                epoch = self.plan.epoch(self.step)
                permutation = self.plan.permutation(epoch)
            loss, rate = self._one_step(permutation)
            self.step += 1
            self.seconds = time.monotonic() - began
            if progress is not None:
                progress(TrainProgress(self.step, self.plan.steps, epoch, loss, rate, self.seconds, self.resumed_at))
            stopping = should_stop is not None and should_stop() and self.step < self.plan.steps
            every = self.training.checkpoint_steps
            due = time.monotonic() - saved >= self.training.checkpoint_seconds or (every and self.step % every == 0)
            if stopping or (due and self.step < self.plan.steps):
                self.save()
                saved = time.monotonic()
            if stopping:
                raise TrainingInterruptedError(
                    f"stopped at step {self.step} of {self.plan.steps}; the same command goes on from {self.path}"
                )
        self.log.close(self.step)
        self._check_moved()
        # As a reader of the stored weights finds them: nothing trains, plain memory layout.
        self.model.eval().requires_grad_(False)
        self.model.visual.to(memory_format=torch.contiguous_format)
        self.save()

    def _one_step(self, permutation: npt.NDArray[np.int64]) -> tuple[float, float]:
        step, model = self.step, self.model
        batch = self._batch(self.plan.batch(step, permutation), "start", step, augmented=True)
        devices = [model.device] if model.device.type == "cuda" else []
        # Dropout and the like draw from torch's own generator: keyed by the step here, and left as it was after.
        with torch.random.fork_rng(devices=devices), torch.autocast(model.device.type, enabled=False):
            torch.manual_seed(stream_key(self.plan.seed, "dropout", step))
            with weights_frozen(model, self.weights.named.values()), batch_norms_folded(self.folded):
                perturbed = self.defence.perturb(model, batch)
            weights_step_mode(model)
            first = step == 0
            if first:
                perturbed.pixels.requires_grad_(True)
            loss, log = self.defence.loss(model, batch, perturbed)
            value = float(loss.detach())
            if not np.isfinite(value):
                raise HierbenchError(
                    f"{self.defence.name}: the loss is {value} at step {step}; lower the learning rate"
                )
            torch.autograd.backward(loss)
        if first:
            self._check_first_step(batch, perturbed)
        parameters = list(self.weights.named.values())
        norm = torch.nn.utils.clip_grad_norm_(parameters, self.training.clip_norm or float("inf"))
        rate = rate_at(step, steps=self.plan.steps, warmup=self.warmup, peak=self.training.learning_rate)
        for group in self.optimiser.param_groups:
            group["lr"] = rate * group["share"]
        self.optimiser.step()
        self.optimiser.zero_grad(set_to_none=True)
        count = len(batch.labels)
        passes = count * (1 + len(perturbed.others))
        self.cost += perturbed.cost + Cost(passes, passes)
        values = {"loss": value, "rate": rate, "gradient_norm": float(norm), **{k: float(v) for k, v in log.items()}}
        if perturbed.gain is not None:
            values["attack_gain"] = float(perturbed.gain)
        self.log.add(step + 1, values)
        return value, rate

    def _batch(self, positions: npt.NDArray[np.int64], purpose: str, step: int, *, augmented: bool) -> Batch:
        pixels = self.images.pixels(self.used[positions])
        if augmented:
            pixels = augment(pixels, self.augmentation, numpy_stream(self.plan.seed, "augment", step))
        device = self.model.device
        floats = pixels.to(device, torch.float32).div_(255.0).contiguous(memory_format=torch.channels_last)
        return Batch(
            pixels=floats,
            labels=torch.from_numpy(self.labels[positions]).to(device),
            generator=torch_stream(self.plan.seed, purpose, step, device=device),
        )

    # -- trust --------------------------------------------------------------------------------------------------------

    def _check_first_step(self, batch: Batch, perturbed: Perturbed) -> None:
        """Refuse a method whose attack does not move, whose loss ignores it, or that trains nothing."""
        name = self.defence.name
        if self.defence.adversarial and self.defence.task.threat.eps > 0:
            if torch.equal(perturbed.pixels.detach(), batch.pixels):
                raise HierbenchError(f"{name}: the inner attack did not move the images")
            gradient = perturbed.pixels.grad
            if gradient is None or not bool(gradient.any()):
                raise HierbenchError(f"{name}: the loss does not depend on the adversarial images")
        for scope, group in self.weights.scopes.items():
            if not any(p.grad is not None and bool(p.grad.any()) for p in group.values()):
                raise HierbenchError(f"{name}: it says it trains {scope!r}, but its loss has no gradient there")

    def _check_moved(self) -> None:
        after = scope_digests(self.weights)
        for scope, digest in self.before.items():
            if after[scope] == digest:
                raise HierbenchError(f"{self.defence.name}: training did not move {scope!r}")
        if frozen_digest(self.model, self.weights) != self.frozen:
            raise HierbenchError(f"{self.defence.name}: a frozen weight moved during training")

    def summary(self) -> dict[str, Any]:
        """What the record says about the run itself."""
        recent = self.log.recent(points=max(1, len(self.log.points) // 10))
        return {
            "steps": self.step,
            "epochs": self.step / self.plan.per_epoch,
            "warmup_steps": self.warmup,
            "batch_size": self.plan.batch_size,
            "images": self.plan.images,
            "alpha": self.defence.inner_attack.alpha,
            "prepared": self.defence.state(),
            "head": self.model.head.config(),
            "trains": list(self.defence.trains),
            "trained_parameters": sum(p.numel() for p in self.weights.named.values()),
            "batch_norm": "statistics frozen, in the attack and in the weights' step",
            "batch_norms_folded_in_attack": len(self.folded),
            "seconds": round(self.seconds, 3),
            "resumes": self.resumes,
            "forwards": self.cost.forwards,
            "backwards": self.cost.backwards,
            "checks": {"frozen_unmoved": True, "trained_moved": True, "loss_uses_attack": self.defence.adversarial},
            "guards": self.defence.guards(self.model, recent),
            "curve": self.log.curve(),
        }


def _difference(theirs: object, ours: object) -> str:
    if isinstance(theirs, dict) and isinstance(ours, dict):
        for name in ours:
            if theirs.get(name) != ours[name]:
                return f"{name} was {theirs.get(name)!r}, is {ours[name]!r}"
    return f"was {str(theirs)[:60]}, is {str(ours)[:60]}"
