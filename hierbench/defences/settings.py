"""The constants of training and of each defence, as frozen dataclasses with their provenance.

[P] the paper's text, [C] the authors' code, [N] a reader's note on the paper, [D] our decision (METHODS.md). Nothing
here imports torch, so that a listing can show defaults quickly.
"""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Literal, Self

from hierbench.errors import InputError


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Base of all settings: built from names and values, checked, and written into records as plain JSON."""

    def __post_init__(self) -> None:
        hints = typing.get_type_hints(type(self))
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            problem = _problem(value, hints[field.name])
            if problem:
                raise InputError(f"setting {field.name} = {value!r}: {problem}")
        self.check()

    def check(self) -> None:
        """Raise ``InputError`` for values that fit their type but make no sense."""

    def as_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {
            name: list(value) if isinstance(value, tuple) else value for name, value in dataclasses.asdict(self).items()
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Build settings from names and values; an unknown name raises ``InputError`` with what exists."""
        known = [field.name for field in dataclasses.fields(cls)]
        for name in values:
            if name not in known:
                import difflib

                near = difflib.get_close_matches(name, known, n=1)
                hint = f"did you mean {near[0]!r}?" if near else f"known are {', '.join(known)}"
                raise InputError(f"unknown setting {name!r}: {hint}")
        return cls(**{name: tuple(value) if isinstance(value, list) else value for name, value in values.items()})

    def require(self, condition: bool, name: str, want: str) -> None:
        """Raise ``InputError`` saying what a setting should be, unless the condition holds."""
        if not condition:
            raise InputError(f"setting {name} = {getattr(self, name)!r}: {want}")


def _problem(value: object, hint: object) -> str | None:
    origin, choices = typing.get_origin(hint), typing.get_args(hint)
    if origin is Literal:
        return None if value in choices else f"choose {' or '.join(repr(choice) for choice in choices)}"
    if origin in (types.UnionType, typing.Union):
        return None if any(_problem(value, choice) is None for choice in choices) else f"it should be {hint}"
    if origin is tuple:
        if isinstance(value, tuple) and len(value) == len(choices):
            return next(filter(None, (_problem(v, c) for v, c in zip(value, choices, strict=True))), None)
        return f"it should be {len(choices)} values"
    if hint is float:
        return None if isinstance(value, int | float) and not isinstance(value, bool) else "it should be a number"
    if hint is int and isinstance(value, bool):
        return "it should be a whole number"
    if isinstance(hint, type) and not isinstance(value, hint):
        return f"it should be of type {hint.__name__}"
    return None


@dataclass(frozen=True, kw_only=True)
class TrainingSettings(Settings):
    """The recipe the trainer runs: optimiser, schedule, augmentation, checkpoints.

    Defaults are the ``tiny`` recipe [D]: published learning rates belong to OpenAI's weights and train nothing on a
    small tower (METHODS.md 5).
    """

    optimiser: Literal["adamw", "sgd"] = "adamw"
    learning_rate: float = 3e-4
    """Peak rate of the visual tower and of the head's scalars; tiny recipes choose from 1e-4, 3e-4, 1e-3 [D]."""
    text_projection_rate: float = 0.1
    """Rate of the text projection W as a share of ``learning_rate`` (METHODS.md 5.8 [D])."""
    weight_decay: float = 1e-4
    """On the visual tower and W, never on the head's scalars [D]."""
    momentum: float = 0.9
    """SGD only; the TeCoA family's [C]."""
    betas: tuple[float, float] = (0.9, 0.999)
    """AdamW only."""
    clip_norm: float | None = 1.0
    """Largest norm of the whole gradient (METHODS.md 5.8 [D]); None does not clip."""
    batch_size: int = 128
    epochs: float = 10.0
    """Passes over the training images; ignored when ``steps`` is given."""
    steps: int | None = None
    warmup_share: float = 0.07
    warmup_limit: int = 1000
    """Linear warm-up over min(limit, share of all steps), then cosine to 0, per step (METHODS.md 5 [D])."""
    augmentation: Literal["dataset", "none", "photo", "digit"] = "dataset"
    """``photo``: crop out of a 4-pixel padding and flip; ``digit``: shifts of at most one pixel of an 8 x 8 grid;
    ``dataset``: what the data set says."""
    prepare_images: int = 1024
    """Clean training images behind the frozen statistics (METHODS.md 5.8)."""
    fold_batch_norm: bool = True
    """Fold frozen batch norms into the convolutions during the inner attack: the same function, a fifth quicker."""
    checkpoint_seconds: float = 60.0
    checkpoint_steps: int | None = None
    """Write a checkpoint after this long, or after this many steps."""
    log_points: int = 200
    """At most about this many points in the recorded learning curve."""

    def check(self) -> None:
        """See ``Settings.check``."""
        for name in ("learning_rate", "epochs", "batch_size", "prepare_images", "log_points"):
            self.require(getattr(self, name) > 0, name, "it should be above 0")
        for name in ("text_projection_rate", "weight_decay", "warmup_limit", "checkpoint_seconds"):
            self.require(getattr(self, name) >= 0, name, "it should be 0 or more")
        self.require(0 <= self.momentum < 1, "momentum", "it should be in [0, 1)")
        self.require(0 <= self.warmup_share < 1, "warmup_share", "it should be in [0, 1)")
        self.require(all(0 <= beta < 1 for beta in self.betas), "betas", "both should be in [0, 1)")
        self.require(self.clip_norm is None or self.clip_norm > 0, "clip_norm", "it should be above 0, or none")
        self.require(self.steps is None or self.steps > 0, "steps", "it should be 1 or more")
        self.require(self.checkpoint_steps is None or self.checkpoint_steps > 0, "checkpoint_steps", "1 or more")


