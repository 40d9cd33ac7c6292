"""Search the learning rate of every defence of the small track: alike for all, on classes that nothing is scored on.

Each trial is ``hierbench train --recipe tiny/<defence>`` for a quarter of its steps, without the 20 validation classes
of ``leaderboard/splits/search-v1.json``. What it leaves is scored on held-out images of those classes, zero-shot among
them: the harmonic mean of the accuracy on clean images and of that under apgd-ce at the recipe's eps. The rates are
1e-3 and a factor of about three to both sides; where the best lies at an edge, the next one beyond is tried too.
Writes ``leaderboard/measurements/learning_rates.json``:

    python benchmarks/learning_rates.py --jobs 2 --threads 1
    python benchmarks/learning_rates.py --table
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from fractions import Fraction
from pathlib import Path
from typing import Any

import torch
from measurement import chosen, done, keep, long_options, parser, read, source
from subjects import bound_subject, ours

from hierbench.datasets.load import load_images
from hierbench.datasets.seen import load_seen
from hierbench.defences.recipe import RECIPES
from hierbench.hierarchy.catalogue import load_hierarchy
from hierbench.hierarchy.restrict import restrict

NAME = "learning_rates"
VARIANT = "tiny"
SPLIT = "search-v1"
RATES = (1e-4, 3e-4, 1e-3, 3e-3, 1e-2)
START = RATES[1:4]
EPOCHS = 1.0
TRIAL = (f"epochs={EPOCHS}", "validation_images=0", "precision=bf16", "attack_precision=bf16")

Row = dict[str, Any]


def main() -> None:
    made = long_options(parser(__doc__, NAME, cells="defences, such as tga_*"))
    made.add_argument("--jobs", type=int, default=1, help="trials at a time")
    made.add_argument("--score", type=Path, help=argparse.SUPPRESS)
    made.set_defaults(limit=500)
    options = made.parse_args()
    if options.score is not None:
        torch.set_num_threads(options.threads)
        print(json.dumps(score(options.score, options.limit, options.seed)))
        return
    record = read(options.out, options.seed, name=NAME, what="validation scores of learning rates, small track")
    if options.table:
        print(render_table(record))
        return
    names = [name.split("/")[1] for name in RECIPES.names() if name.startswith(f"{VARIANT}/")]
    searched = chosen(names, options)
    if options.estimate:
        planned = f"{len(searched)} defences, {len(START)} rates or more each"
        print(f"{planned}: about 3 CPU minutes a trial where bf16 is quick")
        return
    order = [cell_name(name, rate) for name in names for rate in RATES]
    wanted = {"limit": options.limit, "epochs": EPOCHS}
    with ThreadPoolExecutor(options.jobs) as pool:
        while trials := [t for t in missing(searched, record["rows"]) if not done(cell_name(*t), wanted, record)]:
            running = {pool.submit(trial, *t, options): t for t in trials}
            for finished in as_completed(running):
                name, rate = running[finished]
                row = {"cell": cell_name(name, rate), "defence": name, "rate": rate, **wanted, **finished.result()}
                keep(row, record, options, order=order, summarise=best_rates)
                print(f"{row['cell']}: {row['clean']} clean, {row['robust']} robust of {row['n']}", flush=True)


def cell_name(name: str, rate: float) -> str:
    return f"{name} {rate:g}"


def missing(names: Sequence[str], rows: Sequence[Row]) -> list[tuple[str, float]]:
    """Return the trials that the rows still want: the first rates, then one more beyond the edge a best lies at."""
    wanted = []
    for name in names:
        tried = {row["rate"]: row for row in rows if row["defence"] == name}
        rates = list(START)
        if all(rate in tried for rate in rates):
            at = RATES.index(best(list(tried.values()))["rate"])
            rates = [RATES[i] for i in (at - 1, at + 1) if 0 <= i < len(RATES)]
        wanted += [(name, rate) for rate in rates if rate not in tried]
    return wanted


def best(rows: Sequence[Row]) -> Row:
    """Return the trial with the largest harmonic mean; the lower rate of two equal ones."""
    return max(rows, key=lambda row: (harmonic_mean(row["clean"], row["robust"], row["n"]), -row["rate"]))


def harmonic_mean(clean: int, robust: int, n: int) -> float:
    """Return the harmonic mean of two accuracies out of n, 0 where one of them is."""
    return 2 * clean * robust / (n * (clean + robust)) if robust else 0.0


def best_rates(rows: list[Row]) -> list[Row]:
    """Return each defence's best rate so far."""
    names = list(dict.fromkeys(row["defence"] for row in rows))
    found = [best([row for row in rows if row["defence"] == name]) for name in names]
    return [{key: row[key] for key in ("defence", "rate", "harmonic_mean")} for row in found]


