"""From a folder of records and the name of a layout to its report: what the command and ``table_frame`` share."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Literal, get_args

from hierbench.errors import InputError
from hierbench.reporting import layouts
from hierbench.reporting.ablation import ablation_report
from hierbench.reporting.attack_score import SCORINGS, attack_score_report
from hierbench.reporting.classes import Classes, named_after, over_classes
from hierbench.reporting.collect import Folders, Selection, collect_records
from hierbench.reporting.comparable import check_comparable
from hierbench.reporting.methods import methods_datasets_report, methods_depths_report
from hierbench.reporting.methods_along import methods_along_report
from hierbench.reporting.methods_attacks import methods_attacks_report
from hierbench.reporting.methods_seen import methods_seen_report
from hierbench.reporting.options import read_depth, read_depths, read_scoring
from hierbench.reporting.reported import read_reported
from hierbench.reporting.standings import Shown, gather
from hierbench.reporting.table import Intervals, Report

LayoutName = Literal[
    "depths", "transfer", "seen", "models", "methods-datasets", "methods-depths", "methods-seen", "methods-attacks",
    "methods-eps", "methods-templates", "attack-score", "ablation",
]  # fmt: skip
BY_RECORD = {
    "depths": layouts.depth_report,
    "transfer": layouts.transfer_report,
    "seen": layouts.seen_report,
    "models": layouts.models_report,
}
"""Layouts that show records as they are; the others put a model's records together."""


def make_report(
    layout: LayoutName,
    folders: Folders,
    selection: Selection,
    *,
    depth: str | None = None,
    aimed: bool = False,
    classes: Classes = "all",
    baseline: str | None = None,
    reported: bool = False,
    reported_from: Path | None = None,
    intervals: Intervals | None = None,
    flat: bool = False,
) -> Report:
    """Return a layout of the wanted records under a folder, or several, or raise ``InputError``.

    In the layouts that show records one by one, ``selection.scoring`` chooses records; in the others it is what the
    verdicts are scored by. ``flat``: one long form is wanted, so that records must be comparable in every layout.
    """
    check_options(layout, depth=depth, aimed=aimed, classes=classes, baseline=baseline, reported=reported)
    if layout in BY_RECORD:
        records = collect_records(folders, selection)
        if layout == "models" or flat:
            check_comparable(records)
        report = BY_RECORD[layout](records)
    else:
        scoring = selection.scoring
        shown = Shown(read_scoring(scoring), aimed)
        narrowed = over_classes(gather(folders, replace(selection, scoring=None)), classes)
        placed = narrowed.placed
        leaf = placed[0].record.depths[-1].depth
        figures = read_reported(reported_from) if reported or reported_from else ()
        if layout == "methods-datasets":
            report = methods_datasets_report(placed, shown, depth=read_depth(depth), reported=figures)
        elif layout == "methods-depths":
            report = methods_depths_report(placed, shown, depths=read_depths(depth, leaf), reported=figures)
        elif layout == "methods-seen":
            report = methods_seen_report(placed, shown, depths=read_depths(depth, leaf))
        elif layout == "methods-attacks":
            report = methods_attacks_report(placed, shown, depth=read_depth(depth))
        elif layout in ("methods-eps", "methods-templates"):
            what: Literal["eps", "template"] = "eps" if layout == "methods-eps" else "template"
            report = methods_along_report(placed, shown, what, depth=read_depth(depth))
        elif layout == "ablation":
            report = ablation_report(placed, shown, depths=read_depths(depth, leaf), baseline=baseline)
        else:
            report = attack_score_report(placed, scorings=SCORINGS if scoring is None else (shown.scoring,))
        report = named_after(report, narrowed, classes)
    if not report.rows:
        raise InputError(f"--layout {layout}: these records do not hold it")
    return report if intervals is None else with_intervals(report, intervals)


INTERVAL_NOTES = {"wilson": "Wilson 95 % intervals", "pm": "±: half the width of the Wilson 95 % interval"}
SAID = " with Wilson 95 % intervals"


def with_intervals(report: Report, intervals: Intervals) -> Report:
    """Return a report whose tables show these intervals, and say which."""
    tables = []
    for table in report.tables:
        notes = [note.replace(SAID, "") for note in table.notes]
        more = [INTERVAL_NOTES[intervals]] if intervals in INTERVAL_NOTES else []
        tables.append(replace(table, intervals=intervals, notes=(*notes, *more)))
    return Report(tuple(tables), report.rows)


def check_options(
    layout: str, *, depth: str | None, aimed: bool, classes: Classes, baseline: str | None, reported: bool
) -> None:
    """Raise ``InputError`` for an option that the layout would ignore."""
    if layout not in get_args(LayoutName):
        raise InputError(f"--layout: {layout!r} is none of {', '.join(get_args(LayoutName))}")
    methods = ("methods-datasets", "methods-depths")
    together = (*methods, "methods-seen", "methods-attacks", "methods-eps", "methods-templates", "ablation")
    allowed = {
        "--depth": (depth is not None, together),
        "--aimed": (aimed, together),
        "--classes": (classes != "all", (*(name for name in together if name != "methods-seen"), "attack-score")),
        "--baseline": (baseline is not None, ("ablation",)),
        "--reported": (reported, methods),
    }
    for flag, (given, names) in allowed.items():
        if given and layout not in names:
            raise InputError(f"{flag} is for --layout {' and '.join(names)}, not {layout}")
    if reported and classes != "all":
        raise InputError(f"--reported: papers print no figures over the {classes} classes of this split")
