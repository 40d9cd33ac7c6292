"""Run by ``test_kill``: one cell with the real engine, and a dot on stdout for every forward."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path

import torch

from evaluation.test_victim import engine_cell
from hierbench.evaluation.runner import run_cell
from hierbench.evaluation.victim import EngineVictim


def main(folder: Path) -> None:
    cell = engine_cell(folder)
    assert isinstance(cell.victim, EngineVictim)
    model = cell.victim.forward

    def telling(pixels: torch.Tensor) -> torch.Tensor:
        sys.stdout.write(".")
        sys.stdout.flush()
        return model(pixels)

    run_cell(dataclasses.replace(cell, victim=dataclasses.replace(cell.victim, forward=telling)))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
