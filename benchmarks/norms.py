"""Do margin and norm grow with depth in trained Hier-AFT? Measured on models with a ball, level by level.

The radius of a point is its distance from the origin, in units of the ball, over which the claim is that deeper nodes
lie further out. The margin of an image at a depth is the logit of its true node less the largest other one, among the
nodes of that depth; clean evaluation images, node prompts of the depth itself. Runs on the CPU in a minute. Writes
``leaderboard/measurements/norms.json``:

    python benchmarks/norms.py
    python benchmarks/norms.py --table

The seeds' weights are not shipped; where a sweep has made them, ``--models`` names their folder and ``--seeds`` which:

    python benchmarks/norms.py --models hierbench-models --seeds hier_aft.tiny-s1 hier_aft.tiny-s2 hier_aft.tiny-s3
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from measurement import keep, missing, parser, read, source

import hierbench
from hierbench.datasets.load import load_images
from hierbench.evaluation.protocol import choose_protocol
from hierbench.hierarchy.catalogue import load_hierarchy
from hierbench.models.binding import bind
from hierbench.models.heads import HyperbolicHead

NAME = "norms"
CELLS = ("hier_aft.digits/digits", "hier_aft.tiny/tiny_imagenet@32", "hier_aft.tiny/cifar100")
SEED_DATASETS = ("tiny_imagenet@32", "cifar100")
BATCH = 256
DRAWS = 2000


def main() -> None:
    made = parser(__doc__, NAME, cells="model/data set, such as */digits")
    made.set_defaults(limit=1000)
    made.add_argument("--models", type=Path, help="folder of fine-tuned models")
    made.add_argument("--seeds", nargs="+", default=[], help="models of that folder, on the sets of hier_aft.tiny")
    options = made.parse_args()
    if options.seeds and options.models is None:
        made.error("--seeds: give --models too, the folder that holds them")
    record = read(options.out, options.seed, name=NAME, what="radius and margin by depth in models with a ball")
    if options.table:
        print(render_table(record))
        return
    torch.set_num_threads(options.threads)
    wanted = {"limit": options.limit}
    seeds = [f"{seed}/{dataset}" for seed in options.seeds for dataset in SEED_DATASETS]
    order = list(dict.fromkeys([*CELLS, *(row["cell"] for row in record["rows"]), *seeds]))
    for cell in missing([*CELLS, *seeds], wanted, record, options):
        model, dataset = cell.split("/")
        weights = str(options.models / model) if model in options.seeds else model
        row = {"cell": cell, **wanted, **measure(weights, dataset, options.limit, options.seed)}
        keep(row, record, options, order=order, summarise=lambda rows: [])
        print(f"{cell}: radii {[depth['radius'] for depth in row['depths']]}")


@torch.no_grad()
def measure(name: str, dataset: str, limit: int, seed: int) -> dict[str, Any]:
    """Return the figures of one model on one data set, coarsest depth first."""
    protocol = choose_protocol(None, dataset)
    entry = protocol.dataset(dataset)
    images, tree = load_images(dataset, limit=limit, without=entry.without if entry else None), load_hierarchy(dataset)
    model = hierbench.load_model(name, device="cpu")
    head = model.head
    assert isinstance(head, HyperbolicHead)
    bound = bind(model, tree, template=images.spec.template, direct=True).eval()
    pixels = images.pixels(np.arange(len(images))).float() / 255
    logits = torch.cat([bound(part) for part in torch.split(pixels, BATCH)])
    embedded = torch.cat([model.embed(part) for part in torch.split(pixels, BATCH)])
    leaves = tree.num_leaves
    start, depths, found = leaves, [], []
    for depth in range(1, tree.num_depths + 1):
        nodes = len(tree.levels[depth - 1])
        first = 0 if depth == tree.num_depths else start
        start += 0 if depth == tree.num_depths else nodes
        columns = slice(first, first + nodes)
        truth = bound.layout.leaf_to_node[depth - 1][torch.from_numpy(images.labels)]
        margin = margins(logits[:, columns], truth)
        low, high = bootstrap(margin.numpy(), seed)
        radius = bound.points[columns].norm(dim=1)
        found.append(margin.numpy())
        depths.append(
            {
                "depth": depth,
                "nodes": nodes,
                "radius": round(float(radius.mean()), 4),
                "radius_spread": round(float(radius.std()), 4),
                "margin": round(float(margin.mean()), 3),
                "margin_low": round(low, 3),
                "margin_high": round(high, 3),
                "right": int((margin > 0).sum()),
            }
        )
    return {
        "protocol": protocol.name,
        "n": len(images),
        "margin_growth": counted(found[-1] - found[0]),
        "weights_hash": model.weights_hash,
        "image_radius": round(float(head.image_points(embedded).norm(dim=1).mean()), 4),
        "depths": depths,
    }


def margins(logits: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
    """Return z_y - max of the others [n]."""
    own = logits.gather(1, truth[:, None])[:, 0]
    return own - logits.scatter(1, truth[:, None], -torch.inf).amax(dim=1)


def counted(differences: np.ndarray) -> dict[str, int]:
    """Return how many differences there are, and how many are above and below 0."""
    return {"n": len(differences), "grew": int((differences > 0).sum()), "shrank": int((differences < 0).sum())}


def bootstrap(values: np.ndarray, seed: int) -> tuple[float, float]:
    """Return the 95 % percentile interval of a mean."""
    draws = np.random.default_rng(seed).integers(0, len(values), size=(DRAWS, len(values)))
    low, high = np.quantile(values[draws].mean(axis=1), [0.025, 0.975])
    return float(low), float(high)


def render_table(record: dict[str, Any]) -> str:
    lines = [
        "| model | data set | depth (nodes) | mean radius of its nodes | mean margin of clean images | right of n |",
        "|---|---|---|--:|--:|--:|",
    ]
    for row in record["rows"]:
        model, _, dataset = row["cell"].partition("/")
        for depth in row["depths"]:
            margin = f"{depth['margin']:.2f} [{depth['margin_low']:.2f}, {depth['margin_high']:.2f}]"
            lines.append(
                f"| {model} | {dataset} | {depth['depth']} ({depth['nodes']}) | {depth['radius']:.3f} "
                f"| {margin} | {depth['right']} of {row['n']} |"
            )
    if record["rows"]:
        lines += [
            "",
            "Radius: Euclidean norm in the ball of radius 1. Margin: logit of the true node less the largest other of "
            "its depth, bootstrap 95 % interval over images; clean images. -s1, -s2 and -s3 are the claims' seeds, the "
            f"others shipped models. {source(record)}",
        ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
