"""What a run keeps of its images: the difference, and the verdicts on the image as it is kept."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hierbench.attacks.engine.verify import verify
from hierbench.attacks.threat import ThreatModel
from hierbench.errors import InputError
from hierbench.evaluation.replay.form import Form, decode, encode, in_unit_range, pixel_digests
from hierbench.evaluation.verdicts import AttackVerdicts, Bools, Ints
from hierbench.models.layout import NodeLayout

_NOTHING: Any = None
"""Default of fields that follow the optional ones of ``AttackVerdicts``; they are always given."""


@dataclass(frozen=True)
class KeptVerdicts(AttackVerdicts):
    """An attack's verdicts with its images: what one unit of the journal holds where images are kept."""

    kept_delta: NDArray[Any] = _NOTHING
    """[n, c, h, w] differences from the clean images, see ``form``."""
    kept_digest: NDArray[np.uint8] = _NOTHING
    """[n, 16] hashes of the clean images."""
    kept_predicted: Ints = _NOTHING
    """[n] predicted leaf on the image as it is kept: an 8-bit one may have lost its success."""
    kept_broken_rollup: Bools = _NOTHING
    """[n, D]."""
    kept_broken_direct: Bools | None = None
    """[n, D]; None for a model without node prompts."""


def bare(verdicts: AttackVerdicts) -> AttackVerdicts:
    """Return verdicts without their images; an ``InputError`` where they have none."""
    if not isinstance(verdicts, KeptVerdicts):
        raise InputError("--store-images: this attack's images cannot be kept")
    return AttackVerdicts(**{f.name: getattr(verdicts, f.name) for f in fields(AttackVerdicts)})


def keep_images(
    verdicts: AttackVerdicts,
    adversarial: Tensor,
    pixels: Tensor,
    labels: NDArray[np.int64],
    *,
    form: Form,
    forward: Callable[[Tensor], Tensor],
    layout: NodeLayout,
    threat: ThreatModel,
    batch_size: int,
    clean_logits: Tensor,
) -> KeptVerdicts:
    """Add to an attack's verdicts its images float32 [n, c, h, w], as differences from ``pixels`` uint8 [n, c, h, w].

    Images in 8 bit are judged anew, as their replay will judge them; that is no part of the attack's cost.
    """
    delta = encode(adversarial, pixels, form=form, threat=threat)
    predicted, rollup, direct = verdicts.predicted, verdicts.broken_rollup, verdicts.broken_direct
    if form == "8bit":
        device = clean_logits.device
        found = verify(
            forward,
            in_unit_range(pixels),
            decode(delta, pixels, form=form),
            torch.from_numpy(labels).to(device),
            layout=layout.to(device),
            threat=threat,
            batch_size=batch_size,
            clean_logits=clean_logits,
        ).judgement
        predicted = found.predictions["rollup"][:, -1].cpu().numpy()
        rollup = found.broken["rollup"].cpu().numpy()
        direct = found.broken["direct"].cpu().numpy() if "direct" in found.broken else None
    return KeptVerdicts(
        **verdicts.to_arrays(),
        kept_delta=delta,
        kept_digest=pixel_digests(pixels),
        kept_predicted=predicted,
        kept_broken_rollup=rollup,
        kept_broken_direct=direct,
    )
