"""What a text attack gives back: the verdicts in the form all attacks have, and beside them what became of the text."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from hierbench.attacks.engine.result import AttackResult
from hierbench.attacks.text.search import AttackedPrompt
from hierbench.attacks.text.settings import Scope


@dataclass(frozen=True, eq=False)
class AttackedLevel:
    """The prompts of one depth after an attack; independent of any image.

    Attributes:
        depth: whose prompts.
        prompts: one a node, in level order.
        points: the head's points of the attacked prompts [N_d, E].
        features: their projected text features [N_d, E], not normalised.
        clean_features: those of the clean prompts.
        component: the source and its measure.
        counts: edits ``proposed``, those each rule refused, and what the source held back by itself.
        text_forwards: texts that the search encoded.
    """

    depth: int
    prompts: tuple[AttackedPrompt, ...]
    points: Tensor
    features: Tensor
    clean_features: Tensor
    component: str
    counts: Mapping[str, int]
    text_forwards: int

    @property
    def changed(self) -> NDArray[np.bool_]:
        """Bool [N_d]: the prompts that are other ones."""
        return np.array([prompt.changed for prompt in self.prompts], dtype=np.bool_)

    @property
    def scores(self) -> NDArray[np.float64]:
        """[N_d]: how far each text moved."""
        return np.array([prompt.score for prompt in self.prompts])


@dataclass(frozen=True, eq=False)
class TextOutcome:
    """What happened to the text of n samples.

    Attributes:
        component: the source and its measure.
        scope: whose prompts were attacked.
        depth: whose depth's prompts.
        level: the attacked prompts; None for a continuous attack.
        attackable: bool [n]: a prompt that the sample's verdict reads could be changed at all. Where a class has no
            allowed replacement, the attack leaves it as it was, and that says nothing about the model.
        linf: float64 [n]: how far a text feature was moved, for a continuous attack; else 0.
        text_forwards: texts encoded for the attack, the first time it is run.
    """

    component: str
    scope: Scope
    depth: int
    level: AttackedLevel | None
    attackable: NDArray[np.bool_]
    linf: NDArray[np.float64]
    text_forwards: int


@dataclass(frozen=True, eq=False)
class TextAttackResult:
    """A text or multimodal attack on n samples.

    In ``result``, where the pixels alone decide in an image attack: ``moved`` says that some input of the sample's
    verdict changed, its pixels or a prompt; ``linf`` and ``l2`` stay those of the pixels, 0 where they are clean;
    ``clean_loss`` is 0 and ``final_loss`` how far the attacked text moved (scope ``all``: the mean over the nodes;
    with an image attack: that attack's losses); ``raised`` says that this rose or the verdict broke; ``logits`` are
    those under the attacked prompts. ``searched`` holds for every sample that is right when clean, as everywhere.
    """

    result: AttackResult
    text: TextOutcome

    @property
    def unattackable(self) -> int:
        """How many attacked samples have no prompt that could be changed."""
        return int(np.count_nonzero(self.result.searched & ~self.text.attackable))
