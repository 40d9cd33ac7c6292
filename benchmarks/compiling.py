"""When does ``--compile`` pay? One pass of a search, forward and backward, plain and compiled, on this machine.

Each cell is a model in an arithmetic of the search; plain and compiled passes take turns in one process, at the full
batch and at three quarters of it, for which torch compiles once more, for all sizes. Seconds are the process's own CPU
time, so that other work on the machine counts little; compiling is wall-clock. Writes
``leaderboard/measurements/compiling.json``:

    python benchmarks/compiling.py
    python benchmarks/compiling.py --table
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from statistics import median
from typing import Any

import torch
from measurement import keep, missing, parser, read, source
from subjects import load_subject
from torch import Tensor

from hierbench.attacks.engine.precision import search_arithmetic
from hierbench.models.binding import BoundModel
from hierbench.models.compiling import compiled
from hierbench.models.folding import folded_copy

NAME = "compiling"
CELLS = ("tecoa.tiny/fp32", "tecoa.tiny/bf16", "hier_aft.tiny/fp32", "hier_aft.tiny/bf16")
DATASET = "cifar100"
ROUNDS = 15


def main() -> None:
    made = parser(__doc__, NAME, cells="model/arithmetic, such as */bf16")
    made.set_defaults(limit=128, threads=1)
    options = made.parse_args()
    record = read(options.out, options.seed, name=NAME, what="a search's pass, plain and compiled")
    if options.table:
        print(render_table(record))
        return
    torch.set_num_threads(options.threads)
    wanted = {"limit": options.limit, "threads": options.threads, "device": options.device}
    for cell in missing(CELLS, wanted, record, options):
        model, precision = cell.split("/")
        row = {"cell": cell, **wanted, **measure(model, precision, options.limit, options.device)}
        keep(row, record, options, order=CELLS, summarise=lambda rows: [])
        print(f"{cell}: {row['sizes']}")


def measure(model: str, precision: Any, limit: int, device: str) -> dict[str, Any]:
    """Return the seconds of a pass at two batch sizes, and those of compiling for each."""
    subject = load_subject(model, DATASET, limit=limit, device=device)
    assert isinstance(subject.forward, BoundModel)
    images, place = subject.images.to(subject.device), subject.device
    plain = subject.forward if precision == "fp32" else folded_copy(subject.forward, images[:16])
    began = time.perf_counter()
    quick = compiled(plain, images, lambda: search_arithmetic(place, precision))
    compiling, sizes = time.perf_counter() - began, []
    for size in (limit, 3 * limit // 4):
        began = time.perf_counter()
        one_pass(quick, images[:size], precision)
        compiling += time.perf_counter() - began
        times: dict[str, list[float]] = {"plain": [], "compiled": []}
        for _ in range(ROUNDS):
            for name, forward in (("plain", plain), ("compiled", quick)):
                began = time.process_time()
                one_pass(forward, images[:size], precision)
                times[name].append(time.process_time() - began)
        sizes.append({"batch": size, **{name: round(median(values), 4) for name, values in times.items()}})
    return {"sizes": sizes, "rounds": ROUNDS, "compiling_seconds": round(compiling, 1)}


def one_pass(forward: Callable[[Tensor], Tensor], images: Tensor, precision: Any) -> None:
    query = images.clone().requires_grad_()
    with search_arithmetic(images.device, precision):
        torch.autograd.grad(forward(query).float().logsumexp(dim=1).sum(), query)


def render_table(record: dict[str, Any]) -> str:
    lines = [
        "| model | search in | seconds a pass, plain | compiled / plain | at three quarters of the batch | compiling, "
        "seconds | pays after passes |",
        "|---|---|--:|--:|--:|--:|--:|",
    ]
    for row in record["rows"]:
        model, _, precision = row["cell"].rpartition("/")
        full, part = row["sizes"]
        saved = full["plain"] - full["compiled"]
        after = f"{math.ceil(row['compiling_seconds'] / saved):,}" if saved > 0 else "never"
        lines.append(
            f"| {model} | {precision} | {full['plain']:.3f} | {full['compiled'] / full['plain']:.2f} "
            f"| {part['compiled'] / part['plain']:.2f} | {row['compiling_seconds']} | {after} |"
        )
    if record["rows"]:
        first = record["rows"][0]
        lines += [
            "",
            f"Forward and backward of {first['sizes'][0]['batch']} images of {DATASET}, median of {first['rounds']} "
            f"turns, {first['threads']} CPU thread{'s' if first['threads'] > 1 else ''}; bf16 on a "
            f"folded copy, as the search has it. {source(record)}",
        ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
