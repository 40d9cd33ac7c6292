"""Hier-AFT's constants. Nothing here imports torch."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import Literal

from hierbench.defences.settings import DefenceSettings


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
