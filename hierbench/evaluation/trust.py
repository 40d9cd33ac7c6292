"""Ways an evaluation can be wrong without saying so, each a check with a flag (METHODS.md section 7)."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence

import numpy as np

from hierbench.evaluation.cell import Effort
from hierbench.evaluation.records import Checks, DepthChecks, DepthScores, Flag, Proportion, Record, TransferCell
from hierbench.evaluation.verdicts import AttackVerdicts, Verdicts

MOVED_OR_RAISED = 0.99
"""An attack is refused unless it moved the pixels, and raised its own loss or broke the verdict, on this share of the
attacked samples."""
ZERO_GRADIENTS = 0.05
"""Share of exactly zero image gradients above which masking is suspected."""
ROUNDING = 1e-6
"""fp32 rounding allowed on top of the radius."""


def failed(code: str, message: str) -> Flag:
    """Return a flag that forbids using the figures."""
    return Flag(code=code, level="failed", message=message)


def warned(code: str, message: str) -> Flag:
    """Return a flag that asks for care."""
    return Flag(code=code, level="warning", message=message)


def guard_warnings(flags: Sequence[str]) -> tuple[Flag, ...]:
    """Return a warning for each collapse guard that a model's training raised."""
    return tuple(
        warned("collapse_guard", f"training raised the collapse guard {flag}: {_GUARDS.get(flag, 'see its record')}")
        for flag in flags
    )


_GUARDS = {
    "norm_order": "on over 20 % of the tree's edges the parent lies further from the origin than its child",
    "clipped": "over 5 % of the tangent vectors were clipped",
    "ball_margin": "points reached the margin of the ball",
}


def _share(count: float, of: int) -> float | None:
    return float(count / of) if of else None


def _depth_checks(depth: int, attack: AttackVerdicts, effort: Effort, broke: np.ndarray) -> DepthChecks:
    """Return the checks of one attacked depth; ``broke`` bool [n] marks samples that were right and no longer are.

    A sample that broke was attacked, whatever its loss says: the random start alone may break one, and a targeted
    loss may fall while another wrong class wins.
    """
    searched = attack.searched
    attacked = int(searched.sum())
    raised = (attack.final_loss[searched] > attack.clean_loss[searched]) | broke[searched]
    return DepthChecks(
        depth=depth,
        attacked=attacked,
        moved_share=_share(attack.moved[searched].sum(), attacked),
        raised_share=_share(raised.sum(), attacked),
        zero_gradient_share=_share(effort.zero_gradients, effort.gradients),
        unverified=int(attack.unverified.sum()),
    )


