"""How long our engine takes beside the field's own code, on the same models and images, text features cached in all.

Four comparisons on CIFAR-100 at 32 x 32 under linf, each the median of five runs that take turns:

- ``leaf``: apgd-ce + apgd-t at the leaves against pyautoattack, on the undefended model at 8/255 and on the most
  robust one at 1/255;
- ``depths``: the worst case over all depths in one search against pyautoattack run depth by depth on node logits;
- ``overhead``: our apgd-ce against a bare loop that makes the same forward and backward passes;
- ``pgd``: leaf_pgd against torchattacks' PGD of as many steps.

Every run writes the record anew, and a run that is in it is not made again:

    python benchmarks/speed.py
    python benchmarks/speed.py --cells 'leaf/*' --repeats 1 --limit 50 --out try.json
    python benchmarks/speed.py --table
"""

from __future__ import annotations

import argparse
import fnmatch
import json
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

import measurement
import torch
from speed_runs import EASY, HARD, PGD_STEPS, STEPS, TARGETS, Case, Side, cases, our_pgd
from subjects import BATCH, Subject, load_subject

from hierbench.errors import InputError
from hierbench.evaluation.environment import code_hash

DATASET = "cifar100"
UNDEFENDED = "clip"
DEFENDED = ("tecoa.tiny", "hier_aft.tiny")
COUNTS = ("forwards", "backwards", "robust", "worst")
ALLOWED = {
    "leaf/undefended": 0.2,
    "leaf/robust": 1.05,
    "depths/undefended": 0.15,
    "depths/robust": 0.6,
    "overhead/undefended": 1.1,
    "overhead/robust": 1.1,
}
"""The largest ratio of our seconds to the other's that is aimed at."""


def most_robust(limit: int, device: str, seed: int) -> tuple[Subject, dict[str, int]]:
    """Return the defended model that keeps the most samples under leaf_pgd at 1/255, and what each keeps."""
    subjects = {name: load_subject(name, DATASET, limit=limit, device=device) for name in DEFENDED}
    kept = {name: our_pgd(subject, HARD, seed).robust[0] for name, subject in subjects.items()}
    return subjects[max(kept, key=lambda name: kept[name])], kept


def main() -> None:
    options = parse()
    record = read(options)
    if options.table:
        print(render_table(record), end="")
        return
    torch.set_num_threads(options.threads)
    undefended = load_subject(UNDEFENDED, DATASET, limit=options.limit, device=options.device)
    robust, kept = most_robust(options.limit, options.device, options.seed)
    record["models"] = {"undefended": undefended.model, "robust": robust.model, "kept_by_leaf_pgd": kept}
    every = cases(undefended, robust, options.seed)
    wanted = [case for case in every if any(fnmatch.fnmatchcase(case.name, pattern) for pattern in options.cells)]
    if not wanted:
        raise InputError(f"--cells {' '.join(options.cells)} names none of {', '.join(case.name for case in every)}")
    print(f"{robust.model} is the most robust: {kept}; {estimate(undefended, robust, options.repeats)}")
    for case in wanted:
        runs = record["cases"].setdefault(case.name, {"reference": case.reference, "runs": []})["runs"]
        for number in range(len(runs), options.repeats):
            sides = {name: timed(run) for name, run in (("ours", case.ours), ("theirs", case.theirs))}
            (mine, _), (theirs, _) = sides.values()
            made = {name: {**vars(side), "cpu_seconds": round(cpu, 3)} for name, (side, cpu) in sides.items()}
            runs.append({**made, "code_hash": code_hash()})
            write(record, options, every)
            print(
                f"{case.name:20} [{number + 1}/{options.repeats}] ours {mine.seconds:8.2f} s, {case.reference} "
                f"{theirs.seconds:8.2f} s, ratio {mine.seconds / theirs.seconds:.3f}; robust {listed(mine.robust)} / "
                f"{listed(theirs.robust)}, worst {listed(theirs.worst)}",
                flush=True,
            )


def timed(run: Callable[[], Side]) -> tuple[Side, float]:
    """Return a run and its CPU time, which other work on the machine does not lengthen."""
    began = time.process_time()
    side = run()
    return side, time.process_time() - began


def estimate(undefended: Subject, robust: Subject, repeats: int) -> str:
    """Say how long everything takes at most: every sample that is right stays to the end of every run."""
    total = 0.0
    for subject in (undefended, robust):
        right = subject.clean_right()
        _, both = subject.milliseconds()
        runs = [1 + min(TARGETS, count - 1) * (count >= 4) for count in subject.layout.node_counts]
        apgd = [samples * STEPS * count * both / 1000 for samples, count in zip(right, runs, strict=True)]
        total += 2 * (apgd[-1] + sum(apgd) + right[-1] * (STEPS + PGD_STEPS) * both / 1000)
    return f"everything takes at most {repeats * total / 60:.0f} minutes"


