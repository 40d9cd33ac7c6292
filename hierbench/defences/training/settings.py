"""The recipe the trainer runs: optimiser, schedule, precision, validation, checkpoints. Nothing here imports torch."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from hierbench.defences.settings import Settings


@dataclass(frozen=True, kw_only=True)
class TrainingSettings(Settings):
    """The recipe the trainer runs: optimiser, schedule, augmentation, checkpoints.

    Defaults are the ``tiny`` recipe [D]: published learning rates belong to OpenAI's weights and train nothing on a
    small tower (METHODS.md 5).
    """

    optimiser: Literal["adamw", "adam", "sgd"] = "adamw"
    """``adam`` adds the decay to the gradient (MMCoA's); ``adamw`` takes it off the weights."""
    learning_rate: float = 3e-4
    """Peak rate of the visual tower and of the head's scalars; tiny recipes choose from 1e-4, 3e-4, 1e-3 [D]."""
    text_projection_rate: float = 0.1
    """Rate of the text projection W as a share of ``learning_rate`` (METHODS.md 5.8 [D])."""
    weight_decay: float = 1e-4
    """On the visual tower and W, never on the head's scalars [D]."""
    momentum: float = 0.9
    """SGD only; the TeCoA family's [C]."""
    betas: tuple[float, float] = (0.9, 0.999)
    """Adam and AdamW only."""
    clip_norm: float | None = 1.0
    """Largest norm of the whole gradient (METHODS.md 5.8 [D]); None does not clip."""
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    """Of the towers in the weights' step; heads, losses, weights and optimiser stay fp32. fp16 needs CUDA."""
    attack_precision: Literal["fp32", "bf16"] = "fp32"
    """Of the trained model's towers in the inner attack. Not fp16: gradients that underflow there are lost steps."""
    ema_decay: float | None = None
    """Keep a running mean of the weights with this decay, from step 1 on, and end with it; None does not."""
    train_scope: str = "method"
    """What of the towers moves: what the ``method`` says, the visual ``projection``, the last ``blocks:n``, the whole
    ``visual`` tower, or ``both`` towers; the head and the text projection stay the method's choice."""
    shuffle_tree: int | None = None
    """Train on the trees with their leaves permuted by this seed: the control without which no gain of a method that
    reads trees can be credited to their meaning."""
    shots: int | None = None
    """Train on this many images of each class, drawn by the seed; None takes all."""
    batch_size: int = 128
    accumulate: int = 1
    """Parts a batch is worked through in, so that it fits into memory; a method whose loss compares the images of a
    batch compares them within a part."""
    epochs: float = 10.0
    """Passes over the training images; ignored when ``steps`` is given."""
    steps: int | None = None
    warmup_share: float = 0.07
    warmup_limit: int = 1000
    """Linear warm-up over min(limit, share of all steps), then cosine to 0, per step (METHODS.md 5 [D])."""
    augmentation: Literal["dataset", "none", "photo", "digit"] = "dataset"
    """``photo``: crop out of a 4-pixel padding and flip; ``digit``: shifts of at most one pixel of an 8 x 8 grid;
    ``dataset``: what the data set says."""
    prepare_images: int = 1024
    """Clean training images behind the frozen statistics (METHODS.md 5.8)."""
    fold_batch_norm: bool = True
    """Fold frozen batch norms into the convolutions during the inner attack: the same function, a fifth quicker."""
    checkpoint_seconds: float = 60.0
    checkpoint_steps: int | None = None
    """Write a checkpoint after this long, or after this many steps."""
    validation_images: int = 200
    """Images of the held-out tenth, which nothing trains on, by which the run is watched; 0 watches nothing."""
    validation_points: int = 10
    """How often, spread over the run; each time clean and under PGD from the leaf term, at every depth."""
    validation_steps: int = 10
    """Steps of that PGD, with alpha = eps/4."""
    stop_on_overfitting: bool = False
    """End the run where catastrophic overfitting shows (the flag is in the record either way)."""
    log_points: int = 200
    """At most about this many points in the recorded learning curve."""

    def check(self) -> None:
        """See ``Settings.check``."""
        for name in ("learning_rate", "epochs", "batch_size", "prepare_images", "log_points"):
            self.require(getattr(self, name) > 0, name, "it should be above 0")
        for name in ("text_projection_rate", "weight_decay", "warmup_limit", "checkpoint_seconds"):
            self.require(getattr(self, name) >= 0, name, "it should be 0 or more")
        self.require(0 <= self.momentum < 1, "momentum", "it should be in [0, 1)")
        self.require(0 <= self.warmup_share < 1, "warmup_share", "it should be in [0, 1)")
        self.require(all(0 <= beta < 1 for beta in self.betas), "betas", "both should be in [0, 1)")
        self.require(self.clip_norm is None or self.clip_norm > 0, "clip_norm", "it should be above 0, or none")
        self.require(self.steps is None or self.steps > 0, "steps", "it should be 1 or more")
        for name in ("accumulate", "validation_points", "validation_steps"):
            self.require(getattr(self, name) >= 1, name, "it should be 1 or more")
        self.require(self.accumulate <= self.batch_size, "accumulate", "a part should hold an image or more")
        self.require(self.validation_images >= 0, "validation_images", "it should be 0 or more")
        watched = self.validation_images > 0
        self.require(watched or not self.stop_on_overfitting, "stop_on_overfitting", "it needs validation_images")
        self.require(self.shots is None or self.shots > 0, "shots", "it should be 1 or more, or none")
        self.require(self.ema_decay is None or 0 < self.ema_decay < 1, "ema_decay", "it should be in (0, 1), or none")
        self.require(
            re.fullmatch(r"method|projection|blocks:[1-9][0-9]{0,2}|visual|both", self.train_scope) is not None,
            "train_scope",
            "choose method, projection, blocks:n, visual or both",
        )
        self.require(self.checkpoint_steps is None or self.checkpoint_steps > 0, "checkpoint_steps", "1 or more")