@dataclass(frozen=True, kw_only=True)
class DefenceSettings(Settings):
    """What every adversarial defence sets: its inner attack (METHODS.md 5, shared frame)."""

    attack_steps: int = 2
    alpha_share: float | None = 1.0
    """Step size of the inner attack as a share of eps; 1.0 is the TeCoA family's alpha = eps [C]."""

    def check(self) -> None:
        """See ``Settings.check``."""
        self.require(self.attack_steps >= 1, "attack_steps", "it should be 1 or more")
        self.require(self.alpha_share is None or self.alpha_share > 0, "alpha_share", "it should be above 0")

    def alpha(self, eps: Fraction) -> float:
        """Return the step size for one eps."""
        share = 1.0 if self.alpha_share is None else self.alpha_share
        return share * float(eps)


@dataclass(frozen=True, kw_only=True)
class TeCoASettings(DefenceSettings):
    """TeCoA: PGD-2, alpha = eps, uniform start [P][C] (arXiv 2212.07016; METHODS.md 5.1)."""

    train_text_projection: bool = False
    """Ablation: also train W, as Hier-AFT does."""


@dataclass(frozen=True, kw_only=True)
class HierAFTSettings(DefenceSettings):
    """Hier-AFT, a re-implementation (arXiv 2604.18867; METHODS.md 5.8): losses [N], constants [D]."""

    attack_steps: int = 3
    """PGD-3 [N]."""
    alpha_share: float | None = None
    """None: alpha = eps at 1/255 and eps/2 at any other eps [D]."""
    geometry: Literal["hyperbolic", "euclidean", "cosine"] = "hyperbolic"
    """``euclidean`` is r -> 0 in the same code; ``cosine`` the second control, without radii and so without L_gap."""
    curvature: float = 1.0
    """r; fixed, since with a free scale and temperature it is redundant (ablate it with ``train_scalars`` off) [D]."""
    start_norm: float = 0.5
    """Mean tangent norm of images and leaf prompts at the start: ball radius 0.46 at r = 1 [D]; 1.0 is the ablation."""
    coarsest_scale: float = 0.5
    """Level scales b_l start linear from 1.0 at the leaves to this at the coarsest level [D]."""
    max_tangent: float = 2.0
    """Tangent norms are clipped at this over sqrt r [D]."""
    train_text_projection: bool = True
    train_scalars: bool = True
    """a_I, a_T and b_l train [D]."""
    perturbation: Literal["universal", "leaf", "per_level"] = "universal"
    """One delta for all levels [N]; ablations: from the leaf term only, or one delta for each level."""
    text_eps: float = 2e-4
    """Linf bound of delta_T on the normalised projected text feature [N]; 0 switches it off."""
    text_alpha_share: float = 0.5
    """Step of delta_T as a share of ``text_eps`` [D]."""
    hnsa: Literal["both", "lower", "upper", "off"] = "both"
    """Which adjacent levels lend extra negatives: ``upper`` the coarser, ``lower`` the deeper one [N]."""
    hnsa_radius: Literal["level", "own"] = "level"
    """``level`` moves them to the level's mean radius [D]; ``own`` is the literal reading (hubs near the centre)."""
    lambda_vic: float = 0.1
    """lambda1 [D]."""
    vic_quantile: float = 0.25
    """zeta_vic is this quantile of d(f(x), g(t_y)) on clean training images at the start [D]."""
    lambda_gap: float = 1.0
    """lambda2 [D]."""
    zeta_gap: float = 0.025
    """Margin between the radii of parent and child, for text and image nodes: 0.05 x the starting norm [D]."""
    forest: Literal["average", "sum"] = "average"
    """Tree terms are averaged over the trees [D]; ``sum`` is the paper's [N]."""

    def check(self) -> None:
        """See ``Settings.check``."""
        super().check()
        for name in ("curvature", "start_norm", "coarsest_scale", "max_tangent", "text_alpha_share"):
            self.require(getattr(self, name) > 0, name, "it should be above 0")
        for name in ("text_eps", "lambda_vic", "lambda_gap", "zeta_gap"):
            self.require(getattr(self, name) >= 0, name, "it should be 0 or more")
        self.require(0 <= self.vic_quantile <= 1, "vic_quantile", "it should be in [0, 1]")

    def alpha(self, eps: Fraction) -> float:
        """Return eps at 1/255, eps/2 elsewhere, unless a share was set."""
        if self.alpha_share is not None:
            return self.alpha_share * float(eps)
        return float(eps) if eps == Fraction(1, 255) else float(eps) / 2

    @property
    def resolved_curvature(self) -> float:
        """r of the head: 0 for the Euclidean control."""
        return 0.0 if self.geometry == "euclidean" else self.curvature
