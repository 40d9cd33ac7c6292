"""Fill the generated blocks of README.md and docs/*.md from committed records; ``--check`` only says what is stale.

A block starts with ``<!-- fill: WHAT -->`` and ends with ``<!-- end fill -->``. WHAT is either the arguments of
``hierbench table`` (of ``leaderboard/records``) or ``hierbench claims`` (of ``leaderboard/study``), ``backbone NAME``,
``training``, ``passes PROTOCOL NAME ...`` for what trainings of those names (wildcards) cost, ``cost PROTOCOL`` for
what all of a protocol's trainings and records took, ``plans NAME ...`` for how many of their cells are done,
``digits-eps``, ``arithmetic`` for hours and memory that nobody measured, ``left-out NAME`` for a list of samples that
are not scored, or ``benchmark NAME`` for what ``benchmarks/NAME.py --table`` prints. A table may name further
``--records``.
No figure in those files is typed by hand:

    python docs/fill.py
"""

from __future__ import annotations

import argparse
import fnmatch
import importlib
import json
import re
import shlex
import sys
from pathlib import Path
from typing import Any

from typer.testing import CliRunner

from hierbench.evaluation.stored import read_record, record_paths

ROOT = Path(__file__).resolve().parent.parent
RECORDS = {"table": ROOT / "leaderboard" / "records", "claims": ROOT / "leaderboard" / "study"}
"""Shipped models are on the board; the seeds of the claims ship records alone."""
BLOCK = re.compile(r"(<!-- fill: (?P<what>[^>]*?) -->\n)(?P<body>.*?)(<!-- end fill -->)", re.DOTALL)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="change nothing; exit 1 if a block is stale")
    parser.add_argument("pages", nargs="*", type=Path, help="files to fill [README.md and all of docs]")
    options = parser.parse_args()
    stale = []
    for path in [page.resolve() for page in options.pages] or [ROOT / "README.md", *sorted(ROOT.glob("docs/*.md"))]:
        text = path.read_text(encoding="utf-8")
        filled = BLOCK.sub(lambda m: f"{m[1]}{make(m['what'])}{m[4]}", text)
        if filled != text:
            stale.append(path.relative_to(ROOT))
            if not options.check:
                path.write_text(filled, encoding="utf-8")
    for name in stale:
        print(f"{name}: {'stale' if options.check else 'filled'}")
    return 1 if stale and options.check else 0


def make(what: str) -> str:
    """Return the Markdown of one block."""
    kind, *rest = shlex.split(what)
    if kind in ("table", "claims"):
        return run_command(kind, rest)
    if kind == "backbone":
        return backbone(rest[0])
    if kind == "training":
        return training()
    if kind == "cost":
        return cost(rest[0])
    if kind == "passes":
        return passes(rest[0], rest[1:])
    if kind == "plans":
        return plans(rest)
    if kind == "digits-eps":
        return digits_eps()
    if kind == "arithmetic":
        return arithmetic()
    if kind == "left-out":
        return left_out(rest[0])
    if kind == "benchmark":
        return parity() if rest == ["parity"] else benchmark(rest[0])
    raise SystemExit(f"unknown block {what!r}")


def run_command(command: str, arguments: list[str]) -> str:
    """Return what ``hierbench table`` or ``hierbench claims`` prints for the committed records."""
    from hierbench.cli.app import app

    before = ["", *arguments[:-1]]
    before = ["", *arguments[:-1]]
    more = [str(ROOT / word) if flag == "--records" else word for flag, word in zip(before, arguments, strict=True)]
    result = CliRunner().invoke(app, [command, "--format", "markdown", "--records", str(RECORDS[command]), *more])
    if result.exit_code != 0:
        raise SystemExit(f"hierbench {command} {shlex.join(arguments)}: {result.output}{result.exception}")
    return result.output


def share(part: dict[str, Any]) -> str:
    return f"{100 * part['accuracy']:.1f} [{100 * part['low']:.1f}, {100 * part['high']:.1f}]"


