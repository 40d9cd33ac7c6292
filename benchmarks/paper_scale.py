"""ViT-B/32 and ViT-L/14 at real size through the whole path: train Hier-AFT, attack it and the undefended one.

Weights are drawn from a seed and were never trained: accuracies mean nothing here, memory and images a second do. Each
cell is a process of its own, so that its peak memory is its own:

- ``train``: ``hierbench train --recipe paper/hier_aft`` for a few steps. The NIPS-2017 images are a test split alone,
  so the training images are Tiny-ImageNet's, shown at 224 inside the model, with the levels of its tree.
- ``eval``, ``eval-hier_aft``: ``hierbench eval --attack superclass_pgd`` on the NIPS-2017 images at every depth of the
  ImageNet tree; prompts of all nodes are encoded. An attack skips what is wrong already, and random weights are mostly
  wrong: the record says how many were attacked at each depth, and each of them is searched to the full budget.
- ``engine``, ``engine-bf16``: the engine on the same images with the model's own predictions for labels, so that every
  sample is attacked, at the leaves, to the full budget; node features are drawn as well, which saves the prompts.
- ``bare``: a loop that makes as many forwards and backwards of the same tower on the same batches, and nothing else.

Cells in the record are not run again; the trained models lie in ``--work`` until the evaluation of them is done:

    python benchmarks/paper_scale.py
    python benchmarks/paper_scale.py --device cuda --limit 512 --batch 64 --steps 20
    python benchmarks/paper_scale.py --table
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import measurement
from arithmetic import TEXT_PARAMETERS, TOWERS
from measurement import done, keep, long_options, missing, parser
from paper_scale_runs import ATTACK_STEPS, child

NAME = "paper_scale"
BACKBONES = {"ViT-B/32": "ViT-B-32-quickgelu/random", "ViT-L/14": "ViT-L-14-quickgelu/random"}
"""With QuickGELU, as OpenAI's weights and the literature's protocols have it."""
JOBS = ("train", "eval", "eval-hier_aft", "engine", "engine-bf16", "bare")
WORDS = {"ViT-B/32": "B32", "ViT-L/14": "L14"}
CELLS = [f"{WORDS[tower]}/{job}" for tower in BACKBONES for job in JOBS]
PROMPTS, TRAINING_PROMPTS = 1135, 288
"""Different prompts of the two trees' nodes, about."""
TEXT_FLOPS = {"ViT-B/32": 5.9e9, "ViT-L/14": 13.3e9}
"""Of one prompt."""


def main() -> None:
    if len(sys.argv) > 2 and sys.argv[1] == "--child":
        child(json.loads(sys.argv[2]))
        return
    options = parse()
    record = measurement.read(
        options.out, options.seed, name=NAME, what="memory and speed at real size, random weights"
    )
    if options.table:
        print(render_table(record), end="")
        return
    wanted = {name: getattr(options, name) for name in ("limit", "batch", "steps", "train_steps", "threads", "device")}
    todo = missing(CELLS, wanted, record, options)
    if options.estimate:
        print(estimate(todo, options))
        return
    record["batch_size"] = options.batch
    record["weights"] = "drawn from a seed, never trained: accuracies say nothing"
    for cell in todo:
        row = measure(cell, record, options)
        environment = row.pop("environment")
        keep({"cell": cell, **wanted, **row}, record, options, order=CELLS, summarise=ratios, environment=environment)
        print(f"{cell}: {row['process_seconds']:.0f} s, {_gib(row['peak_memory_bytes'])} GiB", flush=True)
    if all(done(cell, wanted, record) for cell in CELLS):
        shutil.rmtree(options.work, ignore_errors=True)


