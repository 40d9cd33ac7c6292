"""The named attacks made of projected gradient descent."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Literal

from hierbench.attacks.spec import AttackSpec, Ground, Parameter, Part, Settings, Surroundings
from hierbench.errors import InputError

if TYPE_CHECKING:
    from hierbench.attacks.objectives.base import Objective
    from hierbench.attacks.optimisers.base import Stage

STEPS = Parameter("steps", 20, "gradient steps a run", minimum=1)
ALPHA = Parameter("alpha", "auto", "step length: auto (eps/4; l2: 2.5 eps/steps), eps, eps/k, or a size such as 2/255")
RESTARTS = Parameter("restarts", 1, "runs from different random starts", minimum=1)
START = Parameter(
    "start", "uniform", "first point: uniform in the ball, or the clean image", choices=("uniform", "clean")
)
MOMENTUM = Parameter(
    "momentum", 0.0, "decay of the summed gradients that are followed (MI-FGSM); 0: none", minimum=0, tacit=True
)
PGD_SETTINGS = (STEPS, ALPHA, RESTARTS, START, MOMENTUM)
POOLING = Parameter(
    "pooling", "max", "how rollup makes a node's logit from its leaves' logits", choices=("max", "logsumexp")
)
_HEIGHT = Parameter("height", 1, "height of the lowest common ancestor that divides near from far", minimum=1)


def pgd_part(component: str, objective: Callable[[Surroundings], Objective], settings: Settings) -> Part:
    """Return PGD on an objective, with the usual settings."""

    def make(around: Surroundings) -> Stage:
        from hierbench.attacks.optimisers.base import Stage
        from hierbench.attacks.optimisers.pgd import PGD

        start: Literal["uniform", "clean"] = "clean" if settings["start"] == "clean" else "uniform"
        optimiser = PGD(
            steps=int(settings["steps"]),
            alpha=str(settings["alpha"]),
            start_at=start,
            momentum=float(settings["momentum"]),
        )
        return Stage(component, objective(around), optimiser, restarts=int(settings["restarts"]))

    return Part(component, make)


def pooling_of(settings: Settings) -> Literal["max", "logsumexp"]:
    """Return the setting ``pooling`` as its type."""
    return "max" if settings["pooling"] == "max" else "logsumexp"


def _leaf_parts(settings: Settings, ground: Ground) -> tuple[Part, ...]:
    def objective(around: Surroundings) -> Objective:
        from hierbench.attacks.objectives.base import LeafObjective

        return LeafObjective()

    return (pgd_part("pgd-leaf-ce", objective, settings),)


def _superclass_parts(settings: Settings, ground: Ground) -> tuple[Part, ...]:
    def objective(around: Surroundings) -> Objective:
        from hierbench.attacks.objectives.base import NodeObjective

        return NodeObjective(depth=ground.depth, scoring=ground.scoring, pooling=pooling_of(settings))

    return (pgd_part("pgd-node-ce", objective, settings),)


def _multilevel_parts(settings: Settings, ground: Ground) -> tuple[Part, ...]:
    def levels(around: Surroundings) -> Objective:
        from hierbench.attacks.objectives.base import LevelsObjective

        return LevelsObjective(scoring=ground.scoring, pooling=pooling_of(settings))

    def targeted(around: Surroundings) -> Objective:
        from hierbench.attacks.objectives.base import TargetedObjective

        return TargetedObjective(
            depth=ground.depth,
            scoring=ground.scoring,
            pooling=pooling_of(settings),
            targets=int(settings["targets"]),
            path=bool(settings["path"]),
        )

    if not settings["targeted"]:
        return (pgd_part("pgd-levels-ce", levels, settings),)
    return (pgd_part("pgd-path-t" if settings["path"] else "pgd-node-t", targeted, settings),)


def _cw_parts(settings: Settings, ground: Ground) -> tuple[Part, ...]:
    kappa = str(settings["kappa"])
    try:
        confidence = None if kappa == "none" else float(kappa)
    except ValueError:
        raise InputError(f"cw_linf: kappa is {kappa!r}, and should be none or a number") from None

    def objective(around: Surroundings) -> Objective:
        from hierbench.attacks.objectives.margins import MarginObjective

        return MarginObjective(depth=ground.depth, scoring=ground.scoring, confidence=confidence)

    return (pgd_part("pgd-margin", objective, settings),)


def _kept_parts(near: bool) -> Callable[[Settings, Ground], tuple[Part, ...]]:
    def parts(settings: Settings, ground: Ground) -> tuple[Part, ...]:
        height = int(settings["height"])

        def objective(around: Surroundings) -> Objective:
            import numpy as np
            import torch

            from hierbench.attacks.objectives.restricted import RestrictedObjective

            if around.heights is None:
                raise InputError("lha and gha need the tree: heights are those of its edges")
            kept = around.heights <= height if near else around.heights >= height
            kept = kept | np.eye(len(kept), dtype=np.bool_)
            return RestrictedObjective(torch.from_numpy(kept).to(around.layout.device))

        return (pgd_part("pgd-near-ce" if near else "pgd-far-ce", objective, settings),)

    return parts


PGD_ATTACKS = (
    AttackSpec(
        name="leaf_pgd",
        summary="PGD on the cross-entropy of the true leaf: the usual flat attack.",
        source="METHODS.md 2; arXiv 1706.06083",
        depths="leaf",
        parameters=PGD_SETTINGS,
        parts=_leaf_parts,
    ),
    AttackSpec(
        name="superclass_pgd",
        summary="PGD on the cross-entropy of the true node at the attacked depth.",
        source="METHODS.md 2; max pooling: NHA, arXiv 2108.11785",
        depths="every",
        parameters=(*PGD_SETTINGS, POOLING),
        parts=_superclass_parts,
    ),
    AttackSpec(
        name="multilevel_pgd",
        summary="PGD on all depths at once: the weighted sum of losses, or towards the strongest wrong nodes.",
        source="METHODS.md 1, 2",
        depths="every",
        parameters=(
            *PGD_SETTINGS,
            POOLING,
            Parameter("targeted", False, "aim at the strongest wrong nodes of the attacked depth, one after another"),
            Parameter("targets", 9, "how many of them (fewer where the depth has fewer)", minimum=1),
            Parameter("path", False, "aim at a target's ancestors too, each with its depth's weight"),
        ),
        parts=_multilevel_parts,
    ),
    AttackSpec(
        name="cw_linf",
        summary="PGD on the margin between the best wrong node and the true one (Carlini and Wagner's loss).",
        source="METHODS.md 2; arXiv 1608.04644",
        depths="leaf",
        parameters=(
            *PGD_SETTINGS,
            Parameter("kappa", "none", "margin beyond which the loss stops growing: none, 50 (TeCoA) or 0 (AGFT)"),
        ),
        parts=_cw_parts,
    ),
    AttackSpec(
        name="lha",
        summary="PGD towards the classes near to the truth in the tree (lower-level hierarchical attack).",
        source="METHODS.md 2; arXiv 2108.11785",
        depths="leaf",
        parameters=(*PGD_SETTINGS, _HEIGHT),
        parts=_kept_parts(near=True),
        leaf_only=True,
    ),
    AttackSpec(
        name="gha",
        summary="PGD towards the classes far from the truth in the tree (greater-level hierarchical attack).",
        source="METHODS.md 2; arXiv 2108.11785",
        depths="leaf",
        parameters=(*PGD_SETTINGS, _HEIGHT),
        parts=_kept_parts(near=False),
        leaf_only=True,
    ),
)
"""Every attack whose optimiser is PGD."""
