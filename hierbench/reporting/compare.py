"""``hierbench compare``: two models named or given as records, tested on the samples they share."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from pathlib import Path

from hierbench.board.ledger import Ground, Placed, Standing
from hierbench.errors import InputError
from hierbench.evaluation.records import Record
from hierbench.reporting.collect import Folders, Selection
from hierbench.reporting.comparable import SAME_GROUND, check_comparable, differences
from hierbench.reporting.grid import GREY, first_record, remarks
from hierbench.reporting.labels import ball
from hierbench.reporting.layouts import proportion_value
from hierbench.reporting.options import read_depths
from hierbench.reporting.paired import Paired, pair
from hierbench.reporting.ranks import Line
from hierbench.reporting.rows import share_columns
from hierbench.reporting.standings import (
    Shown,
    attack_names,
    check_verdicts,
    gather,
    names_of,
    on_common_attacks,
    standings_of,
    trusted,
)
from hierbench.reporting.table import Report, Row, Table, Value


def side(word: str, folders: Folders, selection: Selection) -> list[Placed]:
    """Return the records of one side: those of a model's name, or one record's file."""
    if word.endswith(".json") or Path(word).is_dir():
        return gather(Path(word), selection)
    found = gather(folders, selection)
    exact = [p for p in found if p.record.identity.model.name == word]
    if not exact:
        exact = [p for p in found if p.record.identity.model.defence == word]
    names = sorted({p.record.identity.model.name for p in found})
    if not exact:
        near = difflib.get_close_matches(word, names, n=3) or names[:8]
        raise InputError(f"no record of model {word!r}; there are {', '.join(near)}, or give a record's file")
    _check_one_model(word, exact)
    return exact


def _check_one_model(word: str, placed: Sequence[Placed]) -> None:
    models = {(p.record.identity.model.name, p.record.identity.model.weights_hash) for p in placed}
    if len(models) > 1:
        said = ", ".join(f"{name} ({weights[7:15]})" for name, weights in sorted(models))
        raise InputError(f"{word!r} is not one model: the records are of {said}; give one's file or its folder")


def compare_report(
    first: Sequence[Placed], second: Sequence[Placed], shown: Shown, *, depth: str | None = None, every: bool = False
) -> Report:
    """Return the paired comparison of two models, a table for each ground that both stand on.

    The worst case is over the attacks that both met, unless ``every`` takes all that either met. No ground in common
    raises ``InputError`` naming what differs.
    """
    one, left_one = trusted(first)
    two, left_two = trusted(second)
    _check_one_model("A", one)
    _check_one_model("B", two)
    a = {s.ground: s for s in standings_of(one)}
    b = {s.ground: s for s in standings_of(two)}
    common = [ground for ground in a if ground in b]
    if not common:
        _refuse(one, two)
    tables, rows = [], []
    for ground in common:
        table, lines = _comparison(a[ground], b[ground], shown, depth, every=every, left=[*left_one, *left_two])
        tables.append(table)
        rows += lines
    return Report(tuple(tables), tuple(rows))


def _refuse(one: Sequence[Placed], two: Sequence[Placed]) -> None:
    """Raise with what keeps the nearest two records apart."""
    pairs = [[p.record, q.record] for p in one for q in two]
    nearest = min(pairs, key=lambda records: len(differences(records, SAME_GROUND)))
    check_comparable(nearest, SAME_GROUND, share="be compared")


def _comparison(
    a: Standing, b: Standing, shown: Shown, depth: str | None, *, every: bool, left: Sequence[str]
) -> tuple[Table, list[Row]]:
    records = [p.record for s in (a, b) for p in s.placed]
    check_comparable(records, SAME_GROUND, share="be compared")
    (a, b), notes = ([a, b], []) if every else on_common_attacks([a, b])
    check_verdicts(a)
    check_verdicts(b)
    if a.placed[0].verdicts.sample_ids != b.placed[0].verdicts.sample_ids:
        raise InputError(f"{a.placed[0].path} and {b.placed[0].path} do not hold the same samples")
    depths = read_depths(depth, len(first_record(a).depths))
    found = pair(a, b, shown, depths)
    if not found:
        wanted = f" at depth {', '.join(map(str, depths))}" if depths else ""
        raise InputError(f"nothing to compare: not both were scored by {shown.scoring}{wanted}")
    names = names_of([a, b])
    first, second = ((s.entry.model, s.entry.weights_hash) for s in (a, b))
    name_a, name_b = names[first], names[second]
    if first == second:
        name_a, name_b = f"{name_a} (A)", f"{name_b} (B)"
    among = [*a.placed, *b.placed]
    sets = [attack_names(s.placed, among) for s in (a, b)]
    said = [f"attacks on both: {', '.join(sets[0])}"] if sets[0] == sets[1] else [
        f"attacks on {name}: {', '.join(attacks)}" for name, attacks in zip((name_a, name_b), sets, strict=True)
    ]  # fmt: skip
    if sets[0] != sets[1]:
        said.append("warning: not the same attacks; a worst case over more attacks is lower by itself")
    about = f"protocol {a.ground.protocol}, {a.samples} images of {a.ground.dataset} {a.ground.split}"
    lines = [
        f"{about}; A: {name_a}, B: {name_b}",
        f"robust: {shown.words()}",
        *said,
        "A − B in points with the paired bootstrap 95 % interval; only A, only B: samples that one alone has right",
        "p: exact McNemar; Holm: corrected over the depths shown",
        "detectable: smallest difference found with 80 % power at this rate of disagreement (–: none, it is too low)",
        *([GREY.split(";")[0]] if any(p.grey for p in found) else []),
        *notes,
        *remarks(among, names),
        *left,
    ]
    threat = ball(first_record(a), word=" eps")
    title = f"{name_a} (A) against {name_b} (B) on {a.ground.dataset} (tree {a.ground.tree}), {threat}"
    headings = ("figure", "depth", "nodes", "A", "B", "A − B", "only A", "only B", "p", "Holm", "detectable")
    clean = sum(p.figure == "clean" for p in found)
    rules = (clean,) if 0 < clean < len(found) else ()
    label = f"compare-{name_a}-{name_b}-{a.ground.dataset}"
    rows = tuple(map(_line, found))
    table = Table(
        title, headings, rows, tuple(lines), rules=rules, label=label, intervals="differences", spare=("nodes",)
    )
    return table, [_row(p, a, b, shown) for p in found]


def _line(found: Paired) -> Line:
    d, grey = found.difference, found.grey
    return (
        Value(found.figure),
        Value(found.depth, "integer"),
        Value(found.nodes, "integer"),
        proportion_value(found.first, grey=grey),
        proportion_value(found.second, grey=grey),
        Value(d.difference, "points", low=d.low, high=d.high, grey=grey),
        Value(found.test.only_first, "integer", grey=grey),
        Value(found.test.only_second, "integer", grey=grey),
        Value(found.test.p_value, "p", grey=grey),
        Value(found.p_holm, "p", grey=grey),
        Value(found.detectable, "share", grey=grey),
    )


def _row(found: Paired, a: Standing, b: Standing, shown: Shown) -> Row:
    ground: Ground = a.ground
    one: Record = first_record(a)
    two: Record = first_record(b)
    return {
        "protocol": ground.protocol,
        "version": ground.version,
        "model_a": one.identity.model.name,
        "weights_hash_a": one.identity.model.weights_hash,
        "model_b": two.identity.model.name,
        "weights_hash_b": two.identity.model.weights_hash,
        "dataset": ground.dataset,
        "split": ground.split,
        "revision": ground.revision,
        "sample_list_hash": ground.sample_list_hash,
        "tree": ground.tree,
        "norm": ground.norm,
        "eps": ground.eps,
        "attacks_a": "; ".join(attack_names(a.placed, [*a.placed, *b.placed])),
        "attacks_b": "; ".join(attack_names(b.placed, [*a.placed, *b.placed])),
        "robust_is": "aimed" if shown.aimed else "worst",
        "scored_by": shown.scoring,
        "samples": a.samples,
        "figure": found.figure,
        "depth": found.depth,
        "nodes": found.nodes,
        **share_columns("a", found.first),
        **share_columns("b", found.second),
        "difference": found.difference.difference,
        "difference_low": found.difference.low,
        "difference_high": found.difference.high,
        "only_a": found.test.only_first,
        "only_b": found.test.only_second,
        "p": found.test.p_value,
        "p_holm": found.p_holm,
        "detectable": found.detectable,
        "grey": found.grey,
    }
