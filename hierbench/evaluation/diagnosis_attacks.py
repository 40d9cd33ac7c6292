"""Checks by attacks: each compares two runs on the same samples, of which one cannot honestly be the weaker."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from hierbench.attacks.catalogue import ATTACKS
from hierbench.attacks.engine.attack import AttackResult, run_attack
from hierbench.attacks.threat import ThreatModel
from hierbench.evaluation.diagnosis_types import Budget, Check, Level, Points, Subject
from hierbench.evaluation.statistics import mcnemar

UNBOUNDED = 0.05
"""Robust share at an unbounded radius above which the attack, not the model, is what failed."""
GAP = 0.03
"""PGD's robust accuracy minus APGD's above which masking is suspected (METHODS.md 7.3)."""
ZERO = (0.05, 0.5)
"""Shares of gradients that are exactly zero from which on a check warns and fails."""
SLACK = 0.02
SIGNIFICANT = 0.05

Broken = NDArray[np.bool_]


def attack_checks(subject: Subject, budget: Budget, points: Points, tell: Callable[[str], None]) -> tuple[Check, ...]:
    """Return the checks of this file."""

    def run(name: str, threat: ThreatModel = subject.threat, **settings: int) -> AttackResult:
        tell(f"{name} at {threat.norm} {threat.eps}")
        return _attack(subject, name, threat, points, settings)

    few, some = max(1, budget.steps // 10), max(1, budget.steps * 2 // 5)
    pgd = {steps: run("superclass_pgd", steps=steps) for steps in (few, some, budget.steps)}
    apgd = run("apgd", steps=budget.steps, targets=budget.targets)
    smaller, larger = _scaled(subject.threat, Fraction(1, 2)), _scaled(subject.threat, Fraction(2))
    radii = {t.eps: run("apgd-ce", t, steps=budget.steps).verdict for t in (smaller, larger)}
    radii[subject.threat.eps] = apgd.clean_verdict | (apgd.verdict & (apgd.broken_by == 0))  # its first part alone
    size = math.prod(subject.images.shape[1:])
    free = run("apgd-ce", unbounded(subject.threat, size), steps=budget.steps)
    square = run("square", queries=budget.queries)
    white = np.logical_or.reduce([apgd.verdict, *(result.verdict for result in pgd.values())])
    return (
        _unbounded(free),
        monotone("monotone_eps", "eps", {str(eps): radii[eps] for eps in sorted(radii)}),
        monotone("monotone_steps", "steps", {str(steps): result.verdict for steps, result in pgd.items()}),
        _not_weaker("black_box", "square", square.verdict, white),
        _not_weaker("random_points", "random points", points.random_broken, white),
        _gap(pgd[some].verdict, apgd.verdict, steps=some),
        _zero_gradients([*pgd.values(), apgd]),
        _alive([*pgd.values(), apgd, square, free]),
    )


def unbounded(threat: ThreatModel, pixels: int) -> ThreatModel:
    """Return the threat model under which any image of so many pixels may become any other."""
    return ThreatModel(threat.norm, Fraction(1) if threat.norm == "linf" else Fraction(math.isqrt(pixels) + 1))


def _scaled(threat: ThreatModel, factor: Fraction) -> ThreatModel:
    eps = threat.eps * factor
    return ThreatModel(threat.norm, min(eps, Fraction(1)) if threat.norm == "linf" else eps)


def _attack(subject: Subject, name: str, threat: ThreatModel, points: Points, settings: dict[str, int]) -> AttackResult:
    plan = ATTACKS.get(name).plan(
        depth=subject.depth, layout=subject.layout, scoring=subject.scoring, settings=settings
    )
    return run_attack(
        subject.forward,
        subject.images,
        subject.labels,
        subject.ids,
        plan=plan,
        layout=subject.layout,
        threat=threat,
        depth=subject.depth,
        scoring=subject.scoring,
        batch_size=subject.batch_size,
        seed=subject.seed,
        dataset=subject.dataset,
        attack_name=name,
        clean_logits=points.clean_logits,
        device=subject.device,
    )


def _robust(broken: Broken) -> float:
    return 1.0 - float(broken.mean())


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def _unbounded(result: AttackResult) -> Check:
    robust = _robust(result.verdict)
    level: Level = "pass" if robust == 0 else "warn" if robust <= UNBOUNDED else "fail"
    said = {
        "pass": "with an unbounded radius nothing is left, as any image can become any other",
        "warn": "an unbounded radius leaves a few samples: the attack is not quite strong enough here",
        "fail": "samples survive although any image may become any other: the attack fails, the model is not robust",
    }
    return Check("unbounded_eps", level, f"{_percent(robust)} robust", said[level])


def monotone(name: str, what: str, runs: dict[str, Broken]) -> Check:
    """Hold broken [n] of runs against each other, each with more to work with: robust accuracy must not rise.

    A rise fails if the exact McNemar test finds it significant, and warns above 2 points and one sample.
    """
    order = list(runs.values())
    level: Level = "pass"
    for weaker, stronger in itertools.pairwise(order):
        rise = float(weaker.mean()) - float(stronger.mean())
        if rise > 0 and mcnemar(weaker, stronger).p_value < SIGNIFICANT:
            level = "fail"
        elif rise > max(SLACK, 1.5 / len(weaker)) and level == "pass":
            level = "warn"
    figures = ", ".join(f"{_percent(_robust(broken))} at {key}" for key, broken in runs.items())
    return Check(
        name,
        level,
        figures,
        f"more {what} never help the model"
        if level == "pass"
        else f"the model looks more robust with more {what}: the attack is led astray, as masked gradients do",
    )


def _not_weaker(name: str, other: str, broken: Broken, white: Broken) -> Check:
    """Attacks with gradients must break what an attack without them breaks, beyond noise."""
    alone = int((broken & ~white).sum())
    test = mcnemar(broken, white)
    stronger = float(broken.mean()) > float(white.mean())
    level: Level = "pass"
    if stronger and test.p_value < SIGNIFICANT:
        level = "fail"
    elif alone > max(1, GAP * len(white)):
        level = "warn"
    return Check(
        name,
        level,
        f"{_percent(_robust(broken))} robust, {_percent(_robust(white))} with gradients",
        f"what {other} found adds nothing, beyond chance, to what gradients found"
        if level == "pass"
        else f"{alone} samples fall to {other} and not to gradients: the gradients are masked",
    )


def _gap(pgd: Broken, apgd: Broken, *, steps: int) -> Check:
    gap = _robust(pgd) - _robust(apgd)
    wide = gap > GAP and int(apgd.sum()) - int(pgd.sum()) > 1
    return Check(
        "pgd_apgd_gap",
        "warn" if wide else "pass",
        f"{100 * gap:.1f} points",
        f"PGD with {steps} steps leaves over 3 points more than APGD on the same weights: PGD alone flatters this model"
        if wide
        else f"PGD with {steps} steps finds what APGD finds, to 3 points",
    )


def _zero_gradients(results: list[AttackResult]) -> Check:
    taken = sum(result.gradients for result in results)
    share = sum(result.zero_gradients for result in results) / taken if taken else 0.0
    level: Level = "pass" if share <= ZERO[0] else "warn" if share <= ZERO[1] else "fail"
    said = {
        "pass": "hardly a gradient is exactly zero, so that attacks have a slope to follow",
        "warn": "many gradients are exactly zero: a rounded or saturated loss hides slopes from attacks",
        "fail": "most gradients are exactly zero: attacks with gradients say nothing about this model",
    }
    return Check("zero_gradients", level, _percent(share), said[level])


def _alive(results: list[AttackResult]) -> Check:
    """Successes of the search that the verification did not confirm, and logits that were not finite on the way."""
    unverified = int(np.logical_or.reduce([result.unverified for result in results]).sum())
    nonfinite = int(np.logical_or.reduce([result.nonfinite for result in results]).sum())
    level: Level = "fail" if nonfinite else "warn" if unverified else "pass"
    said = {
        "pass": "every success was confirmed by a separate forward, and every logit on the way was finite",
        "warn": "a separate forward does not confirm some successes: the model does not answer the same way twice",
        "fail": "attacks met logits that are not finite: such samples count as broken, whatever the attack did",
    }
    return Check("confirmed", level, f"{unverified} unconfirmed, {nonfinite} not finite", said[level])