def parse() -> argparse.Namespace:
    made = long_options(parser(__doc__, NAME, cells="cells, such as B32/*"))
    made.set_defaults(limit=8)
    made.add_argument("--batch", type=int, default=4, help="images in a forward; --limit is a multiple of it")
    made.add_argument("--steps", type=int, default=2, help="steps of the attacks that are evaluated")
    made.add_argument("--train-steps", type=int, default=2, help="steps of training")
    place = Path(tempfile.gettempdir()) / "hierbench-paper-scale"
    made.add_argument("--work", type=Path, default=place, help="where the trained models wait")
    options = made.parse_args()
    if options.limit < options.batch or options.limit % options.batch:
        made.error(f"--limit {options.limit} is no multiple of --batch {options.batch}")
    if options.steps < 1 or options.train_steps < 1:
        made.error("--steps and --train-steps are 1 or more")
    return options


def measure(cell: str, record: dict[str, Any], options: argparse.Namespace) -> dict[str, Any]:
    """Run one cell in a process and return its row."""
    short, _, job = cell.partition("/")
    tower = next(name for name, word in WORDS.items() if word == short)
    task: dict[str, Any] = {
        "job": job, "tower": tower, "backbone": BACKBONES[tower], "work": str(options.work / short),
        **{n: getattr(options, n) for n in ("limit", "batch", "steps", "train_steps", "threads", "device", "seed")},
    }  # fmt: skip
    model = options.work / short / "hier_aft"
    if job == "eval-hier_aft" and not model.is_dir():
        run({**task, "job": "train"})
    if job == "bare":
        engine = next((row for row in record["rows"] if row["cell"] == f"{short}/engine"), None)
        if engine is None or any(engine[name] != task[name] for name in ("limit", "batch", "steps", "device")):
            raise SystemExit(f"{cell} repeats the passes of {short}/engine: run that cell first")
        task |= {"forwards": engine["forwards"], "backwards": engine["backwards"]}
    row = run(task)
    flops = TOWERS[tower].forward_flops
    weights = 2 if job == "train" else 1
    # Of a training's backwards one in four goes to the weights as well, and costs twice.
    backward = (ATTACK_STEPS + weights) / (ATTACK_STEPS + 1) if job == "train" else 1
    row["tower_flops_per_second"] = flops * (row["forwards"] + backward * row["backwards"]) / row["seconds"]
    row["images_per_second"] = row["backwards"] / row["seconds"]
    return row


def run(task: dict[str, Any]) -> dict[str, Any]:
    """Run a task in a process; its peak memory is the GPU's on CUDA, else what the system says of that process."""
    with tempfile.TemporaryDirectory() as folder:
        result = Path(folder) / "row.json"
        environment = {**os.environ, "OMP_NUM_THREADS": str(task["threads"])}
        command = [sys.executable, __file__, "--child", json.dumps({**task, "result": str(result)})]
        began = time.perf_counter()
        process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL)
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode != 0:
            raise SystemExit(f"{task['tower']} {task['job']}: its process ended with {process.returncode}")
        row: dict[str, Any] = json.loads(result.read_text(encoding="utf-8"))
    resident = used.ru_maxrss if sys.platform == "darwin" else used.ru_maxrss * 1024
    on_gpu = row.pop("gpu_memory_bytes")
    return {
        **row,
        "peak_memory_bytes": resident if on_gpu is None else on_gpu,
        "memory": "resident set of the process" if on_gpu is None else "allocated on the GPU",
        "process_seconds": round(time.perf_counter() - began, 1),
        "process_cpu_seconds": round(used.ru_utime + used.ru_stime, 1),
    }


