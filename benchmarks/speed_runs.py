"""What the speed benchmark runs: both sides of every comparison, and what a run is reduced to."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import torch
from subjects import Subject, autoattack, foreign, ours
from torch import Tensor
from torch.nn.functional import cross_entropy

from hierbench.attacks.engine.result import AttackResult
from hierbench.attacks.external.pyautoattack import Budget

STEPS, TARGETS, PGD_STEPS = 100, 9, 20
EASY, HARD = Fraction(8, 255), Fraction(1, 255)


@dataclass(frozen=True)
class Side:
    """One run of one side.

    Args:
        seconds: wall-clock.
        forwards, backwards: images through the model.
        robust: how many stay robust, at each depth that was attacked, by the run at that depth.
        worst: the same by the worst of all runs; one search over all depths has no other.
    """

    seconds: float
    forwards: int
    backwards: int
    robust: tuple[int, ...]
    worst: tuple[int, ...]

    @staticmethod
    def of(results: Sequence[AttackResult], robust: Sequence[int], worst: Sequence[int] | None = None) -> Side:
        """Add up runs that belong together."""
        return Side(
            sum(result.seconds for result in results),
            sum(result.forwards for result in results),
            sum(result.backwards for result in results),
            tuple(robust),
            tuple(robust if worst is None else worst),
        )


@dataclass(frozen=True)
class Case:
    """One comparison: a name, and what makes one run of each side."""

    name: str
    ours: Callable[[], Side]
    theirs: Callable[[], Side]
    reference: str


def cases(undefended: Subject, robust: Subject, seed: int) -> list[Case]:
    """Return every comparison."""
    found = []
    for kind, subject, eps in (("undefended", undefended, EASY), ("robust", robust, HARD)):
        found += [
            Case(
                f"leaf/{kind}", bind(our_leaf, subject, eps, seed), bind(their_leaf, subject, eps, seed), "pyautoattack"
            ),
            Case(
                f"depths/{kind}",
                bind(our_depths, subject, eps, seed),
                bind(their_depths, subject, eps, seed),
                "pyautoattack",
            ),
            Overhead(subject, eps, seed).case(f"overhead/{kind}"),
            Case(f"pgd/{kind}", bind(our_pgd, subject, eps, seed), bind(their_pgd, subject, eps, seed), "torchattacks"),
        ]
    return found


def bind(
    run: Callable[[Subject, Fraction, int], Side], subject: Subject, eps: Fraction, seed: int
) -> Callable[[], Side]:
    return lambda: run(subject, eps, seed)


def our_leaf(subject: Subject, eps: Fraction, seed: int) -> Side:
    depth, settings = subject.layout.num_depths, {"steps": STEPS, "targets": TARGETS}
    result = ours(subject, "apgd", eps=eps, depth=depth, seed=seed, settings=settings)
    return Side.of([result], [survivors(result)])


def their_leaf(subject: Subject, eps: Fraction, seed: int) -> Side:
    result = their_apgd(subject, eps, subject.layout.num_depths, seed)
    return Side.of([result], [survivors(result)])


def our_depths(subject: Subject, eps: Fraction, seed: int) -> Side:
    depth, settings = subject.layout.num_depths, {"steps": STEPS, "targets": TARGETS}
    result = ours(subject, "multilevel_apgd", eps=eps, depth=depth, seed=seed, settings=settings)
    return Side.of([result], [int(column.sum()) for column in ~result.counted("rollup").T])


def their_depths(subject: Subject, eps: Fraction, seed: int) -> Side:
    """Attack every depth in full, one after another."""
    results = [their_apgd(subject, eps, depth, seed) for depth in range(1, subject.layout.num_depths + 1)]
    broken = np.any([result.counted("rollup") for result in results], axis=0)
    return Side.of(results, [survivors(result) for result in results], [int(column.sum()) for column in ~broken.T])


def their_apgd(subject: Subject, eps: Fraction, depth: int, seed: int) -> AttackResult:
    """Run apgd-ce and apgd-t; a depth of fewer than four nodes gets apgd-ce alone."""
    budget = Budget(steps=STEPS, restarts=1, targets=TARGETS)
    return autoattack(subject, ["apgd-ce", "apgd-t"], eps=eps, depth=depth, seed=seed, budget=budget)


def our_pgd(subject: Subject, eps: Fraction, seed: int) -> Side:
    depth, settings = subject.layout.num_depths, {"steps": PGD_STEPS}
    result = ours(subject, "leaf_pgd", eps=eps, depth=depth, seed=seed, settings=settings)
    return Side.of([result], [survivors(result)])


def their_pgd(subject: Subject, eps: Fraction, seed: int) -> Side:
    depth, settings = subject.layout.num_depths, {"steps": PGD_STEPS, "alpha": "eps/4"}
    result = foreign(subject, "PGD", eps=eps, depth=depth, seed=seed, settings=settings)
    return Side.of([result], [survivors(result)])


def survivors(result: AttackResult) -> int:
    return int((~result.verdict).sum())


class Overhead:
    """Our apgd-ce, and a loop that makes the very passes it made, in the same batch sizes, and nothing else."""

    def __init__(self, subject: Subject, eps: Fraction, seed: int) -> None:
        self.subject = subject
        self.eps = eps
        self.seed = seed
        self.passes: list[tuple[int, bool]] = []

    def case(self, name: str) -> Case:
        return Case(name, self.engine, self.bare, "bare loop")

    def engine(self) -> Side:
        passes: list[tuple[int, bool]] = []

        def forward(pixels: Tensor) -> Tensor:
            passes.append((len(pixels), pixels.requires_grad))
            return self.subject.forward(pixels)

        depth = self.subject.layout.num_depths
        settings = {"steps": STEPS}
        result = ours(
            self.subject, "apgd-ce", eps=self.eps, depth=depth, seed=self.seed, settings=settings, forward=forward
        )
        self.passes = passes
        return Side.of([result], [survivors(result)])

    def bare(self) -> Side:
        """Repeat the passes of the last ``engine``; the loss is the same, its gradient is thrown away."""
        if not self.passes:
            self.engine()
        subject = self.subject
        images, labels = subject.images.to(subject.device), torch.from_numpy(subject.labels).to(subject.device)
        rows = {size: torch.arange(size) % len(images) for size in {size for size, _ in self.passes}}
        parts = {size: (images[at], labels[at]) for size, at in rows.items()}
        backwards = 0
        began = time.perf_counter()
        for size, gradient in self.passes:
            batch, truth = parts[size]
            with torch.set_grad_enabled(gradient):
                query = batch.detach().requires_grad_(gradient)
                loss = cross_entropy(subject.forward(query), truth, reduction="sum")
            if gradient:
                torch.autograd.grad(loss, query)
                backwards += size
        return Side(time.perf_counter() - began, sum(size for size, _ in self.passes), backwards, (), ())
