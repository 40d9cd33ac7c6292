"""The engine's attack on a bound model, chunk by chunk, as the runner asks for it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from time import perf_counter

import numpy as np
import torch
from torch import Tensor

from hierbench.attacks.batching import Cost, forward_rows
from hierbench.attacks.catalogue import AttackSpec, Settings
from hierbench.attacks.engine import Progress, run_attack
from hierbench.attacks.threat import ThreatModel
from hierbench.attacks.verdict import Scoring
from hierbench.attacks.verify import judge
from hierbench.evaluation.cell import Chunk, Effort, StepReport
from hierbench.evaluation.verdicts import NO_PREDICTION, AttackVerdicts, CleanVerdicts
from hierbench.models.layout import NodeLayout


@dataclass(frozen=True)
class EngineVictim:
    """A bound model and a named attack with its settings; ``forward`` maps pixels in [0, 1] to logits [B, N]."""

    forward: Callable[[Tensor], Tensor]
    layout: NodeLayout
    spec: AttackSpec
    settings: Settings
    threat: ThreatModel
    scoring: Scoring
    batch_size: int
    seed: int
    dataset: str
    device: torch.device

    def clean(self, chunk: Chunk) -> tuple[CleanVerdicts, Effort]:
        """Return the clean verdicts of a chunk under every scoring the model has."""
        began = perf_counter()
        cost = Cost()
        logits = forward_rows(
            self.forward, _in_unit_range(chunk.pixels), batch_size=self.batch_size, device=self.device, cost=cost
        )
        labels = torch.from_numpy(chunk.labels).to(self.device)
        found = judge(logits, labels, self.layout.to(self.device))
        direct = found.broken.get("direct")
        verdicts = CleanVerdicts(
            predicted=found.predictions["rollup"][:, -1].cpu().numpy(),
            broken_rollup=found.broken["rollup"].cpu().numpy(),
            broken_direct=None if direct is None else direct.cpu().numpy(),
            logits=logits.float().cpu().numpy(),
        )
        nonfinite = int(found.nonfinite.sum())
        return verdicts, Effort(forwards=cost.forwards, nonfinite=nonfinite, seconds=perf_counter() - began)

    def attack(
        self, chunk: Chunk, clean: CleanVerdicts, depth: int, report: StepReport
    ) -> tuple[AttackVerdicts, Effort]:
        """Attack a chunk at one depth; every random draw belongs to a sample, so chunks and batches do not matter."""
        told = 0

        def progress(now: Progress) -> None:
            nonlocal told
            report(now.finished, now.survivors, now.forwards - told)
            told = now.forwards

        result = run_attack(
            self.forward,
            _in_unit_range(chunk.pixels),
            chunk.labels,
            chunk.ids,
            plan=self.spec.plan(depth=depth, layout=self.layout, scoring=self.scoring, settings=self.settings),
            layout=self.layout,
            threat=self.threat,
            depth=depth,
            scoring=self.scoring,
            batch_size=self.batch_size,
            seed=self.seed,
            dataset=self.dataset,
            attack_name=self.spec.name,
            full_budget=chunk.full_budget,
            clean_logits=None if clean.logits is None else torch.from_numpy(clean.logits),
            device=self.device,
            progress=progress,
        )
        severity = np.full(len(chunk.ids), NO_PREDICTION, dtype=np.int64)
        if result.severity is not None:
            severity = np.where(result.severity.mask, result.severity.predictions["rollup"][:, -1], NO_PREDICTION)
        verdicts = AttackVerdicts(
            predicted=result.predictions["rollup"][:, -1],
            broken_rollup=result.broken["rollup"],
            broken_direct=result.broken.get("direct"),
            searched=result.searched,
            moved=result.moved,
            unverified=result.unverified,
            linf=result.linf,
            l2=result.l2,
            steps=result.steps_used,
            clean_loss=result.clean_loss.astype(np.float64),
            final_loss=result.final_loss.astype(np.float64),
            full_budget=chunk.full_budget,
            severity_predicted=severity,
        )
        effort = Effort(
            forwards=result.forwards,
            backwards=result.backwards,
            zero_gradients=result.zero_gradients,
            gradients=result.gradients,
            nonfinite=int(result.nonfinite.sum()),
            seconds=result.seconds,
        )
        return verdicts, effort


def _in_unit_range(pixels: Tensor) -> Tensor:
    """Return uint8 pixels as float32 in [0, 1]."""
    return pixels.to(torch.float32) / 255.0
