"""Claims as tables: one that says which held, and one with every figure behind them."""

from __future__ import annotations

from collections.abc import Sequence

from hierbench.board.ledger import Placed
from hierbench.reporting.claims.evidence import Evidence
from hierbench.reporting.claims.file import MARGIN, SUCCESS, ClaimsFile, Contrast
from hierbench.reporting.claims.judge import MIN_SEEDS, Finding, Judged, judge
from hierbench.reporting.claims.margins import read_margins
from hierbench.reporting.collect import Folders, Selection
from hierbench.reporting.standings import gather
from hierbench.reporting.table import Report, Row, Table, Value

Line = tuple[Value, ...]
FOUND = ("held", "did not hold", "not shown", "not measured")


def claims_report(claims: ClaimsFile, records: Folders) -> Report:
    """Return the tables of a claims file over folders of records; records that failed their checks do not count."""
    judged, placed = judged_records(claims, records)
    return Report((_summary(claims, judged, placed), _details(claims, judged)), tuple(_rows(claims, judged)))


def judged_records(claims: ClaimsFile, records: Folders) -> tuple[tuple[Judged, ...], list[Placed]]:
    """Return the claims as folders of records bear them out, and the records that were looked at."""
    placed = [p for p in gather(records, Selection(protocol=claims.protocol)) if not p.record.checks.failed]
    asked = any(contrast.measure == MARGIN for claim in claims.claims for contrast in claim.contrasts)
    return judge(claims, Evidence(placed, read_margins(claims.protocol) if asked else None)), placed


def _summary(claims: ClaimsFile, judged: Sequence[Judged], placed: Sequence[Placed]) -> Table:
    lines: list[Line] = []
    for entry in judged:
        counts = [sum(f.verdict == word for f in entry.findings) for word in FOUND]
        said = ", ".join(f"{count} {word}" for count, word in zip(counts, FOUND, strict=True) if count)
        why = entry.claim.otherwise if entry.verdict == "did not hold" else ""
        verdict = {"did not hold": "did not hold, at this scale"}.get(entry.verdict, str(entry.verdict))
        if entry.verdict == "not measured" and any(finding.seeds for finding in entry.findings):
            verdict = "not measured in full"
        lines.append(tuple(map(Value, (entry.claim.statement, entry.claim.printed, verdict, said, why))))
    notes = (
        f"protocol {claims.protocol}, {len(placed)} records; a claim held only where every contrast below it did",
        "printed: what the source says; possible reason: why it may not have held here, not tested",
    )
    return Table(claims.title, ("claim", "printed", "here", "contrasts", "possible reason"), tuple(lines), notes)


def _details(claims: ClaimsFile, judged: Sequence[Judged]) -> Table:
    lines: list[Line] = []
    rules: list[int] = []
    headings = ("contrast", "data set", "depth", "n", "seeds", "difference", "by seed", "p", "Holm", "detectable",
                "verdict")  # fmt: skip
    for entry in judged:
        measured = [finding for finding in entry.findings if finding.seeds]
        if measured:
            rules.append(len(lines))
            lines.append((Value(entry.claim.statement), *(Value("") for _ in headings[1:])))
            lines += [_line(finding) for finding in measured]
    measured_contrasts = [f.contrast for entry in judged for f in entry.findings if f.seeds]
    missing = sum(not finding.seeds for entry in judged for finding in entry.findings)
    notes = (
        "contrast: accuracy of the first less that of the second at that depth, in points, mean over the seeds with "
        "the 95 % t-interval; the claim says it is above 0",
        *_measured_otherwise(measured_contrasts),
        "p: exact McNemar over the samples, or a paired sign flip for rank preservation; the largest of the seeds; "
        "Holm: over all rows measured",
        "detectable: smallest difference that one seed's test finds with 80 % power at 0.05, before Holm's correction "
        "(–: none, the two disagree too rarely)",
        f"held: at least {MIN_SEEDS} seeds, all above 0, the interval too, Holm < 0.05; did not hold: the opposite is "
        "shown so, or a mean below 0 by more than is detectable; not shown: the rest",
        *([f"{missing} contrasts were not measured and are not shown"] if missing else []),
    )
    return Table(f"{claims.title}: every contrast", headings, tuple(lines), notes, rules=tuple(rules[1:]),
                 intervals="differences")  # fmt: skip


