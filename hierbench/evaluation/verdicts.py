"""Verdicts of a run: arrays in memory, one Parquet row a sample on disk."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import NDArray

from hierbench.errors import HierbenchError
from hierbench.evaluation.storage import atomic_path

if TYPE_CHECKING:
    import pyarrow

Bools = NDArray[np.bool_]
Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

NO_PREDICTION = -1


class Columns:
    """Arrays over samples that are stored, joined and restored by field name; ``broken_direct`` may be missing."""

    def to_arrays(self) -> dict[str, NDArray[Any]]:
        """Return the arrays that are there, by name."""
        values = {f.name: getattr(self, f.name) for f in fields(self)}  # type: ignore[arg-type]
        return {name: value for name, value in values.items() if value is not None}

    @classmethod
    def from_arrays(cls, arrays: dict[str, NDArray[Any]]) -> Self:
        """Build from arrays by name; missing ones must be optional."""
        names = {f.name for f in fields(cls)}  # type: ignore[arg-type]
        return cls(**{name: value for name, value in arrays.items() if name in names})

    @classmethod
    def join(cls, parts: Sequence[Self]) -> Self:
        """Join chunks in order; what one of them lacks, the whole does."""
        arrays = [part.to_arrays() for part in parts]
        shared = [name for name in arrays[0] if all(name in a for a in arrays)]
        return cls.from_arrays({name: np.concatenate([a[name] for a in arrays]) for name in shared})

    def over(self, rows: Ints) -> Self:
        """Return some of the samples, by their places."""
        return type(self).from_arrays({name: values[rows] for name, values in self.to_arrays().items()})


@dataclass(frozen=True)
class CleanVerdicts(Columns):
    """The clean pass over n samples at D depths."""

    predicted: Ints
    """[n] predicted leaf; -1 where a logit was not finite."""
    broken_rollup: Bools
    """[n, D]: wrong at depth 1..D."""
    broken_direct: Bools | None = None
    """[n, D]; None for a model without node prompts."""
    logits: NDArray[np.float32] | None = None
    """[n, N], kept in the journal to save the attacks a forward; not part of the verdict file."""
    confidence: Floats | None = None
    """[n] probability of the predicted leaf; NaN where a logit was not finite."""


@dataclass(frozen=True)
class AttackVerdicts(Columns):
    """One attack aimed at one depth, over n samples; samples that it did not search keep their clean image."""

    predicted: Ints
    """[n] predicted leaf on the attacked image; -1 where a logit was not finite."""
    broken_rollup: Bools
    """[n, D] on the verified image."""
    searched: Bools
    """[n]: right at the attacked depth when clean, so attacked."""
    moved: Bools
    """[n]: some pixel changed."""
    unverified: Bools
    """[n]: the search saw a success that the separate fp32 forward did not confirm; it does not count."""
    linf: Floats
    """[n] largest pixel change."""
    l2: Floats
    """[n] Euclidean norm of the change."""
    steps: Ints
    """[n] gradient steps spent."""
    clean_loss: Floats
    """[n] attack loss of the clean image; NaN where not searched."""
    final_loss: Floats
    """[n] best attack loss reached; NaN where not searched."""
    full_budget: Bools
    """[n]: searched to the full budget, for severity."""
    severity_predicted: Ints
    """[n] predicted leaf at the end of the full budget; -1 elsewhere."""
    broken_direct: Bools | None = None
    """[n, D]; None for a model without node prompts."""
    severity_confidence: Floats | None = None
    """[n] probability of the leaf predicted at the end of the full budget; of the clean image's where the sample was
    not searched; NaN for samples without a full budget. An attack on the leaves has it, unless it edits prompts."""
    severity_overlap: Floats | None = None
    """[n] share of the five likeliest leaves then that are the backbone's on the clean image (intersection over
    union); NaN as above. None unless it was asked for."""


@dataclass(frozen=True)
class Verdicts:
    """All verdicts of one cell."""

    sample_ids: tuple[str, ...]
    labels: Ints
    clean: CleanVerdicts
    attacked: dict[int, AttackVerdicts]
    """By attacked depth."""

    @property
    def num_depths(self) -> int:
        """D: number of scored depths."""
        return int(self.clean.broken_rollup.shape[1])

    def over(self, rows: Ints) -> Verdicts:
        """Return the verdicts of some of the samples, by their places, in that order."""
        ids = tuple(self.sample_ids[row] for row in rows.tolist())
        attacked = {depth: attack.over(rows) for depth, attack in self.attacked.items()}
        return Verdicts(ids, self.labels[rows], self.clean.over(rows), attacked)

    def clean_broken(self, scoring: str) -> Bools | None:
        """Return the clean verdicts [n, D] under a scoring, or None."""
        return self.clean.broken_rollup if scoring == "rollup" else self.clean.broken_direct

    def attack_broken(self, depth: int, scoring: str) -> Bools | None:
        """Return the verdicts [n, D] of one attack under a scoring; a clean-wrong sample counts as broken."""
        attacked, clean = self.attacked[depth], self.clean_broken(scoring)
        broken = attacked.broken_rollup if scoring == "rollup" else attacked.broken_direct
        return None if broken is None or clean is None else np.asarray(broken | clean)


def to_table(verdicts: Verdicts) -> pyarrow.Table:
    """Return the verdicts as a table, one row a sample; columns are named after what they hold and the depths."""
    import pyarrow as pa

    columns: dict[str, Any] = {"sample_id": list(verdicts.sample_ids), "label": verdicts.labels}
    columns["clean_prediction"] = verdicts.clean.predicted
    if verdicts.clean.confidence is not None:
        columns["clean_confidence"] = _nullable(verdicts.clean.confidence)
    for scoring in ("rollup", "direct"):
        broken = verdicts.clean_broken(scoring)
        if broken is not None:
            columns |= {f"clean_broken_{scoring}_d{d + 1}": broken[:, d] for d in range(verdicts.num_depths)}
    for depth, attack in verdicts.attacked.items():
        prefix = f"attack_d{depth}_"
        columns[f"{prefix}prediction"] = attack.predicted
        for scoring, broken in (("rollup", attack.broken_rollup), ("direct", attack.broken_direct)):
            if broken is not None:
                columns |= {f"{prefix}broken_{scoring}_d{d + 1}": broken[:, d] for d in range(verdicts.num_depths)}
        for name in _PLAIN:
            columns[prefix + name] = getattr(attack, name)
        for name in ("clean_loss", "final_loss"):
            columns[prefix + name] = _nullable(getattr(attack, name))
        severity = attack.severity_predicted
        columns[f"{prefix}severity_prediction"] = pa.array(severity, mask=~attack.full_budget)
        for name in LEAVES:
            values = getattr(attack, name)
            if values is not None:
                columns[prefix + name] = _nullable(values)
    return pa.table(columns)


def _nullable(values: Floats) -> pyarrow.Array:
    import pyarrow as pa

    return pa.array(values, mask=~np.isfinite(values))


_PLAIN = ("searched", "moved", "unverified", "linf", "l2", "steps", "full_budget")
LEAVES = ("severity_confidence", "severity_overlap")
"""Columns of an attack on the leaves, where they are known."""


def write_verdicts(path: Path, verdicts: Verdicts) -> None:
    """Write the Parquet file: whole or not at all."""
    import pyarrow.parquet as pq

    table = to_table(verdicts)
    with atomic_path(path) as temporary:
        pq.write_table(table, temporary, compression="zstd")


def read_verdicts(path: Path) -> Verdicts:
    """Read a Parquet file of verdicts; a damaged one or one with missing columns raises ``HierbenchError``."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(path)
    except (OSError, pa.ArrowInvalid) as error:
        raise HierbenchError(f"verdicts {path}: not a readable Parquet file ({error})") from None
    try:
        return _from_table(table)
    except (KeyError, StopIteration) as error:
        raise HierbenchError(f"verdicts {path}: column {error} is missing") from None


