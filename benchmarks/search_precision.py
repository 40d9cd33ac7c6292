"""Is a search in bf16 as strong as one in float32, and how much quicker? The worst case over all depths, both ways.

Each cell is ``hierbench eval --attack multilevel_apgd`` twice, one after the other, in processes of their own, with
``--search-precision fp32`` and ``bf16``; verdicts are float32's either way, and are compared sample by sample. Writes
``leaderboard/measurements/search_precision.json``:

    python benchmarks/search_precision.py
    python benchmarks/search_precision.py --table
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from measurement import keep, missing, parser, read, source

from hierbench.evaluation.records import Record
from hierbench.evaluation.statistics import mcnemar
from hierbench.evaluation.stored import read_record
from hierbench.evaluation.verdicts import Bools, read_verdicts

NAME = "search_precision"
CELLS = (
    "tecoa.digits/digits", "hier_aft.digits/digits", "clip/cifar100", "tecoa.tiny/cifar100", "hier_aft.tiny/cifar100",
    "fare.tiny/cifar100",
)  # fmt: skip


def main() -> None:
    made = parser(__doc__, NAME, cells="model/data set, such as tecoa.*/cifar100")
    made.set_defaults(limit=300)
    options = made.parse_args()
    record = read(options.out, options.seed, name=NAME, what="worst case over all depths, searched in bf16 and float32")
    if options.table:
        print(render_table(record))
        return
    wanted = {"limit": options.limit, "threads": options.threads, "device": options.device}
    for cell in missing(CELLS, wanted, record, options):
        model, dataset = cell.split("/")
        row = {"cell": cell, **wanted, **measure(model, dataset, options.limit, options.threads, options.device)}
        keep(row, record, options, order=CELLS, summarise=lambda rows: [])
        print(f"{cell}: {row['fp32']['robust']} in float32, {row['bf16']['robust']} in bf16, of {row['n']}")


def measure(model: str, dataset: str, limit: int, threads: int, device: str) -> dict[str, Any]:
    found: dict[str, tuple[Record, Bools]] = {}
    for precision in ("fp32", "bf16"):
        with tempfile.TemporaryDirectory() as folder:
            words = ["eval", "--model", model, "--dataset", dataset, "--attack", "multilevel_apgd", "--out", folder]
            words += ["--limit", str(limit), "--device", device, "--search-precision", precision, "--quiet"]
            environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
            command = [sys.executable, "-m", "hierbench", *words]
            subprocess.run(command, env=environment, check=True, stdout=subprocess.DEVNULL)
            (path,) = Path(folder).glob("*/*/*.json")
            record = read_record(path)
            verdicts = read_verdicts(path.with_name(record.verdicts.file))
            broken = verdicts.attack_broken(verdicts.num_depths, "rollup")
            assert broken is not None
            found[precision] = record, ~broken
    one, other = found["fp32"][1], found["bf16"][1]
    tests = [mcnemar(one[:, depth], other[:, depth]) for depth in range(one.shape[1])]
    row: dict[str, Any] = {"n": len(one), "eps": found["fp32"][0].identity.attack.eps}
    row["weights_hash"] = found["fp32"][0].identity.model.weights_hash
    for precision, (record, right) in found.items():
        row[precision] = {
            "robust": right.sum(axis=0).tolist(),
            "seconds": round(record.cost.seconds, 1),
            "forwards": record.cost.forwards,
            "backwards": record.cost.backwards,
        }
    row["only_fp32_robust"] = [test.only_first for test in tests]
    row["only_bf16_robust"] = [test.only_second for test in tests]
    row["p"] = [round(test.p_value, 4) for test in tests]
    return row


def render_table(record: dict[str, Any]) -> str:
    lines = [
        "| model | data set, eps | robust by depth, float32 | robust by depth, bf16 | only float32 robust | only bf16 "
        "robust | smallest p | seconds, bf16 / float32 | n |",
        "|---|---|---|---|---|---|--:|--:|--:|",
    ]
    for row in record["rows"]:
        model, _, dataset = row["cell"].partition("/")
        counts = [", ".join(map(str, values)) for values in (
            row["fp32"]["robust"], row["bf16"]["robust"], row["only_fp32_robust"], row["only_bf16_robust"]
        )]  # fmt: skip
        ratio = row["bf16"]["seconds"] / row["fp32"]["seconds"]
        lines.append(
            f"| {model} | {dataset}, {row['eps']} | {' | '.join(counts)} | {min(row['p']):.2f} | {ratio:.2f} "
            f"| {row['n']} |"
        )
    if record["rows"]:
        first = record["rows"][0]
        lines += [
            "",
            "Counts from the coarsest depth to the leaves; p: exact McNemar, uncorrected. On "
            f"{first['threads']} CPU thread{'s' if first['threads'] > 1 else ''} with bf16 instructions. "
            f"{source(record)}",
        ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