def backbone(name: str) -> str:
    """Return accuracy on known and unseen classes, and the text tower's retrieval."""
    record = json.loads((ROOT / "weights" / name / "record.json").read_text(encoding="utf-8"))
    lines = [
        "| test images | classes | n | leaf, among themselves | chance "
        "| leaf, all classes | superclass, all classes | chance |",
        "|---|---|--:|--:|--:|--:|--:|--:|",
    ]
    for entry in record["test"]:
        for group in ("known", "unseen"):
            if group not in entry:
                continue
            part = entry[group]
            own, whole, above = (part[k] for k in ("among_themselves", "all_classes", "superclass_all_classes"))
            lines.append(
                f"| {entry['dataset']} {entry['split']} | {group} | {own['n']} "
                f"| {share(own)} | {100 * own['chance']:.1f} | {share(whole)} "
                f"| {share(above)} | {100 * above['chance']:.1f} |"
            )
    text = record["text_retrieval"]
    lines += [
        "",
        f"Accuracy in %, Wilson 95 % intervals; seed {record['seed']}, {record['seconds'] / 60:.0f} minutes on "
        f"{record['threads']} CPU threads. Its text tower finds a noun's synonym at rank 1 of "
        f"{text['synonym_candidates']} in {100 * text['synonym_recall_at_1']:.0f} % (rank 10: "
        f"{100 * text['synonym_recall_at_10']:.0f} %), and its hypernym at rank 1 of {text['hypernym_candidates']} in "
        f"{100 * text['hypernym_recall_at_1']:.0f} % (rank 10: {100 * text['hypernym_recall_at_10']:.0f} %).",
    ]
    weak = [e["dataset"] for e in record["test"] if e.get("zero_shot_capable") is False]
    lines.append(f"Record: `weights/{name}/record.json`.")
    if weak:
        lines.append(f"Not zero-shot capable (the interval covers chance): {', '.join(weak)}.")
    return "\n".join(lines) + "\n"


def training() -> str:
    """Return one line a shipped model: what made it, and what that cost."""
    lines = [
        "| model | trained on | eps | steps | rate | images | forwards | minutes | collapse guards raised |",
        "|---|---|---|--:|--:|--:|--:|--:|---|",
    ]
    for path in sorted((ROOT / "weights").glob("*/training.json")):
        run = json.loads(path.read_text(encoding="utf-8"))
        model = json.loads((path.parent / "model.json").read_text(encoding="utf-8"))
        given, done = run["given"], run["run"]
        lines.append(
            f"| {model['name']} | {model['trained_on']} | {given['threat']['eps']} | {done['steps']} "
            f"| {given['training']['learning_rate']} | {done['images']:,} | {done['forwards']:,} "
            f"| {done['seconds'] / 60:.1f} | {', '.join(done['guards'].get('flags', [])) or 'none'} |"
        )
    lines += ["", "Record of each: `weights/<model>/training.json`."]
    return "\n".join(lines) + "\n"


def cost(protocol: str) -> str:
    """Return what a protocol's trainings and evaluations took, shipped models and the claims' seeds apart."""
    lines = ["| what | how many | images, once a run | forwards | backwards | hours |", "|---|--:|--:|--:|--:|--:|"]
    variant = protocol.removesuffix("-v1")
    trainings = {
        "training the shipped models": (ROOT / "weights").glob(f"*.{variant}/training.json"),
        "training the seeds, controls and ablations": (ROOT / "leaderboard" / "trainings" / protocol).glob("*.json"),
    }
    for what, paths in trainings.items():
        runs = [json.loads(path.read_text(encoding="utf-8"))["run"] for path in paths]
        spent = [(run["images"], run["forwards"], run["backwards"], run["seconds"]) for run in runs]
        lines.append(_spent(what, spent))
    parts = {"shipped models": "table", "seeds, controls and ablations": "claims"}
    for what, kind in parts.items():
        records = [read_record(path) for path in record_paths(RECORDS[kind] / protocol)]
        costs = [(r.counts.scored, r.cost.forwards, r.cost.backwards, r.cost.seconds) for r in records]
        lines.append(_spent(f"evaluating the {what}", costs))
    lines += [
        "",
        "Hours of one process with one or two CPU threads, often beside others; passes say more than hours do.",
    ]
    return "\n".join(lines) + "\n"


def _spent(what: str, parts: list[tuple[int, int, int, float]]) -> str:
    images, forwards, backwards = (sum(int(part[i]) for part in parts) for i in range(3))
    return (
        f"| {what} | {len(parts)} | {images:,} | {forwards:,} | {backwards:,} "
        f"| {sum(part[3] for part in parts) / 3600:.1f} |"
    )


