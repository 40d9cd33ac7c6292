"""Does the best published figure stand? What the headline left robust is attacked again, harder, in float32.

Only images that the committed headline record counts as robust can lower its figure, so that only those are searched:
longer and from more starts, towards more nodes, along the margin, by the fast adaptive boundary, without gradients, and
with what breaks other defences. Each run sees what those before it left. A case is a model, a data set and a depth, and
a radius if it is not the protocol's. Writes ``leaderboard/measurements/survivors.json``:

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
from hierbench.evaluation.protocol import PROTOCOLS, ProtocolDataset
from hierbench.evaluation.request import spell_eps
from hierbench.evaluation.statistics import wilson
from hierbench.evaluation.stored import read_record
from hierbench.evaluation.verdicts import read_verdicts
from hierbench.hierarchy.catalogue import load_hierarchy

NAME = "survivors"
Forward = Callable[[torch.Tensor], torch.Tensor]
PROTOCOL = "tiny-v1"
BOARD = Path("leaderboard/records") / PROTOCOL
CASES = (
    "agft.tiny/cifar100/5",
    "soft_labels.tiny/cifar100/1",
    "soft_labels.tiny/cifar100/1/8_255",
    "mmcoa.tiny/tiny_imagenet@32/5",
    "pmg_aft.tiny/cifar10/3",
)
"""The most robust of CIFAR-100 at the leaves and at the coarsest depth, at the latter under the largest radius too, and
of Tiny-ImageNet and CIFAR-10 at the leaves."""
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
    made = parser(__doc__, NAME, cells="model/data set/depth[/eps]")
    made.set_defaults(limit=100)
    options = made.parse_args()
    record = read(options.out, options.seed, name=NAME, what="what the headline left robust, attacked harder")
    if options.table:
        print(render_table(record))
        return
    torch.set_num_threads(options.threads)
    for cell in missing(CASES, {}, record, options):
        row = {"cell": cell, **attacked(Case.of(cell), limit=options.limit, seed=options.seed)}
        keep(row, record, options, order=CASES, summarise=lambda rows: [])


@dataclasses.dataclass(frozen=True)
class Case:
    """A figure of the board: the headline of a model on a data set at a depth and radius."""

    model: str
    dataset: str
    depth: int
    eps: Fraction

    @classmethod
    def of(cls, cell: str) -> Case:
        """Return the case that a cell names; the radius may be left to the protocol."""
        model, dataset, depth, *eps = cell.split("/")
        return cls(
            model, dataset, int(depth), Fraction(*map(int, (eps[0] if eps else default_eps(dataset)).split("_")))
        )


def default_eps(dataset: str) -> str:
    return entry_of(dataset).default_eps.replace("/", "_")


def entry_of(dataset: str) -> ProtocolDataset:
    entry = PROTOCOLS.get(PROTOCOL).dataset(dataset)
    assert entry is not None, f"{PROTOCOL} has no {dataset}"
    return entry


def attacked(case: Case, *, limit: int, seed: int) -> dict[str, Any]:
    """Attack a case's first survivors by every run; return how many each left."""
    entry = entry_of(case.dataset)
    images = load_images(case.dataset, split=entry.split, without=entry.without)
    tree = load_hierarchy(case.dataset, entry.tree)
    robust, name, scored = headline(case)
    subject = bound_subject(case.model, images, tree)
    left = chosen(subject, np.array([i for i, sample in enumerate(subject.ids) if sample in robust], dtype=np.int64))
    if len(left.ids) != len(robust):
        raise SystemExit(f"{name}: {len(robust)} robust samples, and {len(left.ids)} of them are among the images")
    left = chosen(left, np.arange(min(limit, len(robust))))
    steps, left = harder(
        left, lambda other: bound_subject(other, images, tree).forward, eps=case.eps, depth=case.depth, seed=seed
    )
    return {"headline": name, "samples": scored, "robust": len(robust), "steps": steps, "left": len(left.ids),
            "eps": spell_eps(case.eps)}  # fmt: skip


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


def headline(case: Case) -> tuple[set[str], str, int]:
    """Return the samples that the committed headline record counts as robust, its path, and how many it scored."""
    attack, eps = PROTOCOLS.get(PROTOCOL).attacks.headline, spell_eps(case.eps).replace("/", "_")
    (path,) = (BOARD / case.model).glob(f"{case.dataset}.*.{attack}.rollup.linf-{eps}.*.json")
    verdicts = read_verdicts(path.with_name(read_record(path).verdicts.file))
    parts = [verdicts.attack_broken(aimed, "rollup") for aimed in verdicts.attacked]
    broken = np.logical_or.reduce([part[:, case.depth - 1] for part in parts if part is not None])
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
        model, dataset, depth = row["cell"].split("/")[:3]
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
