"""The built-in data set: scikit-learn's handwritten digits on their own 8 x 8 grid."""

from __future__ import annotations

import hashlib

import numpy as np

from hierbench.datasets.images import ImageSet
from hierbench.datasets.sampling import stratified_order
from hierbench.datasets.spec import DatasetSpec

TEST_SIZE = 360


def load_digits_split(spec: DatasetSpec, split: str) -> ImageSet:
    """Return ``train`` (1,437) or ``test`` (360) of the 1,797 digits.

    The test split is the first 360 of the class-stratified permutation of all samples. Values k/16 are
    rounded onto the 8-bit grid (``round(x * 255 / 16)``): the raw ones lie off it.
    """
    from sklearn.datasets import load_digits

    bunch = load_digits()
    pixels = np.rint(bunch.images * (255.0 / 16.0)).astype(np.uint8)[:, None]
    labels = bunch.target.astype(np.int64)
    ids = tuple(f"digits/{row:04d}" for row in range(len(labels)))
    order = stratified_order(ids, labels)
    chosen = np.sort(order[:TEST_SIZE] if split == "test" else order[TEST_SIZE:])
    digest = hashlib.sha256(pixels.tobytes() + labels.tobytes()).hexdigest()
    whole = ImageSet(spec, split, f"sklearn:sha256:{digest}", ids, labels, pixels)
    return whole.take(chosen)
