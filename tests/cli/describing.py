"""What the tests of description runs share."""

from __future__ import annotations

from pathlib import Path

import pytest

from cli.chat_server import KEY
from hierbench.datasets.catalogue import get_spec
from hierbench.datasets.describing.run import Describer, DescribeRequest
from hierbench.datasets.descriptions import Descriptions, load_descriptions
from hierbench.errors import HierbenchError

DIGITS = get_spec("digits")
NAMES = [c.name for c in DIGITS.classes]


def read(path: Path, at_least: int = 2) -> Descriptions:
    return load_descriptions("digits", DIGITS.class_ids, file=path, at_least=at_least)


def failure(request: DescribeRequest) -> str:
    """Run a request that fails and return its one line, which holds nothing of the key."""
    with pytest.raises(HierbenchError) as caught:
        Describer(request).run()
    line = str(caught.value)
    assert line.isprintable()
    assert KEY not in line and "SECRET" not in line
    assert caught.value.__suppress_context__ or caught.value.__context__ is None
    return line
