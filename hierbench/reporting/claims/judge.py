"""When a claim has been shown, and when not: paired tests over samples, an interval over seeds, Holm over the table."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from hierbench.evaluation.statistics import (
    McNemar,
    SignFlip,
    holm,
    mcnemar,
    sign_flip,
    smallest_detectable_difference,
    smallest_detectable_mean,
)
from hierbench.reporting.claims.evidence import Evidence, Pair
from hierbench.reporting.claims.file import RANKS, Claim, ClaimsFile, Contrast

Verdict = Literal["held", "did not hold", "not shown", "not measured"]
SIGNIFICANCE = 0.05
MIN_SEEDS = 3


@dataclass(frozen=True)
class Finding:
    """A contrast and what the records say to it; differences are shares, first less second."""

    contrast: Contrast
    samples: int
    """Over which each seed was compared (the fewest)."""
    differences: tuple[float, ...]
    """One a seed that was measured."""
    tests: tuple[McNemar | SignFlip, ...]
    mean: float | None
    low: float | None
    high: float | None
    """95 % t-interval of the mean over the seeds; None for fewer than two."""
    p_value: float | None
    """The largest of the seeds' p values: all of them must show it. Exact McNemar, or a sign flip of ranks."""
    p_holm: float | None
    detectable: float | None
    """Smallest difference that one seed's test finds with a power of 80 %, at the seeds' mean rate of disagreement."""
    verdict: Verdict

    @property
    def seeds(self) -> int:
        """How many seeds were measured."""
        return len(self.differences)


@dataclass(frozen=True)
class Judged:
    """A claim with its findings."""

    claim: Claim
    findings: tuple[Finding, ...]

    @property
    def verdict(self) -> Verdict:
        """``held`` if all of it did; ``did not hold`` if some of it did not; else what kept it from being shown."""
        found = {finding.verdict for finding in self.findings}
        order: tuple[Verdict, ...] = ("did not hold", "not shown", "not measured")
        return next((verdict for verdict in order if verdict in found), "held")


def judge(claims: ClaimsFile, evidence: Evidence) -> tuple[Judged, ...]:
    """Return every claim of a file with its findings; Holm's correction is over all that were measured."""
    raw = [
        [_finding(contrast, evidence.pairs(contrast, claims.seeds)) for contrast in claim.contrasts]
        for claim in claims.claims
    ]
    measured = [finding for findings in raw for finding in findings if finding.p_value is not None]
    corrected = iter(holm([finding.p_value for finding in measured if finding.p_value is not None]))
    judged = []
    for claim, findings in zip(claims.claims, raw, strict=True):
        settled = []
        for finding in findings:
            done = finding if finding.p_value is None else replace(finding, p_holm=next(corrected))
            settled.append(replace(done, verdict=verdict_of(done)))
        judged.append(Judged(claim, tuple(settled)))
    return tuple(judged)


def _finding(contrast: Contrast, pairs: Sequence[Pair | None]) -> Finding:
    there = [pair for pair in pairs if pair is not None]
    if not there:
        return Finding(contrast, 0, (), (), None, None, None, None, None, None, "not measured")
    differences = tuple(float(np.mean(p.first) - np.mean(p.second)) for p in there)
    test = sign_flip if contrast.measure == RANKS else mcnemar
    tests = tuple(test(p.first, p.second) for p in there)
    low, high = _seed_interval(differences)
    return Finding(
        contrast=contrast,
        samples=min(len(p.first) for p in there),
        differences=differences,
        tests=tests,
        mean=float(np.mean(differences)),
        low=low,
        high=high,
        p_value=max(test.p_value for test in tests),
        p_holm=None,
        detectable=_detectable(there, contrast.measure),
        verdict="not shown",
    )


def _detectable(pairs: Sequence[Pair], measure: str) -> float:
    samples = min(len(pair.first) for pair in pairs)
    if measure == RANKS:
        deviation = float(np.mean([np.std(pair.first - pair.second, ddof=1) for pair in pairs]))
        return smallest_detectable_mean(samples, deviation)
    share = float(np.mean([np.mean(pair.first != pair.second) for pair in pairs]))
    return smallest_detectable_difference(samples, share)


def _seed_interval(differences: Sequence[float]) -> tuple[float | None, float | None]:
    """Return the 95 % t-interval of the mean over seeds, or (None, None) for fewer than two."""
    count = len(differences)
    if count < 2:
        return None, None
    from scipy.stats import t

    half = float(t.ppf(0.975, count - 1)) * float(np.std(differences, ddof=1)) / math.sqrt(count)
    mean = float(np.mean(differences))
    return mean - half, mean + half


def verdict_of(finding: Finding) -> Verdict:
    """Return the verdict on a finding whose ``p_holm`` is known.

    ``held``: three seeds or more, every one above 0, the interval over the seeds above ``least`` and the corrected p
    below 0.05. ``did not hold``: the same the other way round; an interval wholly below ``least``; or, short of that, a
    mean below 0 by more than one seed's test can find. What is neither is ``not shown``: too few seeds, seeds that
    disagree, a difference smaller than n could show, or one for the claim that the correction does not bear out.
    """
    if finding.mean is None or finding.p_holm is None:
        return "not measured"
    if finding.seeds < MIN_SEEDS or finding.low is None or finding.high is None:
        return "not shown"
    sure = finding.p_holm < SIGNIFICANCE
    if sure and all(d > 0 for d in finding.differences) and finding.low > finding.contrast.least:
        return "held"
    if sure and all(d < 0 for d in finding.differences) and finding.high < 0:
        return "did not hold"
    if 0 < finding.high < finding.contrast.least:
        return "did not hold"
    against = finding.mean < 0 and finding.detectable is not None and -finding.mean >= finding.detectable
    return "did not hold" if against else "not shown"
