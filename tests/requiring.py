"""Tests that need what not every machine has."""

from __future__ import annotations

import os

import pytest


def require_or_skip(what: str, reason: str) -> None:
    """Skip with a reason; where ``HIERBENCH_REQUIRE`` names ``what``, fail instead."""
    if what in os.environ.get("HIERBENCH_REQUIRE", "").split(","):
        pytest.fail(f"{reason} (HIERBENCH_REQUIRE names {what!r})")
    pytest.skip(reason)
