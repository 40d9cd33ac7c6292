"""The named attacks of AutoAttack's family, each alone, together, at one depth, and pooled over all."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from hierbench.attacks.spec import AttackSpec, Ground, Parameter, Part, Settings, Surroundings

if TYPE_CHECKING:
    from hierbench.attacks.objectives.base import Objective
    from hierbench.attacks.optimisers.base import Optimiser, Stage

_STEPS = Parameter("steps", 100, "gradient steps a run", minimum=1)
_RESTARTS = Parameter("restarts", 1, "runs from different random starts", minimum=1)
_TARGETS = Parameter("targets", 9, "how many wrong nodes are aimed at (fewer where the depth has fewer)", minimum=1)
_PATIENCE = Parameter(
    "patience",
    8.0,
    "a targeted run ends when it is further from success than this many times what its last window gained; 0: never",
    minimum=0,
)
_QUERIES = Parameter("queries", 5000, "queries of Square", minimum=1)
_EOT = Parameter("eot", 1, "gradients averaged at each point, for a model that draws at random", minimum=1)
_VERSION = Parameter(
    "version",
    "standard",
    "standard: apgd-ce, apgd-t, fab-t, square; plus: with apgd-dlr, 5 restarts; rand: apgd-ce, apgd-dlr, eot 20",
    choices=("standard", "plus", "rand"),
)

_DLR, _TARGETED_DLR = 3, 4  # candidates each needs: see margins.py, which is not imported for the sake of torch


def _part(
    component: str,
    ground: Ground,
    objective: Callable[[], Objective],
    optimiser: Callable[[], Optimiser],
    *,
    restarts: int = 1,
    eot: int = 1,
    pooled: bool = False,
    instead: str = "",
) -> Part:
    def make(around: Surroundings) -> Stage:
        from hierbench.attacks.optimisers.base import Stage

        name = f"{component}/d{ground.depth}" if pooled else component
        depth = ground.depth if pooled else None
        return Stage(name, objective(), optimiser(), restarts=restarts, depth=depth, eot=eot)

    return Part(component, make, instead)


def _apgd(steps: int, patience: float = 0.0) -> Optimiser:
    from hierbench.attacks.optimisers.apgd import APGD

    return APGD(steps=steps, patience=patience or None)


def _ce(ground: Ground) -> Objective:
    from hierbench.attacks.objectives.base import NodeObjective

    return NodeObjective(depth=ground.depth, scoring=ground.scoring, pooling="max")


def _margin(ground: Ground, *, dlr: bool) -> Objective:
    from hierbench.attacks.objectives.margins import MarginObjective

    return MarginObjective(depth=ground.depth, scoring=ground.scoring, kind="dlr" if dlr else "margin")


def _towards(ground: Ground, *, dlr: bool, targets: int) -> Objective:
    from hierbench.attacks.objectives.margins import TargetedMarginObjective

    return TargetedMarginObjective(
        depth=ground.depth, scoring=ground.scoring, kind="dlr" if dlr else "margin", targets=targets
    )


def _apgd_ce(ground: Ground, *, steps: int, restarts: int, eot: int = 1, pooled: bool = False) -> Part:
    return _part(
        "apgd-ce",
        ground,
        lambda: _ce(ground),
        lambda: _apgd(steps),
        restarts=restarts,
        eot=eot,
        pooled=pooled,
    )


def _apgd_dlr(ground: Ground, *, steps: int, restarts: int, eot: int = 1, pooled: bool = False) -> Part:
    dlr = ground.candidates >= _DLR
    return _part(
        "apgd-dlr" if dlr else "apgd-margin",
        ground,
        lambda: _margin(ground, dlr=dlr),
        lambda: _apgd(steps),
        restarts=restarts,
        eot=eot,
        pooled=pooled,
        instead="" if dlr else _undefined(ground, "apgd-dlr", _DLR, "apgd-margin"),
    )


def _apgd_t(
    ground: Ground, *, steps: int, restarts: int, targets: int, patience: float = 0.0, pooled: bool = False
) -> Part:
    dlr = ground.candidates >= _TARGETED_DLR
    return _part(
        "apgd-t" if dlr else "apgd-margin-t",
        ground,
        lambda: _towards(ground, dlr=dlr, targets=targets),
        lambda: _apgd(steps, patience),
        restarts=restarts,
        pooled=pooled,
        instead="" if dlr else _undefined(ground, "apgd-t", _TARGETED_DLR, "apgd-margin-t"),
    )


def _fab_t(
    ground: Ground,
    *,
    steps: int,
    restarts: int,
    targets: int,
    pooled: bool = False,
    instead: str = "",
) -> Part:
    def optimiser() -> Optimiser:
        from hierbench.attacks.optimisers.fab import FAB

        return FAB(iterations=steps, targets=min(targets, ground.candidates - 1))

    return _part(
        "fab-t",
        ground,
        lambda: _towards(ground, dlr=False, targets=targets),
        optimiser,
        restarts=restarts,
        pooled=pooled,
        instead=instead,
    )


def _square(ground: Ground, *, queries: int, restarts: int, pooled: bool = False) -> Part:
    def optimiser() -> Optimiser:
        from hierbench.attacks.optimisers.square import Square

        return Square(steps=queries)

    return _part("square", ground, lambda: _margin(ground, dlr=False), optimiser, restarts=restarts, pooled=pooled)


def _undefined(ground: Ground, wanted: str, needed: int, ran: str) -> str:
    return f"depth {ground.depth}: {wanted} needs {needed} nodes, there are {ground.candidates}; {ran} ran"


def _number(settings: Settings, name: str) -> int:
    return int(settings[name])


def _single(make: Callable[[Settings, Ground], Part]) -> Callable[[Settings, Ground], tuple[Part, ...]]:
    return lambda settings, ground: (make(settings, ground),)


def _together(settings: Settings, ground: Ground) -> tuple[Part, ...]:
    """Return apgd-ce and apgd-t at one depth."""
    steps, restarts, targets = (_number(settings, name) for name in ("steps", "restarts", "targets"))
    return (
        _apgd_ce(ground, steps=steps, restarts=restarts),
        _apgd_t(ground, steps=steps, restarts=restarts, targets=targets),
    )


def _version(settings: Settings, ground: Ground) -> tuple[Part, ...]:
    """Return a version of AutoAttack at one depth; budgets are the authors'."""
    steps, targets, queries = (_number(settings, name) for name in ("steps", "targets", "queries"))
    if settings["version"] == "rand":
        return (
            _apgd_ce(ground, steps=steps, restarts=1, eot=20),
            _apgd_dlr(ground, steps=steps, restarts=1, eot=20),
        )
    if settings["version"] == "plus":
        return (
            _apgd_ce(ground, steps=steps, restarts=5),
            _apgd_dlr(ground, steps=steps, restarts=5),
            _square(ground, queries=queries, restarts=1),
            _apgd_t(ground, steps=steps, restarts=1, targets=targets),
            # The authors' untargeted FAB takes a gradient a class at every step.
            _fab_t(ground, steps=steps, restarts=5, targets=targets, instead="plus: fab-t with 5 restarts ran for fab"),
        )
    return (
        _apgd_ce(ground, steps=steps, restarts=1),
        _apgd_t(ground, steps=steps, restarts=1, targets=targets),
        _fab_t(ground, steps=steps, restarts=1, targets=targets),
        _square(ground, queries=queries, restarts=1),
    )


