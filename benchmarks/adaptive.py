"""Hier-AFT attacked adaptively: through its own head, its own loss, and without the gradient its norms could mask.

On digits (eps 32/255) and CIFAR-100 (4/255), roll-up scoring, every depth: plain PGD for scale, apgd-ce with apgd-t,
the angular gradient (PGD and APGD), Hier-AFT's training loss for all levels at once (PGD and APGD), and one
perturbation for all images. The figure to publish is the worst case: a sample counts as robust at a depth if no image
that any of them found breaks it there. The undefended model and TeCoA stand beside it. A cell that is in the record
already is not run again:

    python benchmarks/adaptive.py
    python benchmarks/adaptive.py --cells 'hier_aft.digits/*' --limit 50 --out adaptive.json
    python benchmarks/adaptive.py --table
"""

from __future__ import annotations

import argparse
import fnmatch
import time
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import measurement
import numpy as np
import torch
from numpy.typing import NDArray
from subjects import BATCH, Subject, load_subject

from hierbench.attacks.catalogue import ATTACKS
from hierbench.attacks.engine.attack import run_attack
from hierbench.attacks.threat import ThreatModel
from hierbench.attacks.universal import Fitter
from hierbench.datasets.load import load_images
from hierbench.errors import InputError
from hierbench.evaluation.environment import code_hash
from hierbench.evaluation.fitting import fit_images
from hierbench.evaluation.statistics import wilson
from hierbench.hierarchy.catalogue import load_hierarchy

MODELS = {
    "digits": ("hier_aft.digits", "tecoa.digits", "clip"),
    "cifar100": ("hier_aft.tiny", "tecoa.tiny", "clip"),
}
EPS = {"digits": Fraction(32, 255), "cifar100": Fraction(4, 255)}
RUNS: dict[str, tuple[str, dict[str, int | str]]] = {
    "pgd": ("superclass_pgd", {"steps": 20}),
    "apgd": ("apgd", {"steps": 100, "targets": 9}),
    "angular-pgd": ("angular_pgd", {"steps": 20}),
    "angular-apgd": ("angular_pgd", {"optimiser": "apgd", "steps": 100}),
    "universal-pgd": ("universal_hier", {"steps": 20}),
    "universal-apgd": ("universal_hier", {"optimiser": "apgd", "steps": 100}),
    "uap": ("superclass_uap", {}),
}
"""Each run by its short name: the named attack and its settings."""


@dataclass(frozen=True)
class Cell:
    """One run of one attack on one model at one depth; a search for all depths at once is one cell, at the leaves."""

    model: str
    dataset: str
    depth: int
    nodes: tuple[int, ...]
    run: str

    @property
    def name(self) -> str:
        return f"{self.model}/{self.dataset}/d{self.depth}/{self.run}"

    @property
    def pooled(self) -> bool:
        return ATTACKS.get(RUNS[self.run][0]).pools("rollup")

    def settings(self) -> dict[str, Any]:
        """Return every setting of the attack."""
        attack, given = RUNS[self.run]
        return dict(ATTACKS.get(attack).settings(given))

    def passes(self) -> tuple[int, int]:
        """Return at most how many forwards with a backward, and how many forwards alone, a sample costs."""
        settings = self.settings()
        if self.run == "uap":
            return 0, 2
        steps = int(settings["steps"])
        runs = 1 + min(int(settings["targets"]), self.nodes[self.depth - 1] - 1) if self.run == "apgd" else 1
        return runs * steps, runs


def all_cells() -> list[Cell]:
    """Return every cell, in the order they are run."""
    cells = []
    for dataset, models in MODELS.items():
        nodes = tuple(len(level.nodes) for level in load_hierarchy(dataset).levels)
        for model in models:
            for run, (attack, _) in RUNS.items():
                depths = ATTACKS.get(attack).default_depths(len(nodes), "rollup")
                if run == "apgd":
                    depths = tuple(range(1, len(nodes) + 1))
                cells += [Cell(model, dataset, depth, nodes, run) for depth in depths]
    return cells


