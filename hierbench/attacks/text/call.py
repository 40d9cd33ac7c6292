"""One call of a text attack: the samples, the verdict, and what every kind of attack does with them."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hierbench.attacks.engine.batching import Cost, Forward, forward_rows
from hierbench.attacks.engine.chunk import Progress, ProgressCallback
from hierbench.attacks.engine.result import AttackResult
from hierbench.attacks.optimisers.base import Stage
from hierbench.attacks.text.outcome import AttackedLevel, TextOutcome
from hierbench.attacks.text.scoring import merged_logits, prompt_depth, reached, true_prompts
from hierbench.attacks.text.settings import TextSettings
from hierbench.attacks.threat import ThreatModel
from hierbench.attacks.verdict import Criterion

if TYPE_CHECKING:
    from hierbench.models.binding import BoundModel
    from hierbench.models.zeroshot import ZeroShotModel


@dataclass(frozen=True, eq=False, kw_only=True)
class Call:
    """What ``TextAttacker.run`` was given, on the device, and what it costs."""

    bound: BoundModel
    settings: TextSettings
    images: Tensor
    labels: Tensor
    sample_ids: tuple[str, ...]
    criterion: Criterion
    threat: ThreatModel
    batch_size: int
    seed: int
    dataset: str
    attack_name: str
    plan: tuple[Stage, ...]
    full_budget: NDArray[np.bool_]
    clean_logits: Tensor | None
    device: torch.device
    progress: ProgressCallback | None
    cost: Cost = field(default_factory=Cost)
    began: float = field(default_factory=time.perf_counter)

    @property
    def model(self) -> ZeroShotModel:
        """The model."""
        return self.bound.model

    @cached_property
    def prompts_at(self) -> int:
        """The depth whose prompts are attacked."""
        return prompt_depth(self.criterion.layout, self.criterion.depth, self.criterion.scoring)

    @cached_property
    def truth(self) -> Tensor:
        """Long [n]: each sample's node at that depth."""
        return true_prompts(self.labels, self.criterion.layout, self.prompts_at)

    @property
    def columns(self) -> slice:
        """The logit columns of that depth."""
        return slice(*self.criterion.layout.columns[self.prompts_at - 1])

    def rows(self, forward: Forward, images: Tensor) -> Tensor:
        """Return a forward's rows for images, in the fixed layout of batches, and count them."""
        return forward_rows(forward, images, batch_size=self.batch_size, device=self.device, cost=self.cost)

    def logits(self, images: Tensor, level: AttackedLevel) -> tuple[Tensor, Tensor]:
        """Return the logits [n, N] of images under the clean and under the attacked prompts, by one forward."""
        width = len(self.bound.points)

        def both(pixels: Tensor) -> Tensor:
            embedding = self.model.embed(pixels)
            clean = self.model.logits(embedding, self.bound.points)
            return torch.cat([clean, self.model.logits(embedding, level.points)], dim=1)

        seen = self.rows(both, images)
        clean = seen[:, :width]
        return clean, self.merged(clean, seen[:, width:], level)

    def merged(self, clean: Tensor, attacked: Tensor, level: AttackedLevel) -> Tensor:
        """Return logits [n, N] with the attacked prompts' columns [n, N_d] where this call's scope puts them."""
        return merged_logits(
            clean,
            attacked,
            changed=torch.from_numpy(level.changed).to(self.device),
            truth=self.truth,
            scope=self.settings.scope,
            columns=self.columns,
        )

    def reached(self, level: AttackedLevel) -> NDArray[np.bool_]:
        """Return bool [n]: whether a prompt that the sample's verdict reads was changed."""
        return reached(level, self.truth.cpu().numpy(), self.settings.scope)

    def outcome(self, level: AttackedLevel) -> TextOutcome:
        """Return what happened to the text."""
        return TextOutcome(
            component=level.component,
            scope=self.settings.scope,
            depth=level.depth,
            level=level,
            attackable=self.reached(level),
            linf=np.zeros(len(self.labels)),
            text_forwards=level.text_forwards,
        )

    def report(self, result: AttackResult) -> None:
        """Tell the caller that all samples are decided."""
        if self.progress is not None:
            survivors = int(np.count_nonzero(result.searched & ~result.verdict))
            self.progress(Progress(len(self.labels), len(self.labels), survivors, result.forwards))