def _measured_otherwise(contrasts: Sequence[Contrast]) -> list[str]:
    """Say what those contrasts are that do not compare accuracies."""
    measures = {contrast.measure for contrast in contrasts}
    said = {
        SUCCESS: "share broken: that which the attack broke of the samples right on both sides when clean",
        MARGIN: "larger margin: n images at two depths, p is that of a sign test",
    }
    return [words for measure, words in said.items() if measure in measures]


def _line(finding: Finding) -> Line:
    contrast = finding.contrast
    by_seed = ", ".join(f"{100 * d:+.1f}".replace("-", "−") for d in finding.differences)
    detectable = None if finding.detectable is None or finding.detectable >= 1 else finding.detectable
    mean = Value(finding.mean, "points", low=finding.low, high=finding.high)
    return (
        Value(contrast.words()),
        Value(_place(contrast)),
        Value(_scored_at(contrast)),
        Value(finding.samples or None, "integer"),
        Value(finding.seeds, "integer"),
        mean,
        Value(by_seed if finding.seeds > 1 else ""),
        Value(finding.p_value, "p"),
        Value(finding.p_holm, "p"),
        Value(detectable, "share"),
        Value(finding.verdict),
    )


def _scored_at(contrast: Contrast) -> str | int:
    """Return the depth of both sides, or of each; empty where it is no matter of one depth."""
    if contrast.measure == MARGIN:
        return ""
    depths = dict.fromkeys(contrast.scored_at(side) for side in (contrast.first, contrast.second))
    return next(iter(depths)) if len(depths) == 1 else " and ".join(map(str, depths))


def _place(contrast: Contrast) -> str:
    if contrast.measure == MARGIN:
        return contrast.dataset
    words = [contrast.dataset, f"{contrast.first.eps}"]
    words += [] if contrast.scored_by == "rollup" else [contrast.scored_by]
    words += [] if contrast.classes == "all" else [f"{contrast.classes} classes"]
    return ", ".join(words)


def _rows(claims: ClaimsFile, judged: Sequence[Judged]) -> list[Row]:
    rows: list[Row] = []
    for entry in judged:
        for finding in entry.findings:
            contrast = finding.contrast
            grown = contrast.measure == MARGIN
            sides: Row = {}
            for name, side in (("first", contrast.first), ("second", contrast.second)):
                said = {"attack": side.attack, "aimed": side.aimed, "eps": side.eps, "template": side.template,
                        "tree": side.tree, "depth": contrast.scored_at(side)}  # fmt: skip
                sides |= {f"{name}_model": side.model}
                sides |= {f"{name}_{key}": None if grown else value for key, value in said.items()}
            rows.append(
                {
                    "claims": claims.name,
                    "claim": entry.claim.id,
                    "source": entry.claim.source,
                    "dataset": contrast.dataset,
                    "depth": None if grown else contrast.depth,
                    "scored_by": None if grown else contrast.scored_by,
                    "classes": contrast.classes,
                    "measure": contrast.measure,
                    **sides,
                    "samples": finding.samples,
                    "seeds": finding.seeds,
                    "difference": finding.mean,
                    "difference_low": finding.low,
                    "difference_high": finding.high,
                    "by_seed": " ".join(repr(d) for d in finding.differences),
                    "p": finding.p_value,
                    "p_holm": finding.p_holm,
                    "detectable": finding.detectable,
                    "verdict": finding.verdict,
                    "claim_verdict": entry.verdict,
                }
            )
    return rows
