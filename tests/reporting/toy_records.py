"""Records of toy models with verdicts beside them: other strengths of one small attack make other figures."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pandas
from evaluation.toy_cell import ToyVictim, toy_cell

from hierbench.evaluation.runner import run_cell
from hierbench.evaluation.storage import digest_bytes

HOSTILE = "=cmd|' /C calc'!A0 \\input{/etc/passwd} $x_1$ 100% a&b #1 ~^ <b> }{ [red]\x1b[31m\u202e é 模π\nnext"


class Choosy(ToyVictim):
    """Attacks every other sample as hard as it is told, the others hardly: two of them break different samples."""

    parity = 0

    def attack(self, chunk: Any, clean: Any, depth: int, report: Any) -> Any:
        hard, effort = super().attack(chunk, clean, depth, report)
        self.eps, kept = 1 / 255, self.eps
        soft, _ = super().attack(chunk, clean, depth, report)
        self.eps = kept
        chosen = np.array([int(name.rpartition("-")[2]) % 2 == self.parity for name in chunk.ids])
        one, two = hard.to_arrays(), soft.to_arrays()
        mixed = {n: np.where(chosen.reshape(-1, *[1] * (one[n].ndim - 1)), one[n], two[n]) for n in one}
        return type(hard).from_arrays(mixed), effort


def toy_record(
    folder: Path,
    model: str = "alpha",
    *,
    strength: float = 30,
    parity: int | None = None,
    attack: str = "first",
    defence: str = "none",
    scoring: str = "rollup",
    identity: dict[str, dict[str, Any]] | None = None,
    **cell: Any,
) -> Path:
    """Write a record with its verdicts and return its path; ``strength``: what the attack moves in 1/255."""
    made = toy_cell(folder, model=model, scoring=scoring, **cell)
    changes: dict[str, dict[str, Any]] = {
        "attack": {"name": attack},
        "model": {"defence": defence, "weights_hash": digest_bytes(model.encode())},
        **(identity or {}),
    }
    parts = {name: getattr(made.identity, name).model_copy(update=change) for name, change in changes.items()}
    where = f"{len(list(folder.rglob('*.json')))}"
    parts["cell"] = f"cell-{where}"
    new = made.identity.model_copy(update=parts)
    target = folder / where
    victim = ToyVictim(strength / 255) if parity is None else Choosy(strength / 255)
    if parity is not None:
        victim.parity = parity  # type: ignore[attr-defined]
    run_cell(dataclasses.replace(made, identity=new, victim=victim, folder=target))
    return next(target.rglob("*.json"))


def broken(path: Path, scoring: str, depth: int, aims: tuple[int, ...] | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Return (clean, worst) verdicts [n] straight from the Parquet file, with nothing of the package's own."""
    frame = pandas.read_parquet(path.with_suffix(".parquet"))
    clean = frame[f"clean_broken_{scoring}_d{depth}"].to_numpy()
    names = [c for c in frame if c.startswith("attack_d") and c.endswith(f"_broken_{scoring}_d{depth}")]
    if aims is not None:
        names = [c for c in names if int(c[8 : c.index("_", 8)]) in aims]
    worst = clean.copy()
    for name in names:
        worst |= frame[name].to_numpy()
    return clean, worst
