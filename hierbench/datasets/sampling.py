"""Which samples a limit takes, and which are held out: rules without state, so that anyone gets the same lists."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

SAMPLING_RULE = "stratified-v1"
HELDOUT_SHARE = 0.1


def _keys(ids: Sequence[str], purpose: str) -> npt.NDArray[np.uint64]:
    digests = (hashlib.blake2b(f"{purpose}|{i}".encode(), digest_size=8).digest() for i in ids)
    return np.frombuffer(b"".join(digests), dtype=">u8").astype(np.uint64)


def _rank_in_class(keys: npt.NDArray[np.uint64], labels: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    order = np.lexsort((keys, labels))
    sorted_labels = labels[order]
    starts = np.flatnonzero(np.r_[True, sorted_labels[1:] != sorted_labels[:-1]])
    lengths = np.diff(np.r_[starts, len(order)])
    ranks = np.empty(len(order), dtype=np.int64)
    ranks[order] = np.arange(len(order)) - np.repeat(starts, lengths)
    return ranks


def stratified_order(ids: Sequence[str], labels: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Return a permutation of ``range(n)`` whose every prefix is spread evenly over the classes.

    Round r takes the r-th sample of each class, classes in a hashed order of the round; a class's own
    order is by hash of the sample id. A prefix of n is therefore a prefix of every longer one, and
    neither depends on the order of the source. ``ids`` must be unique, ``labels`` is [n].
    """
    if not len(ids):
        return np.zeros(0, dtype=np.int64)
    keys = _keys(ids, SAMPLING_RULE)
    ranks = _rank_in_class(keys, labels)
    return np.lexsort((keys, ranks)).astype(np.int64)


def heldout_mask(ids: Sequence[str], labels: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
    """Return bool [n]: the tenth of each class (rounded, at least one of ten) kept out of training."""
    keys = _keys(ids, "heldout-v1")
    ranks = _rank_in_class(keys, labels)
    counts = np.bincount(labels, minlength=int(labels.max(initial=0)) + 1)
    return ranks < np.round(counts[labels] * HELDOUT_SHARE)


def list_hash(ids: Sequence[str], labels: npt.NDArray[np.int64]) -> str:
    """Return the content hash of a sample list: ids and labels, in order."""
    digest = hashlib.sha256()
    for sample, label in zip(ids, labels.tolist(), strict=True):
        digest.update(f"{sample}\t{label}\n".encode())
    return f"sha256:{digest.hexdigest()}"
