"""Tables of several models: a pair of columns for each dataset, or for each depth."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction

from hierbench.board.ledger import Ground, Placed, Standing
from hierbench.errors import InputError
from hierbench.reporting.comparable import PROTOCOL, check_comparable
from hierbench.reporting.grid import (
    Column,
    Key,
    column_of,
    first_record,
    grid,
    grid_notes,
    key_of,
    majority_notes,
    mean_column,
    records_of,
    reference_lines,
    stacked,
)
from hierbench.reporting.labels import ball
from hierbench.reporting.ranks import Line
from hierbench.reporting.reported import Reported, add_reported, reported_rows
from hierbench.reporting.rows import share_columns
from hierbench.reporting.standings import DepthFigures, Shown, attack_names, figures, standings_of, trusted
from hierbench.reporting.table import Report, Row


def methods_datasets_report(
    placed: Sequence[Placed], shown: Shown, *, depth: int | None = None, reported: Sequence[Reported] = ()
) -> Report:
    """Return models x datasets, clean and robust at one depth (None: each tree's leaves).

    One protocol and version; for each dataset one revision, sample list, template and tree; several radii stand in
    columns of their own. The mean is over datasets at one radius, of models that have them all.
    """
    kept, left_out = trusted(placed)
    standings = standings_of(kept)
    check_comparable(records_of(standings), PROTOCOL)
    datasets = list(dict.fromkeys(s.ground.dataset for s in standings))
    for dataset in datasets:
        check_comparable(records_of([s for s in standings if s.ground.dataset == dataset]))
    grounds = sorted({s.ground for s in standings}, key=lambda g: (datasets.index(g.dataset), *_radius(g)))
    threats = {(g.norm, g.eps) for g in grounds}
    columns, rows = [], []
    for ground in grounds:
        found: dict[Key, DepthFigures] = {}
        for standing in (s for s in standings if s.ground == ground):
            at = _at(figures(standing, shown), depth)
            if at is not None:
                found[key_of(standing)] = at
                rows.append(standing_row(standing, shown, at))
        heading = ground.dataset if len(threats) == 1 else f"{ground.dataset}, {ground.norm} {ground.eps}"
        columns.append(column_of(heading, found))
    if not rows:
        raise InputError(f"--depth: no record was scored by {shown.scoring} at depth {depth or 'leaf'}")
    above = reference_lines(columns)
    headings = [g.dataset for g in grounds]
    if len(columns) > 1 and len(threats) == 1:
        columns.append(mean_column(columns))
        above, headings = reference_lines(columns), [*headings, ""]
    first = first_record(standings[0])
    threat = f", {ball(first, word=' eps')}" if len(threats) == 1 else ""
    where = "the leaves" if depth is None else f"depth {depth}"
    title = f"Accuracy (%) at {where}, protocol {first.identity.protocol.name}{threat}"
    about = "; ".join(_about(next(s for s in standings if s.ground.dataset == name)) for name in datasets)
    notes = [*grid_notes(standings, shown), *majority_notes(columns), about, *left_out]
    label = f"methods-datasets-{first.identity.protocol.name}"
    table = stacked([grid(title, columns, standings)], above, notes, label)
    if reported:
        defences = {r.identity.model.defence for r in records_of(standings)}
        table = add_reported(table, reported, defences, headings if depth is None else [""] * len(headings))
        rows = reported_rows(rows, reported, defences, set(datasets))
    return Report((table,), tuple(rows))


def methods_depths_report(
    placed: Sequence[Placed], shown: Shown, *, depths: Sequence[int] = (), reported: Sequence[Reported] = ()
) -> Report:
    """Return models x depths, clean and robust; a block of rows for each radius. No ``depths``: all."""
    kept, left_out = trusted(placed)
    standings = standings_of(kept)
    check_comparable(records_of(standings))
    first = first_record(standings[0])
    tree = first.identity.hierarchy
    wanted = [entry.depth for entry in first.depths if not depths or entry.depth in depths]
    grounds = sorted({s.ground for s in standings}, key=_radius)
    threats = [ball(first_record(next(s for s in standings if s.ground == g)), word=" eps") for g in grounds]
    dataset = first.identity.dataset.name
    title = f"Accuracy (%) on {dataset} by depth of tree {tree.name}, {', '.join(threats)}"
    blocks, rows = [], []
    above: list[Line] = []
    shown_columns: list[Column] = []
    for ground, threat in zip(grounds, threats, strict=True):
        members = [s for s in standings if s.ground == ground]
        found: dict[int, dict[Key, DepthFigures]] = {depth: {} for depth in wanted}
        for standing in members:
            for at in figures(standing, shown):
                if at.depth in found:
                    found[at.depth][key_of(standing)] = at
                    rows.append(standing_row(standing, shown, at))
        columns: list[Column] = [column_of(f"depth {depth}", cells) for depth, cells in found.items()]
        above = above or reference_lines(columns)
        shown_columns += columns
        blocks.append(grid(title, columns, members, block="" if len(grounds) == 1 else threat))
    if not rows:
        raise InputError(f"--scoring: no record was scored by {shown.scoring}")
    protocol = first.identity.protocol.name
    nodes = ", ".join(str(entry.nodes) for entry in first.depths)
    about = f"protocol {protocol}; {_about(standings[0])}; {nodes} nodes at depths 1 to {len(first.depths)}"
    notes = [*grid_notes(standings, shown), *majority_notes(shown_columns), about, *left_out]
    table = stacked(blocks, above, notes, f"methods-depths-{protocol}-{dataset}")
    if reported:
        defences = {r.identity.model.defence for r in records_of(standings)}
        table = add_reported(table, reported, defences, [dataset if d == len(first.depths) else "" for d in wanted])
        rows = reported_rows(rows, reported, defences, {dataset})
    return Report((table,), tuple(rows))


def standing_row(standing: Standing, shown: Shown, found: DepthFigures) -> Row:
    """Return one line of the long form: whose figures, under which attacks, on which ground, and the figures."""
    model, ground = first_record(standing).identity.model, standing.ground
    return {
        "source": "measured",
        "protocol": ground.protocol,
        "version": ground.version,
        "model": model.name,
        "defence": model.defence,
        "weights_hash": model.weights_hash,
        "dataset": ground.dataset,
        "split": ground.split,
        "revision": ground.revision,
        "sample_list_hash": ground.sample_list_hash,
        "template": ground.template,
        "tree": ground.tree,
        "tree_hash": ground.tree_hash,
        "norm": ground.norm,
        "eps": ground.eps,
        "attacks": "; ".join(attack_names(standing.placed, standing.placed)),
        "robust_is": "aimed" if shown.aimed else "worst",
        "scored_by": shown.scoring,
        "samples": standing.samples,
        "depth": found.depth,
        "nodes": found.nodes,
        "chance": found.chance,
        "majority": found.majority,
        **share_columns("clean", found.clean),
        **share_columns("robust", found.robust),
        "relative": found.relative,
        "grey": found.grey,
    }


def _about(standing: Standing) -> str:
    ground = standing.ground
    return f"{ground.dataset} {ground.split}: {standing.samples} images, tree {ground.tree}"


def _at(found: Sequence[DepthFigures], depth: int | None) -> DepthFigures | None:
    if depth is None:
        return found[-1] if found else None
    return next((f for f in found if f.depth == depth), None)


def _radius(ground: Ground) -> tuple[str, Fraction]:
    return ground.norm, Fraction(ground.eps)
