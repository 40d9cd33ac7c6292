"""From a library's images to our result: clean verdicts before, projection and a verdict of our own after."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import cross_entropy

from hierbench.attacks.engine.batching import Cost, Forward, forward_rows
from hierbench.attacks.engine.ledger import NOT_FOUND
from hierbench.attacks.engine.result import AttackResult
from hierbench.attacks.engine.verify import Judgement, judge, verify
from hierbench.attacks.external.node_model import Calls
from hierbench.attacks.objectives.base import Pooling, node_logits
from hierbench.attacks.spec import Value
from hierbench.attacks.threat import BALL_TOLERANCE, ThreatModel
from hierbench.attacks.verdict import Criterion, Scoring
from hierbench.errors import HierbenchError
from hierbench.models.layout import NodeLayout

Loss = Literal["ce", "margin"]
"""What an attack's own loss is close to: the candidates' cross-entropy, or the verdict's margin."""


@dataclass(frozen=True, eq=False, kw_only=True)
class ExternalResult(AttackResult):
    """An ``AttackResult`` of another library's attack, and what only such a result has to say.

    The losses are ours: cross-entropy of the true candidate, or the verdict's margin where the attack works on
    differences of logits. ``steps_used`` counts all steps made for a sample: these libraries go on after a success
    (of torchattacks: passes through the model, averaged over the batch). ``moved`` is false where the library keeps
    successes only, and gave the clean image back.

    Attributes:
        engine: the library and its version.
        settings: every setting that was resolved, the library's own names.
        substitutions: what could not run on these candidates, why, and what ran instead.
        notes: what else a reader has to know, the library's own warnings among them.
        outside: images that the library left outside ball or box; they were projected before they were judged.
    """

    engine: str
    settings: Mapping[str, Value]
    substitutions: tuple[str, ...]
    notes: tuple[str, ...]
    outside: int


@dataclass
class Found:
    """What a library found, one row a sample of the case; rows that were not attacked keep their defaults.

    Attributes:
        images: [n, c, h, w], inside the ball or not.
        component: long [n]: which component made the image, or attacked the sample last.
        claimed: bool [n]: the library holds the image for a success.
        steps: long [n].
    """

    images: Tensor
    component: NDArray[np.int64]
    claimed: NDArray[np.bool_]
    steps: NDArray[np.int64]

    @staticmethod
    def nothing(images: Tensor) -> Found:
        """Return the clean images, found by nobody."""
        n = len(images)
        component = np.full(n, NOT_FOUND, dtype=np.int64)
        return Found(images.clone(), component, np.zeros(n, dtype=np.bool_), np.zeros(n, dtype=np.int64))


@dataclass(frozen=True)
class Case:
    """One chunk of samples with its clean verdicts, ready for somebody else's attack.

    Attributes:
        searched: bool [n]: right at the depth on the clean image, and eps above 0: what the library gets.
        targets: long [n]: the true candidates.
    """

    forward: Forward
    images: Tensor
    labels: Tensor
    sample_ids: tuple[str, ...]
    threat: ThreatModel
    criterion: Criterion
    pooling: Pooling
    batch_size: int
    device: torch.device
    clean_logits: Tensor
    clean: Judgement
    searched: NDArray[np.bool_]
    cost: Cost
    began: float = field(default_factory=time.perf_counter)

    @property
    def layout(self) -> NodeLayout:
        """Which logit belongs to which node."""
        return self.criterion.layout

    @property
    def targets(self) -> Tensor:
        """The true candidates, long [n]."""
        return self.criterion.true_node(self.labels)

    def attacked(self) -> NDArray[np.int64]:
        """Return the samples that are attacked, in order."""
        return np.flatnonzero(self.searched)


def open_case(
    forward: Forward,
    images: Tensor,
    labels: Tensor | NDArray[np.int64],
    sample_ids: Sequence[str],
    *,
    layout: NodeLayout,
    threat: ThreatModel,
    depth: int,
    scoring: Scoring,
    pooling: Pooling,
    batch_size: int,
    clean_logits: Tensor | None,
    device: torch.device | str | None,
) -> Case:
    """Return the case of n samples; arguments and errors are those of ``run_attack``."""
    began = time.perf_counter()
    device = torch.device(device) if device is not None else images.device
    layout = layout.to(device)
    labels = torch.as_tensor(labels, dtype=torch.long).to(device)
    _check(images, labels, sample_ids, layout, batch_size)
    cost = Cost()
    if clean_logits is None:
        clean_logits = forward_rows(forward, images, batch_size=batch_size, device=device, cost=cost)
    if clean_logits.shape[1] < layout.width:
        raise HierbenchError(f"the model gave {clean_logits.shape[1]} logits: the tree wants {layout.width}")
    criterion = Criterion(layout, depth, scoring)
    clean = judge(clean_logits.to(device), labels, layout)
    right = ~clean.broken[scoring][:, depth - 1].cpu().numpy()
    return Case(
        forward=forward,
        images=images,
        labels=labels,
        sample_ids=tuple(sample_ids),
        threat=threat,
        criterion=criterion,
        pooling=pooling,
        batch_size=batch_size,
        device=device,
        clean_logits=clean_logits.to(device),
        clean=clean,
        searched=right if threat.eps else np.zeros_like(right),
        cost=cost,
        began=began,
    )


