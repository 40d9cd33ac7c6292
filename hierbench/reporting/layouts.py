"""What a record's tables say: scores by depth, transfer between depths, classes by what the model has seen of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from hierbench.evaluation.records import DepthScores, Mistakes, Proportion, Record, TransferCell
from hierbench.reporting.labels import attack_labels, ball
from hierbench.reporting.rows import depth_rows, is_grey, scoring_of, seen_rows, transfer_rows
from hierbench.reporting.table import Report, Table, Value

BOUNDED = "≤"
Matrix = dict[tuple[int, int], TransferCell]
"""Transfer cells by (attacked depth, scored depth)."""
GREY_NOTE = "grey or italic: clean direct accuracy is under 50 % at this depth"
DEPTH_COLUMNS = (
    "depth", "nodes", "chance", "majority", "clean", "robust", "worst", "relative", "success", "severity", "AHD",
)  # fmt: skip


def depth_report(records: Sequence[Record]) -> Report:
    """Return one table of scores by depth for each record, under the attacked scoring."""
    return Report(tuple(map(depth_table, records)), tuple(row for r in records for row in depth_rows(r)))


def depth_table(record: Record) -> Table:
    """Return a record's scores by depth, coarsest first."""
    mistakes = {m.attack_depth: m for m in record.mistakes}
    rows = tuple(_depth_line(entry, record, mistakes.get(entry.depth)) for entry in record.depths)
    greyed = any(value.grey for row in rows for value in row)
    notes = [
        *setting_notes(record),
        *_severity_notes(record),
        *_leaf_notes(record),
        *([GREY_NOTE] if greyed else []),
        *flag_notes(record),
    ]
    return Table(_title(record), DEPTH_COLUMNS, rows, tuple(notes), spare=("success",))


def _leaf_notes(record: Record) -> Iterator[str]:
    clean, attacked = record.calibration_error_clean, record.calibration_error_attacked
    if clean is not None:
        under = "" if attacked is None else f", {100 * attacked:.1f} % under attack (samples searched in full)"
        yield f"calibration error of the leaves: {100 * clean:.1f} % clean{under}"
    if record.rank_preservation is not None:
        share = f"{100 * record.rank_preservation:.1f} %"
        yield f"rank preservation: the attacked top five leaves are the backbone's clean ones to {share}"


def _depth_line(entry: DepthScores, record: Record, mistakes: Mistakes | None) -> tuple[Value, ...]:
    scores = scoring_of(entry, record)
    grey = is_grey(entry)
    return (
        Value(entry.depth, "integer"),
        Value(entry.nodes, "integer"),
        Value(scores.chance, "share"),
        Value(entry.majority, "share"),
        proportion_value(scores.clean),
        proportion_value(scores.robust, grey=grey),
        proportion_value(scores.worst, grey=grey),
        Value(scores.relative, "share", grey=grey),
        proportion_value(scores.success, grey=grey, interval=False),
        Value(None if mistakes is None else mistakes.severity, "number", grey=grey),
        Value(None if mistakes is None else mistakes.ahd, "number", grey=grey),
    )


def proportion_value(share: Proportion | None, *, grey: bool = False, interval: bool = True, mark: str = "") -> Value:
    """Return a share as an entry with its interval."""
    if share is None:
        return Value(None, "share", grey=grey, mark=mark)
    if not interval:
        return Value(share.value, "share", grey=grey, mark=mark)
    return Value(share.value, "share", low=share.low, high=share.high, grey=grey, mark=mark)


def transfer_report(records: Sequence[Record], *, carry_over: bool = True) -> Report:
    """Return for each record its attack-depth x score-depth matrices; ``carry_over`` adds those of success shares."""
    tables = [table for record in records for table in transfer_tables(record, carry_over=carry_over)]
    return Report(tuple(tables), tuple(row for record in records for row in transfer_rows(record)))


