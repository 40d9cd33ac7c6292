"""The images that a universal perturbation is fitted on: of the same data set, and never among the scored ones."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import numpy as np
import torch

from hierbench.attacks.universal import FitImages, Fitter
from hierbench.datasets.catalogue import get_spec
from hierbench.datasets.load import load_images
from hierbench.errors import InputError

if TYPE_CHECKING:
    from hierbench.attacks.engine.batching import Forward
    from hierbench.attacks.threat import ThreatModel
    from hierbench.datasets.images import ImageSet
    from hierbench.evaluation.request import Plan


def make_fitter(
    plan: Plan,
    forward: Forward,
    scored: ImageSet,
    *,
    threat: ThreatModel,
    device: torch.device,
    root: str | os.PathLike[str] | None,
) -> Fitter | None:
    """Return what fits the planned attack's perturbation, or None where the attack is not of that kind."""
    if not plan.attack.universal:
        return None
    given = fit_images(
        scored, dataset=plan.dataset, part=str(plan.settings["fit_on"]), count=int(plan.settings["images"]), root=root
    )
    return Fitter(
        forward=forward,
        given=given,
        threat=threat,
        seed=plan.seed,
        dataset=plan.dataset,
        batch_size=plan.batch_size,
        device=device,
    )


def fit_images(
    scored: ImageSet, *, dataset: str, part: str, count: int, root: str | os.PathLike[str] | None = None
) -> FitImages:
    """Return up to ``count`` images that are not scored, spread over the classes.

    Args:
        scored: the samples that will be scored, of any split.
        dataset: their data set.
        part: ``heldout`` takes the tenth of the train split that training never sees (the other nine where the heldout
            tenth is what is scored); ``rest`` takes the scored split beyond the scored samples; ``auto`` is
            ``heldout`` where the data set has a train split, else ``rest``.
        count: how many; fewer where there are fewer.
        root: the data root.

    Raises ``InputError`` where no image is left.
    """
    spec = get_spec(dataset)
    if part == "auto":
        part = "heldout" if "train" in spec.splits else "rest"
    if part == "heldout" and "train" not in spec.splits:
        raise InputError(f"fit_on heldout: dataset {dataset} has no train split; use fit_on=rest and --limit")
    taken = set(scored.ids)
    if part == "heldout":
        split = "train" if scored.split == "heldout" else "heldout"
        found = load_images(dataset, split=split, limit=count, root=root)
    else:
        split = scored.split
        found = load_images(dataset, split=split, root=root)
    free = np.array([place for place, name in enumerate(found.ids) if name not in taken], dtype=np.int64)[:count]
    if not len(free):
        raise InputError(
            f"--limit: every image of {dataset}/{split} is scored, and none is left to fit a perturbation on; lower it"
        )
    chosen = found.take(free)
    return FitImages(
        images=chosen.pixels(np.arange(len(chosen))).to(torch.float32) / 255.0,
        labels=torch.from_numpy(chosen.labels),
        ids=tuple(chosen.ids),
        source=f"perturbation fitted on {len(chosen)} images of {split} ({chosen.sample_hash}), none of them scored",
    )
