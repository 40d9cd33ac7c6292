"""First phase: the text tower learns which nouns mean alike, from a sentence encoder and WordNet."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hierbench.models.text import hidden_features, projection
from hierbench.pretraining.nouns import NounEntry, render

Tokenizer = Callable[[list[str]], Tensor]

MAX_TOKENS = 14
"""Sentences about nouns are cut here: the few longer ones would set the cost of every batch."""


def cut(tokens: Tensor) -> Tensor:
    """Return tokens [N, T] cut to ``MAX_TOKENS``, the end token kept last where a sentence was longer."""
    end = tokens.max()
    short = tokens[:, :MAX_TOKENS].clone()
    open_ended = (short != end).all(dim=1)
    short[open_ended, -1] = end
    return short


@dataclass(frozen=True)
class TextSettings:
    """Settings of the text phase."""

    steps: int = 2000
    batch: int = 160
    learning_rate: float = 2e-3
    temperature: float = 0.07
    noise: float = 0.15
    """Share of sentences whose noun is misspelt by one letter."""
    hypernym_weight: float = 0.5


class NounSampler:
    """Draws noun entries and renders them; holds the teacher's vectors."""

    def __init__(
        self, entries: Sequence[NounEntry], teacher: np.ndarray, tokenizer: Tokenizer, *, seed: int, noise: float
    ) -> None:
        self.entries = entries
        self.teacher = torch.from_numpy(teacher)
        self.tokenizer = tokenizer
        self.noise = noise
        self.rng = random.Random(seed)

    def _render(self, row: int) -> str:
        entry = self.entries[row]
        parent = self.entries[entry.hypernym] if entry.hypernym >= 0 else None
        return render(entry, parent, self.rng, noise=self.noise)

    def draw(self, count: int) -> tuple[list[int], Tensor, Tensor, Tensor]:
        """Return rows [n], two renderings of each as tokens [2n, T], their hypernyms' tokens [n, T], teacher [n, 384].

        A noun without a hypernym stands in for its own.
        """
        rows = self.rng.sample(range(len(self.entries)), count)
        first = [self._render(r) for r in rows]
        second = [self._render(r) for r in rows]
        above = [self._render(self.parent(r)) for r in rows]
        tokens = cut(self.tokenizer(first + second + above))
        return rows, tokens[: 2 * count], tokens[2 * count :], self.teacher[rows]

    def parent(self, row: int) -> int:
        """Return the hypernym's row, or the row itself."""
        above = self.entries[row].hypernym
        return above if above >= 0 else row


def noun_loss(
    clip: nn.Module, bridge: nn.Linear, sampler: NounSampler, settings: TextSettings, batch: int
) -> tuple[Tensor, dict[str, float]]:
    """Return the text loss of one drawn batch: teacher's neighbourhoods, same noun in other words, hypernym.

    ``bridge`` maps the tower's features [n, E] to the teacher's 384 dimensions; it serves training only.
    """
    rows, tokens, above, target = sampler.draw(batch)
    weight = projection(clip)
    features = F.normalize(hidden_features(clip, torch.cat([tokens, above])) @ weight, dim=-1)
    one, two, hyper = torch.split(features, batch)
    aligned = 1 - F.cosine_similarity(bridge(torch.cat([one, two])), torch.cat([target, target])).mean()
    wanted = (target @ target.T / 0.1).softmax(dim=-1)
    logits = one @ two.T / settings.temperature
    neighbours = F.kl_div(logits.log_softmax(dim=-1), wanted, reduction="batchmean")
    same = F.cross_entropy(logits, torch.arange(batch))
    parents = torch.tensor([sampler.parent(r) for r in rows])
    positive = (parents[:, None] == parents[None, :]).float()
    positive = positive / positive.sum(dim=1, keepdim=True)
    upward = -(positive * (one @ hyper.T / settings.temperature).log_softmax(dim=-1)).sum(dim=1).mean()
    total = aligned + neighbours + 0.5 * same + settings.hypernym_weight * upward
    return total, {"align": aligned.item(), "kl": neighbours.item(), "same": same.item(), "hyper": upward.item()}


def train_text(
    clip: nn.Module,
    bridge: nn.Linear,
    sampler: NounSampler,
    settings: TextSettings,
    report: Callable[[int, dict[str, float]], None],
) -> None:
    """Run the text phase in place; ``report`` is told the losses now and then."""
    parameters = [p for n, p in clip.named_parameters() if not n.startswith(("visual.", "logit_scale"))]
    optimiser = torch.optim.AdamW(
        [*parameters, *bridge.parameters()], lr=settings.learning_rate, weight_decay=0.01, fused=True
    )
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, settings.learning_rate, total_steps=settings.steps, pct_start=0.05
    )
    for step in range(settings.steps):
        loss, parts = noun_loss(clip, bridge, sampler, settings, settings.batch)
        optimiser.zero_grad()
        torch.autograd.backward(loss)
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimiser.step()
        schedule.step()
        if step % 50 == 0 or step == settings.steps - 1:
            report(step, parts)


@torch.no_grad()
def text_retrieval(clip: nn.Module, tokenizer: Tokenizer, entries: Sequence[NounEntry], seed: int) -> dict[str, float]:
    """Return the tower's synonym and hypernym retrieval among 1,000 nouns: recall at 1 and at 10, and chance.

    A noun's second name must find its first name; a noun must find its hypernym among the distinct hypernyms.
    """
    rng = random.Random(seed)
    with_synonyms = [i for i, e in enumerate(entries) if len(e.names) > 1]
    rows = rng.sample(with_synonyms, min(1000, len(with_synonyms)))

    def encode(texts: list[str]) -> Tensor:
        parts = [hidden_features(clip, tokenizer(texts[i : i + 256])) for i in range(0, len(texts), 256)]
        return F.normalize(torch.cat(parts) @ projection(clip), dim=-1)

    def recall(queries: Tensor, gallery: Tensor, truth: Tensor, k: int) -> float:
        found = (queries @ gallery.T).topk(min(k, gallery.shape[0])).indices == truth[:, None]
        return float(found.any(dim=1).float().mean())

    photo = "This is a photo of {}."
    first = encode([photo.format(entries[r].nouns[0]) for r in rows])
    second = encode([photo.format(entries[r].nouns[1]) for r in rows])
    own = torch.arange(len(rows))
    children = [r for r in rng.sample(range(len(entries)), min(4000, len(entries))) if entries[r].hypernym >= 0][:1000]
    parents = sorted({entries[r].hypernym for r in children})
    place = {p: i for i, p in enumerate(parents)}
    below = encode([photo.format(entries[r].nouns[0]) for r in children])
    above = encode([photo.format(entries[p].nouns[0]) for p in parents])
    truth = torch.tensor([place[entries[r].hypernym] for r in children])
    return {
        "synonym_candidates": len(rows),
        "synonym_recall_at_1": recall(second, first, own, 1),
        "synonym_recall_at_10": recall(second, first, own, 10),
        "hypernym_candidates": len(parents),
        "hypernym_recall_at_1": recall(below, above, truth, 1),
        "hypernym_recall_at_10": recall(below, above, truth, 10),
    }
