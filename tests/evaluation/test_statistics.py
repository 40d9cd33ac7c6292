from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest

from hierbench.errors import InputError
from hierbench.evaluation.statistics import (
    mcnemar,
    paired_bootstrap,
    sign_flip,
    smallest_detectable_difference,
    smallest_detectable_mean,
    wilson,
)


@given(st.integers(1, 5000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_wilson_equals_scipy(pair: tuple[int, int]) -> None:
    count, of = pair
    reference = binomtest(count, of).proportion_ci(confidence_level=0.95, method="wilson")
    interval = wilson(count, of)
    assert interval.low == pytest.approx(reference.low, abs=1e-12)
    assert interval.high == pytest.approx(reference.high, abs=1e-12)
    assert 0 <= interval.low <= count / of <= interval.high <= 1


@pytest.mark.parametrize("pair", [(1, 0), (-1, 4), (5, 4)])
def test_wilson_refuses_impossible_counts(pair: tuple[int, int]) -> None:
    with pytest.raises(InputError, match="0 <= count <= of"):
        wilson(*pair)


def test_mcnemar_equals_enumeration() -> None:
    """The p value is the share of all coin sequences at least as uneven as the one seen."""
    for only_first, only_second in itertools.product(range(6), range(6)):
        first = [True] * only_first + [False] * only_second + [True, False, False]
        second = [False] * only_first + [True] * only_second + [True, False, False]
        n = only_first + only_second
        uneven = abs(only_first - only_second)
        heads = [sum(coins) for coins in itertools.product((0, 1), repeat=n)]
        expected = sum(abs(2 * h - n) >= uneven for h in heads) / 2**n
        result = mcnemar(first, second)
        assert (result.only_first, result.only_second) == (only_first, only_second)
        assert result.p_value == pytest.approx(expected)


def test_mcnemar_refuses_unpaired() -> None:
    with pytest.raises(InputError, match="one length"):
        mcnemar([True], [True, False])


def test_bootstrap_equals_drawing_samples() -> None:
    """The multinomial shortcut has the distribution of the plain bootstrap over samples."""
    rng = np.random.default_rng(3)
    first, second = rng.random(200) < 0.7, rng.random(200) < 0.6
    result = paired_bootstrap(first, second, draws=20_000, seed=1)
    difference = first.astype(float) - second
    drawn = difference[rng.integers(0, 200, size=(20_000, 200))].mean(axis=1)
    low, high = np.quantile(drawn, [0.025, 0.975])
    assert result.difference == pytest.approx(difference.mean())
    assert result.low == pytest.approx(low, abs=0.01)
    assert result.high == pytest.approx(high, abs=0.01)


def test_bootstrap_of_equal_vectors_is_zero() -> None:
    same = np.array([True, False, True])
    assert paired_bootstrap(same, same) == paired_bootstrap(same, same, seed=9)
    assert paired_bootstrap(same, same).high == 0.0


@given(st.integers(30, 5000), st.floats(0.02, 1.0))
def test_smallest_difference_solves_its_equation(samples: int, share: float) -> None:
    d = smallest_detectable_difference(samples, share)
    if d == 1.0:
        return
    z_a, z_b = 1.959963984540054, 0.8416212335729143
    left = d * math.sqrt(samples)
    assert left == pytest.approx(z_a * math.sqrt(share) + z_b * math.sqrt(share - d * d), rel=1e-9)


def test_smallest_difference_has_its_power() -> None:
    samples, share = 900, 0.2
    d = smallest_detectable_difference(samples, share)
    rng = np.random.default_rng(0)
    shares = [(share + d) / 2, (share - d) / 2, 1 - share]
    drawn = rng.multinomial(samples, shares, size=2000)
    found = [binomtest(int(min(a, b)), int(a + b)).pvalue < 0.05 for a, b, _ in drawn]
    assert np.mean(found) == pytest.approx(0.8, abs=0.05)


def test_smallest_difference_says_when_there_is_none() -> None:
    assert smallest_detectable_difference(10, 0.01) == 1.0
    assert smallest_detectable_difference(10, 0.0) == 1.0


@pytest.mark.parametrize(("wins", "losses"), [(7, 1), (5, 4), (0, 3), (0, 0)])
def test_a_sign_flip_of_verdicts_is_mcnemars_test(wins: int, losses: int) -> None:
    first = np.array([True] * wins + [False] * losses + [True] * 20)
    second = np.array([False] * wins + [True] * losses + [True] * 20)
    found = sign_flip(first, second)
    assert found.p_value == pytest.approx(mcnemar(first, second).p_value, abs=0.012)
    assert found.difference == pytest.approx((wins - losses) / len(first))


def test_a_sign_flip_weighs_how_far_values_lie_apart() -> None:
    """All sixteen signs of four differences, by hand: only the observed sum and its mirror are as far from 0."""
    first, second = np.array([0.5, 0.4, 0.3, 0.2]), np.array([0.1, 0.1, 0.1, 0.1])
    assert sign_flip(first, second).p_value == pytest.approx(2 / 16, abs=0.01)
    assert sign_flip(second, first).difference == pytest.approx(-0.25)
    assert sign_flip(first, first).p_value == 1.0
    with pytest.raises(InputError, match="two vectors of the same samples"):
        sign_flip(first, second[:2])


def test_the_smallest_detectable_mean_is_found_with_its_power() -> None:
    deviation, n = 0.3, 60
    least = smallest_detectable_mean(n, deviation)
    drawn = np.random.default_rng(0).normal(least, deviation, size=(4000, n))
    found = np.abs(drawn.mean(axis=1)) / (deviation / math.sqrt(n)) > 1.959964
    assert found.mean() == pytest.approx(0.8, abs=0.02)
