"""The runner with the real attack engine on a small linear model."""

from __future__ import annotations

import dataclasses
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch

from evaluation.toy_cell import LEVELS, toy_cell
from hierbench.attacks.catalogue import ATTACKS
from hierbench.attacks.threat import ThreatModel
from hierbench.evaluation.cell import Cell, Chunk
from hierbench.evaluation.runner import run_cell
from hierbench.evaluation.verdicts import read_verdicts
from hierbench.evaluation.victim import EngineVictim
from hierbench.models.layout import NodeLayout


def linear_model(seed: int = 0) -> torch.nn.Module:
    """Six logits (four leaves, two superclasses) that see the bright quadrant, and some noise beside it."""
    generator = torch.Generator().manual_seed(seed)
    weights = 0.02 * torch.randn(6, 64, generator=generator)
    for leaf in range(4):
        top, left = divmod(leaf, 2)
        mask = torch.zeros(8, 8)
        mask[4 * top : 4 * top + 4, 4 * left : 4 * left + 4] = 1.0
        weights[leaf] += mask.flatten()
        weights[4 + LEVELS[0][leaf]] += mask.flatten() * 0.7
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 6, bias=False))
    with torch.no_grad():
        model[1].weight.copy_(weights)
    return model.requires_grad_(False)


def engine_cell(folder: Path, *, attack: str = "superclass_pgd", scoring: str = "rollup", eps: str = "12/255",
                batch_size: int = 8, n: int = 48) -> Cell:  # fmt: skip
    cell = toy_cell(folder, n=n, eps=eps, batch_size=batch_size, scoring=scoring)
    spec = ATTACKS.get(attack)
    depths = spec.default_depths(2)
    identity = cell.identity.model_copy(
        update={"attack": cell.identity.attack.model_copy(update={"depths": depths, "name": attack})}
    )
    victim = EngineVictim(
        forward=linear_model(),
        layout=NodeLayout.from_levels(LEVELS, direct=True),
        spec=spec,
        settings=spec.settings({"steps": 5}),
        threat=ThreatModel("linf", Fraction(eps)),
        scoring=scoring,  # type: ignore[arg-type]
        batch_size=batch_size,
        seed=0,
        dataset="toyset",
        device=torch.device("cpu"),
    )
    return dataclasses.replace(cell, victim=victim, identity=identity)


@pytest.mark.parametrize("scoring", ["rollup", "direct"])
@pytest.mark.parametrize("attack", ["leaf_pgd", "superclass_pgd", "multilevel_pgd"])
def test_every_attack_runs_to_a_trusted_record(tmp_path: Path, attack: str, scoring: str) -> None:
    record = run_cell(engine_cell(tmp_path, attack=attack, scoring=scoring))
    assert not record.checks.failed, record.checks.flags
    attacked = [entry for entry in record.depths if entry.attacked]
    assert [entry.depth for entry in attacked] == ([2] if attack == "leaf_pgd" else [1, 2])
    for entry in attacked:
        scores = entry.rollup if scoring == "rollup" else entry.direct
        assert scores is not None and scores.robust is not None
        assert scores.robust.count < scores.clean.count, "the attack must break something here"
    assert 0 < record.checks.max_linf <= 12 / 255 + 1e-6
    assert record.cost.backwards > 0


def test_clean_verdicts_are_those_of_the_model(tmp_path: Path) -> None:
    cell = engine_cell(tmp_path)
    run_cell(cell)
    verdicts = read_verdicts(cell.verdicts_path)
    with torch.no_grad():
        logits = linear_model()(cell.images.pixels(np.arange(48)).float() / 255).numpy()
    assert verdicts.clean.predicted.tolist() == logits[:, :4].argmax(axis=1).tolist()
    assert verdicts.clean.broken_direct is not None
    direct = logits[:, 4:].argmax(axis=1) != np.array(LEVELS[0])[verdicts.labels]
    assert verdicts.clean.broken_direct[:, 0].tolist() == direct.tolist()


def test_the_model_gets_pixels_in_the_unit_range(tmp_path: Path) -> None:
    cell = engine_cell(tmp_path)
    assert isinstance(cell.victim, EngineVictim)
    seen: list[torch.Tensor] = []
    model = linear_model()

    def looking(pixels: torch.Tensor) -> torch.Tensor:
        seen.append(pixels.detach().clone())
        return model(pixels)

    images = cell.images.pixels(np.arange(8))
    images[0, 0, 0, 0], images[0, 0, 0, 1] = 0, 255
    chunk = Chunk(images, cell.images.labels[:8], cell.images.ids[:8], np.zeros(8, dtype=bool))  # type: ignore[arg-type]
    dataclasses.replace(cell.victim, forward=looking).clean(chunk)
    assert seen[0].dtype == torch.float32
    assert torch.equal(seen[0][:8], images.float() / 255)
    assert (float(seen[0].min()), float(seen[0].max())) == (0.0, 1.0)


def test_eps_zero_is_clean_and_eps_one_breaks_all(tmp_path: Path) -> None:
    nothing = run_cell(engine_cell(tmp_path / "0", eps="0"))
    everything = run_cell(engine_cell(tmp_path / "1", eps="1"))
    for still, moved in zip(nothing.depths, everything.depths, strict=True):
        assert still.rollup.worst == still.rollup.clean
        assert moved.rollup.worst.count == 0
    assert not nothing.checks.failed


def test_verdicts_hardly_depend_on_the_batch_size(tmp_path: Path) -> None:
    found = []
    for batch_size in (3, 7, 48):
        cell = engine_cell(tmp_path / str(batch_size), batch_size=batch_size)
        run_cell(cell)
        found.append(read_verdicts(cell.verdicts_path))
    for other in found[1:]:
        for depth in (1, 2):
            same = other.attacked[depth].broken_rollup == found[0].attacked[depth].broken_rollup
            assert same.mean() >= 0.999


def test_severity_is_of_the_full_budget_samples(tmp_path: Path) -> None:
    cell = engine_cell(tmp_path)
    record = run_cell(cell)
    assert [m.attack_depth for m in record.mistakes] == [None, 1, 2]
    assert [m.samples for m in record.mistakes] == [48, 10, 10]
    verdicts = read_verdicts(cell.verdicts_path)
    assert verdicts.attacked[1].full_budget.sum() == 10
    assert verdicts.attacked[1].full_budget[:10].all()


def test_interrupted_inside_the_engine_ends_with_the_same_verdicts(tmp_path: Path) -> None:
    reference = engine_cell(tmp_path / "whole")
    run_cell(reference)
    cell = engine_cell(tmp_path / "killed")
    victim = cell.victim
    assert isinstance(victim, EngineVictim)
    model, left = linear_model(), [40]

    def failing(pixels: torch.Tensor) -> torch.Tensor:
        left[0] -= 1
        if left[0] == 0:
            raise KeyboardInterrupt
        return model(pixels)

    with pytest.raises(KeyboardInterrupt):
        run_cell(dataclasses.replace(cell, victim=dataclasses.replace(victim, forward=failing)))
    record = run_cell(cell)
    assert record.cost.units_resumed > 0
    assert cell.verdicts_path.read_bytes() == reference.verdicts_path.read_bytes()
