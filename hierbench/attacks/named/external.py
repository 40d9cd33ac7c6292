"""Other libraries' attacks as named ones: any of torchattacks that fits, and the AutoAttack authors' own code."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from hierbench.attacks.spec import AttackSpec, Ground, Part, Runner, Settings, Surroundings
from hierbench.errors import HierbenchError, InputError

if TYPE_CHECKING:
    from hierbench.attacks.engine.result import AttackResult
    from hierbench.attacks.optimisers.base import Stage

ENGINES = ("hierbench", "pyautoattack")
"""Whose loop can run an attack that both know."""
TORCHATTACKS = (
    "APGD", "APGDT", "AutoAttack", "BIM", "CW", "DIFGSM", "DeepFool", "EADEN", "EOTPGD", "FAB", "FFGSM", "FGSM", "GN",
    "Jitter", "MIFGSM", "NIFGSM", "PGD", "PGDL2", "PGDRS", "PGDRSL2", "PIFGSM", "PIFGSMPP", "RFGSM", "SINIFGSM", "SPSA",
    "Square", "TIFGSM", "TPGD", "UPGD", "VMIFGSM", "VNIFGSM",
)  # fmt: skip
"""The library's attacks that fit; listed here so that naming them does not import it."""
_AUTHORS = {
    "apgd-ce": ("apgd-ce",),
    "apgd-dlr": ("apgd-dlr",),
    "apgd-t": ("apgd-t",),
    "apgd": ("apgd-ce", "apgd-t"),
    "fab-t": ("fab-t",),
    "square": ("square",),
    "autoattack": None,
    "superclass_autoattack": None,
}
"""Our attacks that the authors' code runs too; None is a version of theirs, which names its own."""


def by_engine(spec: AttackSpec, engine: str) -> AttackSpec:
    """Return the attack as another engine runs it; one that it does not know is an ``InputError``."""
    if engine == "hierbench":
        return spec
    if engine not in ENGINES:
        raise InputError(f"--engine: {engine!r} is none of {', '.join(ENGINES)}")
    if spec.name not in _AUTHORS:
        raise InputError(f"--engine pyautoattack: it has no {spec.name}; it runs {', '.join(_AUTHORS)}")
    wanted = _AUTHORS[spec.name]

    def version(settings: Settings) -> str:
        return str(settings["version"]) if wanted is None else "custom"

    def parts(settings: Settings, ground: Ground) -> tuple[Part, ...]:
        from hierbench.attacks.external.components import listed, runnable

        names = listed(version(settings), wanted)
        found = runnable(names, candidates=ground.candidates, norm="linf", height=8)
        said = "; ".join(f"depth {ground.depth}: {text}" for text in found.substitutions)
        return tuple(Part(name, _no_stage, said if not index else "") for index, name in enumerate(found.names))

    def runner(bound: Any, settings: Settings) -> Runner:
        from hierbench.attacks.external.pyautoattack import Budget, run_pyautoattack

        known = ("steps", "restarts", "targets", "queries", "eot")
        budget = Budget(**{name: int(settings[name]) for name in known if name in settings})

        def run(arguments: Mapping[str, Any]) -> AttackResult:
            given = {name: value for name, value in arguments.items() if name not in ("dataset", "full_budget")}
            return run_pyautoattack(**given, version=version(settings), attacks=wanted, budget=budget)

        return run

    return replace(spec, parts=parts, runner=runner, engine="pyautoattack")


def _torchattack(name: str) -> AttackSpec:
    full = f"torchattacks:{name}"

    def parts(settings: Settings, ground: Ground) -> tuple[Part, ...]:
        return (Part(full, _no_stage),)

    def runner(bound: Any, settings: Settings) -> Runner:
        from hierbench.attacks.external.torchattacks import run_torchattacks

        def run(arguments: Mapping[str, Any]) -> AttackResult:
            given = {key: value for key, value in arguments.items() if key != "full_budget"}
            return run_torchattacks(name, **given, settings=settings)

        return run

    return AttackSpec(
        name=full,
        summary=f"{name} of torchattacks; its settings are the library's own.",
        source="METHODS.md 2; torchattacks 3.5",
        depths="leaf",
        parameters=(),
        parts=parts,
        runner=runner,
        engine="torchattacks",
        open_settings=True,
    )


def _no_stage(around: Surroundings) -> Stage:
    raise HierbenchError("this attack runs in another library's loop and has no stages")


EXTERNAL_ATTACKS = tuple(_torchattack(name) for name in TORCHATTACKS)
"""Every attack of another library under a name of its own."""