def trial(name: str, rate: float, options: argparse.Namespace) -> Row:
    """Train a defence at one rate and score it, each in a process of its own."""
    with tempfile.TemporaryDirectory() as folder:
        model = f"{folder}/{name}.{VARIANT}"
        words = ["-m", "hierbench", "train", "--recipe", f"{VARIANT}/{name}", "--seen", SPLIT, "--out", model]
        words += ["--set", f"learning_rate={rate}", *(word for item in TRIAL for word in ("--set", item))]
        environment = {**os.environ, "OMP_NUM_THREADS": str(options.threads)}
        run = [sys.executable, *words, "--seed", str(options.seed)]
        subprocess.run(run, env=environment, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        trained = json.loads((Path(model) / "training.json").read_text(encoding="utf-8"))["run"]
        said = ["--score", model, "--limit", str(options.limit), "--threads", str(options.threads)]
        again = [sys.executable, __file__, *said, "--seed", str(options.seed)]
        found = subprocess.run(again, env=environment, check=True, stdout=subprocess.PIPE, text=True).stdout
        cost = {key: trained[key] for key in ("steps", "forwards", "backwards")}
        return {**json.loads(found), **cost, "seconds": trained["seconds"], "precision": trained["precision"]}


def score(folder: Path, limit: int, seed: int) -> Row:
    """Return how many held-out images of the validation classes a model gets right, clean and under apgd-ce."""
    recipe = RECIPES.get(f"{VARIANT}/{folder.name.partition('.')[0]}")
    hidden = set(load_seen(recipe.seen or "").known(recipe.dataset)) - set(load_seen(SPLIT).known(recipe.dataset))
    images = load_images(recipe.dataset, split="heldout")
    classes = [class_id for class_id in images.spec.class_ids if class_id in hidden]
    images = images.of_classes(classes).limited(limit)
    tree = restrict(load_hierarchy(images.spec.tree_dataset, recipe.trees[0]), classes, dataset="validation-classes")
    subject = bound_subject(str(folder), images, tree, classes=classes)
    found = ours(subject, "apgd-ce", eps=Fraction(recipe.eps), depth=tree.num_depths, seed=seed, settings={})
    clean, robust = subject.clean_right()[-1], int((~found.broken["rollup"][:, -1]).sum())
    n = len(images)
    mean = round(harmonic_mean(clean, robust, n), 4)
    return {"n": n, "classes": len(classes), "clean": clean, "robust": robust, "harmonic_mean": mean}


def render_table(record: dict[str, Any]) -> str:
    rates = sorted({row["rate"] for row in record["rows"]})
    lines = ["| defence | " + " | ".join(f"{rate:g}" for rate in rates) + " |", "|---|" + "--:|" * len(rates)]
    for best in record["summary"]:
        cells = []
        for rate in rates:
            row = next((r for r in record["rows"] if (r["defence"], r["rate"]) == (best["defence"], rate)), None)
            mark = "**" if rate == best["rate"] else ""
            shown = row and f"{mark}{100 * row['harmonic_mean']:.1f}{mark} ({row['clean']}, {row['robust']})"
            cells.append(shown or "")
        lines.append(f"| {best['defence']} | " + " | ".join(cells) + " |")
    if record["rows"]:
        first = record["rows"][0]
        lines += [
            "",
            f"Harmonic mean of clean and apgd-ce accuracy in %, and how many of n = {first['n']} images were right "
            f"clean and attacked: held-out images of {first['classes']} classes, zero-shot among them, after "
            f"{first['steps']} steps, one seed. Bold: the rate that the recipe has. {source(record)}",
        ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
