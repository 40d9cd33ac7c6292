"""Do images made against one model break another? Every shipped model of the small track against every other.

Each model's images are searched past their first success, at the leaves and at the coarsest depth, then shown to all
the models. A pair of models is judged on the images that both have right without an attack, at the attacked depth, by
roll-up: an image that the source had wrong was never attacked, and one that the target had wrong cannot be broken.
Noise of the same radius, a random corner of the ball, stands beside the models as the source that knows none of them.
Writes ``leaderboard/measurements/transfer.json``:

    python benchmarks/transfer.py
    python benchmarks/transfer.py --table
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from fractions import Fraction
from typing import Any

import numpy as np
import torch
from measurement import keep, missing, parser, read, source
from numpy.typing import NDArray
from subjects import BATCH, Subject, bound_subject, ours

from hierbench.datasets.load import load_images
from hierbench.evaluation.protocol import PROTOCOLS
from hierbench.hierarchy.catalogue import load_hierarchy
from hierbench.models.catalogue import MODELS

NAME = "transfer"
PROTOCOL, DATASET = "tiny-v1", "cifar100"
NOISE = "noise"
Bools = NDArray[np.bool_]


def main() -> None:
    made = parser(__doc__, NAME, cells="source models")
    made.set_defaults(limit=1000)
    options = made.parse_args()
    record = read(options.out, options.seed, name=NAME, what="images made against one model, shown to others")
    if options.table:
        print(render_table(record))
        return
    torch.set_num_threads(options.threads)
    entry = PROTOCOLS.get(PROTOCOL).dataset(DATASET)
    assert entry is not None, f"{PROTOCOL} has no {DATASET}"
    eps = Fraction(entry.default_eps)
    wanted = {"dataset": DATASET, "eps": entry.default_eps, "limit": options.limit}
    cells = missing(sources(), wanted, record, options)
    if not cells:
        return
    images = load_images(DATASET, limit=options.limit, split=entry.split, without=entry.without)
    tree = load_hierarchy(DATASET, entry.tree)
    models = {name: bound_subject(name, images, tree) for name in sources() if name != NOISE}
    depths = (1, tree.num_depths)
    for cell in cells:
        found = shown(cell, models, depths, eps=eps, seed=options.seed)
        row = {"cell": cell, **wanted, "samples": len(images), **found}
        keep(row, record, options, order=sources(), summarise=lambda rows: [])
        print(f"{cell}: {found['seconds']} s", flush=True)


def sources() -> tuple[str, ...]:
    """Return what images are made against: the undefended model, every defence, and nothing."""
    return (*(name for name in MODELS.names() if name == "clip" or name.endswith(".tiny")), NOISE)


def shown(
    name: str, models: Mapping[str, Subject], depths: tuple[int, ...], *, eps: Fraction, seed: int
) -> dict[str, Any]:
    """Make a source's images at each depth, and count what every model makes of them."""
    began = time.perf_counter()
    rows, forwards, backwards = [], 0, 0
    first = next(iter(models.values()))
    for depth in depths:
        if name == NOISE:
            images, attacked = noise(first.images, eps, seed), np.ones(len(first.ids), dtype=np.bool_)
        else:
            result = ours(models[name], "superclass_pgd", eps=eps, depth=depth, seed=seed, settings={}, in_full=True)
            assert result.severity is not None
            images, attacked = result.severity.images, result.searched
            forwards, backwards = forwards + result.forwards, backwards + result.backwards
        targets = {}
        for target, subject in models.items():
            both = attacked & right(subject, subject.images, depth)
            left = both & right(subject, images, depth)
            forwards += 2 * len(subject.ids)
            targets[target] = {"both": int(both.sum()), "left": int(left.sum())}
        rows.append({"depth": depth, "attacked": int(attacked.sum()), "targets": targets})
    seconds = round(time.perf_counter() - began, 1)
    return {"depths": rows, "forwards": forwards, "backwards": backwards, "seconds": seconds}


def right(subject: Subject, images: torch.Tensor, depth: int) -> Bools:
    """Return [n]: whether the ancestor of the best leaf is the true node."""
    leaves = subject.layout.num_leaves
    with torch.no_grad():
        parts = [subject.forward(part)[:, :leaves].argmax(dim=1) for part in torch.split(images, BATCH)]
    node = subject.layout.leaf_to_node[depth - 1]
    return np.asarray((node[torch.cat(parts)] == node[torch.from_numpy(subject.labels)]).numpy())


def noise(images: torch.Tensor, eps: Fraction, seed: int) -> torch.Tensor:
    """Return images moved to a random corner of the ball, and kept in the box."""
    signs = torch.randint(0, 2, images.shape, generator=torch.Generator().manual_seed(seed)) * 2 - 1
    return (images + float(eps) * signs).clamp(0, 1)


def render_table(record: dict[str, Any]) -> str:
    if not record["rows"]:
        return "No source yet.\n"
    named = [row["cell"] for row in record["rows"]]
    first = record["rows"][0]
    targets = list(first["depths"][0]["targets"])
    lines = []
    for place, head in enumerate(first["depths"]):
        counts = [t["both"] for row in record["rows"] for t in row["depths"][place]["targets"].values()]
        lines += [
            f"{first['dataset']}, eps {first['eps']}, depth {head['depth']}: images made against a row's model, in % "
            f"still right under a column's, of the {min(counts)} to {max(counts)} images that both had right",
            "",
            f"| made against | {' | '.join(short(name) for name in targets)} |",
            f"|---|{'--:|' * len(targets)}",
        ]
        for row in record["rows"]:
            found = row["depths"][place]["targets"]
            lines.append(f"| {short(row['cell'])} | {' | '.join(kept(found, t, row['cell']) for t in targets)} |")
        lines += ["", own_words(record["rows"], place), ""]
    absent = [name for name in sources() if name not in named]
    lines += [f"Not run yet: {', '.join(absent)}.", ""] if absent else []
    forwards, backwards = (sum(row[what] for row in record["rows"]) for what in ("forwards", "backwards"))
    minutes = sum(row["seconds"] for row in record["rows"]) / 60
    lines.append(
        "superclass_pgd past its first success, roll-up; italic: made against the model itself; noise: a random corner "
        f"of the ball. Cost: {forwards:,} forwards, {backwards:,} backwards, {minutes:.0f} minutes. {source(record)}"
    )
    return "\n".join(lines) + "\n"


def own_words(rows: list[dict[str, Any]], place: int) -> str:
    """Say how many models fall to nobody's images more than to their own: another's would show a masked gradient."""
    shares = {
        row["cell"]: {name: share(counts) for name, counts in row["depths"][place]["targets"].items()} for row in rows
    }
    own = {name: found[name] for name, found in shares.items() if name in found}
    least = [name for name, mine in own.items() if all(mine <= found[name] for found in shares.values())]
    return f"Own images break most in {len(least)} of {len(own)} columns."


def share(counts: Mapping[str, int]) -> float:
    """Return what is left of the images that both had right; 1 where there were none."""
    return counts["left"] / counts["both"] if counts["both"] else 1.0


def kept(found: Mapping[str, Mapping[str, int]], target: str, made_against: str) -> str:
    counts = found[target]
    if not counts["both"]:
        return "–"
    said = f"{100 * counts['left'] / counts['both']:.0f}"
    return f"*{said}*" if target == made_against else said


def short(name: str) -> str:
    return name.removesuffix(".tiny").replace("_", "\\_")


if __name__ == "__main__":
    main()