def transfer_tables(record: Record, *, carry_over: bool = True) -> tuple[Table, ...]:
    """Return robust accuracy and success shares by attacked depth (rows) and scored depth (columns), for each scoring.

    Under roll-up an image that breaks a depth breaks every deeper one: there robust accuracy is marked as bounded, and
    the success share, 100 % by construction, is left out (METHODS.md section 1).
    """
    found = []
    for scoring in ("rollup", "direct"):
        cells = {(c.attack_depth, c.score_depth): c for c in record.transfer if c.scoring == scoring}
        if cells:
            found.append(_robust_matrix(record, scoring, cells))
            found += [_success_matrix(record, scoring, cells)] if carry_over else []
    return tuple(found)


def _robust_matrix(record: Record, scoring: str, cells: Matrix) -> Table:
    depths = [entry.depth for entry in record.depths]
    clean = [entry.rollup.clean if scoring == "rollup" else _direct_clean(entry) for entry in record.depths]
    rows = [(Value("clean"), *(proportion_value(share, interval=False) for share in clean))]
    for attacked in record.identity.attack.depths:
        line = [cells[attacked, scored] for scored in depths]
        values = (proportion_value(c.robust, interval=False, mark=BOUNDED if c.implied else "") for c in line)
        rows.append((Value(f"attack at {attacked}"), *values))
    stop = record.identity.attack.scoring
    notes = [f"robust accuracy in %; n = {record.counts.scored}; the attack stops at the {stop} verdict"]
    if any(c.implied for c in cells.values()):
        notes.append(f"{BOUNDED}: at most the entry at the attacked depth itself, as roll-up breaks deeper depths too")
    title = f"{_title(record)}: transfer, scored by {scoring}"
    return Table(title, ("", *(f"depth {scored}" for scored in depths)), tuple(rows), tuple(notes))


def _success_matrix(record: Record, scoring: str, cells: Matrix) -> Table:
    depths = [entry.depth for entry in record.depths]
    rows = []
    for attacked in record.identity.attack.depths:
        line = [cells[attacked, scored] for scored in depths]
        values = (proportion_value(c.success_share, interval=False) for c in line)
        rows.append((Value(f"attack at {attacked}"), *values))
    notes = ["of the images that broke the attacked depth, the share that broke the scored depth too, in %"]
    if scoring == "rollup":
        notes.append("deeper depths are left out: under roll-up they break by construction")
    title = f"{_title(record)}: carry-over of successes, scored by {scoring}"
    return Table(title, ("", *(f"depth {scored}" for scored in depths)), tuple(rows), tuple(notes))


def _direct_clean(entry: DepthScores) -> Proportion | None:
    return None if entry.direct is None else entry.direct.clean


def seen_report(records: Sequence[Record]) -> Report:
    """Return for each record its scores for trained, known and unseen classes apart."""
    tables = [seen_table(record) for record in records]
    return Report(tuple(t for t in tables if t is not None), tuple(row for r in records for row in seen_rows(r)))


def seen_table(record: Record) -> Table | None:
    """Return scores by depth for each part of the classes, or None where the record does not tell them apart."""
    if not record.seen:
        return None
    rows = []
    for part in record.seen:
        for entry in part.depths:
            rows.append(
                (
                    Value(part.part),
                    Value(part.classes, "integer"),
                    Value(entry.clean_rollup.of, "integer"),
                    Value(entry.depth, "integer"),
                    proportion_value(entry.clean_rollup),
                    proportion_value(entry.clean_direct),
                    proportion_value(entry.robust),
                    proportion_value(entry.worst),
                )
            )
    headings = ("classes", "number", "images", "depth", "clean rollup", "clean direct", "robust", "worst")
    notes = (
        "trained: the defence was fine-tuned on these classes; known: the backbone was; unseen: neither (zero-shot)",
        f"robust and worst under {record.identity.attack.scoring}; every class is scored against the full label set",
    )
    return Table(f"{_title(record)}: by what the model has seen", headings, tuple(rows), notes)


