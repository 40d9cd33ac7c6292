"""What a forger would do: change a package and make hashes, figures and headings agree again."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from safetensors import safe_open

from board.toy import edit_json, sign
from hierbench.datasets.catalogue import get_spec
from hierbench.datasets.seen import load_seen
from hierbench.evaluation import scores
from hierbench.evaluation.replay.tensors import Column, write_tensors
from hierbench.evaluation.storage import digest_file
from hierbench.evaluation.verdicts import read_verdicts
from hierbench.hierarchy.catalogue import load_hierarchy


def record_of(folder: Path, attack: str = "leaf_pgd") -> Path:
    (path,) = folder.glob(f"*.{attack}.*.json")
    return path


def images_of(record: Path) -> Path:
    return record.with_name(f"{record.stem}.images-8bit.safetensors")


def forge_record(folder: Path, change: Callable[[dict], object], attack: str = "leaf_pgd") -> Path:
    """Change a record, and its images' heading and the card to fit."""
    path = record_of(folder, attack)
    edit_json(path, change)
    reseal(folder, path)
    return path


def reseal(folder: Path, record: Path) -> None:
    content = json.loads(record.read_text(encoding="utf-8"))
    if images_of(record).exists():
        rewrite(
            images_of(record),
            heading=lambda h: h.update(
                identity=content["identity"], verdicts_sha256=digest_file(record.with_suffix(".parquet"))
            ),
        )
    sign(folder)


def rewrite(
    path: Path,
    *,
    tensors: Callable[[dict[str, np.ndarray]], object] = lambda t: None,
    heading: Callable[[dict], object] = lambda h: None,
) -> None:
    """Write a file of images anew, its checksum right."""
    with safe_open(str(path), framework="numpy") as opened:
        found = {name: opened.get_tensor(name).copy() for name in opened.keys()}  # noqa: SIM118
        metadata = dict(opened.metadata())
    tensors(found)
    content = json.loads(metadata["heading"])
    heading(content)
    path.unlink()
    columns = [Column.of(name, array) for name, array in found.items()]
    write_tensors(path, columns, {"format": metadata["format"], "heading": json.dumps(content)})


def forge_verdicts(
    folder: Path, change: Callable[[dict[str, list]], object], attack: str = "leaf_pgd", *, figures: bool = True
) -> Path:
    """Change verdicts by column; the record's hash and, with ``figures``, every figure follow."""
    path = record_of(folder, attack)
    parquet = path.with_suffix(".parquet")
    table = pq.read_table(parquet)
    columns = {name: table.column(name).to_pylist() for name in table.column_names}
    change(columns)
    arrays = {n: pa.array(v, type=table.schema.field(n).type) for n, v in columns.items()}
    pq.write_table(pa.table(arrays), parquet, compression="zstd")

    def follow(content: dict) -> None:
        content["verdicts"] |= {"sha256": digest_file(parquet), "rows": len(columns["label"])}
        if figures:
            content.update(figures_of(parquet, path))

    edit_json(path, follow)
    reseal(folder, path)
    return path


def figures_of(parquet: Path, record: Path) -> dict[str, Any]:
    verdicts, tree = read_verdicts(parquet), load_hierarchy("digits", "strokes")
    said = json.loads(record.read_text(encoding="utf-8"))
    pooled = said["identity"]["attack"]["pooled"]
    n = len(verdicts.sample_ids)
    found: dict[str, Any] = {
        "depths": scores.depth_scores(verdicts, tree, pooled=pooled),
        "transfer": () if pooled else scores.transfer_cells(verdicts),
        "mistakes": scores.tree_mistakes(verdicts, tree),
    }
    found = {name: [part.model_dump(mode="json") for part in parts] for name, parts in found.items()}
    spec, known = get_spec("digits"), set(load_seen("seen-v1").known("digits"))
    parts = {c: "trained" if c in known else "unseen" for c in spec.class_ids}
    seen = scores.seen_parts(verdicts, spec.class_ids, parts, "rollup")
    found["seen"] = [part.model_dump(mode="json") for part in seen]
    direct = scores.hca_direct(verdicts)
    found["hca_direct"] = None if direct is None else direct.model_dump(mode="json")
    searched = {str(d): int(a.searched.sum()) for d, a in verdicts.attacked.items()}
    found["counts"] = {**said["counts"], "declared": n, "scored": n, "attacked_per_depth": searched}
    return found
