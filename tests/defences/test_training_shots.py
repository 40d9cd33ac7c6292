"""A few images of each class, drawn by the seed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from standin import digits_spec, small_images
from test_trainer import run

from hierbench.defences.training.trainer import draw_shots
from hierbench.errors import InputError


def uneven_images() -> Any:
    images = small_images(count=200)
    kept = np.concatenate([np.flatnonzero(images.labels == label)[: 6 + label] for label in range(10)])
    return images.take(np.random.default_rng(1).permutation(kept))


def test_shots_are_exactly_that_many_of_each_class_and_drawn_by_the_seed() -> None:
    images = uneven_images()
    drawn = draw_shots(images, range(10), shots=5, seed=0)
    assert np.bincount(images.labels[drawn]).tolist() == [5] * 10
    assert (np.diff(drawn) > 0).all()
    assert np.array_equal(drawn, draw_shots(images, range(10), shots=5, seed=0))
    assert not np.array_equal(drawn, draw_shots(images, range(10), shots=5, seed=1))
    # One class's draw does not depend on which others train, and more shots hold the fewer.
    some = draw_shots(images, (2, 7), shots=5, seed=0)
    assert np.array_equal(some, drawn[np.isin(images.labels[drawn], (2, 7))])
    assert set(draw_shots(images, range(10), shots=3, seed=0)) < set(drawn)
    even = small_images(count=200)
    drawn = draw_shots(even, range(10), shots=5, seed=0)
    assert len({tuple(drawn[even.labels[drawn] == label] - label) for label in range(10)}) == 10


@pytest.mark.parametrize("gone", [False, True])
def test_too_few_images_of_a_class_are_named(tmp_path: Path, gone: bool) -> None:
    images = uneven_images()
    if gone:
        images = images.take(np.flatnonzero(images.labels != 4))
    name, count = (digits_spec().classes[4].name, 0) if gone else (digits_spec().classes[0].name, 6)
    with pytest.raises(InputError, match=rf"shots = {5 if gone else 7}: class '{name}' has {count} training images"):
        run(tmp_path, "tecoa", images=images, recipe={"shots": 5 if gone else 7})
    run(tmp_path, "tecoa", images=images, classes=[5, 6, 7], recipe={"shots": 7, "steps": 1})


def test_only_the_shots_are_trained_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images = uneven_images()
    drawn: set[int] = set()
    pixels = type(images).pixels
    monkeypatch.setattr(
        type(images),
        "pixels",
        lambda self, indices: drawn.update(np.asarray(indices).tolist()) or pixels(self, indices),
    )
    result = run(tmp_path, "tecoa", images=images, recipe={"shots": 2, "batch_size": 10, "steps": 4})
    assert drawn == set(draw_shots(images, range(10), shots=2, seed=3).tolist())
    assert result.record["run"]["images"] == 20
