"""Our attacks against the field's own code at equal budget: robust counts, sample by sample.

For clip, TeCoA and Hier-AFT on digits (eps 32/255) and CIFAR-100 (4/255), at the leaves and at every depth with enough
nodes: apgd-ce, apgd-t and square (1,000 queries) against pyautoattack, and leaf_pgd against torchattacks' PGD. Both
attack the same images through the same bound model, and one verification judges both. A cell that is in the record
already is not run again:

    python benchmarks/parity.py
    python benchmarks/parity.py --cells 'clip/digits/*' --limit 50 --out try.json
    python benchmarks/parity.py --merge one.json two.json
    python benchmarks/parity.py --table
"""

from __future__ import annotations

import argparse
import fnmatch
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import measurement
import torch
from subjects import Subject, autoattack, foreign, load_subject, ours

from hierbench.attacks.external.pyautoattack import Budget
from hierbench.errors import InputError
from hierbench.evaluation.environment import code_hash
from hierbench.evaluation.statistics import mcnemar
from hierbench.hierarchy.catalogue import load_hierarchy

MODELS = {
    "digits": ("clip", "tecoa.digits", "hier_aft.digits"),
    "cifar100": ("clip", "tecoa.tiny", "hier_aft.tiny"),
}
EPS = {"digits": Fraction(32, 255), "cifar100": Fraction(4, 255)}
STEPS, TARGETS, QUERIES, PGD_STEPS = 100, 9, 1000, 20
FEWEST = {"apgd-ce": 2, "apgd-t": 4, "square": 2}
"""Nodes a depth needs for the attack to be the same on both sides."""
SIGNIFICANT = 0.05
ALLOWED_POINTS = 0.3
"""How far our pooled robust accuracy may lie above the reference's."""


@dataclass(frozen=True)
class Cell:
    """One comparison."""

    model: str
    dataset: str
    depth: int
    nodes: int
    attack: str

    @property
    def name(self) -> str:
        return f"{self.model}/{self.dataset}/d{self.depth}/{self.attack}"

    @property
    def reference(self) -> str:
        return "torchattacks" if self.attack == "leaf_pgd" else "pyautoattack"

    def budget(self) -> dict[str, int]:
        """Return the budget of both sides."""
        return {
            "apgd-ce": {"steps": STEPS, "restarts": 1},
            "apgd-t": {"steps": STEPS, "restarts": 1, "targets": min(TARGETS, self.nodes - 1)},
            "square": {"queries": QUERIES, "restarts": 1},
            "leaf_pgd": {"steps": PGD_STEPS, "restarts": 1},
        }[self.attack]


def all_cells() -> list[Cell]:
    """Return every cell, in the order they are run."""
    cells = []
    for dataset, models in MODELS.items():
        nodes = [len(level.nodes) for level in load_hierarchy(dataset).levels]
        for model in models:
            cells.append(Cell(model, dataset, len(nodes), nodes[-1], "leaf_pgd"))
            for attack, fewest in FEWEST.items():
                depths = [depth for depth, count in enumerate(nodes, start=1) if count >= fewest]
                cells += [Cell(model, dataset, depth, nodes[depth - 1], attack) for depth in depths]
    return cells


def compare(cell: Cell, subject: Subject, *, seed: int) -> dict[str, Any]:
    """Run both sides of a cell and return its row of the record."""
    eps, budget = EPS[cell.dataset], cell.budget()
    mine = ours(subject, cell.attack, eps=eps, depth=cell.depth, seed=seed, settings=budget)
    if cell.reference == "torchattacks":
        settings = {"steps": budget["steps"], "alpha": "eps/4"}
        theirs = foreign(subject, "PGD", eps=eps, depth=cell.depth, seed=seed, settings=settings)
    else:
        limits = Budget(**budget)
        theirs = autoattack(subject, [cell.attack], eps=eps, depth=cell.depth, seed=seed, budget=limits)
    test = mcnemar(~mine.verdict, ~theirs.verdict)
    sides = {
        name: {
            "robust": int((~side.verdict).sum()),
            "seconds": round(side.seconds, 2),
            "forwards": side.forwards,
            "backwards": side.backwards,
            "components": list(side.components),
            "unverified": int(side.unverified.sum()),
        }
        for name, side in (("ours", mine), ("theirs", theirs))
    }
    return {
        "cell": cell.name,
        "model": cell.model,
        "dataset": cell.dataset,
        "depth": cell.depth,
        "nodes": cell.nodes,
        "attack": cell.attack,
        "reference": cell.reference,
        "eps": str(eps),
        "n": len(subject.images),
        "clean": int((~mine.clean_verdict).sum()),
        **sides,
        "only_ours_robust": test.only_first,
        "only_theirs_robust": test.only_second,
        "p": test.p_value,
        "budget": budget,
        "code_hash": code_hash(),
        "threads": torch.get_num_threads(),
        **subject.identity,
    }


