"""The loader's speed and memory on 50,000 JPEGs, by the benchmark that reports them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.slow
@pytest.mark.parametrize("images", [50_000])
def test_fifty_thousand_jpegs_stay_under_a_gigabyte(images: int, tmp_path: Path) -> None:
    out = tmp_path / "figures.json"
    command = [sys.executable, "benchmarks/image_loading.py", "--images", str(images), "--out", str(out)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=3000)
    assert done.returncode == 0, done.stderr
    figures = json.loads(out.read_text())
    assert figures["images"] == images
    # What the interpreter and torch hold before is not the iterator's, and differs from build to build.
    assert 0 <= figures["peak_bytes"] - figures["bytes_before"] < 500_000_000