def _pooled(settings: Settings, ground: Ground, *, full: bool) -> tuple[Part, ...]:
    """Return the stages of the worst case over all depths, coarse to fine; under direct scoring, one depth's own.

    At a depth of two nodes the margin's gradient is a multiple of the cross-entropy's, so one of them is enough.
    """
    steps, targets, patience = _number(settings, "steps"), _number(settings, "targets"), float(settings["patience"])
    pooled = ground.scoring == "rollup"
    grounds = [ground.at(depth) for depth in range(1, len(ground.nodes) + 1)] if pooled else [ground]

    parts = [_apgd_ce(at, steps=steps, restarts=1, pooled=pooled) for at in grounds]
    several = [at for at in grounds if at.candidates > 2]
    parts += [_apgd_t(at, steps=steps, restarts=1, targets=targets, patience=patience, pooled=pooled) for at in several]
    if full:
        parts += [_fab_t(at, steps=steps, restarts=1, targets=targets, pooled=pooled) for at in grounds]
        queries = _number(settings, "queries")
        parts += [_square(at, queries=queries, restarts=1, pooled=pooled) for at in grounds]
    return tuple(parts)


def _entries() -> Sequence[AttackSpec]:
    source = "METHODS.md 2; arXiv 2003.01690"
    return (
        AttackSpec(
            name="apgd-ce",
            summary="Auto-PGD on the cross-entropy of the true node.",
            source=source,
            depths="leaf",
            parameters=(_STEPS, _RESTARTS, _EOT),
            parts=_single(
                lambda s, g: _apgd_ce(
                    g, steps=_number(s, "steps"), restarts=_number(s, "restarts"), eot=_number(s, "eot")
                )
            ),
        ),
        AttackSpec(
            name="apgd-dlr",
            summary="Auto-PGD on the difference of logits ratio.",
            source=source,
            depths="leaf",
            parameters=(_STEPS, _RESTARTS, _EOT),
            parts=_single(
                lambda s, g: _apgd_dlr(
                    g, steps=_number(s, "steps"), restarts=_number(s, "restarts"), eot=_number(s, "eot")
                )
            ),
        ),
        AttackSpec(
            name="apgd-t",
            summary="Auto-PGD towards each of the strongest wrong nodes, by the targeted difference of logits ratio.",
            source=source,
            depths="leaf",
            parameters=(_STEPS, _RESTARTS, _TARGETS),
            parts=_single(
                lambda s, g: _apgd_t(
                    g, steps=_number(s, "steps"), restarts=_number(s, "restarts"), targets=_number(s, "targets")
                )
            ),
        ),
        AttackSpec(
            name="apgd",
            summary="apgd-ce, then apgd-t on what is left: the two components that do nearly all of AutoAttack's work.",
            source=source,
            depths="leaf",
            parameters=(_STEPS, _RESTARTS, _TARGETS),
            parts=_together,
        ),
        AttackSpec(
            name="fab-t",
            summary="Fast adaptive boundary attack towards each of the strongest wrong nodes.",
            source="METHODS.md 2; arXiv 1907.02044",
            depths="leaf",
            parameters=(_STEPS, _RESTARTS, _TARGETS),
            parts=_single(
                lambda s, g: _fab_t(
                    g, steps=_number(s, "steps"), restarts=_number(s, "restarts"), targets=_number(s, "targets")
                )
            ),
        ),
        AttackSpec(
            name="square",
            summary="Square: random search that reads logits alone.",
            source="METHODS.md 2; arXiv 1912.00049",
            depths="leaf",
            parameters=(_QUERIES, _RESTARTS),
            parts=_single(lambda s, g: _square(g, queries=_number(s, "queries"), restarts=_number(s, "restarts"))),
        ),
        AttackSpec(
            name="autoattack",
            summary="AutoAttack at the leaves: apgd-ce, apgd-t, fab-t and square, each on what the others left.",
            source=source,
            depths="leaf",
            parameters=(_VERSION, _STEPS, _TARGETS, _QUERIES),
            parts=_version,
        ),
        AttackSpec(
            name="superclass_autoattack",
            summary="AutoAttack at every depth, each in full.",
            source=source,
            depths="every",
            parameters=(_VERSION, _STEPS, _TARGETS, _QUERIES),
            parts=_version,
        ),
        AttackSpec(
            name="multilevel_apgd",
            summary="Worst case over all depths by apgd-ce and apgd-t, coarse to fine in one search.",
            source="METHODS.md 1, 2; arXiv 2003.01690",
            depths="pooled",
            parameters=(_STEPS, _TARGETS, _PATIENCE),
            parts=lambda settings, ground: _pooled(settings, ground, full=False),
        ),
        AttackSpec(
            name="multilevel_autoattack",
            summary="Worst case over all depths by AutoAttack's four components, coarse to fine in one search.",
            source="METHODS.md 1, 2; arXiv 2003.01690",
            depths="pooled",
            parameters=(_STEPS, _TARGETS, _QUERIES, _PATIENCE),
            parts=lambda settings, ground: _pooled(settings, ground, full=True),
        ),
    )


AUTOATTACKS = _entries()
"""Every attack of the family."""
