"""Does the best published figure stand? What the headline left robust is attacked again, harder, in float32.

Only images that the committed headline record counts as robust can lower its figure, so that only those are searched:
longer and from more starts, towards more nodes, along the margin, by the fast adaptive boundary, without gradients, and
with what breaks other defences. Each run sees what those before it left. A case is a model, a data set and a depth.
Writes ``leaderboard/measurements/survivors.json``:

    python benchmarks/survivors.py
    python benchmarks/survivors.py --table
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import torch
from measurement import keep, missing, parser, read, source
from numpy.typing import NDArray
from subjects import BATCH, Subject, bound_subject, ours

from hierbench.datasets.load import load_images
from hierbench.evaluation.protocol import PROTOCOLS
from hierbench.evaluation.statistics import wilson
from hierbench.evaluation.stored import read_record
from hierbench.evaluation.verdicts import read_verdicts
from hierbench.hierarchy.catalogue import load_hierarchy

NAME = "survivors"
Forward = Callable[[torch.Tensor], torch.Tensor]
PROTOCOL = "tiny-v1"
BOARD = Path("leaderboard/records") / PROTOCOL
CASES = ("agft.tiny/cifar100/5", "soft_labels.tiny/cifar100/1")
"""The most robust at the leaves and at the coarsest depth of CIFAR-100."""
RUNS: tuple[tuple[str, str, dict[str, object]], ...] = (
    ("apgd-ce, 100 steps, 5 starts", "apgd-ce", {"steps": 100, "restarts": 5}),
    ("apgd-t, 100 steps, 20 targets", "apgd-t", {"steps": 100, "targets": 20}),
    ("margin, 100 steps, 3 starts", "cw_linf", {"steps": 100, "restarts": 3}),
    ("fab-t", "fab-t", {}),
    ("square, 2,000 queries", "square", {"queries": 2000}),
)
SOURCES = ("tecoa.tiny", "pmg_aft.tiny", "fare.tiny")
"""Defences whose adversarial images are shown to the model."""


def main() -> None:
    made = parser(__doc__, NAME, cells="model/data set/depth")
    made.set_defaults(limit=100)
    options = made.parse_args()
    record = read(options.out, options.seed, name=NAME, what="what the headline left robust, attacked harder")
    if options.table:
        print(render_table(record))
        return
    torch.set_num_threads(options.threads)
    for cell in missing(CASES, {}, record, options):
        model, dataset, depth = cell.split("/")
        row = {"cell": cell, **attacked(model, dataset, int(depth), limit=options.limit, seed=options.seed)}
        keep(row, record, options, order=CASES, summarise=lambda rows: [])


def attacked(model: str, dataset: str, depth: int, *, limit: int, seed: int) -> dict[str, Any]:
    """Attack a case's first survivors by every run; return how many each left."""
    entry = next(data for data in PROTOCOLS.get(PROTOCOL).datasets if data.name == dataset)
    images = load_images(dataset, split=entry.split, without=entry.without)
    tree, eps = load_hierarchy(dataset, entry.tree), Fraction(entry.default_eps)
    robust, name, scored = headline(model, dataset, depth)
    subject = bound_subject(model, images, tree)
    left = chosen(subject, np.array([i for i, sample in enumerate(subject.ids) if sample in robust], dtype=np.int64))
    if len(left.ids) != len(robust):
        raise SystemExit(f"{name}: {len(robust)} robust samples, and {len(left.ids)} of them are among the images")
    left = chosen(left, np.arange(min(limit, len(robust))))
    steps, left = harder(
        left, lambda other: bound_subject(other, images, tree).forward, eps=eps, depth=depth, seed=seed
    )
    return {"headline": name, "samples": scored, "robust": len(robust), "steps": steps, "left": len(left.ids),
            "eps": entry.default_eps}  # fmt: skip


