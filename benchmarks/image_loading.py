"""How fast and in how much memory the loader feeds large images, against plain Pillow in two processes.

    python benchmarks/image_loading.py [--images 50000] [--out FILE]

Writes Parquet in the Hub's layout with synthetic 500 x 375 JPEGs (500 different ones, repeated), loads them as a
224-pixel data set, and walks through all of them in the stratified order, batch after batch. In between, in the same
run so that both meet the same machine, two processes decode the same JPEGs with Pillow alone: open, convert to RGB,
resize the shorter side to 224 (bicubic), crop the middle, to an array. Prints images a second of both, their ratio,
and the peak memory of this process.
"""

from __future__ import annotations

import argparse
import io
import json
import multiprocessing
import os
import platform
import resource
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from hierbench.datasets.catalogue import get_spec
from hierbench.datasets.lazy import LazyPixels
from hierbench.datasets.load import load_images

DATASET = "imagenet"
SIDE = 224
DISTINCT = 500
ROW_GROUP = 100
BATCH = 128
ROUNDS = 10


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--images", type=int, default=50_000)
    parser.add_argument("--out", type=Path, help="JSON file for the figures")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        figures = measure(Path(folder), options.images)
    print(
        f"{figures['images']} JPEGs at {SIDE} x {SIDE}: loader {figures['loader_per_second']:.0f} images/s, "
        f"Pillow in two processes {figures['pillow_per_second']:.0f} images/s, ratio {figures['ratio']:.2f}; "
        f"open {figures['open_seconds']:.1f} s, peak memory {float(figures['peak_bytes']) / 1e6:.0f} MB "
        f"({float(figures['bytes_before']) / 1e6:.0f} MB before the loader: Python, torch)"
    )
    if options.out is not None:
        options.out.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
    return 0


def measure(folder: Path, count: int) -> dict[str, float | int | str]:
    """Return the figures of one run over ``count`` images."""
    import torch  # what the loader returns; most of this process's memory

    blobs = jpegs()
    write_parquet(folder, blobs, count)
    before = peak_bytes()
    os.environ["HIERBENCH_CACHE"] = str(folder / "cache")
    begun = time.perf_counter()
    images = load_images(DATASET, split="validation", root=folder)
    assert isinstance(images.array, LazyPixels)
    batches = images.batches(BATCH)
    next(batches)  # gathers the encoded images
    images.array.decoder.wait()
    opened = time.perf_counter() - begun
    seen, ours, theirs = BATCH, 0.0, 0.0
    part = max(BATCH, (count - BATCH) // ROUNDS)
    pillow_images = 0
    context = multiprocessing.get_context("spawn")
    with context.Pool(2, initializer=_remember, initargs=(blobs,)) as pool:
        pool.map(_decode_some, [4, 4])  # both are awake
        while seen < count:
            begun = time.perf_counter()
            stop = min(count, seen + part)
            while seen < stop:
                seen += len(next(batches)[0])
            images.array.decoder.wait()  # or the next batch would be made in Pillow's time
            ours += time.perf_counter() - begun
            share = min(part, 1000) // 2
            begun = time.perf_counter()
            pool.map(_decode_some, [share, share], chunksize=1)
            theirs += time.perf_counter() - begun
            pillow_images += 2 * share
    rates = ((seen - BATCH) / ours, pillow_images / theirs)
    return {
        "images": seen,
        "loader_per_second": rates[0],
        "pillow_per_second": rates[1],
        "ratio": rates[0] / rates[1],
        "open_seconds": opened,
        "peak_bytes": peak_bytes(),
        "bytes_before": before,
        "torch": torch.__version__,
        "cpus": os.cpu_count() or 0,
        "python": platform.python_version(),
    }


def peak_bytes() -> int:
    """Return the most memory this process has held so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def jpegs() -> list[bytes]:
    """Return different JPEGs of 500 x 375 pixels: smooth colour with a little grain, about 20 kB each."""
    random = np.random.default_rng(0)
    made = []
    for _ in range(DISTINCT):
        coarse = Image.fromarray(random.integers(0, 256, (24, 32, 3), dtype=np.uint8))
        smooth = np.asarray(coarse.resize((500, 375), Image.Resampling.BICUBIC), dtype=np.int16)
        grain = smooth + random.integers(-6, 7, smooth.shape, dtype=np.int16)
        stream = io.BytesIO()
        Image.fromarray(np.clip(grain, 0, 255).astype(np.uint8)).save(stream, "JPEG", quality=80)
        made.append(stream.getvalue())
    return made


def write_parquet(folder: Path, blobs: Sequence[bytes], count: int) -> None:
    """Write ``count`` rows in the Hub's layout, a hundred in a row group."""
    spec = get_spec(DATASET)
    target = folder / spec.splits["validation"].folder / "validation-00000-of-00001.parquet"
    target.parent.mkdir(parents=True)
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    schema = pa.schema([(spec.image_column, kind), (spec.label_column, pa.int64())])
    names = {"names": list(spec.class_ids), "_type": "ClassLabel"}
    features = {spec.image_column: {"_type": "Image"}, spec.label_column: names}
    schema = schema.with_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    with pq.ParquetWriter(target, schema) as writer:
        for start in range(0, count, ROW_GROUP):
            rows = range(start, min(start + ROW_GROUP, count))
            cells = [{"bytes": blobs[row % len(blobs)], "path": None} for row in rows]
            labels = [row % len(spec.class_ids) for row in rows]
            writer.write_table(pa.table([pa.array(cells, kind), pa.array(labels)], schema=schema))


_BLOBS: list[bytes] = []


def _remember(blobs: list[bytes]) -> None:
    _BLOBS.extend(blobs)


def _decode_some(count: int) -> int:
    total = 0
    for place in range(count):
        with Image.open(io.BytesIO(_BLOBS[place % len(_BLOBS)])) as image:
            pixels = image.convert("RGB")
        scale = SIDE / min(pixels.size)
        pixels = pixels.resize((round(pixels.width * scale), round(pixels.height * scale)), Image.Resampling.BICUBIC)
        left, top = (pixels.width - SIDE) // 2, (pixels.height - SIDE) // 2
        array = np.asarray(pixels.crop((left, top, left + SIDE, top + SIDE)))
        total += int(array[0, 0, 0])
    return total


if __name__ == "__main__":
    raise SystemExit(main())
