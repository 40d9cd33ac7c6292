"""Text features of many edited prompts, each encoded once and counted."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import normalize

from hierbench.attacks.engine.precision import exact_float32
from hierbench.attacks.text.sources import Measure
from hierbench.models.text import hidden_features
from hierbench.models.zeroshot import TEXT_BATCH, ZeroShotModel

LEAST_GAIN = 1e-9
"""A text that moves less than this has not moved: rounding alone gives about 1e-12."""


class PromptEncoder:
    """Encodes texts with a model's text tower.

    The clean prompts are the model's own, which it has encoded already. Edited ones are kept here and die with the
    encoder: a search tries thousands. They are batched in the order they come, so that one search gives one result.
    """

    def __init__(self, model: ZeroShotModel) -> None:
        self.model = model
        self.forwards = 0
        """Texts encoded here."""
        self._kept: dict[str, Tensor] = {}

    def clean(self, texts: Sequence[str]) -> Tensor:
        """Return the features before the projection of the model's own prompts, [N, P]."""
        before = self.model.text_forwards
        hidden = self.model.text_hidden(texts)
        self.forwards += self.model.text_forwards - before
        for text, row in zip(texts, hidden, strict=True):
            self._kept.setdefault(text, row)
        return hidden

    @torch.no_grad()
    def hidden(self, texts: Sequence[str]) -> Tensor:
        """Return the features before the projection of any texts, [N, P]."""
        missing = [text for text in dict.fromkeys(texts) if text not in self._kept]
        with exact_float32(self.model.device):
            for start in range(0, len(missing), TEXT_BATCH):
                part = missing[start : start + TEXT_BATCH]
                found = hidden_features(self.model.clip, self.model.tokenizer(part).to(self.model.device))
                self._kept.update(zip(part, found, strict=True))
        self.forwards += len(missing)
        self.model.text_forwards += len(missing)
        return torch.stack([self._kept[text] for text in texts])

    @torch.no_grad()
    def shifts(self, text: str, others: Sequence[str], measure: Measure) -> list[float]:
        """Return how far each of the other texts is from a text."""
        hidden = self.hidden([text, *others])
        projected = hidden.double() @ self.model.text_projection.double()
        distance = kl_shift if measure == "kl" else squared_distance
        return [float(value) for value in distance(projected[0], projected[1:]).tolist()]


def kl_shift(clean: Tensor, others: Tensor) -> Tensor:
    """Return KL(softmax(u) || softmax(v)) of features [E] and [N, E], both L2-normalised first: shape [N].

    Summed over the dimensions; METHODS.md 3, arXiv 2404.19287 [C].
    """
    log_p = normalize(clean, dim=-1).log_softmax(dim=-1)
    log_q = normalize(others, dim=-1).log_softmax(dim=-1)
    return (log_p.exp() * (log_p - log_q)).sum(dim=-1)


def squared_distance(clean: Tensor, others: Tensor) -> Tensor:
    """Return ||v - u||^2 of features [E] and [N, E] as they are: shape [N]. METHODS.md 3, arXiv 2506.03355 [C]."""
    return (others - clean).square().sum(dim=-1)
