"""Models as rows, classes that training may use and classes that it may not as columns: what zero-shot is worth."""

from __future__ import annotations

from collections.abc import Sequence

from hierbench.board.ledger import Placed
from hierbench.errors import InputError
from hierbench.reporting.classes import known_classes, known_images
from hierbench.reporting.comparable import SAME_GROUND, check_comparable
from hierbench.reporting.grid import (
    Column,
    Key,
    column_of,
    first_record,
    grid,
    grid_notes,
    key_of,
    records_of,
    reference_lines,
    stacked,
)
from hierbench.reporting.labels import ball
from hierbench.reporting.methods import standing_row
from hierbench.reporting.standings import DepthFigures, Shown, check_verdicts, standings_of, trusted
from hierbench.reporting.subsets import figures_over
from hierbench.reporting.table import Report, Row

GROUPS = ("seen", "unseen")


def methods_seen_report(placed: Sequence[Placed], shown: Shown, *, depths: Sequence[int] = ()) -> Report:
    """Return models x seen and unseen classes, clean and robust at some depths (none: the leaves).

    A sample counts among the seen ones if the class split lets training use its class; whether a model's own training
    did is in its record. All classes stay candidates. Without a class split for the data set: ``InputError``.
    """
    kept, left_out = trusted(placed)
    standings = standings_of(kept)
    check_comparable(records_of(standings), SAME_GROUND)
    first = first_record(standings[0])
    dataset = first.identity.dataset.name
    split, known = first.identity.seen_split, known_classes(first)
    if split is None or known is None:
        raise InputError(f"--layout methods-seen: no class split says which classes of {dataset} were seen")
    if known.all():
        raise InputError(f"--layout methods-seen: training may use every class of {dataset}")
    wanted = list(depths) or [len(first.depths)]
    columns: list[Column] = []
    rows: list[Row] = []
    images: dict[str, int] = {}
    for standing in standings:
        check_verdicts(standing)
    placed_first = standings[0].placed[0]
    seen = known_images(placed_first)
    if seen is None:
        raise InputError(f"{placed_first.path}: its verdicts have labels that are none of the {len(known)} classes")
    for group in GROUPS:
        members = seen == (group == "seen")
        images[group] = int(members.sum())
        for depth in wanted if members.any() else ():
            found: dict[Key, DepthFigures] = {}
            for standing in standings:
                at = figures_over(standing, shown, depth, members)
                if at is not None:
                    found[key_of(standing)] = at
                    row = standing_row(standing, shown, at)
                    rows.append({**row, "classes": group, "samples": images[group]})
            where = "" if len(wanted) == 1 else f", depth {depth}"
            columns.append(column_of(f"{group} classes{where}", found))
    if not rows:
        raise InputError(f"--scoring: no record was scored by {shown.scoring}")
    tree = first.identity.hierarchy
    place = "the leaves" if wanted == [len(first.depths)] else f"depth {', '.join(map(str, wanted))}"
    threat = ball(first, word=" eps")
    title = f"Accuracy (%) on {dataset} at {place} by what training may use, tree {tree.name}, {threat}"
    counts = {"seen": int(known.sum()), "unseen": int((~known).sum())}
    said = "; ".join(f"{group}: {counts[group]} classes, {images[group]} images" for group in GROUPS)
    about = f"{said} (zero-shot); all {len(known)} classes are candidates (split {split.name})"
    notes = [*grid_notes(standings, shown), about, *left_out]
    label = f"methods-seen-{first.identity.protocol.name}-{dataset}"
    table = stacked([grid(title, columns, standings)], reference_lines(columns)[:1], notes, label)
    return Report((table,), tuple(rows))