def harder(
    left: Subject, load: Callable[[str], Forward], *, eps: Fraction, depth: int, seed: int
) -> tuple[list[dict[str, Any]], Subject]:
    """Attack a subject's samples by every run, each on what those before it left; return the runs and what is left."""
    steps = []
    for label, attack, settings in RUNS:
        if not left.ids:
            break
        began = time.perf_counter()
        result = ours(left, attack, eps=eps, depth=depth, seed=seed, settings=settings)
        broken = result.broken["rollup"][:, depth - 1]
        steps.append(step(label, broken, time.perf_counter() - began, result.forwards, result.backwards))
        left = chosen(left, np.flatnonzero(~broken))
        print(f"{left.model} depth {depth}: {label}: {len(left.ids)} left ({steps[-1]['seconds']} s)", flush=True)
    for other in SOURCES if left.ids else ():
        began = time.perf_counter()
        forward = load(other)
        result = ours(left, "apgd-ce", eps=eps, depth=depth, seed=seed, settings={}, forward=forward, in_full=True)
        shown = result.adversarial if result.severity is None else result.severity.images
        labels = torch.from_numpy(left.labels)
        with torch.no_grad():
            logits = torch.cat([left.forward(part) for part in torch.split(shown, BATCH)])
        found = logits[:, : left.layout.num_leaves].argmax(dim=1)
        row = left.layout.leaf_to_node[depth - 1]
        broken = (row[found] != row[labels]).numpy()
        label, seconds = f"images made against {other}", time.perf_counter() - began
        steps.append(step(label, broken, seconds, result.forwards, result.backwards))
        left = chosen(left, np.flatnonzero(~broken))
        print(f"{left.model} depth {depth}: from {other}: {len(left.ids)} left", flush=True)
    return steps, left


def headline(model: str, dataset: str, depth: int) -> tuple[set[str], str, int]:
    """Return the samples that the committed headline record counts as robust, its path, and how many it scored."""
    protocol = PROTOCOLS.get(PROTOCOL)
    attack = protocol.attacks.headline
    entry = protocol.dataset(dataset)
    assert entry is not None, f"{PROTOCOL} has no {dataset}"
    eps = entry.default_eps
    (path,) = (BOARD / model).glob(f"{dataset}.*.{attack}.rollup.linf-{eps.replace('/', '_')}.*.json")
    verdicts = read_verdicts(path.with_name(read_record(path).verdicts.file))
    parts = [verdicts.attack_broken(aimed, "rollup") for aimed in verdicts.attacked]
    broken = np.logical_or.reduce([part[:, depth - 1] for part in parts if part is not None])
    robust = {verdicts.sample_ids[i] for i in np.flatnonzero(~broken).tolist()}
    return robust, path.as_posix(), len(verdicts.sample_ids)


def chosen(subject: Subject, rows: NDArray[np.int64]) -> Subject:
    """Return a subject with some of its images."""
    ids = tuple(subject.ids[i] for i in rows.tolist())
    return dataclasses.replace(
        subject, images=subject.images[torch.from_numpy(rows)], labels=subject.labels[rows], ids=ids
    )


def step(label: str, broken: NDArray[np.bool_], seconds: float, forwards: int, backwards: int) -> dict[str, Any]:
    return {
        "run": label,
        "searched": len(broken),
        "broken": int(broken.sum()),
        "forwards": forwards,
        "backwards": backwards,
        "seconds": round(seconds, 1),
    }


def render_table(record: dict[str, Any]) -> str:
    lines = []
    for row in record["rows"]:
        model, dataset, depth = row["cell"].split("/")
        searched = row["steps"][0]["searched"]
        broken = wilson(searched - row["left"], searched)
        which = "these" if searched == row["robust"] else f"the first {searched} of these"
        lines += [
            f"{model} on {dataset}, depth {depth}, eps {row['eps']}: the headline left {row['robust']} of "
            f"{row['samples']} samples robust ({100 * row['robust'] / row['samples']:.1f} %). Of {which}, "
            f"{searched - row['left']} fell in the end ({100 * (1 - row['left'] / searched):.1f} % "
            f"[{100 * broken.low:.1f}, {100 * broken.high:.1f}]).",
            "",
            "| run, on what the ones above left | searched | broken | forwards | backwards | seconds |",
            "|---|--:|--:|--:|--:|--:|",
        ]
        lines += [
            "| {run} | {searched} | {broken} | {forwards:,} | {backwards:,} | {seconds} |".format(**s)
            for s in row["steps"]
        ]
        lines += ["", f"Headline: `{row['headline']}`.", ""]
    return "\n".join([*lines, source(record)]) + "\n"


if __name__ == "__main__":
    main()
