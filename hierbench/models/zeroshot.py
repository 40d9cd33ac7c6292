"""The zero-shot classifier: pixels to logits over any set of named nodes."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from hierbench.models import facts
from hierbench.models.backbones import shared_name
from hierbench.models.heads import Head
from hierbench.models.pixels import PixelInput
from hierbench.models.text import hidden_features, projection

TEXT_BATCH = 256
"""Prompts are encoded in batches of this size, always in the given order."""


def ensemble_features(parts: Sequence[Tensor]) -> Tensor:
    """Return one text feature a node, [N, E], from its features under each template, T times [N, E].

    Its direction is that of the mean of the T unit-normalised features, as in CLIP's zero-shot evaluation (Radford et
    al. 2021, arXiv 2103.00020); a cosine head reads nothing else. Its norm is the mean of the T norms, which is our
    decision: a hyperbolic head lifts a feature by its norm, so that a mean of unit vectors would draw every node to the
    origin, and templates that disagree would draw a node there as if it stood higher in the tree. One template changes
    nothing, bit for bit.
    """
    if len(parts) == 1:
        return parts[0]
    norms = [part.norm(dim=-1, keepdim=True) for part in parts]
    mean = torch.stack([nn.functional.normalize(part, dim=-1) for part in parts]).mean(dim=0)
    return nn.functional.normalize(mean, dim=-1) * torch.stack(norms).mean(dim=0)


@dataclass(frozen=True)
class CheckpointSource:
    """The file that a model's tensors came from."""

    file: str
    """Its name, without the folder it lay in."""
    sha256: str
    container: str
    """Format of the file: ``safetensors``, ``torch``."""
    layout: str
    """How the tensors lay in it: see ``models.checkpoints.names``."""
    stored_as: str
    """Types of its floating numbers; in memory all are float32."""

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            if not isinstance(value, str):
                raise TypeError(f"checkpoint: {name} should be text")

    def as_dict(self) -> dict[str, str]:
        """Return the fields by name."""
        return asdict(self)


@dataclass(frozen=True)
class ModelInfo:
    """What a model is and where it comes from."""

    name: str
    defence: str
    variant: str
    backbone: str
    trained_on: str | None = None
    """Data set the defence was fine-tuned on; None for the backbone itself."""
    seen: str | None = None
    """Class split that says which classes were kept from all training."""
    settings: dict[str, Any] = field(default_factory=dict)
    guards: dict[str, float] = field(default_factory=dict)
    """Collapse guards measured at the end of its training."""
    guard_flags: tuple[str, ...] = ()
    """Those of them that are beyond their limits."""
    backbone_hash: str | None = None
    """Content hash of the backbone it was made from."""
    weights: str | None = None
    """Where the backbone's weights came from, in words, where its name does not say it all."""
    checkpoint: CheckpointSource | None = None
    """The file the tensors came from, where it was somebody else's."""


