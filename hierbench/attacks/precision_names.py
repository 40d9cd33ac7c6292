"""What a search may compute in, by name. Nothing here imports torch."""

from __future__ import annotations

from typing import Literal

SearchPrecision = Literal["fp32", "tf32", "bf16"]

SEARCH_PRECISIONS: tuple[SearchPrecision, ...] = ("fp32", "tf32", "bf16")
"""From fine to coarse; verdicts are read in float32 whatever it is."""
