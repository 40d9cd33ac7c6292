"""MMCoA: multimodal contrastive adversarial training of both towers (arXiv 2404.19287; METHODS.md 5.5)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from hierbench.defences.base import Batch, Defence, LogValues, Perturbed
from hierbench.defences.losses import right_share
from hierbench.defences.methods.mmcoa_text import PromptAttack, PromptAttackSettings
from hierbench.defences.perturb import Cost
from hierbench.errors import InputError
from hierbench.models.heads import CosineHead

if TYPE_CHECKING:
    from hierbench.defences.base import TrainingTask
    from hierbench.models.zeroshot import ZeroShotModel


@dataclass(frozen=True, kw_only=True)
class MMCoASettings(PromptAttackSettings):
    """MMCoA: PGD-10, alpha = eps, and one edit of each prompt in the batch [C] (arXiv 2404.19287; METHODS.md 5.5)."""

    attack_steps: int = 10
    image_loss: bool = True
    """The contrastive loss of adversarial images and clean prompts [P]; off leaves the text half alone."""
    text_loss: bool = True
    """The contrastive loss of clean images and attacked prompts [P]; off leaves the image half alone."""
    mask_same_class: bool = False
    """Leave out the other images of an image's class, which the loss otherwise takes for negatives [D]."""

    def check(self) -> None:
        """See ``Settings.check``."""
        super().check()
        self.require(self.image_loss or self.text_loss, "text_loss", "one of image_loss and text_loss should be on")


class MMCoA(Defence[MMCoASettings]):
    """0.5 [CE(S(x', t)) + CE(S(x', t)^T)] + 0.5 [CE(S(x, t')) + CE(S(x, t')^T)], S over the pairs of a batch.

    The images are attacked against the clean prompts of all trained classes, the prompts by themselves. A loss that
    is switched off spares its attack.
    """

    name = "mmcoa"
    couples_images = True
    prompt_attack: PromptAttack

    def __init__(self, settings: MMCoASettings, task: TrainingTask) -> None:
        super().__init__(settings, task)
        self.adversarial = settings.image_loss

    @property
    def trains(self) -> tuple[str, ...]:
        """Everything, the logit scale too."""
        return ("visual", "text", "text_projection", "head")

    def attach(self, model: ZeroShotModel) -> None:
        """Open the source of replacements."""
        if not self.settings.text_loss:
            return
        if self.settings.text_every > 1 and _processes() > 1:
            # Each process keeps the prompts of its own share of the batches, and a checkpoint holds those of one.
            raise InputError(f"setting text_every = {self.settings.text_every}: with several processes it should be 1")
        self.prompt_attack = PromptAttack(self.settings, self.task)

    def state(self) -> dict[str, Any]:
        """The attacked prompts that are kept beyond a step."""
        kept = self.prompt_attack.state() if self.settings.text_loss else {}
        return {"attacked_prompts": kept} if kept else {}

    def load_state(self, state: dict[str, Any]) -> None:
        """See ``Defence.load_state``."""
        if self.settings.text_loss:
            self.prompt_attack.load_state(state.get("attacked_prompts", {}))

    def perturb(self, model: ZeroShotModel, batch: Batch, text: Tensor) -> Perturbed:
        """Attack the prompts of the batch's classes, and the images against the clean prompts of all classes."""
        settings = self.settings
        if settings.text_loss:
            if self.task.text_moves:
                model.forget_text()
            self.prompt_attack.search(model, present(batch.labels), batch.step)
        if not settings.image_loss:
            return Perturbed(pixels=batch.pixels.clone())
        found = super().perturb(model, batch, text)
        if not settings.text_loss:
            return found
        # The loss sends the clean images through the tower as well, which the trainer does not know of.
        return replace(found, cost=found.cost + Cost(len(batch.labels), len(batch.labels)))

    def inner_objective(self, model: ZeroShotModel, adversarial: Tensor, batch: Batch, text: Tensor) -> Tensor:
        """Summed cross-entropy over the prompts of all trained classes."""
        return nn.functional.cross_entropy(self.class_logits(model, adversarial, text), batch.labels, reduction="sum")

    def loss(self, model: ZeroShotModel, batch: Batch, perturbed: Perturbed, text: Tensor) -> tuple[Tensor, LogValues]:
        """The two halves."""
        classes, labels = text[: self.task.nodes.num_classes], batch.labels
        terms: list[Tensor] = []
        log = {"scale": model.head.scale.detach()} if isinstance(model.head, CosineHead) else {}
        if self.settings.image_loss:
            embedding = model.embed(perturbed.pixels)
            terms.append(self.contrast(model, embedding, classes[labels], labels))
            log["contrast_image"] = terms[-1].detach()
            with torch.no_grad():
                over_classes = model.logits(embedding, model.head.points(classes, 0))
            log["adversarial_accuracy"] = right_share(over_classes, labels)
        if self.settings.text_loss:
            attacked = self.attacked_features(model, classes, labels)
            terms.append(self.contrast(model, model.embed(batch.pixels), attacked[labels], labels))
            log |= {"contrast_text": terms[-1].detach(), **self.searched(batch)}
        return torch.stack(terms).sum(), log

    def contrast(self, model: ZeroShotModel, embedding: Tensor, text: Tensor, labels: Tensor) -> Tensor:
        """Return 0.5 [CE(S) + CE(S^T)] of images [B, E] and each image's own text feature [B, E], as batch means."""
        pairs = model.logits(embedding, model.head.points(text, 0))
        own = torch.arange(len(labels), device=labels.device)
        if self.settings.mask_same_class:
            others = (labels[:, None] == labels[None, :]) & (own[:, None] != own[None, :])
            pairs = pairs.masked_fill(others, -torch.inf)
        entropy = nn.functional.cross_entropy
        return 0.5 * (entropy(pairs, own) + entropy(pairs.transpose(0, 1), own))

    def attacked_features(self, model: ZeroShotModel, classes: Tensor, labels: Tensor) -> Tensor:
        """Return the classes' text features [K, E] with those of the attacked prompts in their place, on the graph."""
        changed = self.prompt_attack.changed(present(labels))
        if not changed:
            return classes
        features = self.task.encode(model, list(changed.values())) @ model.text_projection
        return classes.index_copy(0, torch.tensor(list(changed), device=classes.device), features.to(classes.dtype))

    def searched(self, batch: Batch) -> LogValues:
        """Return what became of the prompts: shares and means over the batch's images, counts of the step's search."""
        attack, labels = self.prompt_attack, batch.labels.tolist()
        kept = [attack.kept[label] for label in labels]
        changed = attack.changed(labels)
        values = {
            "text_changed": sum(label in changed for label in labels) / len(labels),
            "text_moved": sum(k.moved for k in kept) / len(labels),
            "text_age": sum(batch.step - k.step for k in kept) / len(labels),
            "text_forwards": attack.text_forwards,
        }
        return {name: torch.tensor(float(value)) for name, value in values.items()}


def present(labels: Tensor) -> list[int]:
    """Return the classes that occur among labels, in order."""
    return sorted(set(labels.tolist()))


def _processes() -> int:
    distributed = torch.distributed
    return distributed.get_world_size() if distributed.is_available() and distributed.is_initialized() else 1