def run_checks(
    verdicts: Verdicts,
    efforts: Mapping[int, Effort],
    *,
    clean_effort: Effort,
    declared: int,
    norm: str,
    eps: float,
    scoring: str,
    depths: Sequence[DepthScores],
    transfer: Sequence[TransferCell],
    replayed: bool = False,
    pooled: bool = False,
    unmoved: str | None = None,
) -> Checks:
    """Return the checks of a finished run with their flags; ``eps`` in pixel units of [0, 1].

    ``replayed``: the images are those of another run, so nothing was searched and no loss was raised here.
    ``pooled``: one search was aimed at every depth, so what was right at any depth was attacked.
    ``unmoved``: why this attack may leave samples as they were, for one that rightly does.
    """
    per_depth = tuple(
        _depth_checks(d, verdicts.attacked[d], efforts[d], _broken_when_right(verdicts, scoring, d, pooled))
        for d in verdicts.attacked
    )
    if replayed:
        per_depth = tuple(check.model_copy(update={"raised_share": None}) for check in per_depth)
    total = sum(efforts.values(), Effort())
    ids_unique = len(set(verdicts.sample_ids)) == len(verdicts.sample_ids)
    max_linf = max((float(a.linf.max(initial=0.0)) for a in verdicts.attacked.values()), default=0.0)
    max_l2 = max((float(a.l2.max(initial=0.0)) for a in verdicts.attacked.values()), default=0.0)
    nonfinite = clean_effort.nonfinite + total.nonfinite
    flags: list[Flag] = []
    if not ids_unique:
        flags.append(failed("repeated_samples", "some sample ids occur twice, so samples are counted twice"))
    if len(verdicts.sample_ids) != declared:
        message = f"{len(verdicts.sample_ids)} samples were scored where {declared} were declared"
        flags.append(failed("sample_count", message))
    if not (max_linf if norm == "linf" else max_l2) <= eps + ROUNDING:
        flags.append(
            failed("outside_ball", f"an image left the {norm} ball: {max_linf} (linf), {max_l2} (l2) at {eps}")
        )
    if nonfinite:
        flags.append(warned("nonfinite", f"{nonfinite} images had logits that are not finite; they count as broken"))
    if replayed:
        flags += _replay_flags(per_depth)
    else:
        flags += _attack_flags(verdicts, per_depth, scoring=scoring, vacuous=eps == 0.0, pooled=pooled, unmoved=unmoved)
    flags += impossible_orderings(depths, transfer)
    return Checks(
        max_linf=max_linf,
        max_l2=max_l2,
        moved_share=_pooled("moved_share", per_depth),
        raised_share=_pooled("raised_share", per_depth),
        zero_gradient_share=_share(total.zero_gradients, total.gradients),
        unverified=sum(check.unverified for check in per_depth),
        nonfinite=nonfinite,
        ids_unique=ids_unique,
        counts_equal=len(verdicts.sample_ids) == declared,
        per_depth=per_depth,
        flags=tuple(flags),
    )


def _pooled(name: str, per_depth: Sequence[DepthChecks]) -> float | None:
    pairs = [(share, check.attacked) for check in per_depth if (share := getattr(check, name)) is not None]
    return sum(share * attacked for share, attacked in pairs) / sum(a for _, a in pairs) if pairs else None


def _attack_flags(
    verdicts: Verdicts,
    per_depth: Sequence[DepthChecks],
    *,
    scoring: str,
    vacuous: bool,
    pooled: bool,
    unmoved: str | None,
) -> list[Flag]:
    flags: list[Flag] = []
    if vacuous:
        message = "eps is 0: nothing may change, so robust accuracy is clean accuracy by definition"
        return [Flag(code="vacuous_attack", level="note", message=message)]
    if not any(check.attacked for check in per_depth):
        flags.append(warned("nothing_attacked", "no sample was attacked, as none was right when clean"))
    for check in per_depth:
        where = f"the attack at depth {check.depth}"
        right = int(np.count_nonzero(~_clean_column(verdicts, scoring, 1 if pooled else check.depth)))
        if check.attacked != right:
            message = f"{where} searched {check.attacked} samples where {right} were right when clean"
            flags.append(failed("not_attacked", message))
        if not check.attacked:
            continue
        moved, raised = check.moved_share or 0.0, check.raised_share or 0.0
        if unmoved and moved:
            if moved < MOVED_OR_RAISED:
                message = f"{where} left {1 - moved:.1%} of the attacked samples as they were: {unmoved}"
                flags.append(Flag(code="left_as_they_were", level="note", message=message))
            raised = MOVED_OR_RAISED  # on the others there is nothing to judge it by
        elif moved < MOVED_OR_RAISED:
            message = f"{where} moved the pixels of only {moved:.1%} of the attacked samples"
            flags.append(failed("pixels_not_moved", message))
        if raised < MOVED_OR_RAISED:
            message = f"{where} raised its own loss, or broke the verdict, on only {raised:.1%} of the attacked samples"
            flags.append(failed("loss_not_raised", message))
        if (check.zero_gradient_share or 0.0) > ZERO_GRADIENTS:
            message = f"{where} met {check.zero_gradient_share:.1%} image gradients that are exactly zero"
            flags.append(warned("zero_gradients", f"{message}: robustness may be masked"))
        if check.unverified:
            message = f"{where} had {check.unverified} successes that a separate forward did not confirm"
            flags.append(warned("unverified", f"{message}; they are not counted"))
        robust = right - int(np.count_nonzero(_broken_when_right(verdicts, scoring, check.depth, pooled)))
        if robust == right:
            message = f"{where} broke no sample: robust accuracy equals clean accuracy"
            flags.append(warned("robust_equals_clean", message))
    return flags


