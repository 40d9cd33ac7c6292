"""Checks by forwards, and a gradient: determinism, independence of the batch, finite losses, honest gradients."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hierbench.attacks.engine.batching import Cost, forward_rows
from hierbench.attacks.optimisers.noise import NoiseSource, RowNoise
from hierbench.attacks.verdict import Criterion
from hierbench.evaluation.diagnosis_types import Budget, Check, Level, Points, Subject

REPEAT_TOLERANCE = 1e-5
"""Difference of two equal forwards, relative to the largest logit, that rounding may explain."""
BATCH_TOLERANCE = 1e-4
AGREEMENT = (0.9, 0.5)
"""Cosine between gradient and finite differences: a pass from the first on, a fail below the second."""
STRIDES = (1e-3, 1e-2)
"""Half widths of the finite differences, in pixel units; the one that agrees best counts."""
FRACTIONS = (0.25, 0.5, 0.75, 1.0)
"""Where along the gradient the loss is looked at, as parts of the radius."""


def probe_checks(subject: Subject, budget: Budget) -> tuple[tuple[Check, ...], Points]:
    """Return the checks of this file, and what they saw."""
    clean = logits_of(subject, subject.images)
    criterion = Criterion(subject.layout, subject.depth, subject.scoring)
    node = criterion.true_node(subject.labels.to(subject.device))
    wrong = criterion.broken(clean, node)[0].cpu().numpy()
    finite = torch.isfinite(clean).all(dim=1).cpu().numpy()
    random_broken = wrong.copy()
    for draw in range(budget.points):
        logits = logits_of(subject, random_points(subject, draw))
        random_broken |= criterion.broken(logits, node)[0].cpu().numpy()
        finite &= torch.isfinite(logits).all(dim=1).cpu().numpy()
    _, gradient = margins(subject, subject.images)
    finite &= torch.isfinite(gradient).flatten(1).all(dim=1).cpu().numpy()
    finite &= _finite_along(subject, gradient)
    checks = (
        _repeatable(subject, clean),
        _independent(subject, clean),
        _finite(finite),
        _honest_gradient(subject),
    )
    return checks, Points(clean, ~wrong, random_broken)


def logits_of(subject: Subject, images: Tensor) -> Tensor:
    """Return the logits [n, N] of images [n, c, h, w] in the fixed layout of batches."""
    return forward_rows(
        subject.forward, images, batch_size=subject.batch_size, device=subject.device, cost=Cost()
    ).detach()


def random_points(subject: Subject, draw: int) -> Tensor:
    """Return a random point of each image's ball, [n, c, h, w], by draws that belong to the sample."""
    noise = _noise(subject, "ball").in_unit_ball(subject.images.shape[1:], norm=subject.threat.norm, draw=draw)
    return subject.threat.project(subject.images + noise * subject.threat.radius, subject.images)


def margins(subject: Subject, images: Tensor) -> tuple[Tensor, Tensor]:
    """Return the margin [n] of the verdict at images [n, c, h, w], and its gradient [n, c, h, w]."""
    criterion = Criterion(subject.layout, subject.depth, subject.scoring)
    values, gradients = [], []
    for start in range(0, len(images), subject.batch_size):
        rows = slice(start, start + subject.batch_size)
        query = images[rows].to(subject.device).detach().requires_grad_(True)
        with torch.enable_grad():
            node = criterion.true_node(subject.labels[rows].to(subject.device))
            margin = criterion.margin(subject.forward(query), node)
            if margin.requires_grad:
                (gradient,) = torch.autograd.grad(margin.sum(), query, allow_unused=True)
            else:
                gradient = None
        values.append(margin.detach().cpu())
        gradients.append((torch.zeros_like(query) if gradient is None else gradient).detach().cpu())
    return torch.cat(values), torch.cat(gradients)


def _noise(subject: Subject, purpose: str) -> RowNoise:
    source = NoiseSource(seed=subject.seed, dataset=subject.dataset, attack=f"doctor/{purpose}", sample_ids=subject.ids)
    count = len(subject.ids)
    return source.rows(range(count), [0] * count)


