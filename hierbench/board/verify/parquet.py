"""A stranger's Parquet file of verdicts: its footer and types are looked at before a row of it is unpacked."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from hierbench.errors import HierbenchError, InputError
from hierbench.evaluation.records import Record
from hierbench.evaluation.verdicts import LEAVES, Verdicts, read_verdicts

if TYPE_CHECKING:
    import pyarrow.parquet as pq

MAX_ROWS = 2_000_000
MAX_UNPACKED = 1 << 30
MAX_FOOTER = 1 << 20
MAX_ID = 1000
_PLAIN = {
    "searched": "bool", "moved": "bool", "unverified": "bool", "linf": "double", "l2": "double", "steps": "int64",
    "full_budget": "bool", "clean_loss": "double", "final_loss": "double", "severity_prediction": "int64",
    "prediction": "int64",
}  # fmt: skip


def open_verdicts(path: Path, record: Record) -> Verdicts:
    """Return the verdicts beside a record; ``InputError`` for a file that is not exactly what the record announces.

    Rows, columns, types and unpacked sizes are judged by the footer, and the sample ids by their dictionary, before
    anything is unpacked: a few kilobytes can stand for terabytes.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        limits = {"thrift_string_size_limit": MAX_FOOTER, "thrift_container_size_limit": MAX_FOOTER}
        with pq.ParquetFile(path, **limits) as opened:
            _check_footer(path, opened.metadata, record)
            _check_columns(path, opened.schema_arrow, record)
        with pq.ParquetFile(path, read_dictionary=["sample_id"], **limits) as opened:
            _check_ids(path, opened)
        return read_verdicts(path)
    except (OSError, pa.ArrowException, OverflowError) as error:
        first = (str(error).splitlines() or ["no reason given"])[0][:120]
        raise InputError(f"{path}: not a readable Parquet file ({first})") from None
    except InputError:
        raise
    except HierbenchError as error:
        raise InputError(f"{path}: {error}") from None


def _check_footer(path: Path, footer: pq.FileMetaData, record: Record) -> None:
    rows = footer.num_rows
    if rows > MAX_ROWS or rows != record.verdicts.rows:
        raise InputError(f"{path}: {rows} rows, and the record announces {record.verdicts.rows} (verdicts.rows)")
    if footer.num_columns > 4096 or footer.num_row_groups > 1024:
        raise InputError(f"{path}: {footer.num_columns} columns in {footer.num_row_groups} parts are no verdicts")
    unpacked = 0
    for group in range(footer.num_row_groups):
        part = footer.row_group(group)
        for index in range(part.num_columns):
            column = part.column(index)
            unpacked += max(column.total_uncompressed_size, 0)
            if column.num_values > rows:
                raise InputError(f"{path}: a column announces {column.num_values} values for {rows} rows")
    if unpacked > MAX_UNPACKED:
        raise InputError(f"{path}: would unpack to {unpacked} bytes; verdicts have at most {MAX_UNPACKED}")


def wanted_columns(record: Record) -> dict[str, str]:
    """Return the columns that the verdicts of a record have, with their types."""
    depths = range(1, len(record.depths) + 1)
    scorings = [name for name in ("rollup", "direct") if getattr(record.depths[0], name) is not None]
    wanted = {"sample_id": "string", "label": "int64", "clean_prediction": "int64"}
    wanted |= {f"clean_broken_{scoring}_d{d}": "bool" for scoring in scorings for d in depths}
    for attacked in record.identity.attack.depths:
        prefix = f"attack_d{attacked}_"
        wanted |= {prefix + name: kind for name, kind in _PLAIN.items()}
        wanted |= {f"{prefix}broken_{scoring}_d{d}": "bool" for scoring in scorings for d in depths}
    return wanted


def possible_columns(record: Record) -> dict[str, str]:
    """Return the columns that a run of the engine adds, and the verdicts of others may lack, with their types."""
    leaf = len(record.depths)
    kept = [f"attack_d{leaf}_{name}" for name in LEAVES] if leaf in record.identity.attack.depths else []
    return dict.fromkeys(["clean_confidence", *kept], "double")


def _check_columns(path: Path, schema: Any, record: Record) -> None:
    wanted, possible = wanted_columns(record), possible_columns(record)
    found = {field.name: "string" if field.name == "sample_id" else str(field.type) for field in schema}
    if len(found) != len(schema.names):
        raise InputError(f"{path}: a column occurs twice")
    for name in [*wanted, *found]:
        if name not in found:
            raise InputError(f"{path}: column {name} is missing")
        kind = wanted.get(name) or possible.get(name)
        if kind is None:
            raise InputError(f"{path}: unknown column {name[:60]!r}")
        if found[name] != kind:
            raise InputError(f"{path}: column {name} is {found[name]}, and should be {kind}")


def _check_ids(path: Path, opened: pq.ParquetFile) -> None:
    """One long name in a dictionary stands for as many as there are rows: no name may be long."""
    import pyarrow.compute as pc

    for group in range(opened.num_row_groups):
        column = opened.read_row_group(group, columns=["sample_id"]).column("sample_id")
        for chunk in column.chunks:
            names = chunk.dictionary if hasattr(chunk, "dictionary") else chunk
            if len(names) and (pc.max(pc.binary_length(names)).as_py() or 0) > MAX_ID:
                raise InputError(f"{path}: column sample_id holds a name of more than {MAX_ID} bytes")


def unsound(verdicts: Verdicts, record: Record) -> list[str]:
    """Return what no run can have written: samples twice, labels of no leaf, numbers that are not finite."""
    found = []
    ids, leaves = verdicts.sample_ids, record.identity.hierarchy.leaves
    seen: set[str] = set()
    twice = next((i for i in ids if i in seen or seen.add(i)), None)  # type: ignore[func-returns-value]
    if None in ids or any(not i or not i.isprintable() for i in ids if i is not None):
        found.append("sample_id: a name is missing or cannot be printed")
    elif twice is not None:
        found.append(f"sample_id: sample {twice!r} occurs twice")
    if not _within(verdicts.labels, 0, leaves):
        found.append(f"label: not one of the {leaves} leaves")
    if not _within(verdicts.clean.predicted, -1, leaves):
        found.append(f"clean_prediction: not one of the {leaves} leaves")
    if not _are_shares(verdicts.clean.confidence):
        found.append("clean_confidence: not a probability")
    for depth, attack in verdicts.attacked.items():
        prefix = f"attack_d{depth}_"
        for name in LEAVES:
            if not _are_shares(getattr(attack, name)):
                found.append(f"{prefix}{name}: not within 0 and 1")
        for name in ("linf", "l2"):
            values = getattr(attack, name)
            if values.dtype.kind != "f" or not np.isfinite(values).all() or (values < 0).any():
                found.append(f"{prefix}{name}: holds NaN, infinity or a negative number")
        if not _within(attack.predicted, -1, leaves) or not _within(attack.severity_predicted, -1, leaves):
            found.append(f"{prefix}prediction: not one of the {leaves} leaves")
        if not _within(attack.steps, 0, 2**62):
            found.append(f"{prefix}steps: negative or missing")
    return found


def _are_shares(values: np.ndarray | None) -> bool:
    """Say whether all that are there lie within 0 and 1; a gap is no share and no fault."""
    return values is None or not np.any((values < 0) | (values > 1))


def _within(values: np.ndarray, low: int, high: int) -> bool:
    """Say whether all are whole numbers, low <= v < high; a column with a gap in it is none of those."""
    return values.dtype.kind == "i" and bool(((values >= low) & (values < high)).all())
