"""SAFT: adversarial training against several descriptions of each class (TMLR 2026, 2602.12461; METHODS.md 5.6)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from hierbench.datasets.descriptions import SHIPPED, load_descriptions
from hierbench.defences.attention import AttentionGuide, AttentionSettings, DenseFeatures, dense_features
from hierbench.defences.base import Batch, Defence, LogValues, Perturbed
from hierbench.defences.losses import right_share
from hierbench.errors import InputError
from hierbench.models.descriptions import ChosenDescriptions, choose_descriptions

if TYPE_CHECKING:
    from hierbench.models.zeroshot import ZeroShotModel


@dataclass(frozen=True, kw_only=True)
class SAFTSettings(AttentionSettings):
    """SAFT: PGD-2, alpha = eps, K = 5 [P]; weights and norm of the attention terms count only with ``attention``."""

    count: int = 5
    """K, the descriptions of each class that are nearest to its bare name [P]."""
    descriptions: str = SHIPPED
    """The project's own of the data set, or a file of the same format (docs/descriptions.md) [D]."""
    minimum: float = -1.0
    """Descriptions whose cosine with the bare name is lower are filtered out; -1 keeps all [D]."""
    attention: bool = False
    """Add TGA-ZSR's two terms, with the K maps averaged before the min-max, as the released code does [C]."""

    def check(self) -> None:
        """See ``Settings.check``."""
        super().check()
        self.require(self.count >= 1, "count", "it should be 1 or more")
        self.require(bool(self.descriptions), "descriptions", f"give a file, or {SHIPPED!r}")
        self.require(-1 <= self.minimum <= 1, "minimum", "it should be a cosine, from -1 to 1")


class SAFT(Defence[SAFTSettings]):
    """Mean over k of CE(s cos(f(x'), g(T[k][.])), y), T[k][c] the k-th description of class c; attack: the same."""

    name = "saft"
    chosen: ChosenDescriptions
    sentences: tuple[str, ...]
    """T[k][c] at k * C + c, over the C trained classes."""
    guide: AttentionGuide | None = None

    @property
    def trains(self) -> tuple[str, ...]:
        """The visual tower."""
        return ("visual",)

    def attach(self, model: ZeroShotModel) -> None:
        """Choose the descriptions by the untouched backbone and encode them; with ``attention``, keep f0.

        Fewer than K for a trained class is an ``InputError`` that names the class.
        """
        settings, spec = self.settings, self.task.images_of
        # Classes that are not trained need no descriptions, so their number is not asked for.
        found = load_descriptions(spec.tree_dataset, spec.class_ids, file=settings.descriptions, at_least=0)
        classes = self.task.nodes.classes
        kept = replace(
            found,
            class_ids=tuple(found.class_ids[label] for label in classes),
            sentences=tuple(found.sentences[label] for label in classes),
        )
        names = [spec.classes[label].name for label in classes]
        try:
            self.chosen = choose_descriptions(model, kept, names, count=settings.count, minimum=settings.minimum)
        except InputError as error:
            raise InputError(f"setting descriptions = {settings.descriptions!r}: {error}") from None
        self.sentences = tuple(sentence for row in self.chosen.sentences for sentence in row)
        self.hidden = model.text_hidden(self.sentences)
        if settings.attention:
            self.guide = AttentionGuide(model, settings)
            self.passes = (3, 2)

    def state(self) -> dict[str, float]:
        """Return what tells these descriptions from others: the first 48 bits of their hash."""
        return {"descriptions": float(int(self.chosen.digest.removeprefix("sha256:")[:12], 16))}

    def load_state(self, state: dict[str, float]) -> None:
        """Refuse a checkpoint that was trained on other descriptions."""
        if state != self.state():
            raise InputError(
                f"setting descriptions = {self.settings.descriptions!r}: other sentences are chosen than when the "
                "checkpoint was written; put the file back, or train without resuming"
            )

    def features(self, model: ZeroShotModel) -> Tensor:
        """Return the projected features of the descriptions, [K * C, E], on the graph of what trains."""
        hidden = self.task.encode(model, self.sentences) if self.task.text_moves else self.hidden
        return hidden @ model.text_projection

    def entropies(self, model: ZeroShotModel, embedding: Tensor, points: Tensor, labels: Tensor) -> Tensor:
        """Return each image's cross-entropy, the mean over its K ones: [B] from embeddings and points [K * C, E]."""
        logits = model.logits(embedding, points).reshape(len(labels), self.chosen.count, -1)
        truth = labels[:, None].expand(-1, self.chosen.count)
        # cross_entropy wants the classes in dimension 1: [B, C, K] against [B, K].
        return nn.functional.cross_entropy(logits.transpose(1, 2), truth, reduction="none").mean(dim=1)

    def perturb(self, model: ZeroShotModel, batch: Batch, text: Tensor) -> Perturbed:
        """Run the inner attack with the descriptions' points computed once."""
        with torch.no_grad():
            self.points = model.head.points(self.features(model), 0)
        return super().perturb(model, batch, text)

    def inner_objective(self, model: ZeroShotModel, adversarial: Tensor, batch: Batch, text: Tensor) -> Tensor:
        """Cross-entropy, the mean over the descriptions, summed over the images."""
        return self.entropies(model, model.embed(adversarial), self.points, batch.labels).sum()

    def loss(self, model: ZeroShotModel, batch: Batch, perturbed: Perturbed, text: Tensor) -> tuple[Tensor, LogValues]:
        """The mean cross-entropy of the adversarial images, and the attention terms if they are on."""
        described = self.features(model)
        seen: DenseFeatures | None = None
        if self.guide is not None:
            seen = dense_features(model.visual, model.pixels(perturbed.pixels))
        embedding = model.embed(perturbed.pixels) if seen is None else seen.embedding
        total = self.entropies(model, embedding, model.head.points(described, 0), batch.labels).mean()
        with torch.no_grad():  # as the model answers: one prompt a class
            points = model.head.points(text[: self.task.nodes.num_classes], 0)
            logits = model.logits(embedding.detach(), points)
        log = {
            "ce_descriptions": total.detach(),
            "ce_leaf": nn.functional.cross_entropy(logits, batch.labels),
            "adversarial_accuracy": right_share(logits, batch.labels),
        }
        if self.guide is not None and seen is not None:
            unit = nn.functional.normalize(described, dim=-1).reshape(self.chosen.count, -1, described.shape[-1])
            terms, parts = self.guide.terms(model, seen, batch.pixels, unit.mean(dim=0)[batch.labels])
            total, log = total + terms, {**log, **parts}
        return total, log

    def guards(self, model: ZeroShotModel, recent: dict[str, float]) -> dict[str, Any]:
        """Return which descriptions were used and how near to their names they are."""
        similarity = self.chosen.similarity
        return {
            "descriptions_hash": self.chosen.digest,
            "lowest_similarity": float(similarity.min()),
            "mean_similarity": float(similarity.mean()),
        }