def _repeatable(subject: Subject, clean: Tensor) -> Check:
    gap = _gap(clean, logits_of(subject, subject.images))
    level: Level = "pass" if gap <= REPEAT_TOLERANCE else "fail"
    return Check(
        "deterministic",
        level,
        _words(gap),
        "the same batch gives the same logits twice"
        if level == "pass"
        else "the same batch gives other logits the second time: a success may be luck, and needs averaging (eot)",
    )


def _independent(subject: Subject, clean: Tensor) -> Check:
    """Show the images in reverse order, in batches of another size."""
    turned = torch.arange(len(subject.images) - 1, -1, -1)
    size = max(1, min(subject.batch_size, len(turned)) // 2 + 1)
    other = forward_rows(
        subject.forward, subject.images[turned], batch_size=size, device=subject.device, cost=Cost()
    ).detach()
    gap = _gap(clean, other[turned.to(other.device)])
    level: Level = "pass" if gap <= BATCH_TOLERANCE else "fail"
    return Check(
        "batch_independent",
        level,
        _words(gap),
        "an image gets the same logits wherever it stands in a batch, up to rounding"
        if level == "pass"
        else "an image's logits depend on its neighbours in the batch (batch norm in training mode?)",
    )


def _gap(first: Tensor, second: Tensor) -> float:
    """Return the largest difference relative to the largest logit; infinite where only one of two is finite."""
    finite = torch.isfinite(first) & torch.isfinite(second)
    if not torch.equal(torch.isfinite(first), torch.isfinite(second)):
        return float("inf")
    if not bool(finite.any()):
        return 0.0
    scale = max(float(first[finite].abs().max()), 1e-12)
    return float((first - second)[finite].abs().max()) / scale


def _words(gap: float) -> str:
    return "equal" if gap == 0 else f"differs by {gap:.1e}"


def _finite_along(subject: Subject, gradient: Tensor) -> NDArray[np.bool_]:
    """Return bool [n]: finite logits along the gradient, up and down, as far as the ball goes."""
    direction = subject.threat.direction(gradient.nan_to_num())
    finite = np.ones(len(subject.ids), dtype=np.bool_)
    for fraction in FRACTIONS:
        for sign in (1.0, -1.0):
            moved = subject.images + sign * fraction * subject.threat.radius * direction
            logits = logits_of(subject, subject.threat.project(moved, subject.images))
            finite &= torch.isfinite(logits).all(dim=1).cpu().numpy()
    return finite


def _finite(finite: NDArray[np.bool_]) -> Check:
    bad, of = int((~finite).sum()), len(finite)
    return Check(
        "finite_loss",
        "fail" if bad else "pass",
        f"{bad} of {of} samples",
        "NaN or infinite logits or gradients inside the ball: such images count as broken, and lead no attack anywhere"
        if bad
        else "logits and gradients are finite at random points of the ball and along the gradient",
    )


def _honest_gradient(subject: Subject) -> Check:
    """Compare the margin's gradient with finite differences along random directions of +1 and -1."""
    count = int(np.prod(subject.images.shape[1:]))
    noise = _noise(subject, "direction")
    best, flat = -1.0, True
    for index, stride in enumerate(STRIDES):
        signs = noise.signs(count, draw=index).view(subject.images.shape)
        middle = subject.images * (1 - 2 * stride) + stride  # room on both sides, inside the box
        _, gradient = margins(subject, middle)
        said = (gradient * signs).flatten(1).sum(dim=1).double()
        up, down = margins(subject, middle + stride * signs)[0], margins(subject, middle - stride * signs)[0]
        seen = (up.double() - down.double()) / (2 * stride)
        use = torch.isfinite(said) & torch.isfinite(seen)
        lengths = float(said[use].norm()), float(seen[use].norm())
        flat = flat and lengths == (0.0, 0.0)
        if min(lengths) > 0:
            best = max(best, float(said[use] @ seen[use]) / (lengths[0] * lengths[1]))
        elif max(lengths) > 0:
            best = max(best, 0.0)
    if flat:
        return Check(
            "gradient_agreement", "warn", "flat", "neither gradient nor finite differences see any slope at the images"
        )
    level: Level = "pass" if best >= AGREEMENT[0] else "warn" if best >= AGREEMENT[1] else "fail"
    return Check(
        "gradient_agreement",
        level,
        f"cosine {best:.3f}",
        "the gradient is the slope that finite differences see along random directions"
        if level == "pass"
        else "the gradient is not the slope that finite differences see: gradient attacks are led astray",
    )
