"""Second phase: images and captions together, the text tower held near what it learnt from nouns."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hierbench.datasets.images import ImageSet
from hierbench.models.pixels import PixelInput
from hierbench.models.text import hidden_features, projection
from hierbench.pretraining.augment import vary
from hierbench.pretraining.nouns import TEMPLATES
from hierbench.pretraining.tasks import Concept, Task
from hierbench.pretraining.text import NounSampler, TextSettings, Tokenizer, noun_loss


@dataclass(frozen=True)
class JointSettings:
    """Settings of the joint phase."""

    epochs: int = 24
    batch: int = 256
    learning_rate: float = 2e-3
    weight_decay: float = 0.05
    text_learning_rate: float = 3e-4
    text_every: int = 4
    """Captions are encoded anew, and the text tower moved, every so many steps."""
    noun_batch: int = 96
    noun_weight: float = 1.0
    digits_share: float = 0.04
    bf16: bool = True


class ImagePool:
    """All training images of all data sets at one size, with a draw that is a function of the seed and the step."""

    def __init__(self, sets: Sequence[ImageSet], size: int, digits_share: float) -> None:
        self.sets = sets
        self.size = size
        photos = [i for i, s in enumerate(sets) if s.spec.base_name != "digits"]
        digits = [i for i, s in enumerate(sets) if s.spec.base_name == "digits"]
        self.photo_index = np.concatenate([_index(i, len(sets[i])) for i in photos])
        self.digit_index = np.concatenate([_index(i, len(sets[i])) for i in digits])
        self.digits_share = digits_share

    def steps(self, batch: int) -> int:
        """Return the steps of an epoch: each photo once."""
        return len(self.photo_index) // (batch - round(batch * self.digits_share))

    def epoch(self, batch: int, rng: np.random.Generator) -> list[np.ndarray]:
        """Return the (set, row) pairs of each step of one epoch."""
        digits = round(batch * self.digits_share)
        order = rng.permutation(len(self.photo_index))
        width = batch - digits
        return [
            np.concatenate(
                [
                    self.photo_index[order[i * width : (i + 1) * width]],
                    self.digit_index[rng.integers(len(self.digit_index), size=digits)],
                ]
            )
            for i in range(self.steps(batch))
        ]

    def fetch(self, pairs: np.ndarray) -> tuple[Tensor, Tensor]:
        """Return pixels float [B, 3, size, size] in [0, 1] and which may be mirrored, bool [B]."""
        out = torch.empty(len(pairs), 3, self.size, self.size)
        for number, images in enumerate(self.sets):
            rows = np.flatnonzero(pairs[:, 0] == number)
            if not len(rows):
                continue
            part = images.pixels(pairs[rows, 1]).float() / 255
            if part.shape[-1] != self.size:
                part = F.interpolate(part, (self.size, self.size), mode="bicubic").clamp(0, 1)
            out[rows] = part.expand(-1, 3, -1, -1)
        digits = [i for i, s in enumerate(self.sets) if s.spec.augmentation == "digit"]
        return out, torch.from_numpy(~np.isin(pairs[:, 0], digits))


def _index(number: int, count: int) -> np.ndarray:
    return np.stack([np.full(count, number), np.arange(count)], axis=1)


def caption(concept: Concept, rng: random.Random) -> str:
    """Return one caption of a concept in a random template."""
    template = rng.choice(TEMPLATES)
    if "{parent}" in template and concept.parent is None:
        template = TEMPLATES[0]
    text = template.replace("{noun}", concept.noun).replace("{}", concept.name)
    return text.replace("{parent}", bare(concept.parent or ""))


def bare(noun: str) -> str:
    """Return a noun phrase without its leading article.

    >>> bare("an animal with a backbone"), bare("food or drink")
    ('animal with a backbone', 'food or drink')
    """
    first, _, rest = noun.partition(" ")
    return rest if first in ("a", "an", "the") and rest else noun


def joint_loss(
    features: Tensor, text: Tensor, scale: Tensor, pairs: np.ndarray, pool: ImagePool, tasks: Sequence[Task]
) -> Tensor:
    """Return the summed task losses: image features [B, E], caption features [N, E], both normalised."""
    logits = scale * features @ text.T
    total = logits.new_zeros(())
    for number, images in enumerate(pool.sets):
        rows = np.flatnonzero(pairs[:, 0] == number)
        if not len(rows):
            continue
        labels = images.labels[pairs[rows, 1]]
        share = len(rows) / len(pairs)
        picked = logits[rows]
        for task in tasks:
            if task.dataset.partition("@")[0] != images.spec.base_name:
                continue
            target = torch.from_numpy(task.target[labels])
            columns = picked[:, task.start : task.stop]
            total = total + task.weight * share * F.cross_entropy(columns, target, label_smoothing=0.05)
    return total


def train_joint(
    clip: Any,
    bridge: nn.Linear,
    sampler: NounSampler,
    pool: ImagePool,
    concepts: Sequence[Concept],
    tasks: Sequence[Task],
    tokenizer: Tokenizer,
    pixels: PixelInput,
    settings: JointSettings,
    *,
    seed: int,
    report: Callable[[int, int, dict[str, float]], None],
) -> None:
    """Run the joint phase in place; ``report`` gets (step, steps, losses) now and then."""
    visual = [p for n, p in clip.named_parameters() if n.startswith("visual.")]
    text = [p for n, p in clip.named_parameters() if not n.startswith(("visual.", "logit_scale"))]
    steps = pool.steps(settings.batch) * settings.epochs
    rates = [settings.learning_rate, settings.text_learning_rate, 1e-3]
    optimiser = torch.optim.AdamW(
        [
            {"params": visual, "lr": rates[0], "weight_decay": settings.weight_decay},
            {"params": [*text, *bridge.parameters()], "lr": rates[1], "weight_decay": 0.01},
            {"params": [clip.logit_scale], "lr": rates[2], "weight_decay": 0.0},
        ],
        fused=True,
    )
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, rates, total_steps=steps, pct_start=0.1)
    numbers = np.random.default_rng(seed)
    words = random.Random(seed + 1)
    generator = torch.Generator().manual_seed(seed + 2)
    text_settings = TextSettings()
    frozen_text: Tensor | None = None
    step = 0
    clip.train()
    for _ in range(settings.epochs):
        for pairs in pool.epoch(settings.batch, numbers):
            moves_text = step % settings.text_every == 0
            images, flip = pool.fetch(pairs)
            images = vary(images, flip, generator).contiguous(memory_format=torch.channels_last)
            if moves_text or frozen_text is None:
                tokens = tokenizer([caption(c, words) for c in concepts])
                caption_features = F.normalize(hidden_features(clip, tokens) @ projection(clip), dim=-1)
                frozen_text = caption_features.detach()
            else:
                caption_features = frozen_text
            with torch.autocast("cpu", torch.bfloat16, enabled=settings.bf16):
                raw = clip.visual(pixels(images))
            features = F.normalize(raw.float(), dim=-1)
            scale = clip.logit_scale.exp().clamp(max=50.0)
            image_loss = joint_loss(features, caption_features, scale, pairs, pool, tasks)
            loss, parts = image_loss, {"image": float(image_loss.detach())}
            if moves_text:
                nouns, noun_parts = noun_loss(clip, bridge, sampler, text_settings, settings.noun_batch)
                loss = loss + settings.noun_weight * nouns
                parts |= noun_parts
            optimiser.zero_grad()
            torch.autograd.backward(loss)
            nn.utils.clip_grad_norm_(visual, 5.0)
            if moves_text:
                nn.utils.clip_grad_norm_(text, 1.0)
            else:
                for parameter in text:
                    parameter.grad = None
            optimiser.step()
            schedule.step()
            if step % 40 == 0 or step == steps - 1:
                report(step, steps, parts)
            step += 1
