"""Choose the eps of ``digits-v1``: the smallest at which apgd-ce leaves the undefended backbone under 20 %.

Runs the AutoAttack authors' apgd-ce (pyautoattack, 100 steps, one restart) on the 360 test digits at a row of
radii and writes ``leaderboard/measurements/digits-eps.json`` with intervals and cost:

    python benchmarks/digits_eps.py
"""

from __future__ import annotations

import argparse
import json
import time
from fractions import Fraction
from pathlib import Path

import numpy as np
import torch
from pyautoattack import AutoAttack

import hierbench
from hierbench.datasets.load import load_images
from hierbench.evaluation.statistics import wilson
from hierbench.hierarchy.catalogue import load_hierarchy
from hierbench.models.binding import bind

RADII = ("8/255", "16/255", "24/255", "32/255")
CANDIDATES = ("8/255", "16/255", "32/255")
ENOUGH = 0.2


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("leaderboard/measurements/digits-eps.json"))
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    images = load_images("digits")
    model = hierbench.load_model("clip")
    bound = bind(model, load_hierarchy("digits"), template=images.spec.template, direct=False).eval()
    pixels = images.pixels(np.arange(len(images))).float() / 255
    labels = torch.from_numpy(images.labels)
    with torch.no_grad():
        clean = int((bound(pixels).argmax(1) == labels).sum())
    rows = [row("0", clean, len(labels), 0.0)]
    for radius in RADII:
        started = time.perf_counter()
        attack = AutoAttack(
            bound,
            eps=float(Fraction(radius)),
            norm="Linf",
            seed=options.seed,
            version="custom",
            attacks=["apgd-ce"],
        )
        attack.apgd.n_restarts = 1  # as in the standard version; version "custom" leaves five
        adversarial, _ = attack.run_standard_evaluation(pixels.clone(), labels, batch_size=128)
        assert float((adversarial - pixels).abs().max()) <= float(Fraction(radius)) + 1e-6
        with torch.no_grad():
            robust = int((bound(adversarial).argmax(1) == labels).sum())
        rows.append(row(radius, robust, len(labels), time.perf_counter() - started))
        print(f"eps {radius:>7}: {rows[-1]['accuracy']:.3f}")
    low = [r["eps"] for r in rows if r["eps"] in CANDIDATES and float(r["accuracy"]) < ENOUGH]
    content = {
        "what": "robust leaf accuracy of the undefended backbone under apgd-ce (pyautoattack, 100 steps), digits test",
        "command": "python benchmarks/digits_eps.py",
        "model": model.name,
        "weights_hash": model.weights_hash,
        "sample_hash": images.sample_hash,
        "seed": options.seed,
        "rows": rows,
        "chosen": low[0] if low else None,
    }
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    print(f"chosen: {content['chosen']}")


def row(radius: str, hits: int, n: int, seconds: float) -> dict[str, float | int | str]:
    interval = wilson(hits, n)
    return {
        "eps": radius,
        "accuracy": hits / n,
        "low": interval.low,
        "high": interval.high,
        "n": n,
        "seconds": round(seconds, 1),
    }


if __name__ == "__main__":
    main()