class ZeroShotModel(nn.Module):
    """A backbone after a defence, with the head it answers by.

    Pixels are float [B, 1 or 3, h, w] in [0, 1] at the data set's own grid; resizing and normalisation live
    inside. The model answers in fp32 and in eval mode; the text tower's features before its projection are
    encoded once a prompt and kept.
    """

    def __init__(
        self,
        *,
        info: ModelInfo,
        clip: Any,
        tokenizer: Callable[[list[str]], Tensor],
        pixels: PixelInput,
        head: Head,
    ) -> None:
        super().__init__()
        self.info = info
        self.clip: Any = clip
        self.pixels = pixels
        self.head = head
        self.tokenizer = tokenizer
        self.text_forwards = 0
        """Prompts the text tower has encoded so far."""
        self._hidden: dict[str, Tensor] = {}
        self.eval()

    @property
    def name(self) -> str:
        """The model's name."""
        return self.info.name

    @property
    def backbone(self) -> str:
        """The backbone's name as others may read it; ``info.backbone`` says where it lies, too."""
        return shared_name(self.info.backbone)

    @property
    def visual(self) -> nn.Module:
        """The image tower."""
        tower: nn.Module = self.clip.visual
        return tower

    @property
    def text_projection(self) -> nn.Parameter:
        """The projection W behind the text tower, [P, E]: feature = h @ W."""
        return projection(self.clip)

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.text_projection.device

    def embed(self, pixels: Tensor, *, tower: nn.Module | None = None) -> Tensor:
        """Map pixels [B, 1 or 3, h, w] in [0, 1] to image embeddings fp32 [B, E], not normalised.

        ``tower`` stands in for the image tower: a frozen copy of it, for a loss that compares the two.
        """
        out = (self.visual if tower is None else tower)(self.pixels(pixels))
        embedding: Tensor = out[0] if isinstance(out, tuple) else out
        return embedding.float()

    def text_hidden(self, prompts: Sequence[str]) -> Tensor:
        """Return the text features before the projection, [N, P]; each prompt is encoded once in a model's life."""
        missing = list(dict.fromkeys(p for p in prompts if p not in self._hidden))
        with torch.no_grad():
            for start in range(0, len(missing), TEXT_BATCH):
                part = missing[start : start + TEXT_BATCH]
                features = hidden_features(self.clip, self.tokenizer(part).to(self.device))
                self.text_forwards += len(part)
                self._hidden |= dict(zip(part, features, strict=True))
        return torch.stack([self._hidden[p] for p in prompts]).to(self.device)

    def encode_text(self, prompts: Sequence[str]) -> Tensor:
        """Return the text features before the projection, [N, P], on the graph and encoded anew each time.

        For training the text tower; everything else asks ``text_hidden``.
        """
        parts = [prompts[start : start + TEXT_BATCH] for start in range(0, len(prompts), TEXT_BATCH)]
        self.text_forwards += len(prompts)
        return torch.cat([hidden_features(self.clip, self.tokenizer(list(p)).to(self.device)) for p in parts])

    def node_points(self, prompts: Sequence[str], *, steps_above_leaf: int, templates: int = 1) -> Tensor:
        """Return the head's points of the nodes ``prompts`` name, [N, E]; 0 steps above the leaves: the leaf level.

        ``templates`` prompts in a row name one node, [N * templates] in all: see ``ensemble_features``.
        """
        parts = [self.text_hidden(prompts[i::templates]) @ self.text_projection for i in range(templates)]
        return self.head.points(ensemble_features(parts), steps_above_leaf)

    def logits(self, embedding: Tensor, points: Tensor) -> Tensor:
        """Return logits of image embeddings [B, E] over node points [N, E], [B, N]."""
        return self.head.logits(embedding, points)

    def forward(self, pixels: Tensor, points: Tensor) -> Tensor:
        """Return logits of pixels [B, c, h, w] over node points [N, E], [B, N]."""
        return self.logits(self.embed(pixels), points)

    def forget_text(self) -> None:
        """Drop the kept text features; called when the text tower itself has moved."""
        self._hidden.clear()

    @property
    def activation(self) -> str:
        """Non-linearity of the towers, read from their modules."""
        return facts.activation(self.clip)

    @property
    def weights_hash(self) -> str:
        """Content hash of all the answer depends on: tensors by name, head, pixel settings, QuickGELU where it is."""
        digest = hashlib.sha256()
        settings: dict[str, Any] = {
            "head": self.head.config(),
            "size": self.pixels.size,
            "mean": self.pixels.mean.flatten().tolist(),
            "std": self.pixels.std.flatten().tolist(),
        }
        hidden = facts.hidden_activation(self.clip)
        if hidden is not None:
            settings["activation"] = hidden
        digest.update(json.dumps(settings, sort_keys=True).encode())
        tensors = {f"clip.{k}": v for k, v in self.clip.state_dict().items()}
        tensors |= {f"head.{k}": v for k, v in self.head.state_dict().items()}
        for name in sorted(tensors):
            tensor = tensors[name].detach().cpu()
            if tensor.is_floating_point():
                tensor = tensor.float()
            digest.update(f"{name}|{tensor.dtype}|{tuple(tensor.shape)}|".encode())
            digest.update(tensor.contiguous().numpy().tobytes())
        return f"sha256:{digest.hexdigest()}"
