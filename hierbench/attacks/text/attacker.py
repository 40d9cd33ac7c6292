"""The entry: one text or multimodal attack on a bound model, chunk by chunk, at any depth."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hierbench.attacks.engine.chunk import ProgressCallback
from hierbench.attacks.engine.precision import exact_float32
from hierbench.attacks.objectives.base import NodeObjective
from hierbench.attacks.optimisers.base import Stage
from hierbench.attacks.text.call import Call
from hierbench.attacks.text.continuous import FeatureAttack
from hierbench.attacks.text.level import attack_level, make_source
from hierbench.attacks.text.multimodal import attack_pairs
from hierbench.attacks.text.outcome import AttackedLevel, TextAttackResult, TextOutcome
from hierbench.attacks.text.scoring import check_samples, moved_by, text_result
from hierbench.attacks.text.settings import COMPONENTS, TextSettings
from hierbench.attacks.text.sources import CandidateSource
from hierbench.attacks.threat import ThreatModel
from hierbench.attacks.verdict import Criterion, Scoring

if TYPE_CHECKING:
    from hierbench.models.binding import BoundModel


class TextAttacker:
    """A text attack on one bound model.

    The prompts of a depth are attacked when they are first asked for, and once: the result is a function of the
    model, the tree, the template and the settings, never of the images, so every chunk meets the same prompts.

    Args:
        bound: the model with its tree and template.
        settings: which attack.
        source: replaces the one that the settings name.
    """

    def __init__(self, bound: BoundModel, settings: TextSettings, *, source: CandidateSource | None = None) -> None:
        self.bound = bound
        self.settings = settings
        self._source = source
        self._levels: dict[int, AttackedLevel] = {}

    def open_source(self) -> CandidateSource:
        """Return where the candidates come from, opened once; what is missing for it is an ``InputError``."""
        if self._source is None:
            self._source = make_source(self.settings, self.bound)
        return self._source

    @property
    def levels(self) -> Mapping[int, AttackedLevel]:
        """The depths whose prompts have been attacked so far."""
        return self._levels

    def level(self, depth: int) -> AttackedLevel:
        """Return the attacked prompts of one depth."""
        if depth not in self._levels:
            source = self.open_source()
            self._levels[depth] = attack_level(self.bound, depth=depth, source=source, span=self.settings.span)
        return self._levels[depth]

    def run(
        self,
        images: Tensor,
        labels: Tensor | NDArray[np.int64],
        sample_ids: Sequence[str],
        *,
        depth: int,
        scoring: Scoring,
        threat: ThreatModel,
        batch_size: int,
        seed: int,
        dataset: str,
        attack_name: str,
        plan: Sequence[Stage] = (),
        full_budget: NDArray[np.bool_] | None = None,
        clean_logits: Tensor | None = None,
        device: torch.device | str | None = None,
        progress: ProgressCallback | None = None,
    ) -> TextAttackResult:
        """Attack n samples at one depth and give back verdicts in the form of ``run_attack``.

        The arguments are those of ``run_attack``. With clean images ``threat`` is not used and ``plan`` may be empty;
        otherwise the plan is the image attack's: ``independent`` runs it as it is on the clean prompts, ``coupled``
        takes its optimisers and restarts. Raises what ``run_attack`` does. METHODS.md 3.
        """
        device = torch.device(device) if device is not None else self.bound.model.device
        layout = self.bound.layout.to(device)
        labels = torch.as_tensor(labels, dtype=torch.long).to(device)
        check_samples(images, labels, sample_ids, layout)
        in_full = np.zeros(len(images), dtype=np.bool_) if full_budget is None else np.asarray(full_budget)
        call = Call(
            bound=self.bound,
            settings=self.settings,
            images=images,
            labels=labels,
            sample_ids=tuple(sample_ids),
            criterion=Criterion(layout, depth, scoring),
            threat=threat,
            batch_size=batch_size,
            seed=seed,
            dataset=dataset,
            attack_name=attack_name,
            plan=tuple(plan),
            full_budget=in_full,
            clean_logits=None if clean_logits is None else clean_logits.to(device),
            device=device,
            progress=progress,
        )
        with exact_float32(device):
            if self.settings.source == "continuous":
                return _attack_features(call)
            level = self.level(call.prompts_at)
            return _attack_words(call, level) if self.settings.images == "clean" else attack_pairs(call, level)


def _attack_words(call: Call, level: AttackedLevel) -> TextAttackResult:
    """Score the clean images with the attacked prompts."""
    if call.clean_logits is None:
        clean, logits = call.logits(call.images, level)
    else:
        clean = call.clean_logits
        attacked = call.rows(lambda pixels: call.model.logits(call.model.embed(pixels), level.points), call.images)
        logits = call.merged(clean, attacked, level)
    result = text_result(
        attack=call.attack_name,
        component=level.component,
        criterion=call.criterion,
        images=call.images,
        labels=call.labels,
        clean_logits=clean,
        logits=logits,
        moved=call.reached(level),
        clean_loss=np.zeros(len(call.labels), dtype=np.float32),
        final_loss=moved_by(level, call.truth.cpu().numpy(), call.settings.scope),
        cost=call.cost,
        began=call.began,
        full_budget=call.full_budget,
    )
    call.report(result)
    return TextAttackResult(result, call.outcome(level))


def _attack_features(call: Call) -> TextAttackResult:
    """Move the text features of each sample that is right."""
    settings, criterion, n = call.settings, call.criterion, len(call.labels)
    embeddings = call.rows(call.model.embed, call.images)
    clean = call.clean_logits
    if clean is None:
        with torch.no_grad():
            clean = call.model.logits(embeddings, call.bound.points)
    usual = NodeObjective(depth=criterion.depth, scoring=criterion.scoring, pooling="max")
    attack = FeatureAttack(
        bound=call.bound,
        depth=call.prompts_at,
        scope=settings.scope,
        eps=settings.text_eps,
        steps=settings.text_steps,
        objective=call.plan[0].objective if call.plan else usual,
        criterion=criterion,
    )
    wrong, _ = criterion.broken(clean, criterion.true_node(call.labels))
    right = torch.nonzero(~wrong)[:, 0]
    at = right.cpu().numpy()
    logits = clean.clone()
    losses, linf = np.zeros((2, n), dtype=np.float32), np.zeros(n)
    steps, saw = np.zeros(n, dtype=np.int64), np.zeros(n, dtype=np.bool_)
    gradients = (0, 0, 0)
    if len(at):
        found = attack.search(embeddings[right], call.labels[right], clean[right], batch_size=call.batch_size)
        logits[right] = found.logits
        losses[:, at] = torch.stack([found.clean_loss, found.final_loss]).cpu().numpy()
        linf[at], steps[at] = found.linf.cpu().numpy(), found.steps.cpu().numpy()
        saw[at] = found.saw_success.cpu().numpy()
        gradients = (found.gradients, found.zero_gradients, found.nonfinite_gradients)
    result = text_result(
        attack=call.attack_name,
        component=COMPONENTS["continuous"],
        criterion=criterion,
        images=call.images,
        labels=call.labels,
        clean_logits=clean,
        logits=logits,
        moved=linf > 0,
        clean_loss=losses[0],
        final_loss=losses[1],
        cost=call.cost,
        began=call.began,
        steps=steps,
        gradients=gradients,
        full_budget=call.full_budget,
    )
    result = replace(result, unverified=saw & ~result.verdict)
    call.report(result)
    outcome = TextOutcome(
        component=COMPONENTS["continuous"],
        scope=settings.scope,
        depth=call.prompts_at,
        level=None,
        attackable=np.full(n, settings.text_eps > 0),
        linf=linf,
        text_forwards=0,
    )
    return TextAttackResult(result, outcome)
