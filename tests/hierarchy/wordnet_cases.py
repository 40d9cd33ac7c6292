"""What the WordNet tests share: the reader, or a skip, and the committed recipes with their class tables."""

from __future__ import annotations

import os
import warnings
from functools import lru_cache
from pathlib import Path
from typing import Any

import pytest

from hierbench.errors import InputError
from hierbench.hierarchy.class_table import LeafClass, read_class_table
from hierbench.wordnet import open_wordnet

ROOT = Path(__file__).parents[2]
RECIPES = sorted((ROOT / "hierarchies").glob("*/wordnet.recipe"))


@lru_cache(maxsize=1)
def _reader() -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # nltk says that this copy of WordNet has English only
        return open_wordnet()


def wordnet_or_skip() -> Any:
    """Return nltk's reader; without WordNet skip, or fail where ``HIERBENCH_REQUIRE`` names it."""
    try:
        return _reader()
    except InputError as error:
        if "wordnet" in os.environ.get("HIERBENCH_REQUIRE", "").split(","):
            pytest.fail(f"{error} (HIERBENCH_REQUIRE names 'wordnet')")
        pytest.skip(str(error))


def class_rows(dataset: str) -> tuple[LeafClass, ...]:
    return read_class_table(ROOT / "hierbench" / "datasets" / "classes" / f"{dataset}.tsv")
