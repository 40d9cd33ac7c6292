"""Attacks on image and text together: independent, or the image against the attacked prompts."""

from __future__ import annotations

import time
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import normalize

from hierbench.attacks.engine.attack import run_attack
from hierbench.attacks.engine.chunk import Progress, ProgressCallback
from hierbench.attacks.engine.ledger import NOT_FOUND
from hierbench.attacks.engine.result import AttackResult, Severity
from hierbench.attacks.engine.verify import judge
from hierbench.attacks.text.call import Call
from hierbench.attacks.text.coupled import CoupledObjective, EmbeddingForward, joined
from hierbench.attacks.text.outcome import AttackedLevel, TextAttackResult
from hierbench.attacks.text.settings import COUPLED_COMPONENT


def attack_pairs(call: Call, level: AttackedLevel) -> TextAttackResult:
    """Attack the images as the settings say, and score them with the attacked prompts."""
    if not call.plan:
        raise ValueError("a multimodal attack needs the image attack's plan")
    image = _independent(call) if call.settings.images == "independent" else _coupled(call, level)
    return TextAttackResult(_scored(call, image, level), call.outcome(level))


def _independent(call: Call) -> AttackResult:
    """Attack the images against the clean prompts."""
    return run_attack(
        call.bound,
        call.images,
        call.labels,
        call.sample_ids,
        plan=call.plan,
        layout=call.criterion.layout,
        threat=call.threat,
        depth=call.criterion.depth,
        scoring=call.criterion.scoring,
        batch_size=call.batch_size,
        seed=call.seed,
        dataset=call.dataset,
        attack_name=call.attack_name,
        full_budget=call.full_budget,
        clean_logits=call.clean_logits,
        device=call.device,
        progress=call.progress,
    )


def _coupled(call: Call, level: AttackedLevel) -> AttackResult:
    """Attack the images against the attacked prompts.

    The engine scores all its samples with one set of points. Where each sample meets its own attacked prompt only,
    it is run once a true node.
    """
    width = len(call.bound.points)
    clean = call.rows(EmbeddingForward(call.model, call.bound.points), call.images)
    if call.clean_logits is not None:
        clean = torch.cat([call.clean_logits, clean[:, width:]], dim=1)
    texts = normalize(level.features, dim=-1)[call.truth]
    groups = [np.arange(len(call.labels))]
    if call.settings.scope == "true":
        nodes = call.truth.cpu().numpy()
        groups = [np.flatnonzero(nodes == node) for node in np.unique(nodes)]
    progress = _GroupProgress(call.progress, len(call.labels))
    parts: list[AttackResult] = []
    for rows in groups:
        at = torch.from_numpy(rows).to(call.device)
        objective = CoupledObjective(width, clean[at, width:], texts[at], call.settings.text_weight)
        part = run_attack(
            EmbeddingForward(call.model, _points(call, level, int(call.truth[at[0]]))),
            call.images[torch.from_numpy(rows).to(call.images.device)],
            call.labels[at],
            [call.sample_ids[row] for row in rows],
            plan=[
                replace(stage, component=coupled_component(index), objective=objective)
                for index, stage in enumerate(call.plan)
            ],
            layout=call.criterion.layout,
            threat=call.threat,
            depth=call.criterion.depth,
            scoring=call.criterion.scoring,
            batch_size=call.batch_size,
            seed=call.seed,
            dataset=call.dataset,
            attack_name=call.attack_name,
            full_budget=call.full_budget[rows],
            clean_logits=clean[at],
            device=call.device,
            progress=progress.within_group if call.progress is not None else None,
        )
        parts.append(part)
        progress.group_done(part)
    found = joined(parts, groups)
    return replace(found, clean_logits=found.clean_logits[:, :width], logits=found.logits[:, :width])


def coupled_component(index: int) -> str:
    """Return the name of the coupled attack's image stage.

    >>> coupled_component(0), coupled_component(1)
    ('pgd-coupled-kl', 'pgd-coupled-kl-2')
    """
    return COUPLED_COMPONENT if index == 0 else f"{COUPLED_COMPONENT}-{index + 1}"


def _points(call: Call, level: AttackedLevel, node: int) -> Tensor:
    """Return the points [N, E] that the samples of one true node are scored with."""
    changed = torch.from_numpy(level.changed).to(call.device)
    if call.settings.scope == "true":
        changed = changed & (torch.arange(len(changed), device=call.device) == node)
    points = call.bound.points.clone()
    points[call.columns] = torch.where(changed[:, None], level.points, points[call.columns])
    return points


def _scored(call: Call, image: AttackResult, level: AttackedLevel) -> AttackResult:
    """Return an image attack's result with the verdicts of its images and the attacked prompts together."""
    layout, depth, scoring = call.criterion.layout, call.criterion.depth, call.criterion.scoring
    _, logits = call.logits(image.adversarial, level)
    final = judge(logits, call.labels, layout)
    searched = ~image.clean_broken[scoring][:, depth - 1]
    breaks = searched & final.broken[scoring][:, depth - 1].cpu().numpy()
    severity = image.severity
    if severity is not None:
        seen = judge(call.logits(severity.images, level)[1], call.labels, layout)
        predictions = {name: nodes.cpu().numpy() for name, nodes in seen.predictions.items()}
        severity = Severity(severity.mask, severity.images, predictions)
    return replace(
        image,
        components=(level.component, *image.components),
        logits=logits,
        predictions={name: nodes.cpu().numpy() for name, nodes in final.predictions.items()},
        broken={name: broken.cpu().numpy() for name, broken in final.broken.items()},
        searched=searched,
        broken_by=np.where(breaks, image.broken_by + 1, NOT_FOUND),
        moved=image.moved | call.reached(level),
        raised=searched & (image.raised | breaks),
        unverified=image.unverified & ~breaks,
        nonfinite=image.nonfinite | final.nonfinite.cpu().numpy(),
        severity=severity,
        forwards=image.forwards + call.cost.forwards,
        padding=image.padding + call.cost.padding,
        seconds=time.perf_counter() - call.began,
    )


class _GroupProgress:
    """Turns the reports of one group of samples into progress over all."""

    def __init__(self, report: ProgressCallback | None, samples: int) -> None:
        self.report = report
        self.samples = samples
        self.finished = self.survivors = self.forwards = 0

    def within_group(self, now: Progress) -> None:
        if self.report is not None:
            finished, survivors = self.finished + now.finished, self.survivors + now.survivors
            self.report(Progress(self.samples, finished, survivors, self.forwards + now.forwards))

    def group_done(self, part: AttackResult) -> None:
        self.finished += len(part.searched)
        self.survivors += int(np.count_nonzero(part.searched & ~part.verdict))
        self.forwards += part.forwards