def _from_table(table: pyarrow.Table) -> Verdicts:
    names = set(table.column_names)
    num_depths = sum(name.startswith("clean_broken_rollup_d") for name in names)

    def column(name: str) -> NDArray[Any]:
        return np.asarray(table.column(name).to_numpy())

    def block(prefix: str) -> Bools | None:
        if f"{prefix}1" not in names:
            return None
        return np.stack([column(f"{prefix}{d}").astype(bool) for d in range(1, num_depths + 1)], axis=1)

    def required(prefix: str) -> Bools:
        found = block(prefix)
        if found is None:
            raise KeyError(f"{prefix}1")
        return found

    clean = CleanVerdicts(
        predicted=column("clean_prediction"),
        broken_rollup=required("clean_broken_rollup_d"),
        broken_direct=block("clean_broken_direct_d"),
        confidence=column("clean_confidence") if "clean_confidence" in names else None,
    )
    depths = sorted(
        int(name[8:-11])
        for name in names
        if name.startswith("attack_d") and name.endswith("_prediction") and not name.endswith("_severity_prediction")
    )
    attacked = {}
    for depth in depths:
        prefix = f"attack_d{depth}_"
        severity = table.column(f"{prefix}severity_prediction").fill_null(NO_PREDICTION).to_numpy()
        attacked[depth] = AttackVerdicts(
            predicted=column(f"{prefix}prediction"),
            broken_rollup=required(f"{prefix}broken_rollup_d"),
            broken_direct=block(f"{prefix}broken_direct_d"),
            clean_loss=column(f"{prefix}clean_loss"),
            final_loss=column(f"{prefix}final_loss"),
            severity_predicted=severity,
            **{name: column(prefix + name) for name in _PLAIN},
            **{name: column(prefix + name) for name in LEAVES if prefix + name in names},
        )
    return Verdicts(tuple(table.column("sample_id").to_pylist()), column("label"), clean, attacked)
