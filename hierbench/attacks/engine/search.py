"""One stage of an attack on one chunk: a batch of slots that stays full.

Each slot holds one run of one sample at its own step. A sample whose verdict breaks leaves at once and the next in
the queue takes its slot; when the queue is empty the batch shrinks down the ladder of sizes. The point after a
run's last step needs no gradient, so it waits for others like it and is evaluated in a batch of forwards alone.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hierbench.attacks.engine.batching import SMALLEST_BATCH, fitting_size
from hierbench.attacks.engine.chunk import Chunk, Progress
from hierbench.attacks.engine.ledger import Ledger
from hierbench.attacks.engine.passes import Passes, Point
from hierbench.attacks.engine.slots import Slots
from hierbench.attacks.objectives.base import UNUSED
from hierbench.attacks.objectives.restricted import RestrictedObjective
from hierbench.attacks.optimisers.base import Rows, Stage, Visit
from hierbench.attacks.optimisers.noise import NoiseSource
from hierbench.attacks.verdict import Criterion


@dataclass
class StageSearch:
    """Runs one stage over the samples that the ledger has left to do, and writes what it finds into the ledger."""

    chunk: Chunk
    ledger: Ledger
    stage: Stage
    index: int
    noise: NoiseSource
    passes: Passes
    _criterion: Criterion = field(init=False)
    _aims: Tensor = field(init=False)
    _wanted: NDArray[np.bool_] = field(init=False)
    _queue: deque[tuple[int, int]] = field(init=False)
    _slots: Slots | None = field(init=False, default=None)
    _ended: list[Slots] = field(init=False, default_factory=list)
    _finished: int = field(init=False)

    def __post_init__(self) -> None:
        chunk = self.chunk
        self._criterion = chunk.criterion.at(self.stage.depth or chunk.criterion.depth)
        self._aims = self.stage.objective.aims(chunk.clean_logits, chunk.labels, chunk.criterion.layout)
        made = (self._aims != UNUSED).any(dim=2).cpu().numpy()
        self._wanted = np.tile(made, (1, self.stage.restarts))
        todo = [int(sample) for sample in self.ledger.todo(self._criterion.depth)]
        firsts = [(sample, run) for sample in todo if (run := self._next_run(sample, 0)) is not None]
        self._finished = len(chunk.images) - len(firsts)
        self._queue = deque(firsts)

    def run(self) -> None:
        """Search until every sample is decided."""
        self._report()
        while True:
            if self._ended_count() and self._should_close():
                self._close_runs()
                self._report()
                continue
            self._refill()
            if self._slots is None:
                return
            self._step(self._slots)
            self._report()

    def _next_run(self, sample: int, first: int) -> int | None:
        """Return the sample's next run from ``first`` on, or None after the last."""
        left = np.flatnonzero(self._wanted[sample, first:])
        return first + int(left[0]) if len(left) else None

    # -- slots -----------------------------------------------------------------------------------------------

    def _live_count(self) -> int:
        return 0 if self._slots is None else self._slots.live_count

    def _ended_count(self) -> int:
        return sum(len(part) for part in self._ended)

    def _should_close(self) -> bool:
        """Whether the runs that wait for their last forward get it now.

        A full batch of them always does; fewer do when their samples' next runs are wanted to keep the slots full,
        or when nothing else is left.
        """
        ended = self._ended_count()
        if ended >= self.chunk.batch_size:
            return True
        if self._queue:
            return False
        return self._live_count() == 0 or (self._wanted.shape[1] > 1 and ended >= SMALLEST_BATCH)

    def _refill(self) -> None:
        """Give free slots to the queue; grow or shrink the batch to the size its rows need."""
        live = self._live_count()
        rows = min(self.chunk.batch_size, live + len(self._queue))
        if rows == 0:
            self._slots = None
            return
        size = fitting_size(rows, self.chunk.batch_size)
        coming = [self._queue.popleft() for _ in range(rows - live)]
        if self._slots is not None and len(self._slots) == size:
            if coming:
                free = np.flatnonzero(~self._slots.live)[: len(coming)]
                self._slots.put(free, self._new_rows(coming))
            return
        parts = []
        if live and self._slots is not None:
            parts.append(self._slots.take(np.flatnonzero(self._slots.live)))
        if coming:
            parts.append(self._new_rows(coming))
        self._slots = Slots.join(parts).padded(size)

    def _new_rows(self, coming: list[tuple[int, int]]) -> Slots:
        chunk = self.chunk
        sample = np.array([pair[0] for pair in coming], dtype=np.int64)
        run = np.array([pair[1] for pair in coming], dtype=np.int64)
        index = torch.from_numpy(sample)
        clean = chunk.images[index.to(chunk.images.device)].to(chunk.device)
        index = index.to(chunk.device)
        aim = torch.from_numpy(run % self._aims.shape[1]).to(chunk.device)
        noise = self.noise.rows(sample.tolist(), run.tolist())
        query, state = self.stage.optimiser.start(clean, chunk.threat, noise)
        count = len(coming)
        rows: Rows = {
            "clean": clean,
            "query": query,
            "aims": self._aims[index, aim],
            "label": chunk.labels[index],
            "true_node": self._criterion.true_node(chunk.labels[index]),
            "step": torch.zeros(count, dtype=torch.long, device=chunk.device),
            "best_image": query.clone(),
            "best_logits": torch.zeros(count, chunk.clean_logits.shape[1], device=chunk.device),
            "best_loss": torch.full((count,), -torch.inf, device=chunk.device),
            "best_breaks": torch.zeros(count, dtype=torch.bool, device=chunk.device),
            **{f"state.{name}": values for name, values in state.items()},
        }
        return Slots(rows, sample, run, np.zeros(count, dtype=np.int64), np.ones(count, dtype=np.bool_))

    # -- evaluation ------------------------------------------------------------------------------------------

    def _evaluate(self, slots: Slots, *, gradient: bool) -> Point:
        """Return what the queries gave, having noted which samples broke and which points are best."""
        chunk, rows, stage = self.chunk, slots.rows, self.stage
        found = self.passes.at(
            rows["query"], stage.objective, rows["aims"], gradient=gradient, eot=stage.eot, forward=stage.forward
        )
        if self.passes.rough:
            found = self._looked_at_again(slots, found)
        seen = found.logits[:, : rows["best_logits"].shape[1]]
        value, depth = found.loss, self._criterion.depth
        breaks, nonfinite = self._criterion.surely_broken(seen, rows["true_node"])
        if isinstance(stage.objective, RestrictedObjective):
            breaks = breaks & (stage.objective.lost(seen, rows["aims"], chunk.criterion.layout) | nonfinite)
        level = torch.where(breaks, depth, chunk.criterion.layout.num_depths + 1)
        if chunk.every_depth is not None:
            level = chunk.every_depth.level(seen, rows["label"])
        inside = rows.get("state.inside")
        if inside is not None:
            breaks, level = breaks & inside, torch.where(inside, level, chunk.criterion.layout.num_depths + 1)
            value = torch.where(inside, value, -torch.inf)
        # Once a point breaks the verdict, only breaking ones are better: the image kept for severity is a mistake.
        better = torch.where(breaks == rows["best_breaks"], value > rows["best_loss"], breaks)
        host = torch.stack([level, nonfinite.long(), better.long()]).cpu().numpy()
        levels, odd, improved = host[0], host[1] > 0, host[2] > 0
        point = {"image": rows["query"], "logits": seen.float(), "loss": value, "breaks": breaks}
        for name, new in point.items():
            if improved[slots.live].all():
                rows[f"best_{name}"] = new
            elif improved.any():
                shape = (-1,) + (1,) * (new.ndim - 1)
                rows[f"best_{name}"] = torch.where(better.view(shape), new, rows[f"best_{name}"])
        chunk.cost.padding += (len(slots) - slots.live_count) * (stage.eot if gradient else 1)
        self._note(slots, levels, odd & slots.live)
        return found

    def _looked_at_again(self, slots: Slots, found: Point) -> Point:
        """Return a coarse pass's point with the float32 logits of every row that would change a sample's verdict.

        Without it a sample could leave the search on a mistake that float32 does not make.
        """
        chunk, rows = self.chunk, slots.rows
        seen = found.logits[:, : rows["best_logits"].shape[1]]
        suspect, _ = self._criterion.broken(seen, rows["true_node"])
        if chunk.every_depth is not None:
            level = chunk.every_depth.level(seen, rows["label"])
            suspect = suspect | (level < torch.from_numpy(self.ledger.level[slots.sample]).to(level.device))
        places = torch.nonzero(suspect & torch.from_numpy(slots.live).to(suspect.device))[:, 0]
        if not len(places):
            return found
        logits = found.logits.clone()
        exact = self.passes.exact(rows["query"].index_select(0, places), forward=self.stage.forward)
        logits[places] = exact.to(logits.dtype)
        return found._replace(logits=logits)

    def _step(self, slots: Slots) -> None:
        """Evaluate every slot, let the broken leave, and move the rest one step."""
        chunk, rows, optimiser = self.chunk, slots.rows, self.stage.optimiser
        found = self._evaluate(slots, gradient=optimiser.uses_gradient)
        live = slots.live
        if not live.any():
            return
        gradient = torch.zeros_like(rows["query"]) if found.gradient is None else self._counted(found.gradient, live)
        visit = Visit(
            query=rows["query"],
            clean=rows["clean"],
            threat=chunk.threat,
            loss=found.loss,
            gradient=gradient,
            step=rows["step"],
            noise=self.noise.rows(slots.sample.tolist(), slots.run.tolist()),
        )
        known = {name.removeprefix("state."): rows[name] for name in rows if name.startswith("state.")}
        moved, state = optimiser.advance(visit, known)
        rows["query"] = moved
        rows.update({f"state.{name}": values for name, values in state.items()})
        rows["step"] = rows["step"] + 1
        slots.step += 1
        searching = slots.sample[live]
        self.ledger.steps_used[searching] += ~self.ledger.success[searching]
        over = slots.step >= optimiser.steps
        if "done" in state:
            over |= state["done"].cpu().numpy()
        ended = np.flatnonzero(live & over)
        if len(ended):
            self._ended.append(slots.take(ended))
            slots.live[ended] = False

    def _counted(self, gradient: Tensor, live: NDArray[np.bool_]) -> Tensor:
        """Return the gradient with entries that are not finite set to 0, and count what it is like.

        A NaN left in would turn the image itself into NaN, and a NaN image into a success that never was.
        """
        flat = gradient.flatten(1)
        peak = torch.maximum(flat.amax(dim=1), -flat.amin(dim=1))  # many times quicker than a norm; keeps NaN
        zero, odd = torch.stack([peak == 0, ~torch.isfinite(peak)]).cpu().numpy()
        if odd.any():
            gradient = gradient.nan_to_num(nan=0.0, posinf=0.0, neginf=0.0)
        count = self.chunk.gradients
        count.total += int(np.count_nonzero(live))
        count.zero += int(np.count_nonzero(zero & live))
        count.nonfinite += int(np.count_nonzero(odd & live))
        return gradient

    def _close_runs(self) -> None:
        """Evaluate the last points of up to a batch of runs, and end those runs."""
        batch = self.chunk.batch_size
        ended = Slots.join(self._ended)
        now = ended.take(np.arange(min(batch, len(ended))))
        later = np.arange(len(now), len(ended))
        self._ended = [ended.take(later)] if len(later) else []
        now = now.padded(fitting_size(len(now), batch))
        self._evaluate(now, gradient=False)
        still = np.flatnonzero(now.live)
        if not len(still):
            return
        runs = now.take(still)
        self.ledger.offer(
            runs.sample,
            runs.rows["best_image"],
            breaks=runs.rows["best_breaks"].cpu().numpy(),
            margins=self._criterion.margin(runs.rows["best_logits"], runs.rows["true_node"]).double().cpu().numpy(),
            stage=self.index,
            runs=runs.run,
        )
        for sample, run in zip(runs.sample.tolist(), runs.run.tolist(), strict=True):
            following = self._next_run(sample, run + 1)
            if following is not None:
                self._queue.append((sample, following))
            else:
                self._finished += 1

    def _note(self, slots: Slots, levels: NDArray[np.int64], odd: NDArray[np.bool_]) -> None:
        """Write new successes into the ledger; a slot is free once its depth broke, unless searched in full."""
        ledger = self.ledger
        ledger.nonfinite[slots.sample[odd]] = True
        coarser = np.flatnonzero(slots.live & (levels < ledger.level[slots.sample]))
        if len(coarser):
            index = torch.from_numpy(coarser).to(slots.rows["query"].device)
            images = slots.rows["query"].index_select(0, index)
            ledger.record_successes(
                slots.sample[coarser], images, levels=levels[coarser], stage=self.index, runs=slots.run[coarser]
            )
        broke = slots.live & (levels <= self._criterion.depth)
        leaving = np.flatnonzero(broke & ~ledger.full_budget[slots.sample])
        slots.live[leaving] = False
        self._finished += len(leaving)

    def _report(self) -> None:
        if self.chunk.progress is not None:
            self.chunk.progress(
                Progress(
                    samples=len(self.chunk.images),
                    finished=self._finished,
                    survivors=self.ledger.survivors(),
                    forwards=self.chunk.cost.forwards,
                )
            )
