"""From verdicts to the figures of a record; nothing here runs a model, so that anyone can recompute them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, cast

import numpy as np

from hierbench.evaluation import metrics
from hierbench.evaluation.records import (
    Counts,
    DepthScores,
    DepthScoring,
    Mistakes,
    Proportion,
    SeenDepth,
    SeenPart,
    TransferCell,
)
from hierbench.evaluation.statistics import wilson
from hierbench.evaluation.verdicts import NO_PREDICTION, Bools, Ints, Verdicts
from hierbench.hierarchy.tree import Hierarchy

SCORINGS: tuple[Literal["rollup", "direct"], ...] = ("rollup", "direct")
PARTS: tuple[Literal["trained", "known", "unseen"], ...] = ("trained", "known", "unseen")


def proportion(mask: Bools) -> Proportion:
    """Return the share of True in a mask [n], n >= 1, with its Wilson interval."""
    count, of = int(np.count_nonzero(mask)), len(mask)
    interval = wilson(count, of)
    return Proportion(count=count, of=of, value=count / of, low=interval.low, high=interval.high)


def _ratio(part: Proportion | None, whole: Proportion) -> float | None:
    return None if part is None or whole.count == 0 else part.count / whole.count


def _success(attacked_broken: Bools | None, clean_broken: Bools) -> Proportion | None:
    """Share of the clean-correct samples that the attack broke."""
    right = ~clean_broken
    return None if attacked_broken is None or not right.any() else proportion(attacked_broken[right])


def worst_broken(verdicts: Verdicts, scoring: str) -> Bools | None:
    """Return [n, D]: broken by the attack aimed at any depth, or when clean; None without that scoring."""
    members = [verdicts.attack_broken(depth, scoring) for depth in verdicts.attacked]
    known = [member for member in members if member is not None]
    return metrics.worst_case(np.stack(known)) if known and len(known) == len(members) else None


def counts(verdicts: Verdicts, *, declared: int) -> Counts:
    """Return how many samples were declared, scored, and attacked at each depth."""
    searched = {depth: attack.searched for depth, attack in verdicts.attacked.items()}
    return Counts(
        declared=declared,
        scored=len(verdicts.clean.predicted),
        attacked=int(np.count_nonzero(np.any(list(searched.values()), axis=0))),
        attacked_per_depth={str(depth): int(mask.sum()) for depth, mask in searched.items()},
    )


def depth_scores(verdicts: Verdicts, hierarchy: Hierarchy, *, pooled: bool = False) -> tuple[DepthScores, ...]:
    """Return the scores at every depth under every scoring that was measured (METHODS.md section 4).

    ``pooled``: the one attack searched all depths at once, so its verdict counts at each under roll-up.
    """
    tree = hierarchy.leaf_to_node
    majority = metrics.majority_level(verdicts.labels, tree)
    chance = {"rollup": metrics.chance_roll_up(verdicts.labels, tree), "direct": metrics.chance_direct(tree)}
    scores = []
    for depth in hierarchy.depths:
        per_scoring = {s: _depth_scoring(verdicts, depth, s, float(chance[s][depth - 1]), pooled) for s in SCORINGS}
        rollup, direct = cast(DepthScoring, per_scoring["rollup"]), per_scoring["direct"]
        scores.append(
            DepthScores(
                depth=depth,
                nodes=len(hierarchy.level(depth)),
                majority=float(majority[depth - 1]),
                attacked=pooled or depth in verdicts.attacked,
                rollup=rollup,
                direct=direct,
                direct_minus_rollup=None if direct is None else direct.clean.value - rollup.clean.value,
            )
        )
    return tuple(scores)


def _depth_scoring(verdicts: Verdicts, depth: int, scoring: str, chance: float, pooled: bool) -> DepthScoring | None:
    clean_all, worst_all = verdicts.clean_broken(scoring), worst_broken(verdicts, scoring)
    if clean_all is None or worst_all is None:
        return None
    clean_broken, worst = clean_all[:, depth - 1], worst_all[:, depth - 1]
    own_all = verdicts.attack_broken(depth, scoring) if depth in verdicts.attacked else None
    if pooled and scoring == "rollup":
        own_all = worst_all
    own = None if own_all is None else own_all[:, depth - 1]
    clean, robust, robust_worst = (
        proportion(~clean_broken),
        None if own is None else proportion(~own),
        proportion(~worst),
    )
    return DepthScoring(
        chance=chance,
        clean=clean,
        robust=robust,
        worst=robust_worst,
        relative=_ratio(robust, clean),
        relative_worst=_ratio(robust_worst, clean),
        success=_success(own, clean_broken),
        success_worst=_success(worst, clean_broken),
    )


def transfer_cells(verdicts: Verdicts) -> tuple[TransferCell, ...]:
    """Return the attack-depth x score-depth matrix under every scoring that was measured.

    Under roll-up a success at one depth is one at every deeper depth of the same image: those success shares are
    ``implied`` and left out (METHODS.md section 1).
    """
    cells = []
    for scoring in SCORINGS:
        clean = verdicts.clean_broken(scoring)
        for attack_depth in verdicts.attacked:
            broken = verdicts.attack_broken(attack_depth, scoring)
            if broken is None or clean is None:
                continue
            successes = broken[:, attack_depth - 1] & ~clean[:, attack_depth - 1]
            for score_depth in range(1, verdicts.num_depths + 1):
                robust, right = proportion(~broken[:, score_depth - 1]), proportion(~clean[:, score_depth - 1])
                implied = scoring == "rollup" and score_depth > attack_depth
                shown = not implied and score_depth != attack_depth and bool(successes.any())
                cells.append(
                    TransferCell(
                        attack_depth=attack_depth,
                        score_depth=score_depth,
                        scoring=scoring,
                        robust=robust,
                        relative=_ratio(robust, right),
                        success_share=proportion(broken[successes, score_depth - 1]) if shown else None,
                        implied=implied,
                    )
                )
    return tuple(cells)


def tree_mistakes(verdicts: Verdicts, hierarchy: Hierarchy) -> tuple[Mistakes, ...]:
    """Return tree distances of the clean predictions, then of each attack's full-budget samples.

    A full-budget sample that was not attacked (wrong at that depth when clean) keeps its clean prediction. Samples
    without a finite prediction are left out.
    """
    parts = [_mistakes(None, verdicts.clean.predicted, verdicts.labels, 0, hierarchy)]
    for depth, attack in verdicts.attacked.items():
        chosen = attack.full_budget
        predicted = np.where(attack.searched, attack.severity_predicted, verdicts.clean.predicted)[chosen]
        searched = int(np.count_nonzero(attack.searched & chosen))
        parts.append(_mistakes(depth, predicted, verdicts.labels[chosen], searched, hierarchy))
    return tuple(part for part in parts if part is not None)


def _mistakes(depth: int | None, predicted: Ints, labels: Ints, searched: int, hierarchy: Hierarchy) -> Mistakes | None:
    finite = predicted != NO_PREDICTION
    if not finite.any():
        return None
    errors = metrics.tree_errors(predicted[finite], labels[finite], hierarchy)
    return Mistakes(
        attack_depth=depth,
        samples=errors.samples,
        searched=searched,
        error_rate=errors.error_rate,
        severity=errors.severity,
        ahd=errors.ahd,
        tree_induced_error=errors.tree_induced_error,
        precision=errors.precision,
        recall=errors.recall,
        f_score=errors.f_score,
    )


def calibration_errors(verdicts: Verdicts) -> tuple[float | None, float | None]:
    """Return the calibration error of the leaves, clean and under the attack on them, or None where it is not known.

    Under attack it is that of the full-budget samples: an early stop keeps the least confident mistake. One that was
    not attacked, since it was wrong when clean, keeps its clean image.
    """
    clean, attack = verdicts.clean, verdicts.attacked.get(verdicts.num_depths)
    before = after = None
    if clean.confidence is not None:
        before = metrics.calibration_error(clean.confidence, clean.predicted == verdicts.labels)
    if attack is not None and attack.severity_confidence is not None:
        predicted = np.where(attack.searched, attack.severity_predicted, clean.predicted)
        after = metrics.calibration_error(attack.severity_confidence, predicted == verdicts.labels)
    return before, after


def rank_preservation(verdicts: Verdicts) -> float | None:
    """Return the mean overlap of the attacked top five leaves with the backbone's clean ones, or None."""
    attack = verdicts.attacked.get(verdicts.num_depths)
    if attack is None or attack.severity_overlap is None or not np.isfinite(attack.severity_overlap).any():
        return None
    return float(np.nanmean(attack.severity_overlap))


