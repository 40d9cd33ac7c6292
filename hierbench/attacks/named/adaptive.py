"""The named attacks that look inside a model: at its embedding, through its head, or for one perturbation of all."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from hierbench.attacks.named.pgd import PGD_SETTINGS, POOLING, pooling_of
from hierbench.attacks.spec import AttackSpec, Ground, Parameter, Part, Settings, Surroundings
from hierbench.errors import InputError

if TYPE_CHECKING:
    from hierbench.attacks.objectives.base import Objective
    from hierbench.attacks.optimisers.base import Optimiser, Stage
    from hierbench.models.negatives import Sides

_OPTIMISER = Parameter(
    "optimiser", "pgd", "how it ascends; apgd chooses its own steps and start", choices=("pgd", "apgd")
)
_SIDES = Parameter(
    "hnsa",
    "both",
    "from which neighbouring level negatives are borrowed: the deeper (lower), the upper, both, off",
    choices=("both", "lower", "upper", "off"),
)
_RADIUS = Parameter(
    "hnsa_radius", "level", "radius of borrowed negatives: the level's mean, or their own", choices=("level", "own")
)
_TEXT_EPS = Parameter("text_eps", 2e-4, "linf radius of delta_T on the normalised text features", minimum=0)
_LOSS = Parameter(
    "loss",
    "ce",
    "ce: cross-entropy of the true node; margin: stops growing where an image is broken",
    choices=("ce", "margin"),
)
_IMAGES = Parameter("images", 1000, "how many images the perturbation is fitted on, at most", minimum=1)
_UPDATES = Parameter("updates", 200, "steps, each on a mini-batch of these images", minimum=1)
_ALPHA = Parameter("alpha", "eps", "first step length: eps, eps/k, auto (eps/4) or a size; it falls linearly to 0")
_FITS = Parameter("restarts", 1, "fits from different starts, of which the best is kept", minimum=1)
FIT_ON = Parameter(
    "fit_on",
    "auto",
    "heldout: of the train split; rest: of the scored split, what is not scored; auto: heldout where there is one",
    choices=("auto", "heldout", "rest"),
)


def _ascending(settings: Settings) -> Optimiser:
    from hierbench.attacks.optimisers.apgd import APGD
    from hierbench.attacks.optimisers.pgd import PGD

    steps = int(settings["steps"])
    if settings["optimiser"] == "apgd":
        return APGD(steps=steps)
    start: Literal["uniform", "clean"] = "clean" if settings["start"] == "clean" else "uniform"
    return PGD(steps=steps, alpha=str(settings["alpha"]), start_at=start, momentum=float(settings["momentum"]))


def _angular_parts(settings: Settings, ground: Ground) -> tuple[Part, ...]:
    component = f"{settings['optimiser']}-angular-ce"

    def make(around: Surroundings) -> Stage:
        from hierbench.attacks.objectives.base import NodeObjective
        from hierbench.attacks.optimisers.angular import AngularForward
        from hierbench.attacks.optimisers.base import Stage

        objective = NodeObjective(depth=ground.depth, scoring=ground.scoring, pooling=pooling_of(settings))
        forward, restarts = AngularForward(around.bound), int(settings["restarts"])
        return Stage(component, objective, _ascending(settings), restarts=restarts, forward=forward)

    return (Part(component, make),)


def _universal_hier_parts(settings: Settings, ground: Ground) -> tuple[Part, ...]:
    component = f"{settings['optimiser']}-levels-hnsa"
    sides: Sides = {"both": "both", "lower": "lower", "upper": "upper"}.get(str(settings["hnsa"]), "off")  # type: ignore[assignment]

    def make(around: Surroundings) -> Stage:
        from hierbench.attacks.objectives.universal_hier import WithEmbedding, universal_hier_objective
        from hierbench.attacks.optimisers.base import Stage

        objective = universal_hier_objective(
            around.bound,
            around.layout,
            sides=sides,
            text_eps=float(settings["text_eps"]),
            level_radius=settings["hnsa_radius"] == "level",
        )
        return Stage(
            component,
            objective,
            _ascending(settings),
            restarts=int(settings["restarts"]),
            # One search for all levels ends when the coarsest is broken: under roll-up, then all are.
            depth=1 if ground.scoring == "rollup" else None,
            forward=WithEmbedding(around.bound),
        )

    return (Part(component, make),)


def _universal_parts(settings: Settings, ground: Ground) -> tuple[Part, ...]:
    component = f"universal-{settings['loss']}"

    def objective() -> Objective:
        from hierbench.attacks.objectives.base import NodeObjective
        from hierbench.attacks.objectives.margins import MarginObjective

        if settings["loss"] == "ce":
            return NodeObjective(depth=ground.depth, scoring=ground.scoring, pooling="max")
        return MarginObjective(depth=ground.depth, scoring=ground.scoring, confidence=0.0)

    def make(around: Surroundings) -> Stage:
        from hierbench.attacks.optimisers.base import Stage
        from hierbench.attacks.universal import Ascent, Given
        from hierbench.attacks.verdict import Criterion

        if around.fitter is None:
            raise InputError("uap and superclass_uap need images to fit on, apart from those that are scored")
        aimed = objective()
        found = around.fitter.fit(
            component,
            aimed,
            criterion=Criterion(around.layout, ground.depth, ground.scoring),
            ascent=Ascent(int(settings["updates"]), str(settings["alpha"]), int(settings["restarts"])),
            images=int(settings["images"]),
        )
        return Stage(component, aimed, Given(found))

    return (Part(component, make),)


_HYPERBOLIC = (_OPTIMISER, *PGD_SETTINGS)
_FITTED = (_LOSS, _IMAGES, _UPDATES, _ALPHA, _FITS, FIT_ON)

ADAPTIVE_ATTACKS = (
    AttackSpec(
        name="angular_pgd",
        summary="PGD on the true node's cross-entropy without the radial part of the gradient at the image embedding.",
        source="METHODS.md 2; arXiv 2511.12985",
        depths="every",
        parameters=(*_HYPERBOLIC, POOLING),
        parts=_angular_parts,
    ),
    AttackSpec(
        name="universal_hier",
        summary="One perturbation of an image for all levels at once, by Hier-AFT's own training loss.",
        source="METHODS.md 2, 5.8; arXiv 2604.18867",
        depths="pooled",
        parameters=(*_HYPERBOLIC, _SIDES, _RADIUS, _TEXT_EPS),
        parts=_universal_hier_parts,
    ),
    AttackSpec(
        name="uap",
        summary="One perturbation for all images, fitted on others at the leaves.",
        source="METHODS.md 2; arXiv 1610.08401",
        depths="leaf",
        parameters=_FITTED,
        parts=_universal_parts,
        universal=True,
    ),
    AttackSpec(
        name="superclass_uap",
        summary="One perturbation for all images at each depth, fitted on others.",
        source="METHODS.md 2; arXiv 1610.08401",
        depths="every",
        parameters=_FITTED,
        parts=_universal_parts,
        universal=True,
    ),
)
"""Every attack that needs more of a model than its logits, or more images than its own."""
