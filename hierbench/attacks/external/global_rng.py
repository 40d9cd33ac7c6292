"""Global random generators, lent to a library that draws from them and given back as they were."""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch


@contextmanager
def preserved_rng() -> Iterator[None]:
    """Put the global generators of ``random``, NumPy and torch back on the way out, whatever happens inside.

    All of torch's are meant: the CPU's, and those of every accelerator that a ``torch.manual_seed`` reaches.
    METHODS.md 7.6.
    """
    python, legacy, cpu = random.getstate(), np.random.get_state(), torch.get_rng_state()
    # Asked for even where CUDA was never used: a seed set before its first use is kept, and applied then.
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
    mps = torch.mps.get_rng_state() if torch.backends.mps.is_available() else None
    try:
        yield
    finally:
        random.setstate(python)
        np.random.set_state(legacy)
        torch.set_rng_state(cpu)
        if cuda:
            torch.cuda.set_rng_state_all(cuda)
        if mps is not None:
            torch.mps.set_rng_state(mps)


def seed_everything(seed: int) -> None:
    """Seed the global generators with one number of up to 63 bits; only inside ``preserved_rng``."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)


def batch_seed(seed: int, *, dataset: str, attack: str, sample_ids: Sequence[str]) -> int:
    """Return 63 bits that depend on the run's seed and on what a batch holds, in order, and on nothing else.

    >>> batch_seed(0, dataset="digits", attack="PGD", sample_ids=["a", "b"])
    8656229205258742648
    """
    identity = json.dumps([seed, dataset, attack, list(sample_ids)]).encode()
    return int.from_bytes(hashlib.blake2b(identity, digest_size=8, person=b"hierbench").digest(), "little") >> 1
