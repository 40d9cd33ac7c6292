"""The long form of a record: plain numbers, one line a figure's place, for CSV and for data frames."""

from __future__ import annotations

from hierbench.evaluation.records import DepthScores, DepthScoring, Proportion, Record
from hierbench.reporting.table import Row

CLEAN_FLOOR = 0.5
"""Under this clean direct accuracy a robust figure says little (METHODS.md section 4)."""


def scoring_of(entry: DepthScores, record: Record) -> DepthScoring:
    """Return the scores under the scoring that was attacked."""
    direct = entry.direct
    return direct if record.identity.attack.scoring == "direct" and direct is not None else entry.rollup


def is_grey(entry: DepthScores) -> bool:
    """Return whether robust figures at this depth are shown pale; without direct scoring the clean roll-up decides."""
    return (entry.direct or entry.rollup).clean.value < CLEAN_FLOOR


def identity_row(record: Record) -> Row:
    """Return the columns that say which record a line of the long form belongs to."""
    identity, attack = record.identity, record.identity.attack
    return {
        "protocol": identity.protocol.name,
        "custom": identity.protocol.custom,
        "model": identity.model.name,
        "weights_hash": identity.model.weights_hash,
        "dataset": identity.dataset.name,
        "split": identity.dataset.split,
        "tree": identity.hierarchy.name,
        "attack": attack.name,
        "norm": attack.norm,
        "eps": attack.eps,
        "scoring": attack.scoring,
        "samples": record.counts.scored,
        "trusted": not record.checks.failed,
    }


def share_columns(name: str, share: Proportion | None) -> Row:
    """Return a share and the ends of its interval as columns; all None where it was not measured."""
    if share is None:
        return {name: None, f"{name}_low": None, f"{name}_high": None}
    return {name: share.value, f"{name}_low": share.low, f"{name}_high": share.high}


def depth_rows(record: Record) -> list[Row]:
    """Return one line a depth, under the attacked scoring."""
    mistakes = {m.attack_depth: m for m in record.mistakes}
    rows: list[Row] = []
    for entry in record.depths:
        scores, severe = scoring_of(entry, record), mistakes.get(entry.depth)
        rows.append(
            {
                **identity_row(record),
                "depth": entry.depth,
                "nodes": entry.nodes,
                "chance": scores.chance,
                "majority": entry.majority,
                **share_columns("clean", scores.clean),
                **share_columns("robust", scores.robust),
                **share_columns("worst", scores.worst),
                "relative": scores.relative,
                "relative_worst": scores.relative_worst,
                **share_columns("success", scores.success),
                "severity": None if severe is None else severe.severity,
                "ahd": None if severe is None else severe.ahd,
                "severity_samples": None if severe is None else severe.samples,
                **(_leaf_columns(record) if entry is record.depths[-1] else dict.fromkeys(_leaf_columns(record))),
                "clean_rollup": entry.rollup.clean.value,
                "clean_direct": None if entry.direct is None else entry.direct.clean.value,
                "grey": is_grey(entry),
            }
        )
    return rows


def _leaf_columns(record: Record) -> Row:
    names = ("calibration_error_clean", "calibration_error_attacked", "rank_preservation")
    return {name: getattr(record, name) for name in names}


def transfer_rows(record: Record) -> list[Row]:
    """Return one line for each pair of attacked and scored depth, under every scoring."""
    return [
        {
            **identity_row(record),
            "scored_by": cell.scoring,
            "attack_depth": cell.attack_depth,
            "score_depth": cell.score_depth,
            **share_columns("robust", cell.robust),
            "relative": cell.relative,
            "success_share": None if cell.success_share is None else cell.success_share.value,
            "implied": cell.implied,
        }
        for cell in record.transfer
    ]


def seen_rows(record: Record) -> list[Row]:
    """Return one line for each part of the classes and depth."""
    return [
        {
            **identity_row(record),
            "part": part.part,
            "classes": part.classes,
            "images": entry.clean_rollup.of,
            "depth": entry.depth,
            **share_columns("clean_rollup", entry.clean_rollup),
            **share_columns("clean_direct", entry.clean_direct),
            **share_columns("robust", entry.robust),
            **share_columns("worst", entry.worst),
        }
        for part in record.seen or ()
        for entry in part.depths
    ]