def summarise(case: str, entry: dict[str, Any]) -> dict[str, Any]:
    """Return the medians and the ratio of one comparison."""

    def median(side: str, clock: str) -> float:
        return float(statistics.median(run[side][clock] for run in entry["runs"]))

    ratio = median("ours", "seconds") / median("theirs", "seconds")
    allowed = ALLOWED.get(case)
    first = entry["runs"][0]
    pairs = {key: zip(first["ours"][key], first["theirs"][key], strict=False) for key in ("robust", "worst")}
    return {
        "repeats": len(entry["runs"]),
        "ours_seconds": round(median("ours", "seconds"), 3),
        "theirs_seconds": round(median("theirs", "seconds"), 3),
        "ratio": round(ratio, 4),
        "cpu_ratio": round(median("ours", "cpu_seconds") / median("theirs", "cpu_seconds"), 4),
        "aim": allowed,
        "reached": None if allowed is None else ratio <= allowed,
        "extra_robust": {key: sum(mine - other for mine, other in pair) for key, pair in pairs.items()},
        "counts": {side: {key: first[side][key] for key in COUNTS} for side in ("ours", "theirs")},
    }


def render_table(record: dict[str, Any]) -> str:
    """Return the record as Markdown for the documentation."""
    lines = [
        "| comparison | against | ours, s | theirs, s | ratio | of CPU time | aim "
        "| forwards + backwards, ours / theirs | robust, ours / theirs (worst of its runs) |",
        "|---|---|--:|--:|--:|--:|--:|--:|---|",
    ]
    for name, entry in record["cases"].items():
        part = entry["summary"]
        mine, theirs = part["counts"]["ours"], part["counts"]["theirs"]
        passes = [f"{side['forwards'] + side['backwards']:,}" for side in (mine, theirs)]
        robust = [listed(side["robust"]) for side in (mine, theirs)]
        if theirs["worst"] != theirs["robust"]:
            robust[1] += f" ({listed(theirs['worst'])})"
        aim = "" if part["aim"] is None else f"{part['aim']:g}"
        lines.append(
            f"| {name} | {entry['reference']} | {part['ours_seconds']:.1f} | {part['theirs_seconds']:.1f} "
            f"| {part['ratio']:.3f} | {part['cpu_ratio']:.3f} | {aim} | {' / '.join(passes)} | {' / '.join(robust)} |"
        )
    models, environment = record["models"], record["environment"]
    repeats = sorted({entry["summary"]["repeats"] for entry in record["cases"].values()})
    lines += [
        "",
        f"{DATASET}, {record['n']} images; undefended: {models['undefended']} at {EASY}, robust: {models['robust']} at "
        f"{HARD}. Medians of {' or '.join(str(count) for count in repeats)} runs on {environment['threads']} threads; "
        "pyautoattack at the node logits whose arg-max is the verdict.",
    ]
    lines += [*missed(record), "", measurement.source(record)]
    return "\n".join(lines) + "\n"


def missed(record: dict[str, Any]) -> list[str]:
    """Return a line for each aim that was missed, with what bounds it."""
    lines = []
    for name, entry in record["cases"].items():
        part = entry["summary"]
        if part["reached"] is not False:
            continue
        mine, theirs = ((side["forwards"] + side["backwards"]) for side in part["counts"].values())
        overhead = record["cases"].get(f"overhead/{name.partition('/')[2]}")
        bare = f", and the engine takes {overhead['summary']['ratio']:.3f} of a bare loop's time" if overhead else ""
        passes = f"It makes {mine / theirs:.3f} of the other's passes{bare}."
        lines.append(f"Missed: {name}, {part['ratio']:.3f} against {part['aim']:g}. {passes}")
    return ["", *lines] if lines else []


def listed(counts: Sequence[int]) -> str:
    return ", ".join(str(count) for count in counts) or "-"


def read(options: argparse.Namespace) -> dict[str, Any]:
    """Return the record as far as it goes; one of other settings is refused."""
    fixed = {"n": options.limit, "seed": options.seed, "threads": options.threads, "device": options.device}
    if not options.out.exists():
        if options.table:
            raise InputError(f"{options.out}: no such record")
        what = "seconds of our engine beside the field's own code"
        return {"what": what, "command": "python benchmarks/speed.py", **fixed, "batch_size": BATCH, "cases": {}}
    record: dict[str, Any] = json.loads(options.out.read_text(encoding="utf-8"))
    other = {key: record[key] for key, value in fixed.items() if record[key] != value}
    if other and not options.table:
        raise InputError(f"{options.out} was made with {other}: give the same, or another --out")
    return record


def write(record: dict[str, Any], options: argparse.Namespace, every: Sequence[Case]) -> None:
    order = [case.name for case in every]
    for name, entry in record["cases"].items():
        if entry["runs"]:
            entry["summary"] = summarise(name, entry)
    record["cases"] = {name: record["cases"][name] for name in order if name in record["cases"]}
    measurement.save(record, options)


def parse() -> argparse.Namespace:
    made = measurement.parser(__doc__, "speed", cells="<comparison>/<undefended or robust>", goes_on=False)
    made.add_argument("--repeats", type=int, default=5)
    return made.parse_args()


if __name__ == "__main__":
    main()
