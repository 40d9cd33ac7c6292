from __future__ import annotations

import hashlib

import numpy as np
import pytest
import torch

from hierbench.attacks.optimisers.noise import NoiseSource

SHAPE = (3, 5, 5)


def source(**changes: object) -> NoiseSource:
    given = {"seed": 0, "dataset": "digits", "attack": "leaf_pgd/pgd-leaf-ce", "sample_ids": ("a", "b", "c")}
    return NoiseSource(**{**given, **changes})


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_a_draw_belongs_to_its_sample_and_to_nothing_else(norm: str) -> None:
    together = source().rows([0, 1, 2], [0, 0, 0]).in_unit_ball(SHAPE, norm=norm)
    alone = source(sample_ids=("c", "x")).rows([0], [0]).in_unit_ball(SHAPE, norm=norm)
    backwards = source().rows([2, 0], [0, 0]).in_unit_ball(SHAPE, norm=norm)
    assert torch.equal(alone[0], together[2])
    assert torch.equal(backwards, together[[2, 0]])


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("change", [{"seed": 1}, {"dataset": "cifar10"}, {"attack": "other"}, {"sample_ids": ("A",)}])
def test_every_part_of_the_key_matters(norm: str, change: dict[str, object]) -> None:
    base = source().rows([0], [0]).in_unit_ball(SHAPE, norm=norm)
    other = source(**change).rows([0], [0]).in_unit_ball(SHAPE, norm=norm)
    assert float((base - other).abs().max()) > 0.05
    assert not torch.equal(base, source().rows([0], [1]).in_unit_ball(SHAPE, norm=norm))
    assert not torch.equal(base, source().rows([0], [0]).in_unit_ball(SHAPE, norm=norm, draw=1))


def test_parts_of_the_key_cannot_run_into_each_other() -> None:
    one = source(dataset="a", attack="b", sample_ids=('c", "d',)).bits(0, 0, count=1)
    two = source(dataset='a", "c', attack="d", sample_ids=("b",)).bits(0, 0, count=1)
    assert one != two


def test_draws_are_the_same_on_every_machine_and_version() -> None:
    bits = source().bits(0, 0, count=64)
    assert hashlib.sha256(bits.astype("<u8").tobytes()).hexdigest()[:16] == "136839216118e16b"
    cube = source().rows([0], [0]).in_unit_ball(SHAPE, norm="linf")
    assert hashlib.sha256(cube.numpy().astype("<f4").tobytes()).hexdigest()[:16] == "e0c0f375637a3496"


def test_linf_draws_are_uniform_and_never_zero() -> None:
    draw = source().rows([0], [0]).in_unit_ball((1, 200, 200), norm="linf").double().flatten()
    assert float(draw.abs().max()) < 1.0
    assert float(draw.abs().min()) > 0.0
    ranked = np.sort((draw.numpy() + 1) / 2)
    gap = np.abs(ranked - (np.arange(40_000) + 0.5) / 40_000).max()
    assert gap < 1.95 / np.sqrt(40_000)  # Kolmogorov-Smirnov at 0.1 %


def test_l2_draws_fill_the_ball_and_point_everywhere() -> None:
    ids = tuple(str(index) for index in range(500))
    draw = source(sample_ids=ids).rows(range(500), [0] * 500).in_unit_ball((1, 2, 2), norm="l2").double().flatten(1)
    length = draw.norm(dim=1)
    assert float(length.max()) <= 1.0 + 1e-6
    assert abs(float((length**4).mean()) - 0.5) < 0.06
    assert float(draw.mean(dim=0).abs().max()) < 0.09
    spread = (draw / length[:, None]).T.cov()
    assert torch.allclose(spread, torch.eye(4, dtype=torch.double) / 4, atol=0.05)


@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 1, 2), (1, 3, 3)])
@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_odd_sizes(shape: tuple[int, ...], norm: str) -> None:
    draw = source().rows([0, 1], [0, 3]).in_unit_ball(shape, norm=norm)
    assert draw.shape == (2, *shape)
    assert draw.dtype == torch.float32
