"""Fixtures all tests share."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from requiring import require_or_skip

# Small nets gain nothing from a second thread, and several workers would fight over the cores.
os.environ.setdefault("OMP_NUM_THREADS", "1")  # for the processes that tests start
torch.set_num_threads(1 if "PYTEST_XDIST_WORKER" in os.environ else min(2, os.cpu_count() or 1))


@pytest.fixture(scope="session")
def data_root() -> Path:
    """The folder of real image sets."""
    value = os.environ.get("HIERBENCH_DATA_ROOT")
    if not value or not Path(value).is_dir():
        require_or_skip("data", "no real images: HIERBENCH_DATA_ROOT is not set to a folder")
    assert value is not None
    return Path(value)


@pytest.fixture(scope="session")
def pdflatex() -> str:
    """The LaTeX that papers are set with."""
    import shutil

    found = shutil.which("pdflatex")
    if found is None:
        require_or_skip("latex", "no pdflatex: install texlive-latex-recommended")
    assert found is not None
    return found


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Keep decoded pixels and WordNet copies of a test run out of the user's cache."""
    if "HIERBENCH_CACHE" not in os.environ:
        os.environ["HIERBENCH_CACHE"] = str(tmp_path_factory.mktemp("cache"))


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Threads cost more than they bring on small tensors."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