def _replay_flags(per_depth: Sequence[DepthChecks]) -> list[Flag]:
    """Return what is to be said of images made for another model."""
    message = "images made for another model: robust accuracy under them is no measure of an attack on this one"
    flags = [Flag(code="transferred_images", level="note", message=message)]
    for check in per_depth:
        still = 1.0 - (1.0 if check.moved_share is None else check.moved_share)
        if still > 1.0 - MOVED_OR_RAISED:
            message = f"{still:.1%} of the samples that are right here at depth {check.depth} have their clean image"
            flags.append(warned("source_was_wrong", f"{message}: the source model got them wrong when clean"))
    return flags


def _clean_column(verdicts: Verdicts, scoring: str, depth: int) -> np.ndarray:
    broken = verdicts.clean_broken(scoring)
    assert broken is not None, f"the attacked scoring {scoring} was not scored"
    return np.asarray(broken[:, depth - 1])


def _broken_when_right(verdicts: Verdicts, scoring: str, depth: int, pooled: bool = False) -> np.ndarray:
    broken, clean = verdicts.attack_broken(depth, scoring), verdicts.clean_broken(scoring)
    assert broken is not None and clean is not None, f"the attacked scoring {scoring} was not scored"
    if pooled:
        return np.asarray((broken & ~clean).any(axis=1))
    return np.asarray(broken[:, depth - 1] & ~_clean_column(verdicts, scoring, depth))


def impossible_orderings(depths: Sequence[DepthScores], transfer: Sequence[TransferCell]) -> list[Flag]:
    """Return a flag for each impossible ordering: robust above clean, worst above a member, roll-up not monotone."""
    flags: list[Flag] = []

    def refuse(message: str) -> None:
        flags.append(failed("impossible_ordering", message))

    def at_most(name: str, depth: int, low: tuple[str, Proportion], high: tuple[str, Proportion]) -> None:
        if low[1].count > high[1].count:
            refuse(f"{name}, depth {depth}: {low[0]} {low[1].value:.4f} is above {high[0]} {high[1].value:.4f}")

    for name in ("rollup", "direct"):
        scored = [(d.depth, s) for d in depths if (s := getattr(d, name)) is not None]
        for depth, scores in scored:
            worst, clean = ("worst case", scores.worst), ("clean", scores.clean)
            at_most(name, depth, worst, clean)
            members = [c.robust for c in transfer if c.scoring == name and c.score_depth == depth]
            members += [scores.robust] if scores.robust is not None else []
            for member in members:
                at_most(name, depth, ("robust", member), clean)
                at_most(name, depth, worst, ("a member", member))
    rows = [("clean", [(d.depth, d.rollup.clean.count) for d in depths])]
    rows += [("worst case", [(d.depth, d.rollup.worst.count) for d in depths])]
    for attack_depth in sorted({c.attack_depth for c in transfer}):
        of_attack = [c for c in transfer if c.attack_depth == attack_depth and c.scoring == "rollup"]
        rows.append((f"attack at depth {attack_depth}", [(c.score_depth, c.robust.count) for c in of_attack]))
    for name, row in rows:
        for (shallow, coarse), (deep, fine) in itertools.pairwise(row):
            if fine > coarse:
                refuse(f"rollup, {name}: right at depth {deep} more often ({fine}) than at depth {shallow} ({coarse})")
    return flags


def recheck(record: Record) -> list[Flag]:
    """Return the flags that a record's own figures call for, whatever it says itself."""
    return impossible_orderings(record.depths, record.transfer)
