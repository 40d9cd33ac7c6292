"""One table of attacked depth x scored depth, for one record or several on one ground."""

from __future__ import annotations

from collections.abc import Sequence

from hierbench.board.ledger import Placed
from hierbench.errors import InputError
from hierbench.evaluation.records import DepthScores, Proportion, TransferCell
from hierbench.reporting.comparable import SAME_GROUND, check_comparable
from hierbench.reporting.grid import GREY, remarks
from hierbench.reporting.labels import ball
from hierbench.reporting.layouts import BOUNDED, proportion_value
from hierbench.reporting.ranks import Line
from hierbench.reporting.rows import is_grey, transfer_rows
from hierbench.reporting.standings import attack_names, names_of, standings_of, trusted
from hierbench.reporting.table import Report, Table, Value

SCORINGS = ("rollup", "direct")


def attack_score_report(placed: Sequence[Placed], *, scorings: Sequence[str] = SCORINGS) -> Report:
    """Return robust accuracy by attacked depth (rows) and scored depth (columns), a block of rows for each record.

    Under roll-up an image that breaks a depth breaks every deeper one: those entries are marked as bounded by the one
    at the attacked depth (METHODS.md section 1). Nothing is ranked: the rows are attacks, not methods.
    """
    kept, left_out = trusted(placed)
    records = [p.record for p in kept]
    check_comparable(records, SAME_GROUND)
    standings = standings_of(kept)
    names = names_of(standings)
    ordered = [p for s in standings for p in s.placed]
    first = ordered[0].record
    depths = [entry.depth for entry in first.depths]
    shown = [s for s in scorings if any(cell.scoring == s for r in records for cell in r.transfer)]
    if not shown:
        raise InputError(f"--layout attack-score: these records were not scored by {' or '.join(scorings)}")
    attacks = {str(p.path): attack_names([p], ordered)[0] for p in ordered}
    models = {(r.identity.model.name, r.identity.model.weights_hash) for r in records}
    rows: list[Line] = []
    rules = []
    for found in ordered:
        identity = found.record.identity
        name = names[identity.model.name, identity.model.weights_hash]
        rules += [len(rows)] if rows else []
        rows += _block(found, name, attacks[str(found.path)], shown, depths)
    left = ["model", "attack"]
    gone = [number for number, many in enumerate((len(models) > 1, len(set(attacks.values())) > 1)) if not many]
    if len(ordered) == 1:
        gone = [0, 1]
    rows = [tuple(value for i, value in enumerate(row) if i not in gone) for row in rows]
    left = [heading for i, heading in enumerate(left) if i not in gone]
    whose = [names[next(iter(models))] if len(models) == 1 else "Models"]
    whose += [f"under {next(iter(attacks.values()))}"] if 1 in gone else []
    protocol = first.identity.protocol.name
    dataset, tree = first.identity.dataset.name, first.identity.hierarchy.name
    threat = ball(first, word=" eps")
    title = f"{' '.join(whose)} on {dataset} (tree {tree}), {threat}: robust accuracy (%) by attacked and scored depth"
    columns = (*left, "aimed at", *(str(depth) for _ in shown for depth in depths))
    groups = (*[""] * (len(left) + 1), *(s for s in shown for _ in depths))
    notes = [f"rows: attacked depth; columns: depth scored by {' and '.join(shown)}"]
    notes += [f"protocol {protocol}, {first.counts.scored} images of {dataset} {first.identity.dataset.split}"]
    if any(value.mark == BOUNDED for row in rows for value in row):
        notes.append(f"{BOUNDED}: at most the entry at the attacked depth, as roll-up breaks the deeper depths with it")
    if any(value.grey for row in rows for value in row):
        notes.append(GREY.split(";")[0])
    notes += [*remarks(ordered, names), *left_out]
    label = f"attack-score-{first.identity.protocol.name}-{dataset}"
    table = Table(
        title, columns, tuple(rows), tuple(notes), groups=groups, rules=tuple(rules), label=label, intervals="none"
    )
    return Report((table,), tuple(row for p in ordered for row in transfer_rows(p.record) if row["scored_by"] in shown))


def _block(found: Placed, model: str, attack: str, scorings: Sequence[str], depths: Sequence[int]) -> list[Line]:
    record = found.record
    cells: dict[tuple[str, int, int], TransferCell] = {}
    for cell in record.transfer:
        cells[cell.scoring, cell.attack_depth, cell.score_depth] = cell
    grey = {entry.depth: is_grey(entry) for entry in record.depths}
    clean = (proportion_value(_clean(entry, scoring)) for scoring in scorings for entry in record.depths)
    block: list[Line] = [(Value(model), Value(attack), Value("clean"), *clean)]
    for aimed in record.identity.attack.depths:
        line = []
        for scoring in scorings:
            for depth in depths:
                shown = cells.get((scoring, aimed, depth))
                mark = BOUNDED if shown is not None and shown.implied else ""
                line.append(proportion_value(None if shown is None else shown.robust, grey=grey[depth], mark=mark))
        at = "all depths" if record.identity.attack.pooled else f"depth {aimed}"
        block.append((Value(""), Value(""), Value(at), *line))
    return block


def _clean(entry: DepthScores, scoring: str) -> Proportion | None:
    scores = entry.rollup if scoring == "rollup" else entry.direct
    return None if scores is None else scores.clean
