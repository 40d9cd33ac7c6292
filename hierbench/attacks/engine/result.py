"""What an attack on one chunk at one depth gives back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from hierbench.attacks.verdict import Scoring


@dataclass(frozen=True, eq=False)
class Severity:
    """Images searched to the full budget, for unbiased severity: early stop keeps mild mistakes. METHODS.md 2.

    Attributes:
        mask: bool [n]: the samples searched in full and attacked at all.
        images: [n, c, h, w]; the clean image outside the mask.
        predictions: long [n, D] a scoring, by a separate forward.
        logits: [n, N] of the images, by that forward; None where the prompts were attacked too.
    """

    mask: NDArray[np.bool_]
    images: Tensor
    predictions: Mapping[Scoring, NDArray[np.int64]]
    logits: Tensor | None = None


@dataclass(frozen=True, eq=False)
class AttackResult:
    """The outcome for n samples at one attacked depth and scoring. Arrays are on the host, one row a sample.

    Attributes:
        attack, components: the attack's name and those of its stages.
        depth, scoring: the verdict the search aimed at.
        adversarial: float32 [n, c, h, w]: the first success, else the best image found; the clean image where the
            sample was not attacked.
        clean_logits: [n, N]; hand them to the next depth's call to save a forward.
        logits: [n, N] of ``adversarial``, by the verification's forward.
        clean_predictions, predictions: long [n, D] a scoring; -1 where the logits are not finite.
        clean_broken, broken: bool [n, D] a scoring: what each image shows. At a depth other than the attacked one an
            image may be right where its clean one was wrong; see ``counted``.
        searched: bool [n]: attacked at all: right at this depth on the clean image, and eps above 0.
        broken_by: long [n]: the stage that broke it; -1 where none did.
        steps_used: long [n]: gradient steps up to the first success, or all of them.
        clean_loss, final_loss: float32 [n]: the loss that made the returned image, at both images; NaN where not
            attacked.
        moved: bool [n]: whether its pixels differ from the clean ones.
        raised: bool [n]: whether the attack worked on it at all: its loss is higher than on the clean image, or it is
            newly broken. (A first success can come with a lower loss: of a leaf objective at a coarse depth, say.)
        linf, l2: float64 [n]: distances to the clean image.
        nonfinite: bool [n]: some logit on its way was NaN or infinite. Where that is the last word, it is broken.
        unverified: bool [n]: the search saw a success that the verification did not confirm; it is not broken.
        severity: images searched in full; None if none was asked for.
        gradients, zero_gradients, nonfinite_gradients: gradients taken (one a sample and step), those that were 0
            at every pixel, and those with entries that were not finite.
        forwards, backwards, padding: images through the model; ``padding`` of the forwards only filled a batch.
        seconds: wall-clock.
    """

    attack: str
    components: tuple[str, ...]
    depth: int
    scoring: Scoring
    adversarial: Tensor
    clean_logits: Tensor
    logits: Tensor
    clean_predictions: Mapping[Scoring, NDArray[np.int64]]
    predictions: Mapping[Scoring, NDArray[np.int64]]
    clean_broken: Mapping[Scoring, NDArray[np.bool_]]
    broken: Mapping[Scoring, NDArray[np.bool_]]
    searched: NDArray[np.bool_]
    broken_by: NDArray[np.int64]
    steps_used: NDArray[np.int64]
    clean_loss: NDArray[np.float32]
    final_loss: NDArray[np.float32]
    moved: NDArray[np.bool_]
    raised: NDArray[np.bool_]
    linf: NDArray[np.float64]
    l2: NDArray[np.float64]
    nonfinite: NDArray[np.bool_]
    unverified: NDArray[np.bool_]
    severity: Severity | None
    gradients: int
    zero_gradients: int
    nonfinite_gradients: int
    forwards: int
    backwards: int
    padding: int
    seconds: float

    def counted(self, scoring: Scoring) -> NDArray[np.bool_]:
        """Return bool [n, D]: broken, or wrong already on the clean image, which counts as broken. METHODS.md 4."""
        return self.broken[scoring] | self.clean_broken[scoring]

    @property
    def verdict(self) -> NDArray[np.bool_]:
        """Bool [n]: broken at the attacked depth and scoring."""
        return self.broken[self.scoring][:, self.depth - 1]

    @property
    def clean_verdict(self) -> NDArray[np.bool_]:
        """Bool [n]: wrong at the attacked depth and scoring without an attack."""
        return self.clean_broken[self.scoring][:, self.depth - 1]

    @property
    def moved_share(self) -> float | None:
        """Share of attacked samples whose pixels moved; None where nothing was attacked (METHODS.md 7.1)."""
        return _share(self.moved, self.searched)

    @property
    def raised_share(self) -> float | None:
        """Share of attacked samples that were ``raised``; None where nothing was attacked (METHODS.md 7.1)."""
        return _share(self.raised, self.searched)

    @property
    def zero_gradient_share(self) -> float | None:
        """Share of gradients that were 0 at every pixel; None where none was taken (METHODS.md 7.2)."""
        return self.zero_gradients / self.gradients if self.gradients else None

    @property
    def max_linf(self) -> float:
        """The largest linf distance; 0 for no samples."""
        return float(self.linf.max(initial=0.0))

    @property
    def max_l2(self) -> float:
        """The largest l2 distance; 0 for no samples."""
        return float(self.l2.max(initial=0.0))


def _share(mask: NDArray[np.bool_], among: NDArray[np.bool_]) -> float | None:
    return float(mask[among].mean()) if among.any() else None