def ratios(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the engine's seconds over the bare loop's, for as many passes; bf16's may be another number of them."""
    found = {row["cell"]: row for row in rows}
    made = []
    for short in WORDS.values():
        bare_row = found.get(f"{short}/bare")
        for job in ("engine", "engine-bf16"):
            row = found.get(f"{short}/{job}")
            if row is None or bare_row is None or row["device"] != bare_row["device"]:
                continue
            each = [r["seconds"] / (r["forwards"] + r["backwards"]) for r in (row, bare_row)]
            made.append({"cell": row["cell"], "over_bare": round(each[0] / each[1], 3)})
    return made


def estimate(cells: list[str], options: argparse.Namespace) -> str:
    """Return about how long cells take, by their FLOPs and what this machine makes of a product of matrices."""
    import torch

    torch.set_num_threads(options.threads)
    side = 2048
    square = torch.randn(side, side, device=options.device)
    for _ in range(2):  # the first one warms up
        began = time.perf_counter()
        float((square @ square).sum())
        rate = 2 * side**3 / (time.perf_counter() - began)
    flops = 0.0
    for cell in cells:
        short, _, job = cell.partition("/")
        tower = next(name for name, word in WORDS.items() if word == short)
        one, n = TOWERS[tower].forward_flops, options.limit
        if job == "train":
            images = options.batch * options.train_steps
            flops += images * TOWERS[tower].training_flops(ATTACK_STEPS) + TRAINING_PROMPTS * TEXT_FLOPS[tower]
        elif job.startswith("eval"):
            # Of five depths the coarse ones are attacked, by and large; a forward each verifies.
            flops += n * one * (2 + 2 * (2 * options.steps + 2)) + PROMPTS * TEXT_FLOPS[tower]
        else:
            flops += n * one * (2 * options.steps + 3)
    loading = 15 * len(cells)
    weights = {name: 4 * (TOWERS[name].parameters + TEXT_PARAMETERS[name]) / 2**30 for name in TOWERS}
    return (
        f"{len(cells)} cells, {flops / 1e12:.0f} TFLOP: about {(2 * flops / rate + loading) / 60:.0f} minutes at half "
        f"of the {rate / 1e9:.0f} GFLOP/s of a matrix product here; a training of ViT-L/14 needs about "
        f"{4 * weights['ViT-L/14']:.0f} GiB of memory"
    )


def _gib(count: int) -> str:
    return f"{count / 2**30:.1f}"


def render_table(record: dict[str, Any]) -> str:
    """Return the record as Markdown."""
    if not record["rows"]:
        return f"Not measured yet (`python benchmarks/{NAME}.py`).\n"
    over = {row["cell"]: row["over_bare"] for row in record["summary"]}
    lines = [
        "| cell | images | n | precision | peak GiB | images/s | seconds | over bare loop | TFLOP/s | process, s |",
        "|---|---|--:|---|--:|--:|--:|--:|--:|--:|",
    ]
    for row in record["rows"]:
        ratio = f"{over[row['cell']]:.2f}" if row["cell"] in over else ""
        attacked = f" ({', '.join(map(str, row['attacked']))} attacked)" if "attacked" in row else ""
        rate = f"{row['images_per_second']:.2f}" if row["images_per_second"] else ""
        lines.append(
            f"| {row['cell']} | {row['dataset']} | {row['n']}{attacked} | {row['precision']} "
            f"| {_gib(row['peak_memory_bytes'])} | {rate} | {row['seconds']:.1f} | {ratio} "
            f"| {row['tower_flops_per_second'] / 1e12:.2f} | {row['process_seconds']:.0f} |"
        )
    first = record["rows"][0]
    where = record["environment"]
    lines += [
        "",
        f"ViT-B/32 (B32) and ViT-L/14 (L14) with QuickGELU at 224 x 224, weights {record['weights']}. Batch "
        f"{first['batch']}, {first['device']} ({where['device_name']}), {first['threads']} CPU threads. Memory: "
        f"{first['memory']}. Images a second are those through a forward and a backward; attacks of {first['steps']} "
        f"steps, in training of {ATTACK_STEPS}; *attacked* are the samples that are right at depth 1, 2, ... and so "
        "are attacked there. In `engine` the model's own predictions are the labels. Over bare loop: seconds a pass. "
        f"TFLOP/s are the image tower's, by arithmetic. {measurement.source(record)}",
    ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
