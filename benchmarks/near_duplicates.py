"""List the evaluation images of the small track that look like an image its models were trained on.

CIFAR-10 and CIFAR-100 were drawn from one collection, and Tiny-ImageNet repeats images across its splits. Two images
of 32 x 32 are as alike as the mean of two correlations, after halving their size: of the pixels, and of the pixels
less their 5 x 5 mean, so that neither a common background nor a common outline is enough. The larger of the likeness
to an image and to its mirror counts. Writes the ids to ``leaderboard/left_out/near-duplicates-v1.json``, which
protocols leave out by name:

    python benchmarks/near_duplicates.py
    python benchmarks/near_duplicates.py --picture pairs.png    # look at them
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d

from hierbench.datasets.images import ImageSet
from hierbench.datasets.load import load_images
from hierbench.evaluation.storage import atomic_write
from hierbench.paths import data_dir

NAME = "near-duplicates-v1"
TRAINED = (
    ("cifar100", "train"), ("tiny_imagenet@32", "train"), ("tiny_imagenet@32", "heldout"),
    ("tiny_imagenet@32", "pretrain"),
)  # fmt: skip
SCORED = (("cifar100", "test"), ("cifar10", "test"), ("tiny_imagenet@32", "valid"), ("nips2017@32", "test"))
ALIKE = 0.8
"""By eye: above it nearly all true pairs, and as many chance ones, which cost nothing but a sample each."""
PART = 5000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=data_dir() / "leaderboard" / "left_out" / f"{NAME}.json")
    parser.add_argument("--picture", type=Path, help="draw the pairs into this file")
    options = parser.parse_args()
    trained = [load_images(name, split=split) for name, split in TRAINED]
    tables = [features(pixels_of(images)) for images in trained]
    left_out: dict[str, list[dict[str, Any]]] = {}
    pairs: list[tuple[float, Tensor, Tensor]] = []
    for name, split in SCORED:
        images = load_images(name, split=split)
        rows = []
        for likeness, here, (place, there) in alike(images, tables):
            other = trained[place]
            like = f"{TRAINED[place][0]}/{other.ids[there]}"
            rows.append({"id": images.ids[here], "like": like, "likeness": round(likeness, 3)})
            pairs.append((likeness, images.pixels([here])[0], other.pixels([there])[0]))
        left_out[f"{name}/{split}"] = sorted(rows, key=lambda row: (-row["likeness"], row["id"]))
        print(f"{name}/{split}: {len(rows)} of {len(images)}")
    content = {
        "format": 1,
        "name": NAME,
        "reason": "near-duplicates of training images",
        "description": (
            "Evaluation images that look like one of the images the small backbone or its defences were trained on, "
            f"each with the most similar one: likeness {ALIKE} or more, by benchmarks/near_duplicates.py."
        ),
        "trained_on": {f"{n}/{s}": i.revision for (n, s), i in zip(TRAINED, trained, strict=True)},
        "left_out": left_out,
    }
    atomic_write(options.out, (json.dumps(content, indent=1) + "\n").encode())
    if options.picture:
        draw(sorted(pairs, key=lambda pair: -pair[0]), options.picture)


def pixels_of(images: ImageSet) -> Tensor:
    return images.pixels(np.arange(len(images)))


def features(pixels: Tensor) -> Tensor:
    """Return unit vectors [n, d] whose products are the likeness of images [n, 3, 32, 32]."""
    small = avg_pool2d(pixels.float(), 2)
    fine = small - avg_pool2d(small, 5, stride=1, padding=2, count_include_pad=False)
    return torch.cat([unit(small), unit(fine)], dim=1) / 2**0.5


def unit(values: Tensor) -> Tensor:
    flat = values.flatten(1)
    flat = flat - flat.mean(dim=1, keepdim=True)
    length: Tensor = flat.norm(dim=1, keepdim=True)
    return flat / length.clamp_min(1e-6)


def alike(images: ImageSet, tables: list[Tensor]) -> Iterator[tuple[float, int, tuple[int, int]]]:
    """Yield (likeness, place, (table, place in it)) of the images that are alike to one of the tables'."""
    pixels = pixels_of(images)
    best = torch.full((len(pixels),), -1.0)
    table, row = torch.zeros(len(pixels), dtype=torch.long), torch.zeros(len(pixels), dtype=torch.long)
    for query in (features(pixels), features(pixels.flip(3))):
        for number, vectors in enumerate(tables):
            for start in range(0, len(vectors), PART):
                value, place = (query @ vectors[start : start + PART].T).max(dim=1)
                better = value > best
                best[better], row[better], table[better] = value[better], place[better] + start, number
    for here in torch.nonzero(best >= ALIKE)[:, 0].tolist():
        yield float(best[here]), here, (int(table[here]), int(row[here]))


def draw(pairs: list[tuple[float, Tensor, Tensor]], path: Path, *, columns: int = 10, side: int = 64) -> None:
    from PIL import Image, ImageDraw

    width, height = 2 * side + 10, side + 14
    sheet = Image.new("RGB", (columns * width, -(-len(pairs) // columns) * height), "white")
    text = ImageDraw.Draw(sheet)
    for number, (likeness, *both) in enumerate(pairs):
        left, top = number % columns * width, number // columns * height
        for place, pixels in enumerate(both):
            tile = Image.fromarray(pixels.permute(1, 2, 0).numpy()).resize((side, side))
            sheet.paste(tile, (left + place * side, top))
        text.text((left, top + side), f"{likeness:.3f}", fill="black")
    sheet.save(path)


if __name__ == "__main__":
    main()
