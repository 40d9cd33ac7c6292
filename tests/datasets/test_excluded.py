"""Samples that are left out of a split, by a committed list."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from hierbench.datasets.excluded import load_exclusion
from hierbench.datasets.images import ImageSet
from hierbench.datasets.load import load_images
from hierbench.errors import InputError

NEAR = "near-duplicates-v1"


def test_left_out_samples_are_gone_and_the_others_keep_their_order() -> None:
    whole = load_images("digits")
    gone = set(whole.ids[3:40:5])
    rest = whole.leaving_out(gone, "samples of a test")
    assert rest.ids == tuple(sample for sample in whole.ids if sample not in gone)
    assert rest.notes == (*whole.notes, f"{len(gone)} of {len(whole)} samples left out: samples of a test")
    kept = [place for place, sample in enumerate(whole.ids) if sample not in gone]
    assert np.array_equal(rest.labels, whole.labels[kept]) and np.array_equal(rest.array, whole.array[kept])


def test_nothing_is_said_where_nothing_is_left_out() -> None:
    whole = load_images("digits")
    assert whole.leaving_out({"another/000001"}, "others") is whole
    assert load_images("digits", without=NEAR).ids == whole.ids


def test_an_unknown_list_is_refused_by_name() -> None:
    with pytest.raises(InputError, match=f"unknown list of left-out samples 'near': known are {NEAR}"):
        load_images("digits", without="near")


@pytest.mark.data
@pytest.mark.parametrize("key", sorted(load_exclusion(NEAR).samples))
def test_the_near_duplicates_are_samples_of_their_split(data_root: Path, key: str) -> None:
    dataset, _, split = key.partition("/")
    listed = load_exclusion(NEAR).ids(dataset, split)
    whole: ImageSet = load_images(dataset, split=split, root=data_root)
    assert listed and listed < set(whole.ids)
    rest = load_images(dataset, split=split, without=NEAR, root=data_root)
    assert set(rest.ids) == set(whole.ids) - listed
    assert f"{len(listed)} of {len(whole)} samples left out: near-duplicates of training images ({NEAR})" in rest.notes
    short = load_images(dataset, split=split, without=NEAR, limit=50, root=data_root)
    assert short.ids == rest.ids[:50], "left out first, then the limit"
