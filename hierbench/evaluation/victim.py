"""The engine's attack on a bound model, chunk by chunk, as the runner asks for it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from time import perf_counter
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hierbench.attacks.catalogue import AttackSpec, Settings
from hierbench.attacks.engine.attack import Progress, Stage, run_attack
from hierbench.attacks.engine.batching import Cost, forward_rows
from hierbench.attacks.engine.result import AttackResult
from hierbench.attacks.engine.verify import judge
from hierbench.attacks.precision_names import SearchPrecision
from hierbench.attacks.spec import Runner
from hierbench.attacks.threat import ThreatModel
from hierbench.attacks.universal import Fitter, Given
from hierbench.attacks.verdict import Scoring
from hierbench.evaluation.cell import Chunk, Effort, StepReport
from hierbench.evaluation.leaves import top_overlap, top_probability
from hierbench.evaluation.replay.form import Form
from hierbench.evaluation.replay.keep import keep_images
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
    heights: NDArray[np.int64] | None = None
    """[C, C] heights of the leaves' lowest common ancestors, for attacks that read the tree's edges."""
    fitter: Fitter | None = None
    """For attacks with one perturbation for all images: fits it, once, on images that are not scored."""
    runner: Runner | None = None
    """Runs in place of a plan of stages, for an attack that is none."""
    search_precision: SearchPrecision = "fp32"
    """Of our engine's search; verdicts are read in float32 whatever it is."""
    search_forward: Callable[[Tensor], Tensor] | None = None
    """A quicker form of ``forward`` for a search in coarser arithmetic."""
    store_images: Form | None = None
    """How the adversarial images are kept; None keeps none."""
    reference: Callable[[Tensor], Tensor] | None = None
    """The undefended backbone's logits, whose order of the leaves is looked for in the attacked ones."""

    def refused_texts(self) -> dict[str, int] | None:
        """Return what became of a text attack's edits, by reason; None for an attack that edits nothing."""
        from hierbench.attacks.text.runner import PromptRunner

        return self.runner.refused() or None if isinstance(self.runner, PromptRunner) else None

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
            confidence=top_probability(logits, self.layout.num_leaves),
        )
        nonfinite = int(found.nonfinite.sum())
        return verdicts, Effort(forwards=cost.forwards, nonfinite=nonfinite, seconds=perf_counter() - began)

    def attack(
        self, chunk: Chunk, clean: CleanVerdicts, depth: int, report: StepReport
    ) -> tuple[AttackVerdicts, Effort]:
        """Attack a chunk at one depth; every random draw belongs to a sample, so chunks and batches do not matter."""
        told = 0
        pooled = self.spec.pools(self.scoring)
        # A pooled search ends at the coarsest mistake, and other libraries keep no image of the fullest one.
        in_full = self.spec.searches_in_full(self.scoring)
        full_budget = chunk.full_budget if in_full else np.zeros_like(chunk.full_budget)

        def progress(now: Progress) -> None:
            nonlocal told
            report(now.finished, now.survivors, now.forwards - told)
            told = now.forwards

        arguments: dict[str, Any] = {
            "forward": self.forward,
            "images": _in_unit_range(chunk.pixels),
            "labels": chunk.labels,
            "sample_ids": chunk.ids,
            "layout": self.layout,
            "threat": self.threat,
            "depth": depth,
            "scoring": self.scoring,
            "batch_size": self.batch_size,
            "seed": self.seed,
            "dataset": self.dataset,
            "clean_logits": None if clean.logits is None else torch.from_numpy(clean.logits),
            "device": self.device,
            "progress": progress,
        }
        plan: tuple[Stage, ...] = ()
        if self.runner is not None:
            result = self.runner({**arguments, "full_budget": full_budget})
        else:
            plan = self.spec.plan(
                depth=depth,
                layout=self.layout,
                scoring=self.scoring,
                settings=self.settings,
                heights=self.heights,
                bound=self.forward,
                fitter=self.fitter,
            )
            result = run_attack(
                **arguments,
                plan=plan,
                attack_name=self.spec.name,
                pooled=pooled,
                full_budget=full_budget,
                search_precision=self.search_precision,
                search_forward=self.search_forward,
            )
        severity = np.full(len(chunk.ids), NO_PREDICTION, dtype=np.int64)
        if result.severity is not None:
            severity = np.where(result.severity.mask, result.severity.predictions["rollup"][:, -1], NO_PREDICTION)
        clean_loss, final_loss = result.clean_loss, result.final_loss
        for stage in plan:
            if isinstance(stage.optimiser, Given):  # what it raised is a mean over the images it was fitted on
                clean_loss, final_loss = (
                    np.where(result.searched, mean, np.nan)
                    for mean in (stage.optimiser.fit.clean_loss, stage.optimiser.fit.loss)
                )
        leaves, extra = self._leaves(chunk, depth, full_budget, result)
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
            clean_loss=clean_loss.astype(np.float64),
            final_loss=final_loss.astype(np.float64),
            full_budget=full_budget,
            severity_predicted=severity,
            **leaves,
        )
        if self.store_images is not None:
            verdicts = keep_images(
                verdicts,
                result.adversarial,
                chunk.pixels,
                chunk.labels,
                form=self.store_images,
                forward=self.forward,
                layout=self.layout,
                threat=self.threat,
                batch_size=self.batch_size,
                clean_logits=result.clean_logits,
            )
        effort = Effort(
            forwards=result.forwards + extra,
            backwards=result.backwards,
            zero_gradients=result.zero_gradients,
            gradients=result.gradients,
            nonfinite=int(result.nonfinite.sum()),
            seconds=result.seconds,
        )
        if self.fitter is not None:
            spent, seconds = self.fitter.take_cost()
            effort += Effort(forwards=spent.forwards, backwards=spent.backwards, seconds=seconds)
        return verdicts, effort

    def _leaves(
        self, chunk: Chunk, depth: int, full_budget: NDArray[np.bool_], result: AttackResult
    ) -> tuple[dict[str, NDArray[np.float64]], int]:
        """Return what is kept of the leaves' probabilities at the end of the full budget, and the forwards it took."""
        if depth != self.layout.num_depths or self.runner is not None or not self.spec.searches_in_full(self.scoring):
            return {}, 0
        logits, severity = result.clean_logits, result.severity
        if severity is not None and severity.logits is not None:
            searched = torch.from_numpy(severity.mask).to(logits.device)
            logits = torch.where(searched[:, None], severity.logits.to(logits.device), logits)
        confidence = top_probability(logits, self.layout.num_leaves)
        found = {"severity_confidence": np.where(full_budget, confidence, np.nan)}
        if self.reference is None:
            return found, 0
        rows, cost = torch.from_numpy(np.flatnonzero(full_budget)), Cost()
        found["severity_overlap"] = np.full(len(full_budget), np.nan)
        if len(rows):
            pixels = _in_unit_range(chunk.pixels[rows])
            before = forward_rows(self.reference, pixels, batch_size=self.batch_size, device=self.device, cost=cost).to(
                logits.device
            )
            overlap = top_overlap(logits[rows.to(logits.device)], before, self.layout.num_leaves)
            found["severity_overlap"][rows.numpy()] = overlap
        return found, cost.forwards


def _in_unit_range(pixels: Tensor) -> Tensor:
    """Return uint8 pixels as float32 in [0, 1]."""
    return pixels.to(torch.float32) / 255.0
