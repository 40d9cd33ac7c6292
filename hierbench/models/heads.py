"""Heads: how an image embedding and a text feature become comparable points, and the logits between them.

A head is part of a model and of its hash. Its tensors travel in ``state_dict``, its other settings in ``config()``;
``head_from_config`` rebuilds it. METHODS.md 5.8 (Embeddings, Head).
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from hierbench.errors import InputError
from hierbench.models import hyperbolic

Config = dict[str, Any]

START_TANGENT_NORM = 0.5
"""Mean tangent norm of image embeddings and leaf prompts before training: ball radius 0.46 at r = 1 [D]."""

COARSEST_SCALE = 0.5
"""Where the learned level scales start at the coarsest level; they run linearly from 1.0 at the leaves [D]."""


class Head(nn.Module, ABC):
    """Compares images with prompts: points of both in one space, and logits between points."""

    kind: ClassVar[str]

    @abstractmethod
    def points(self, features: Tensor, steps_above_leaf: int) -> Tensor:
        """Turn projected text features ``[N, E]`` of one level into points ``[N, E]``.

        ``steps_above_leaf`` is 0 for leaf prompts, 1 for the level above them, and so on.
        """

    @abstractmethod
    def image_points(self, embedding: Tensor) -> Tensor:
        """Turn image embeddings ``[B, E]``, not normalised, into points ``[B, E]``."""

    @abstractmethod
    def point_distance(self, u: Tensor, v: Tensor) -> Tensor:
        """Distance of matching rows of ``u, v [B, E]``: shape ``[B]``."""

    @abstractmethod
    def point_logits(self, u: Tensor, v: Tensor) -> Tensor:
        """Logits of points ``u [B, E]`` over points ``v [N, E]``: shape ``[B, N]``."""

    @abstractmethod
    def midpoint(self, points: Tensor, weights: Tensor) -> Tensor:
        """Midpoints of ``points [N, E]`` under each row of ``weights [M, N]``: shape ``[M, E]``."""

    @abstractmethod
    def config(self) -> Config:
        """Everything but tensors that ``head_from_config`` needs."""

    def logits(self, embedding: Tensor, points: Tensor) -> Tensor:
        """Logits of image embeddings ``[B, E]`` over text points ``[N, E]``: shape ``[B, N]``."""
        return self.point_logits(self.image_points(embedding), points)


class CosineHead(Head):
    """CLIP's head: ``s cos(f(x), g(t))`` with ``s = exp(logit_scale)``, which few defences train."""

    kind = "cosine"

    def __init__(self, *, logit_scale: float = math.log(100.0)) -> None:
        super().__init__()
        # Frozen unless a defence says that it trains the head.
        scale = torch.tensor(float(logit_scale), dtype=torch.float32)
        self.logit_scale = nn.Parameter(scale, requires_grad=False)

    @property
    def scale(self) -> Tensor:
        """s, a scalar."""
        return self.logit_scale.exp()

    def points(self, features: Tensor, steps_above_leaf: int = 0) -> Tensor:
        """Normalise text features; every level is treated alike."""
        return nn.functional.normalize(features, dim=-1)

    def image_points(self, embedding: Tensor) -> Tensor:
        """Normalise image embeddings."""
        return nn.functional.normalize(embedding, dim=-1)

    def point_distance(self, u: Tensor, v: Tensor) -> Tensor:
        """Cosine distance ``1 - cos``."""
        return 1.0 - (u * v).sum(-1)

    def point_logits(self, u: Tensor, v: Tensor) -> Tensor:
        """``s <u, v>``."""
        return self.scale * (u @ v.transpose(0, 1))

    def midpoint(self, points: Tensor, weights: Tensor) -> Tensor:
        """The mean direction: mean of the points, normalised (zero rows stay zero)."""
        return nn.functional.normalize(weights @ points, dim=-1)

    def config(self) -> Config:
        """See ``Head.config``."""
        return {"kind": self.kind}


