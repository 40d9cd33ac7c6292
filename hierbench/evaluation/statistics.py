"""Intervals and paired tests over samples (METHODS.md section 4)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hierbench.errors import InputError


@dataclass(frozen=True, slots=True)
class Interval:
    """A closed interval."""

    low: float
    high: float


def wilson(count: int, of: int, *, confidence: float = 0.95) -> Interval:
    """Return the Wilson score interval of ``count`` successes in ``of`` trials, as fractions.

    Raises ``InputError`` unless 0 <= count <= of and of >= 1. Source: Wilson 1927.

    >>> interval = wilson(5, 10)
    >>> round(interval.low, 4), round(interval.high, 4)
    (0.2366, 0.7634)
    """
    if of < 1 or not 0 <= count <= of:
        raise InputError(f"an interval needs 0 <= count <= of and of >= 1, not {count} of {of}")
    z = _quantile(confidence)
    share = count / of
    scale = 1.0 / (1.0 + z * z / of)
    centre = scale * (share + z * z / (2 * of))
    half = scale * z * math.sqrt(share * (1 - share) / of + z * z / (4 * of * of))
    # at 0 and at all successes one end is exact, which rounding would miss by an ulp
    low = 0.0 if count == 0 else max(0.0, centre - half)
    high = 1.0 if count == of else min(1.0, centre + half)
    return Interval(low=min(low, share), high=max(high, share))


def _quantile(confidence: float) -> float:
    if not 0.0 < confidence < 1.0:
        raise InputError(f"confidence must lie between 0 and 1, not {confidence}")
    return NormalDist().inv_cdf(0.5 + confidence / 2)


@dataclass(frozen=True, slots=True)
class McNemar:
    """Exact McNemar test of two classifiers on the same samples."""

    only_first: int
    only_second: int
    p_value: float


def mcnemar(first: ArrayLike, second: ArrayLike) -> McNemar:
    """Return the exact two-sided McNemar test of two boolean vectors [n] of the same samples.

    The p value is that of a fair coin over the discordant pairs, 1 if there are none. Raises ``InputError`` on
    unequal lengths.
    """
    a, b = _paired(first, second)
    only_first = int(np.count_nonzero(a & ~b))
    only_second = int(np.count_nonzero(~a & b))
    discordant = only_first + only_second
    if discordant == 0:
        return McNemar(only_first, only_second, 1.0)
    from scipy.stats import binomtest

    p_value = float(binomtest(min(only_first, only_second), discordant, 0.5).pvalue)
    return McNemar(only_first, only_second, min(1.0, p_value))


def holm(p_values: Sequence[float]) -> tuple[float, ...]:
    """Return p values corrected for having been looked at together, in the given order.

    The smallest is multiplied by their number, the next by one less, and so on; a corrected value is never under one
    that was smaller, nor above 1. Source: Holm 1979.

    >>> [round(p, 3) for p in holm([0.01, 0.04, 0.03, 0.005])]
    [0.03, 0.06, 0.06, 0.02]
    """
    corrected = [0.0] * len(p_values)
    largest = 0.0
    for rank, i in enumerate(sorted(range(len(p_values)), key=lambda i: p_values[i])):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[i]))
        corrected[i] = largest
    return tuple(corrected)


@dataclass(frozen=True, slots=True)
class PairedDifference:
    """Mean difference first - second with its interval."""

    difference: float
    low: float
    high: float


def paired_bootstrap(
    first: ArrayLike, second: ArrayLike, *, draws: int = 10_000, confidence: float = 0.95, seed: int = 0
) -> PairedDifference:
    """Return the percentile bootstrap of mean(first) - mean(second) over samples [n] drawn together.

    Only the counts of the three possible differences matter, so a draw is one multinomial: exact, and quick for any
    n. Raises ``InputError`` on unequal lengths or none.
    """
    a, b = _paired(first, second)
    n = len(a)
    counts = np.array([np.count_nonzero(a & ~b), np.count_nonzero(~a & b)], dtype=np.int64)
    shares = np.array([counts[0], counts[1], n - counts.sum()]) / n
    drawn = np.random.default_rng(seed).multinomial(n, shares, size=draws)
    differences = (drawn[:, 0] - drawn[:, 1]) / n
    tail = (1 - confidence) / 2
    low, high = np.quantile(differences, [tail, 1 - tail])
    return PairedDifference(float((counts[0] - counts[1]) / n), float(low), float(high))


@dataclass(frozen=True, slots=True)
class SignFlip:
    """Mean difference first - second and the p value of there being none."""

    difference: float
    p_value: float


def sign_flip(first: ArrayLike, second: ArrayLike, *, draws: int = 20_000, seed: int = 0) -> SignFlip:
    """Return the two-sided paired permutation test of two vectors of values [n] of the same samples.

    If the two were alike, each sample's difference could as well have had the other sign; p is the share of random
    signs with a mean at least as far from 0, the observed one counted among them (Phipson and Smyth 2010). On
    verdicts it is McNemar's test. Raises ``InputError`` on unequal lengths or none.
    """
    a, b = np.asarray(first, dtype=np.float64), np.asarray(second, dtype=np.float64)
    if a.shape != b.shape or a.ndim != 1 or len(a) == 0:
        raise InputError(f"paired values must be two vectors of the same samples, not {a.shape} and {b.shape}")
    differences = a - b
    moved = np.abs(differences[differences != 0])
    observed = abs(differences.sum()) * (1 - 1e-12)  # the same sum in another order is as far
    generator = np.random.default_rng(seed)
    as_far = 0
    for start in range(0, draws, 1000):
        signs = generator.integers(0, 2, size=(min(1000, draws - start), len(moved)), dtype=np.int8) * 2 - 1
        as_far += int(np.count_nonzero(np.abs(signs @ moved) >= observed))
    return SignFlip(float(differences.mean()), (1 + as_far) / (1 + draws))


def smallest_detectable_mean(
    samples: int, deviation: float, *, power: float = 0.8, significance: float = 0.05
) -> float:
    """Return the smallest mean of paired differences that a two-sided test finds with the given power.

    ``deviation`` is the standard deviation of the differences: (z_a + z_b) deviation / sqrt(n), by the normal
    approximation.
    """
    if samples < 1 or deviation < 0:
        raise InputError("the smallest mean needs samples >= 1 and a deviation >= 0")
    quantile = NormalDist().inv_cdf
    return (quantile(1 - significance / 2) + quantile(power)) * deviation / math.sqrt(samples)


def smallest_detectable_difference(
    samples: int, discordant_share: float, *, power: float = 0.8, significance: float = 0.05
) -> float:
    """Return the smallest paired difference in accuracy that McNemar's test finds with the given power.

    ``discordant_share`` is the share of samples on which the two disagree. The difference d solves
    d sqrt(n) = z_a sqrt(s) + z_b sqrt(s - d^2) (Connor 1987); it cannot exceed s itself, so 1.0 is returned where even
    d = s is too small to be found.
    """
    if samples < 1 or not 0.0 <= discordant_share <= 1.0:
        raise InputError("the smallest difference needs samples >= 1 and a discordant share in [0, 1]")
    z_a = NormalDist().inv_cdf(1 - significance / 2)
    z_b = NormalDist().inv_cdf(power)
    share = discordant_share
    # squaring gives a quadratic in d: (n + z_b^2) d^2 - 2 sqrt(n) z_a sqrt(s) d + (z_a^2 - z_b^2) s = 0
    a = samples + z_b * z_b
    half_b = math.sqrt(samples) * z_a * math.sqrt(share)
    c = (z_a * z_a - z_b * z_b) * share
    difference = (half_b + math.sqrt(max(0.0, half_b * half_b - a * c))) / a
    return difference if difference <= share and share > 0 else 1.0


def _paired(first: ArrayLike, second: ArrayLike) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    a, b = np.asarray(first, dtype=bool), np.asarray(second, dtype=bool)
    if a.ndim != 1 or a.shape != b.shape or len(a) == 0:
        raise InputError(f"paired vectors must be of one length of at least 1, not {a.shape} and {b.shape}")
    return a, b