def hca_direct(verdicts: Verdicts) -> Proportion | None:
    """Return the clean share right at the leaf and at every depth under direct scoring."""
    broken = verdicts.clean.broken_direct
    return None if broken is None else proportion(np.asarray(~broken.any(axis=1)))


def seen_parts(
    verdicts: Verdicts, class_ids: Sequence[str], parts: Mapping[str, str], scoring: str
) -> tuple[SeenPart, ...]:
    """Return the scores of trained, known and unseen classes apart; ``parts`` names the part of each class id."""
    found = []
    of_class = np.array([parts[class_id] for class_id in class_ids])
    for part in PARTS:
        chosen = of_class[verdicts.labels] == part
        if chosen.any():
            classes = len(np.unique(verdicts.labels[chosen]))
            depths = tuple(_seen_depth(verdicts, chosen, d, scoring) for d in range(1, verdicts.num_depths + 1))
            found.append(SeenPart(part=part, classes=classes, depths=depths))
    return tuple(found)


def _seen_depth(verdicts: Verdicts, chosen: Bools, depth: int, scoring: str) -> SeenDepth:
    direct = verdicts.clean.broken_direct
    worst = cast(Bools, worst_broken(verdicts, scoring))
    own = verdicts.attack_broken(depth, scoring) if depth in verdicts.attacked else None
    column = depth - 1
    return SeenDepth(
        depth=depth,
        clean_rollup=proportion(~verdicts.clean.broken_rollup[chosen, column]),
        clean_direct=None if direct is None else proportion(~direct[chosen, column]),
        robust=None if own is None else proportion(~own[chosen, column]),
        worst=proportion(~worst[chosen, column]),
    )