def close_case(
    case: Case,
    found: Found,
    calls: Calls,
    *,
    attack: str,
    engine: str,
    components: tuple[str, ...],
    losses: Sequence[Loss],
    settings: Mapping[str, Value],
    substitutions: tuple[str, ...],
    notes: tuple[str, ...],
) -> ExternalResult:
    """Project, verify and judge what was found; ``losses`` are those of the components.

    Outside the ball nothing counts: an image that a library left outside is projected into it, and only the verdict on
    the projected image is kept. An image that is not finite is given up for the clean one. METHODS.md 2.
    """
    notes = (*notes, *_about(case, calls))
    odd = (~torch.isfinite(found.images).flatten(1).all(dim=1)).cpu().numpy()
    if odd.any():
        notes = (*notes, f"{int(odd.sum())} images came back that are not finite: the clean ones stand in their place")
        keep = torch.from_numpy(~odd).to(found.images.device).view(-1, 1, 1, 1)
        found.images = torch.where(keep, found.images, case.images)
    outside = _outside(found.images, case)
    if outside:
        notes = (*notes, f"{outside} images came back outside ball or box, and were judged after their projection")
    final = verify(
        case.forward,
        case.images,
        found.images,
        case.labels,
        layout=case.layout,
        threat=case.threat,
        batch_size=case.batch_size,
        clean_logits=case.clean_logits,
        cost=case.cost,
    )
    depth, scoring = case.criterion.depth, case.criterion.scoring
    breaks = final.judgement.broken[scoring][:, depth - 1].cpu().numpy()
    clean_loss, final_loss = _losses(case, found.component, losses, final.judgement.logits)
    return ExternalResult(
        attack=attack,
        components=components,
        depth=depth,
        scoring=scoring,
        adversarial=final.images,
        clean_logits=case.clean_logits,
        logits=final.judgement.logits,
        clean_predictions={name: nodes.cpu().numpy() for name, nodes in case.clean.predictions.items()},
        predictions={name: nodes.cpu().numpy() for name, nodes in final.judgement.predictions.items()},
        clean_broken={name: wrong.cpu().numpy() for name, wrong in case.clean.broken.items()},
        broken={name: wrong.cpu().numpy() for name, wrong in final.judgement.broken.items()},
        searched=case.searched,
        broken_by=np.where(case.searched & breaks, found.component, NOT_FOUND),
        steps_used=found.steps,
        clean_loss=clean_loss,
        final_loss=final_loss,
        moved=final.linf.numpy() > 0,
        raised=case.searched & ((final_loss > clean_loss) | breaks),
        linf=final.linf.numpy(),
        l2=final.l2.numpy(),
        nonfinite=odd | (case.clean.nonfinite | final.judgement.nonfinite).cpu().numpy(),
        unverified=found.claimed & ~breaks,
        severity=None,
        gradients=calls.backwards,
        zero_gradients=calls.zero_gradients,
        nonfinite_gradients=calls.nonfinite_gradients,
        forwards=case.cost.forwards + calls.forwards,
        backwards=calls.backwards,
        padding=case.cost.padding,
        seconds=time.perf_counter() - case.began,
        engine=engine,
        settings=settings,
        substitutions=substitutions,
        notes=notes,
        outside=outside,
    )


def _about(case: Case, calls: Calls) -> list[str]:
    about = [f"its draws and verdicts depend on the batch: {case.batch_size} images in the order given"]
    if calls.nonfinite_logits:
        about.append(f"{calls.nonfinite_logits} rows of logits on the way were not finite")
    if case.pooling == "logsumexp" and case.criterion.scoring == "rollup":
        about.append("its stop rule is the arg-max of logsumexp node logits: images are scored again by the verdict")
    return about


def _outside(images: Tensor, case: Case) -> int:
    far = case.threat.distances(images, case.images).cpu() > case.threat.radius + BALL_TOLERANCE
    boxed = ((images >= 0) & (images <= 1)).flatten(1).all(dim=1).cpu()
    return int((far | ~boxed).sum())


def _losses(
    case: Case, component: NDArray[np.int64], losses: Sequence[Loss], logits: Tensor
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return each searched sample's loss on the clean image and on the final one; NaN where not attacked."""
    rows = np.full((2, len(case.images)), np.nan, dtype=np.float32)
    kinds = np.array([losses[index] if index >= 0 else losses[0] for index in component])
    for at, given in enumerate((case.clean_logits, logits)):
        for kind in ("ce", "margin"):
            chosen = case.searched & (kinds == kind)
            rows[at, chosen] = _loss(kind, given, case).float().cpu().numpy()[chosen]
    # A model that answers NaN has not answered: for the attack that is the highest loss there is.
    rows[1, case.searched & ~np.isfinite(rows[1])] = np.inf
    return rows[0], rows[1]


def _loss(kind: str, logits: Tensor, case: Case) -> Tensor:
    criterion = case.criterion
    if kind == "margin":
        return criterion.margin(logits, case.targets)
    nodes = node_logits(logits, case.layout, depth=criterion.depth, scoring=criterion.scoring, pooling=case.pooling)
    return cross_entropy(nodes, case.targets, reduction="none")


def _check(images: Tensor, labels: Tensor, sample_ids: Sequence[str], layout: NodeLayout, batch_size: int) -> None:
    n = len(images)
    if images.ndim != 4 or images.dtype != torch.float32 or n == 0:
        raise ValueError(f"images must be float32 [n, c, h, w] with n > 0, not {images.dtype} {tuple(images.shape)}")
    if not bool(((images >= 0) & (images <= 1)).all()):
        raise ValueError("images must lie in [0, 1]")
    if labels.shape != (n,) or bool(((labels < 0) | (labels >= layout.num_leaves)).any()):
        raise ValueError(f"labels must be {n} leaf indices below {layout.num_leaves}")
    if len(sample_ids) != n or len(set(sample_ids)) != n:
        raise ValueError(f"sample_ids must be {n} unique ids")
    if batch_size < 1:
        raise ValueError(f"batch_size must be at least 1, not {batch_size}")