def attacked(cell: Cell, subject: Subject, fitter: Fitter, *, seed: int) -> dict[str, Any]:
    """Run a cell and return its row of the record."""
    attack, given = RUNS[cell.run]
    spec = ATTACKS.get(attack)
    result = run_attack(
        subject.forward,
        subject.images,
        subject.labels,
        subject.ids,
        plan=spec.plan(
            depth=cell.depth,
            layout=subject.layout,
            scoring="rollup",
            settings=given,
            bound=subject.forward,
            fitter=fitter,
        ),
        pooled=cell.pooled,
        layout=subject.layout,
        threat=ThreatModel("linf", EPS[cell.dataset]),
        depth=cell.depth,
        scoring="rollup",
        batch_size=BATCH,
        seed=seed,
        dataset=subject.dataset,
        attack_name=attack,
        device=subject.device,
    )
    fit, fit_seconds = fitter.take_cost()
    clean, broken = result.clean_broken["rollup"], result.counted("rollup")
    searched = int(result.searched.sum())
    return {
        "cell": cell.name,
        "model": cell.model,
        "dataset": cell.dataset,
        "run": cell.run,
        "attack": attack,
        "settings": cell.settings(),
        "components": list(result.components),
        "depth": cell.depth,
        "pooled": cell.pooled,
        "nodes": list(cell.nodes),
        "n": len(broken),
        "eps": str(EPS[cell.dataset]),
        "clean": [int((~clean[:, d]).sum()) for d in range(len(cell.nodes))],
        "robust": [int((~broken[:, d]).sum()) for d in range(len(cell.nodes))],
        "broken": [packed(broken[:, d]) for d in range(len(cell.nodes))],
        "forwards": result.forwards + fit.forwards,
        "backwards": result.backwards + fit.backwards,
        "seconds": round(result.seconds + fit_seconds, 2),
        "searched": searched,
        "unverified": int(result.unverified.sum()),
        "zero_gradients": result.zero_gradients,
        "max_linf": float(result.linf.max()),
        "fitted_on": fitter.given.source if spec.universal else "",
        "code_hash": code_hash(),
        "threads": torch.get_num_threads(),
        **subject.identity,
    }


def packed(flags: NDArray[np.bool_]) -> str:
    """Return bool [n] as hexadecimal digits, the first sample in the highest bit.

    >>> packed(np.array([True, False, False, False, True]))
    '88'
    """
    return np.packbits(flags).tobytes().hex()


def unpacked(digits: str, count: int) -> NDArray[np.bool_]:
    """Return what ``packed`` wrote."""
    return np.unpackbits(np.frombuffer(bytes.fromhex(digits), dtype=np.uint8), count=count).astype(np.bool_)


