"""The named attack on the descriptions of the classes."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from hierbench.attacks.named.pgd import PGD_SETTINGS, pgd_part
from hierbench.attacks.spec import AttackSpec, Ground, Parameter, Part, Settings, Surroundings
from hierbench.errors import InputError

if TYPE_CHECKING:
    from hierbench.attacks.objectives.base import Objective
    from hierbench.attacks.objectives.semantic import DescribedModel
    from hierbench.attacks.optimisers.base import Stage

_COUNT = Parameter("descriptions", 5, "descriptions of each class, those nearest to its bare name", minimum=1)
_FILE = Parameter("file", "shipped", "where the descriptions are: shipped, or a file (docs/descriptions.md)")
_SCORED = Parameter(
    "scored",
    "single",
    "what the verdict reads: the single prompt, or the mean logits over the descriptions",
    choices=("single", "ensemble"),
)


def prepare(bound: Any, settings: Settings) -> tuple[DescribedModel, dict[str, str]]:
    """Return the model with its descriptions, once a cell, and what its record says of them.

    ``bound`` is a ``BoundModel``. Errors are ``InputError``: see ``objectives.semantic.described_model``.
    """
    from hierbench.attacks.objectives.semantic import described_model
    from hierbench.models.binding import BoundModel

    if not isinstance(bound, BoundModel):
        raise InputError("semantic_ensemble needs a model with a text side: it encodes descriptions")
    scored: Literal["single", "ensemble"] = "ensemble" if settings["scored"] == "ensemble" else "single"
    file = str(settings["file"])
    described = described_model(bound, count=int(settings["descriptions"]), file=file, scored=scored)
    # A path says nothing about its content, and belongs to one machine.
    return described, {"file": Path(file).name, "descriptions_hash": described.chosen.digest}


def _parts(settings: Settings, ground: Ground) -> tuple[Part, ...]:
    ensemble = settings["scored"] == "ensemble"

    def make(around: Surroundings) -> Stage:
        from dataclasses import replace

        from hierbench.attacks.objectives.semantic import DescribedModel, SemanticObjective

        described = around.bound
        if not isinstance(described, DescribedModel):
            if ensemble:
                raise InputError("semantic_ensemble: scored=ensemble needs the model that prepare gives as the forward")
            described, _ = prepare(around.bound, settings)

        def objective(_: Surroundings) -> Objective:
            return SemanticObjective(first=len(described.points), count=described.chosen.count)

        stage = pgd_part("pgd-semantic-ce", objective, settings).make(around)
        return replace(stage, forward=described.searched)

    return (Part("pgd-semantic-ce", make),)


SEMANTIC_ATTACKS = (
    AttackSpec(
        name="semantic_ensemble",
        summary="PGD on the mean cross-entropy over several descriptions of each class.",
        source="METHODS.md 2, 5.6; arXiv 2602.12461",
        depths="leaf",
        parameters=(*PGD_SETTINGS, _COUNT, _FILE, _SCORED),
        parts=_parts,
        prepare=prepare,
    ),
)
