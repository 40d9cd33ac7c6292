from __future__ import annotations

from pathlib import Path

import pytest
from sample_trees import Content, small_content


@pytest.fixture
def content() -> Content:
    return small_content()


@pytest.fixture
def tree_path(tmp_path: Path) -> Path:
    return tmp_path / "small.json"