def models_report(records: Sequence[Record]) -> Report:
    """Return one table of several comparable records: a row each, clean and robust accuracy at every depth."""
    depths = [entry.depth for entry in records[0].depths]
    headings = ["model", "attack", "eps", "scoring", "n"]
    headings += [f"{what} {depth}" for depth in depths for what in ("clean", "robust", "worst")]
    rows = []
    notes: list[str] = []
    for record, label in zip(records, attack_labels(records), strict=True):
        mark = ""
        for text in (*_custom_note(record), *flag_notes(record)):
            note = f"{record.identity.model.name}: {text}"
            if note not in notes:
                notes.append(note)
            mark = "*"
        attack = record.identity.attack
        line = [
            Value(record.identity.model.name, mark=mark),
            Value(label),
            Value(ball(record)),
            Value(attack.scoring),
            Value(record.counts.scored, "integer"),
        ]
        for entry in record.depths:
            scores, grey = scoring_of(entry, record), is_grey(entry)
            line += [
                proportion_value(scores.clean),
                proportion_value(scores.robust, grey=grey),
                proportion_value(scores.worst, grey=grey),
            ]
        rows.append(tuple(line))
    if any(value.grey for row in rows for value in row):
        notes.append(GREY_NOTE)
    first = records[0].identity
    title = f"{first.dataset.name} ({first.hierarchy.name}), protocol {first.protocol.name}"
    return Report(
        (Table(title, tuple(headings), tuple(rows), tuple(notes), intervals="none"),),
        tuple(row for r in records for row in depth_rows(r)),
    )


def setting_notes(record: Record) -> list[str]:
    """Return the lines that name what was measured: model, images, tree, attack, scoring, protocol."""
    identity, attack = record.identity, record.identity.attack
    height, width, channels = identity.dataset.grid
    parameters = ", ".join(f"{name} {value}" for name, value in attack.parameters.items())
    engine = "" if attack.engine == "hierbench" else f" by {attack.engine}"
    training = f", trained on {identity.model.trained_on}" if identity.model.trained_on else ""
    return [
        f"model {identity.model.name} (defence {identity.model.defence}, backbone {identity.model.backbone}{training})"
        f"; weights {identity.model.weights_hash[:19]}",
        f"{record.counts.scored} images of {identity.dataset.name} {identity.dataset.split}, "
        f"{height} x {width} x {channels} pixels; tree {identity.hierarchy.name}",
        f"attack {attack.name}{engine} ({', '.join(attack.components)}; {parameters}), {ball(record, word=' eps')}; "
        f"scoring {attack.scoring}",
        *(["robust: the worst case over all depths, found in one search from coarse to fine"] if attack.pooled else []),
        *attack.substitutions,
        f"protocol {identity.protocol.name}; accuracies in % with Wilson 95 % intervals",
        *_custom_note(record),
    ]


def _custom_note(record: Record) -> list[str]:
    protocol = record.identity.protocol
    return [f"custom, not comparable with {protocol.name}: {'; '.join(protocol.deviations)}"] if protocol.custom else []


def flag_notes(record: Record) -> list[str]:
    """Return one line for each flag of the record."""
    return [f"{flag.level}: {flag.message} ({flag.code})" for flag in record.checks.flags]


def _severity_notes(record: Record) -> list[str]:
    clean = record.mistakes[0]
    severity = "none" if clean.severity is None else f"{clean.severity:.2f}"
    notes = [
        f"severity: mean tree height of the mistakes; AHD = severity x error rate; clean {severity}, {clean.ahd:.2f}"
    ]
    attacked = [m for m in record.mistakes if m.attack_depth is not None]
    if attacked:
        notes.append(f"severity under attack: first {attacked[0].samples} images, searched to the full budget")
    return notes


def _title(record: Record) -> str:
    identity = record.identity
    where = f"{identity.dataset.name} ({identity.hierarchy.name})"
    return f"{identity.model.name} under {identity.attack.name}, {where}"