class HyperbolicHead(Head):
    """Logits ``-d(exp0(v_I), psi(n)) / tau`` on the ball of curvature ``-r`` (METHODS.md 5.8; arXiv 2604.18867, [D]).

    ``v_I = a_I f(x) / m_I``; ``psi(n) = exp0(a_T b_l W h(n) / m_T)``. Learned: ``log_a_image``, ``log_a_text`` and one
    ``level_scale`` b_l per level, indexed by steps above the leaves and clamped to the last, so that deeper trees can
    be evaluated. Frozen: the mean norms ``m_image, m_text``, the temperature ``tau`` and r. The image keeps its own
    radius. ``curvature = 0`` is the Euclidean control.
    """

    kind = "hyperbolic"
    m_image: Tensor
    m_text: Tensor
    tau: Tensor

    def __init__(
        self,
        *,
        levels: int,
        curvature: float = 1.0,
        m_image: float = 1.0,
        m_text: float = 1.0,
        tau: float = 1.0,
        start_norm: float = START_TANGENT_NORM,
        coarsest_scale: float = COARSEST_SCALE,
        max_tangent: float = hyperbolic.MAX_TANGENT,
        ball_margin: float = hyperbolic.BALL_MARGIN,
    ) -> None:
        super().__init__()
        if levels < 1:
            raise InputError(f"hyperbolic head: levels = {levels}; give 1 or more")
        if not (math.isfinite(curvature) and curvature >= 0):
            raise InputError(f"hyperbolic head: curvature = {curvature}; r must be finite and not negative")
        self.levels = levels
        self.curvature = float(curvature)
        self.max_tangent = float(max_tangent)
        self.ball_margin = float(ball_margin)
        self.log_a_image = nn.Parameter(torch.tensor(math.log(start_norm), dtype=torch.float32))
        self.log_a_text = nn.Parameter(torch.tensor(math.log(start_norm), dtype=torch.float32))
        self.level_scale = nn.Parameter(torch.linspace(1.0, coarsest_scale, levels, dtype=torch.float32))
        for name, value in (("m_image", m_image), ("m_text", m_text), ("tau", tau)):
            self.register_buffer(name, torch.tensor(float(value), dtype=torch.float32))

    def image_tangent(self, embedding: Tensor) -> Tensor:
        """v_I: scaled embeddings ``[B, E]`` before clipping."""
        return embedding * (self.log_a_image.exp() / self.m_image)

    def text_tangent(self, features: Tensor, steps_above_leaf: int) -> Tensor:
        """v_T: scaled text features ``[N, E]`` before clipping."""
        scale = self.level_scale[min(steps_above_leaf, self.levels - 1)]
        return features * (scale * self.log_a_text.exp() / self.m_text)

    def to_ball(self, tangent: Tensor) -> Tensor:
        """Clip tangent vectors at ``max_tangent / sqrt(r)`` and map them onto the ball."""
        clipped = hyperbolic.clip_tangent(tangent, r=self.curvature, limit=self.max_tangent)
        return hyperbolic.inside_ball(
            hyperbolic.exp0(clipped, r=self.curvature), r=self.curvature, margin=self.ball_margin
        )

    def points(self, features: Tensor, steps_above_leaf: int) -> Tensor:
        """psi(n): text features ``[N, E]`` as points on the ball."""
        return self.to_ball(self.text_tangent(features, steps_above_leaf))

    def image_points(self, embedding: Tensor) -> Tensor:
        """exp0(v_I): image embeddings ``[B, E]`` as points on the ball, each at its own radius."""
        return self.to_ball(self.image_tangent(embedding))

    def point_distance(self, u: Tensor, v: Tensor) -> Tensor:
        """Geodesic distance of matching rows."""
        return hyperbolic.distance(u, v, r=self.curvature)

    def point_logits(self, u: Tensor, v: Tensor) -> Tensor:
        """``-d / tau``."""
        return hyperbolic.pairwise_distance(u, v, r=self.curvature) / -self.tau

    def midpoint(self, points: Tensor, weights: Tensor) -> Tensor:
        """Klein midpoints."""
        return hyperbolic.midpoint(points, weights, r=self.curvature)

    def config(self) -> Config:
        """See ``Head.config``."""
        return {
            "kind": self.kind,
            "levels": self.levels,
            "curvature": self.curvature,
            "max_tangent": self.max_tangent,
            "ball_margin": self.ball_margin,
        }


HEADS: dict[str, type[Head]] = {CosineHead.kind: CosineHead, HyperbolicHead.kind: HyperbolicHead}


def head_from_config(config: Mapping[str, Any]) -> Head:
    """Rebuild a head from ``config()``; its tensors are then loaded with ``load_state_dict``.

    An unknown kind, or a setting the kind does not have, raises ``InputError`` naming it.
    """
    kind = config.get("kind")
    if not isinstance(kind, str) or kind not in HEADS:
        raise InputError(f"head config: kind = {kind!r}; known are {', '.join(HEADS)}")
    settings = {name: value for name, value in config.items() if name != "kind"}
    known = HEADS[kind]().config() if kind == CosineHead.kind else HyperbolicHead(levels=1).config()
    unknown = sorted(set(settings) - set(known))
    if unknown:
        raise InputError(f"head config: {unknown[0]!r} is no setting of a {kind} head; it has {', '.join(known)}")
    if kind == CosineHead.kind:
        return CosineHead()
    missing = sorted(set(known) - set(settings) - {"kind"})
    if missing:
        raise InputError(f"head config: {missing[0]!r} is missing for a {kind} head")
    try:
        numbers = {name: float(value) for name, value in settings.items()}
        levels = int(numbers.pop("levels"))
    except (TypeError, ValueError, OverflowError):
        raise InputError(f"head config: a setting of the {kind} head is no number: {settings}") from None
    return HyperbolicHead(levels=levels, **numbers)
