"""The fixture of tests on stored adversarial images."""

from __future__ import annotations

from pathlib import Path

import pytest
from cli import fake_model

from evaluation.replaying import OtherBound, OtherModel
from hierbench.evaluation import prepare


@pytest.fixture
def out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of results, and two models of different mind by name."""
    fake_model.install(monkeypatch)
    monkeypatch.setattr(prepare, "load_model", lambda entry, **_: OtherModel(entry.name))
    monkeypatch.setattr(prepare, "bind", lambda model, hierarchy, template: OtherBound(model, hierarchy))
    return tmp_path / "results"
