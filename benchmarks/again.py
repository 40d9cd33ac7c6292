"""Do the committed figures come out again? Cells drawn at random from the board are run anew, sample by sample.

The records of shipped models under attacks of our own engine are drawn from without replacement, by seed; each is run
with the words its record says it was given and as many threads, into a folder that is thrown away. A verdict is one
sample, attacked depth, scored depth and scoring. Writes ``leaderboard/measurements/again.json``:

    python benchmarks/again.py
    python benchmarks/again.py --table
"""

from __future__ import annotations

import random
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from measurement import done, keep, parser, read, source

from hierbench.evaluation.records import Record
from hierbench.evaluation.runner import evaluate
from hierbench.evaluation.stored import read_record, record_paths
from hierbench.evaluation.verdicts import Verdicts, read_verdicts
from hierbench.models.catalogue import MODELS

NAME = "again"
BOARD = Path("leaderboard/records")
WANTED = 0.995
"""Share of a cell's verdicts that must come out again."""


def main() -> None:
    made = parser(__doc__, NAME, cells="protocol/model/attack")
    made.set_defaults(seed=1)
    made.add_argument("--count", type=int, default=5, help="cells to draw")
    options = made.parse_args()
    record = read(options.out, options.seed, name=NAME, what="committed cells, run again")
    if options.table:
        print(render_table(record))
        return
    drawn = draw(options.seed, options.count)
    for path in drawn:
        cell = name_of(path)
        if options.force or not done(cell, {}, record):
            row = {"cell": cell, **run_again(path)}
            order = [old["cell"] for old in record["rows"]] + [name_of(p) for p in drawn]
            keep(row, record, options, order=order, summarise=lambda rows: [])
            print(f"{cell}: {row['agreement']:.4%} of {row['verdicts']} verdicts")


def draw(seed: int, count: int) -> list[Path]:
    """Return the records to run again; of the same board, a longer list begins with the shorter one."""
    paths = [path for path in record_paths(BOARD) if may_be_drawn(read_record(path))]
    random.Random(seed).shuffle(paths)
    return paths[:count]


def may_be_drawn(record: Record) -> bool:
    identity = record.identity
    return identity.model.name in MODELS and identity.attack.engine == "hierbench" and not identity.protocol.custom


def name_of(path: Path) -> str:
    return path.relative_to(BOARD).with_suffix("").as_posix()


def run_again(path: Path) -> dict[str, Any]:
    """Run a record's cell anew; return how many verdicts agree and how many images each run left robust."""
    record = read_record(path)
    given: dict[str, Any] = dict(record.arguments.given)
    settings = {key.removeprefix("settings."): given.pop(key) for key in list(given) if key.startswith("settings.")}
    torch.set_num_threads(record.environment.threads)
    with tempfile.TemporaryDirectory() as folder:
        found = evaluate(**given, settings=settings, out=folder)
        (verdicts,) = (read_verdicts(file) for file in Path(folder).rglob("*.parquet"))
    before = read_verdicts(path.with_name(record.verdicts.file))
    if found.identity.cell != record.identity.cell:
        raise SystemExit(f"{path}: the cell is another one here ({found.identity.cell})")
    same, total = agreement(before, verdicts)
    depth = record.depths[-1].depth
    return {
        "first_run": record.created,
        "second_run": found.created,
        "code_then": record.environment.code_hash,
        "code_now": found.environment.code_hash,
        "samples": len(before.sample_ids),
        "verdicts": total,
        "agreement": same / total,
        "robust": [robust_at(side, record.identity.attack.scoring, depth) for side in (before, verdicts)],
    }


def agreement(first: Verdicts, second: Verdicts) -> tuple[int, int]:
    """Return how many verdicts under attack agree, and of how many."""
    if first.sample_ids != second.sample_ids or set(first.attacked) != set(second.attacked):
        raise SystemExit("the two runs scored other samples or depths")
    same = total = 0
    for depth in first.attacked:
        for scoring in ("rollup", "direct"):
            one, other = (side.attack_broken(depth, scoring) for side in (first, second))
            if one is not None and other is not None:
                same += int(np.count_nonzero(one == other))
                total += one.size
    return same, total


def robust_at(verdicts: Verdicts, scoring: str, depth: int) -> int:
    parts = [verdicts.attack_broken(aimed, scoring) for aimed in verdicts.attacked]
    broken = np.logical_or.reduce([part[:, depth - 1] for part in parts if part is not None])
    return int(np.count_nonzero(~broken))


def render_table(record: dict[str, Any]) -> str:
    lines = ["| cell | n | first run | second run | verdicts that agree | robust at the leaves, then and now |",
             "|---|--:|---|---|--:|--:|"]  # fmt: skip
    for row in record["rows"]:
        then, now = row["robust"]
        cell = row["cell"].replace("|", "")
        lines.append(
            f"| `{cell}` | {row['samples']:,} | {row['first_run']} | {row['second_run']} "
            f"| {100 * row['agreement']:.2f} % of {row['verdicts']:,} | {then}, {now} |"
        )
    low = min((row["agreement"] for row in record["rows"]), default=1.0)
    verdict = "met by all" if low >= WANTED else "not met by all"
    lines += ["", f"Wanted: {100 * WANTED:.1f} % ({verdict}). The second run may be of later code. {source(record)}"]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
