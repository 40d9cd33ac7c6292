"""What the defences share that hold the trained image tower against the original one, f0."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

import torch
from torch import Tensor, nn

from hierbench.defences.base import Defence
from hierbench.defences.losses import frozen_tower
from hierbench.defences.settings import DefenceSettings

if TYPE_CHECKING:
    from hierbench.models.zeroshot import ZeroShotModel

SettingsT = TypeVar("SettingsT", bound=DefenceSettings)


class AgainstOriginal(Defence[SettingsT]):
    """Trains the visual tower, and keeps f0 with the text features it answers by."""

    original: nn.Module
    original_text: Tensor

    @property
    def trains(self) -> tuple[str, ...]:
        """The visual tower."""
        return ("visual",)

    def attach(self, model: ZeroShotModel) -> None:
        """Keep f0 and its text."""
        self.original = frozen_tower(model)
        with torch.no_grad():
            self.original_text = self.task.text_features(model)