def summarise(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the worst case of every model, data set and depth, with its interval and the runs it is made of.

    An image found for one depth is scored at all, so each run counts at every depth.
    """
    found = []
    for model, dataset in dict.fromkeys((row["model"], row["dataset"]) for row in rows):
        part = [row for row in rows if (row["model"], row["dataset"]) == (model, dataset)]
        first = part[0]
        kept = [row for row in part if all(row[name] == first[name] for name in ("n", "eps", "weights_hash"))]
        n, depths = first["n"], len(first["nodes"])
        for depth in range(depths):
            each = {
                run: np.any([unpacked(row["broken"][depth], n) for row in kept if row["run"] == run], axis=0)
                for run in dict.fromkeys(row["run"] for row in kept)
            }
            aimed = {row["run"]: row["robust"][depth] for row in kept if row["pooled"] or row["depth"] == depth + 1}
            robust = int((~np.any(list(each.values()), axis=0)).sum())
            interval = wilson(robust, n)
            found.append(
                {
                    "model": model,
                    "dataset": dataset,
                    "depth": depth + 1,
                    "nodes": first["nodes"][depth],
                    "n": n,
                    "clean": first["clean"][depth],
                    "robust": robust,
                    "low": round(interval.low, 4),
                    "high": round(interval.high, 4),
                    "runs": aimed,
                    "only_by": {run: alone(run, each) for run in each},
                    "missing": [run for run in RUNS if run not in each],
                }
            )
    return found


def alone(run: str, each: dict[str, NDArray[np.bool_]]) -> int:
    """Return how many samples one run breaks and no other."""
    others = [flags for name, flags in each.items() if name != run]
    return int((each[run] & ~np.any(others, axis=0)).sum()) if others else int(each[run].sum())


def render_table(record: dict[str, Any]) -> str:
    """Return the record as Markdown for the documentation."""
    lines = []
    for dataset in dict.fromkeys(row["dataset"] for row in record["summary"]):
        part = [row for row in record["summary"] if row["dataset"] == dataset]
        lines += [
            f"{dataset}, eps {spelled(EPS[dataset])}, n = {part[0]['n']}, roll-up; robust samples under each run"
            " at its own depth, and under all",
            "",
            f"| model | depth (nodes) | clean | {' | '.join(RUNS)} | worst case | 95 % |",
            f"|---|---|--:|{'--:|' * (len(RUNS) + 2)}",
        ]
        for row in part:
            shown = [str(row["runs"].get(run, "")) for run in RUNS]
            share = f"{row['robust']} ({100 * row['robust'] / row['n']:.1f} %)"
            lines.append(
                f"| {row['model']} | {row['depth']} ({row['nodes']}) | {row['clean']} | {' | '.join(shown)} |"
                f" {share} | {100 * row['low']:.1f} to {100 * row['high']:.1f} |"
            )
        lines.append("")
    rows = record["rows"]
    lines.append(
        f"Cost: {sum(row['forwards'] for row in rows):,} forwards, {sum(row['backwards'] for row in rows):,} backwards,"
        f" {sum(row['seconds'] for row in rows) / 60:.0f} minutes."
    )
    measured = {row["model"]: row["missing"] for row in record["summary"]}
    models = dict.fromkeys(model for group in MODELS.values() for model in group)
    left = {model: measured.get(model, ["all of it"]) for model in models}
    if any(left.values()):
        named = [f"{model}: {', '.join(runs)}" for model, runs in left.items() if runs]
        lines.append(f"Not run yet: {'; '.join(named)}.")
    lines.append(measurement.source(record))
    return "\n".join(lines) + "\n"


def spelled(eps: Fraction) -> str:
    return f"{eps.numerator * (255 // eps.denominator)}/255"


def estimate(cells: list[Cell], subjects: dict[tuple[str, str], Subject]) -> float:
    """Return the seconds that the cells take at most: every sample that is right stays to the end of every run."""
    total = 0.0
    for (model, dataset), subject in subjects.items():
        right = subject.clean_right()
        forward, both = subject.milliseconds()
        for cell in cells:
            if (cell.model, cell.dataset) != (model, dataset):
                continue
            with_backward, alone_ = cell.passes()
            total += right[0 if cell.pooled else cell.depth - 1] * (with_backward * both + alone_ * forward) / 1000
            if cell.run == "uap":
                settings = cell.settings()
                total += settings["updates"] * BATCH * both / 1000 + 11 * settings["images"] * forward / 1000
    return total


def make_fitter(subject: Subject, *, seed: int) -> Fitter:
    """Return what fits perturbations for a subject, on images of the held-out split."""
    scored = load_images(subject.dataset, limit=len(subject.ids))
    settings = ATTACKS.get("superclass_uap").settings(RUNS["uap"][1])
    given = fit_images(scored, dataset=subject.dataset, part=str(settings["fit_on"]), count=int(settings["images"]))
    assert not set(given.ids) & set(subject.ids)
    threat = ThreatModel("linf", EPS[subject.dataset])
    return Fitter(subject.forward, given, threat, seed, subject.dataset, BATCH, subject.device)


def main() -> None:
    options = parse()
    record = measurement.read(options.out, options.seed, name="adaptive", what=WHAT)
    if options.table:
        print(render_table(record), end="")
        return
    torch.set_num_threads(options.threads)
    wanted = [c for c in all_cells() if any(fnmatch.fnmatchcase(c.name, pattern) for pattern in options.cells)]
    if not wanted:
        raise InputError(f"--cells {' '.join(options.cells)} names no cell: they are like {all_cells()[0].name}")
    subjects: dict[tuple[str, str], Subject] = {}
    fitters: dict[tuple[str, str], Fitter] = {}
    for cell in wanted:
        key = cell.model, cell.dataset
        if key not in subjects:
            subjects[key] = load_subject(*key, limit=options.limit, device=options.device)
            fitters[key] = make_fitter(subjects[key], seed=options.seed)
    todo = [
        cell
        for cell in wanted
        if options.force
        or not measurement.done(cell.name, wanted_values(cell, subjects[cell.model, cell.dataset]), record)
    ]
    print(f"{len(wanted)} cells, {len(wanted) - len(todo)} of them in {options.out} already")
    if todo:
        print(f"at most {estimate(todo, subjects) / 60:.0f} minutes; samples that break leave sooner")
    if options.estimate:
        return
    began = time.perf_counter()
    for number, cell in enumerate(todo, start=1):
        key = cell.model, cell.dataset
        row = attacked(cell, subjects[key], fitters[key], seed=options.seed)
        measurement.keep(row, record, options, order=[cell.name for cell in all_cells()], summarise=summarise)
        print(
            f"[{number}/{len(todo)}] {cell.name:44} robust {row['robust']}  {row['seconds']:7.1f} s"
            f"  ({(time.perf_counter() - began) / 60:.0f} min)",
            flush=True,
        )
    print(render_table(record), end="")


WHAT = "robust counts under adaptive attacks, per depth, and their worst case"


def wanted_values(cell: Cell, subject: Subject) -> dict[str, Any]:
    """Return what a finished cell must agree with: model, images, tree, radius and settings."""
    return {"n": len(subject.ids), "eps": str(EPS[cell.dataset]), "settings": cell.settings(), **subject.identity}


def parse() -> argparse.Namespace:
    made = measurement.parser(__doc__, "adaptive", cells="<model>/<dataset>/d<depth>/<run>")
    return measurement.long_options(made).parse_args()


if __name__ == "__main__":
    main()
