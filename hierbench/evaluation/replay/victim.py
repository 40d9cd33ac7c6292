"""Stored images in place of an attack: what a model says of them, as the runner asks for it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from time import perf_counter

import numpy as np
import torch
from numpy.typing import NDArray

from hierbench.attacks.engine.batching import Cost
from hierbench.attacks.engine.verify import verify
from hierbench.errors import HierbenchError
from hierbench.evaluation.cell import Chunk, Effort, StepReport
from hierbench.evaluation.replay.file import StoredImages
from hierbench.evaluation.replay.form import decode, in_unit_range, outside, pixel_digests
from hierbench.evaluation.verdicts import NO_PREDICTION, AttackVerdicts, Bools, CleanVerdicts, Ints
from hierbench.evaluation.victim import EngineVictim


@dataclass(frozen=True)
class ReplayVictim:
    """A bound model that is shown stored images; chunks are judged as the verification of an attack judges them."""

    base: EngineVictim
    stored: StoredImages

    def clean(self, chunk: Chunk) -> tuple[CleanVerdicts, Effort]:
        """Return the clean verdicts of a chunk."""
        return self.base.clean(chunk)

    def attack(
        self, chunk: Chunk, clean: CleanVerdicts, depth: int, report: StepReport
    ) -> tuple[AttackVerdicts, Effort]:
        """Judge the stored images of the attack aimed at a depth.

        Raises ``InputError`` naming the sample whose clean pixels are others than those attacked, or whose stored
        image is not finite, outside the box, or outside the ball.
        """
        began = perf_counter()
        base, stored = self.base, self.stored
        start, stop = self._rows(chunk)
        self._check_pixels(chunk, start, stop)
        images = decode(stored.deltas(depth, start, stop), chunk.pixels, form=stored.form)
        for sample, reason in zip(chunk.ids, outside(images, chunk.pixels, stored.threat), strict=True):
            if reason:
                stored.refuse(f"the image of sample {sample!r} at depth {depth} {reason}")
        if clean.logits is None:
            raise HierbenchError("a replay needs the clean logits")
        cost = Cost()
        labels = torch.from_numpy(chunk.labels).to(base.device)
        found = verify(
            base.forward,
            in_unit_range(chunk.pixels),
            images,
            labels,
            layout=base.layout.to(base.device),
            threat=stored.threat,
            batch_size=base.batch_size,
            clean_logits=torch.from_numpy(clean.logits).to(base.device),
            cost=cost,
        )
        judged = found.judgement
        direct = judged.broken.get("direct")
        linf, l2 = found.linf.numpy(), found.l2.numpy()
        verdicts = judged_images(
            predicted=judged.predictions["rollup"][:, -1].cpu().numpy(),
            broken_rollup=judged.broken["rollup"].cpu().numpy(),
            broken_direct=None if direct is None else direct.cpu().numpy(),
            searched=right_when_clean(clean, stored, depth),
            linf=linf,
            l2=l2,
        )
        report(len(chunk.ids), int(np.count_nonzero(~verdicts.broken_rollup[:, depth - 1])), cost.forwards)
        nonfinite = int(judged.nonfinite.sum())
        return verdicts, Effort(forwards=cost.forwards, nonfinite=nonfinite, seconds=perf_counter() - began)

    @cached_property
    def _places(self) -> dict[str, int]:
        return {sample: row for row, sample in enumerate(self.stored.ids)}

    def _rows(self, chunk: Chunk) -> tuple[int, int]:
        start = self._places.get(chunk.ids[0], -1)
        stop = start + len(chunk.ids)
        if start < 0 or self.stored.ids[start:stop] != chunk.ids:
            self.stored.refuse(f"it does not hold the samples from {chunk.ids[0]!r} on in the order of the list")
        return start, stop

    def _check_pixels(self, chunk: Chunk, start: int, stop: int) -> None:
        same = (pixel_digests(chunk.pixels) == self.stored.digests[start:stop]).all(axis=1)
        if not same.all():
            sample = chunk.ids[int(np.flatnonzero(~same)[0])]
            data = self.stored.identity.dataset
            self.stored.refuse(
                f"sample {sample!r} has other pixels here than those attacked ({data.name} {data.split}, revision "
                f"{data.revision}): give the same data with --data-root"
            )


def right_when_clean(clean: CleanVerdicts, stored: StoredImages, depth: int) -> Bools:
    """Return bool [n]: what an attack of this kind would have searched on the model of these clean verdicts."""
    attack = stored.identity.attack
    broken = clean.broken_rollup if attack.scoring == "rollup" else clean.broken_direct
    if broken is None:
        stored.refuse(f"the attack aimed at {attack.scoring} verdicts, which this model does not have")
    return np.asarray(~broken[:, 0 if attack.pooled else depth - 1])


def judged_images(
    *,
    predicted: Ints,
    broken_rollup: Bools,
    broken_direct: Bools | None,
    searched: Bools,
    linf: NDArray[np.float64] | None = None,
    l2: NDArray[np.float64] | None = None,
) -> AttackVerdicts:
    """Return verdicts on images that came from elsewhere: no step was made, so there is no loss and no severity."""
    n = len(predicted)
    zeros, nan = np.zeros(n), np.full(n, np.nan)
    return AttackVerdicts(
        predicted=predicted,
        broken_rollup=broken_rollup,
        broken_direct=broken_direct,
        searched=searched,
        moved=np.zeros(n, dtype=np.bool_) if linf is None else np.asarray(linf > 0),
        unverified=np.zeros(n, dtype=np.bool_),
        linf=zeros if linf is None else linf,
        l2=zeros if l2 is None else l2,
        steps=np.zeros(n, dtype=np.int64),
        clean_loss=nan,
        final_loss=nan,
        full_budget=np.zeros(n, dtype=np.bool_),
        severity_predicted=np.full(n, NO_PREDICTION, dtype=np.int64),
    )
