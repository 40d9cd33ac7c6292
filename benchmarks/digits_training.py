"""Train every defence on the digits by its recipe, time it, and attack what came out.

Each is the README's command, ``hierbench train --recipe digits/<defence>``, in a process of its own, and then
``hierbench eval --attack apgd`` on the model it wrote. Writes ``leaderboard/measurements/digits_training.json``:

    python benchmarks/digits_training.py
    python benchmarks/digits_training.py --table
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from measurement import chosen, keep, long_options, missing, parser, read, source

from hierbench.defences.recipe import RECIPES
from hierbench.evaluation.stored import read_record

NAME = "digits_training"
VARIANT = "digits"
LIMIT_SECONDS = 180


def main() -> None:
    options = long_options(parser(__doc__, NAME, cells="defences, such as tga_*")).parse_args()
    names = [name.split("/")[1] for name in RECIPES.names() if name.startswith(f"{VARIANT}/")]
    record = read(options.out, options.seed, name=NAME, what="seconds of training on the digits, and what it brought")
    if options.table:
        print(render_table(record))
        return
    if options.estimate:
        count = len(chosen(names, options))
        print(f"{count} defences, at most {LIMIT_SECONDS} s each is the aim, and as much again to attack them")
        return
    order = ["clip", *names]
    wanted = {"limit": options.limit, "threads": options.threads}
    for name in missing(order, wanted, record, options):
        row = measure(name, options.limit, options.threads, options.seed)
        keep({"cell": name, **wanted, **row}, record, options, order=order, summarise=lambda rows: [])
        print(f"{name}: {row['seconds']} s, {row['clean']} clean and {row['robust']} robust of {row['n']}")


def measure(name: str, limit: int, threads: int, seed: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        model, seconds, cpu_seconds, given = "clip", None, None, {}
        if name != "clip":
            model = f"{folder}/{name}.{VARIANT}"
            words = ["train", "--recipe", f"{VARIANT}/{name}", "--seed", str(seed), "--out", model]
            began, cpu_began = time.perf_counter(), cpu_of_children()
            run(words, threads)
            seconds = round(time.perf_counter() - began, 1)
            cpu_seconds = round(cpu_of_children() - cpu_began, 1)
            given = json.loads((Path(model) / "training.json").read_text(encoding="utf-8"))["run"]
        out = f"{folder}/results"
        run(["eval", "--model", model, "--attack", "apgd", "--limit", str(limit), "--out", out, "--quiet"], threads)
        (path,) = Path(out).glob("*/*/*.json")
        found = read_record(path)
        leaf = found.depths[-1].rollup
        return {
            "seconds": seconds,
            "cpu_seconds": cpu_seconds,
            "steps": given.get("steps"),
            "forwards": given.get("forwards"),
            "backwards": given.get("backwards"),
            "eps": found.identity.attack.eps,
            "n": found.counts.scored,
            "clean": leaf.clean.count,
            "robust": leaf.worst.count,
            "low": leaf.worst.low,
            "high": leaf.worst.high,
            "weights_hash": found.identity.model.weights_hash,
            "flags": [flag.code for flag in found.checks.flags],
        }


def cpu_of_children() -> float:
    """Seconds of processor time that finished child processes took: what a busy machine does not change much."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def run(words: list[str], threads: int) -> None:
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    subprocess.run([sys.executable, "-m", "hierbench", *words], env=environment, check=True, stdout=subprocess.DEVNULL)


def render_table(record: dict[str, Any]) -> str:
    lines = [
        "| defence | CPU seconds | seconds | steps | clean of n | robust of n | robust, % | n |",
        "|---|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for row in record["rows"]:
        share = f"{100 * row['robust'] / row['n']:.1f} [{100 * row['low']:.1f}, {100 * row['high']:.1f}]"
        seconds = "" if row["seconds"] is None else f"{row['seconds']:.0f}"
        cpu_seconds = "" if row["cpu_seconds"] is None else f"{row['cpu_seconds']:.0f}"
        steps = "" if row["steps"] is None else row["steps"]
        counts = f"{row['clean']} | {row['robust']} | {share} | {row['n']}"
        lines.append(f"| {row['cell']} | {cpu_seconds} | {seconds} | {steps} | {counts} |")
    if record["rows"]:
        first = record["rows"][0]
        lines += [
            "",
            f"apgd (ce, then t) at the leaves, eps {first['eps']}. The seconds are of the whole training command on "
            f"{first['threads']} CPU thread{'s' if first['threads'] > 1 else ''}: those of the processor, and those of "
            f"the clock, which count whatever else ran. {source(record)}",
        ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