def holm(p_values: Sequence[float]) -> list[float]:
    """Return p values adjusted by Holm's step-down method, in the order given.

    >>> holm([0.01, 0.04, 0.03])
    [0.03, 0.06, 0.06]
    """
    adjusted = [0.0] * len(p_values)
    running = 0.0
    for rank, index in enumerate(sorted(range(len(p_values)), key=lambda i: p_values[i])):
        running = max(running, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = running
    return adjusted


def summarise(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Add ``p_holm`` to every row, by reference library, and return one summary for each."""
    found = []
    for reference in sorted({row["reference"] for row in rows}):
        part = [row for row in rows if row["reference"] == reference]
        for row, value in zip(part, holm([row["p"] for row in part]), strict=True):
            row["p_holm"] = value
        n, mine, theirs = (sum(values) for values in zip(*(_counts(row) for row in part), strict=True))
        worse = [
            row["cell"]
            for row in part
            if row["p_holm"] < SIGNIFICANT and row["only_ours_robust"] > row["only_theirs_robust"]
        ]
        points = 100 * (mine - theirs) / n
        found.append(
            {
                "reference": reference,
                "cells": len(part),
                "n": n,
                "ours_robust": mine,
                "theirs_robust": theirs,
                "points_above": round(points, 4),
                "significantly_worse": worse,
                "reached": points <= ALLOWED_POINTS and not worse,
            }
        )
    return found


def _counts(row: dict[str, Any]) -> tuple[int, int, int]:
    return row["n"], row["ours"]["robust"], row["theirs"]["robust"]


def render_table(record: dict[str, Any]) -> str:
    """Return the record as Markdown for the documentation."""
    lines = []
    for dataset in dict.fromkeys(row["dataset"] for row in record["rows"]):
        rows = [row for row in record["rows"] if row["dataset"] == dataset]
        depths = sorted({row["depth"] for row in rows})
        nodes = {row["depth"]: row["nodes"] for row in rows}
        lines += [
            f"{dataset}, eps {rows[0]['eps']}, n = {rows[0]['n']} a cell",
            "",
            f"| model | attack | {' | '.join(f'depth {d} ({nodes[d]} nodes)' for d in depths)} |",
            f"|---|---|{'--:|' * len(depths)}",
        ]
        for model, attack in dict.fromkeys((row["model"], row["attack"]) for row in rows):
            own = {row["depth"]: row for row in rows if (row["model"], row["attack"]) == (model, attack)}
            shown = [_entry(own[depth]) if depth in own else "" for depth in depths]
            lines.append(f"| {model} | {attack} | {' | '.join(shown)} |")
        lines.append("")
    lines.append("Robust samples: ours / theirs (robust for ours alone : for theirs alone).")
    for part in record["summary"]:
        worse = ", ".join(part["significantly_worse"]) or "none"
        lines.append(
            f"Against {part['reference']}, pooled over {part['cells']} cells and {part['n']:,} verdicts: ours "
            f"{part['ours_robust']:,} robust, theirs {part['theirs_robust']:,}, {part['points_above']:+.2f} points; "
            f"cells that are significantly worse (exact McNemar, Holm, {SIGNIFICANT}): {worse}."
        )
    seconds = [sum(row[side]["seconds"] for row in record["rows"]) for side in ("ours", "theirs")]
    lines.append(f"Time: ours {seconds[0] / 60:.0f} minutes, theirs {seconds[1] / 60:.0f}, {_threads(record)}.")
    lines += ["", measurement.source(record)]
    return "\n".join(lines) + "\n"


def _entry(row: dict[str, Any]) -> str:
    discordant = f"{row['only_ours_robust']}:{row['only_theirs_robust']}"
    return f"{row['ours']['robust']} / {row['theirs']['robust']} ({discordant})"


def _threads(record: dict[str, Any]) -> str:
    counts = sorted({row["threads"] for row in record["rows"]})
    return f"on {' or '.join(str(count) for count in counts)} CPU thread{'s' if counts != [1] else ''}"


def estimate(cells: Iterable[Cell], subjects: dict[tuple[str, str], Subject]) -> float:
    """Return the seconds that both sides take at most: every sample that is right stays to the end of every run."""
    total = 0.0
    for (model, dataset), subject in subjects.items():
        right = subject.clean_right()
        forward, both = subject.milliseconds()
        for cell in cells:
            if (cell.model, cell.dataset) != (model, dataset):
                continue
            budget = cell.budget()
            passes = budget.get("steps", 0) * budget.get("targets", 1) * both + budget.get("queries", 0) * forward
            total += 2 * right[cell.depth - 1] * passes / 1000
    return total


def main() -> None:
    options = parse()
    record = read(options.out, options.seed)
    for path in options.merge:
        part = read(path, options.seed)
        for row in part["rows"]:
            keep(row, record, options, environment=part["environment"])
    if options.merge:
        print(f"{options.out}: {len(record['rows'])} of {len(all_cells())} cells")
        return
    if options.table:
        print(render_table(record), end="")
        return
    torch.set_num_threads(options.threads)
    wanted = [c for c in all_cells() if any(fnmatch.fnmatchcase(c.name, pattern) for pattern in options.cells)]
    if not wanted:
        raise InputError(f"--cells {' '.join(options.cells)} names no cell: they are like {all_cells()[0].name}")
    subjects: dict[tuple[str, str], Subject] = {}
    for cell in wanted:
        key = cell.model, cell.dataset
        if key not in subjects:
            subjects[key] = load_subject(*key, limit=options.limit, device=options.device)
    todo = [cell for cell in wanted if options.force or not done(cell, subjects[cell.model, cell.dataset], record)]
    print(f"{len(wanted)} cells, {len(wanted) - len(todo)} of them in {options.out} already")
    if todo:
        print(f"at most {estimate(todo, subjects) / 60:.0f} minutes; samples that break leave sooner")
    if options.estimate:
        return
    began = time.perf_counter()
    for number, cell in enumerate(todo, start=1):
        row = compare(cell, subjects[cell.model, cell.dataset], seed=options.seed)
        keep(row, record, options)
        print(
            f"[{number}/{len(todo)}] {cell.name:40} {_entry(row):>20}  p {row['p']:.3f}"
            f"  {row['ours']['seconds']:7.1f} s / {row['theirs']['seconds']:7.1f} s"
            f"  ({(time.perf_counter() - began) / 60:.0f} min)",
            flush=True,
        )
    for part in record["summary"]:
        print(f"{part['reference']}: {part['points_above']:+.2f} points, reached: {part['reached']}")


WHAT = "robust counts of our attacks and of the field's own code at equal budget"


def read(path: Path, seed: int) -> dict[str, Any]:
    """Return the record as far as it goes; one of another seed is refused."""
    return measurement.read(path, seed, name="parity", what=WHAT)


def done(cell: Cell, subject: Subject, record: dict[str, Any]) -> bool:
    """Return whether the record has the cell, of the same model, images, tree and budget."""
    wanted = {"n": len(subject.images), "eps": str(EPS[cell.dataset]), "budget": cell.budget(), **subject.identity}
    return measurement.done(cell.name, wanted, record)


def keep(
    row: dict[str, Any],
    record: dict[str, Any],
    options: argparse.Namespace,
    *,
    environment: dict[str, Any] | None = None,
) -> None:
    """Put a finished cell into the record and write it; ``environment`` is that of a record it comes from."""
    order = [cell.name for cell in all_cells()]
    measurement.keep(row, record, options, order=order, summarise=summarise, environment=environment)


def parse() -> argparse.Namespace:
    made = measurement.long_options(measurement.parser(__doc__, "parity", cells="<model>/<dataset>/d<depth>/<attack>"))
    made.add_argument("--merge", type=Path, nargs="+", default=[], help="take in the cells of other records, and stop")
    return made.parse_args()


if __name__ == "__main__":
    main()
