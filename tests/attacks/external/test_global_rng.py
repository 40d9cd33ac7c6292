"""Global generators: given back bit for bit, whatever happened in between."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch

from hierbench.attacks.external.global_rng import batch_seed, preserved_rng, seed_everything


def draws() -> tuple[float, float, float]:
    return random.random(), float(np.random.rand()), float(torch.rand(1))


def start() -> tuple[float, float, float]:
    random.seed(5)
    np.random.seed(6)
    torch.manual_seed(7)
    return draws()


def test_the_next_draws_are_the_same_and_would_not_be_without() -> None:
    start()
    undisturbed = draws()
    start()
    with preserved_rng():
        seed_everything(0)
        draws()
        np.random.randn(3)  # leaves a cached Gaussian behind, part of the state too
    assert draws() == undisturbed
    start()
    seed_everything(0)
    assert all(one != other for one, other in zip(draws(), undisturbed, strict=True))


def test_they_come_back_after_an_error() -> None:
    start()
    undisturbed = draws()
    start()
    with pytest.raises(KeyboardInterrupt), preserved_rng():
        seed_everything(1)
        raise KeyboardInterrupt
    assert draws() == undisturbed


def test_the_legacy_gaussian_s_spare_value_is_kept() -> None:
    np.random.seed(3)
    np.random.randn()
    expected = np.random.get_state()
    with preserved_rng():
        seed_everything(2)
    after = np.random.get_state()
    assert after[3:] == expected[3:]
    assert expected[3] == 1


def test_seeding_fixes_all_three() -> None:
    with preserved_rng():
        seed_everything(2**62 + 1)
        first = draws()
        seed_everything(2**62 + 1)
        assert draws() == first


def test_a_batch_s_seed_depends_on_all_that_it_names() -> None:
    base = {"dataset": "digits", "attack": "PGD", "sample_ids": ["a", "b"]}
    seeds = {
        batch_seed(0, **base),
        batch_seed(1, **base),
        batch_seed(0, **{**base, "dataset": "cifar10"}),
        batch_seed(0, **{**base, "attack": "BIM"}),
        batch_seed(0, **{**base, "sample_ids": ["b", "a"]}),
        batch_seed(0, **{**base, "sample_ids": ["ab"]}),
    }
    assert len(seeds) == 6
    assert all(0 <= seed < 2**63 for seed in seeds)