def passes(protocol: str, patterns: list[str]) -> str:
    """Return what the trainings of some models cost: the shipped ones of a protocol, and those that ship records."""
    variant = protocol.removesuffix("-v1")
    found = {path.parent.name: path for path in (ROOT / "weights").glob(f"*.{variant}/training.json")}
    found |= {path.stem: path for path in (ROOT / "leaderboard" / "trainings" / protocol).glob("*.json")}
    lines = ["| model | seed | epochs | forwards | backwards | together | minutes |", "|---|--:|--:|--:|--:|--:|--:|"]
    for pattern in patterns:
        names = sorted(name for name in found if fnmatch.fnmatchcase(name, pattern))
        if not names:
            raise SystemExit(f"passes: no training of {protocol} is called {pattern}")
        for name in names:
            record = json.loads(found[name].read_text(encoding="utf-8"))
            run = record["run"]
            lines.append(
                f"| {name} | {record['given']['seed']} | {run['epochs']:.3g} | {run['forwards']:,} "
                f"| {run['backwards']:,} | {run['forwards'] + run['backwards']:,} | {run['seconds'] / 60:.0f} |"
            )
    records = f"`weights`, `leaderboard/trainings/{protocol}`"
    lines += ["", f"Passes of one image through the image tower, the frozen backbone's among them. Records: {records}."]
    return "\n".join(lines) + "\n"


def plans(names: list[str]) -> str:
    """Return how many cells of some plans have a committed record, be it on the board or of the claims' seeds."""
    from hierbench.sweep.known import KnownRecords
    from hierbench.sweep.plan import find_plan, read_plan
    from hierbench.sweep.state import look_up

    known = {folder: KnownRecords(folder) for folder in RECORDS.values()}
    lines = ["| plan | cells | done |", "|---|--:|--:|"]
    for name in names:
        looked = [look_up(read_plan(find_plan(name), out=folder), records) for folder, records in known.items()]
        done = sum(any(state.state == "done" for state in states) for states in zip(*looked, strict=True))
        lines.append(f"| `{name}` | {len(looked[0])} | {done} |")
    return "\n".join(lines) + "\n"


def digits_eps() -> str:
    """Return the curve that chose the eps of digits-v1."""
    content = json.loads((ROOT / "leaderboard" / "measurements" / "digits-eps.json").read_text(encoding="utf-8"))
    lines = ["| eps | robust accuracy, % | n |", "|---|--:|--:|"]
    lines += [f"| {r['eps']} | {share(r)} | {r['n']} |" for r in content["rows"]]
    made = f"`{content['command']}`, seed {content['seed']}; record `leaderboard/measurements/digits-eps.json`"
    return "\n".join([*lines, "", f"Chosen: {content['chosen']} ({made})."]) + "\n"


def benchmark(name: str) -> str:
    """Return a benchmark's own table of its committed record."""
    sys.path.insert(0, str(ROOT / "benchmarks"))
    path = ROOT / "leaderboard" / "measurements" / f"{name}.json"
    record = json.loads(path.read_text(encoding="utf-8"))
    table: str = importlib.import_module(name).render_table(record)
    return table


def left_out(name: str) -> str:
    """Return how many samples of each split a list leaves out, and by what likeness."""
    content = json.loads((ROOT / "leaderboard" / "left_out" / f"{name}.json").read_text(encoding="utf-8"))
    lines = ["| split | left out | likeness |", "|---|--:|---|"]
    for split, rows in content["left_out"].items():
        likeness = [row["likeness"] for row in rows]
        lines.append(f"| {split} | {len(rows)} | {min(likeness):.2f} to {max(likeness):.2f} |")
    return "\n".join([*lines, "", f"List: `leaderboard/left_out/{name}.json`."]) + "\n"


def arithmetic() -> str:
    """Return the hours and memory that follow from shapes alone."""
    sys.path.insert(0, str(ROOT / "benchmarks"))
    table: str = importlib.import_module("arithmetic").render_table()
    return table


def parity() -> str:
    """Return the comparison of our attacks with the field's own code, and how much of it is measured."""
    text = benchmark("parity")
    from parity import all_cells

    content = json.loads((ROOT / "leaderboard" / "measurements" / "parity.json").read_text(encoding="utf-8"))
    measured, planned = {row["cell"] for row in content["rows"]}, all_cells()
    missing = [cell.name for cell in planned if cell.name not in measured]
    left = f" Not measured yet: {', '.join(missing)}." if missing else ""
    return f"{text}\n{len(measured)} of {len(planned)} cells (seed {content['seed']}).{left}\n"


if __name__ == "__main__":
    sys.exit(main())
