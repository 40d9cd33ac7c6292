"""What the scripts of this folder share: their options, and records that are written cell by cell and gone on with."""

from __future__ import annotations

import argparse
import fnmatch
import json
import shlex
import sys
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from subjects import BATCH

from hierbench.errors import InputError
from hierbench.evaluation.environment import describe_environment
from hierbench.evaluation.storage import atomic_write, digest_json

FOLDER = Path("leaderboard/measurements")
PLACES = ("--out", "--work", "--models")

Record = dict[str, Any]


def parser(doc: str | None, name: str, *, cells: str, goes_on: bool = True) -> argparse.ArgumentParser:
    """Return the options of a script whose record is ``<name>.json``.

    ``cells`` says what a cell's name is like; a script that ``goes_on`` leaves finished cells be unless told.
    """
    made = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--out", type=Path, default=FOLDER / f"{name}.json")
    made.add_argument("--cells", nargs="+", default=["*"], help=f"patterns of {cells}")
    made.add_argument("--limit", type=int, default=200, help="samples a cell")
    made.add_argument("--seed", type=int, default=0)
    made.add_argument("--threads", type=int, default=2)
    made.add_argument("--device", default="cpu")
    if goes_on:
        made.add_argument("--force", action="store_true", help="run finished cells again")
    made.add_argument("--table", action="store_true", help="print the record as Markdown, and run nothing")
    return made


def long_options(made: argparse.ArgumentParser) -> argparse.ArgumentParser:
    """Add the option of a script that takes long enough to be asked how long first."""
    made.add_argument("--estimate", action="store_true", help="say how long it takes, and stop")
    return made


def read(path: Path, seed: int, *, name: str, what: str) -> Record:
    """Return the record as far as it goes; one of another seed is refused."""
    if not path.exists():
        command = f"python benchmarks/{name}.py"
        return {"what": what, "command": command, "seed": seed, "batch_size": BATCH, "summary": [], "rows": []}
    record: Record = json.loads(path.read_text(encoding="utf-8"))
    if record["seed"] != seed:
        raise InputError(f"{path} was made with seed {record['seed']}: give that --seed or another --out")
    return record


def done(cell: str, wanted: dict[str, Any], record: Record) -> bool:
    """Return whether the record has a cell with these very values."""
    return any(
        row["cell"] == cell and digest_json({key: row[key] for key in wanted}) == digest_json(wanted)
        for row in record["rows"]
    )


def chosen(names: Iterable[str], options: argparse.Namespace) -> list[str]:
    """Return the names that ``--cells`` means."""
    return [name for name in names if any(fnmatch.fnmatchcase(name, pattern) for pattern in options.cells)]


def missing(names: Iterable[str], wanted: dict[str, Any], record: Record, options: argparse.Namespace) -> list[str]:
    """Return the cells to run: meant by ``--cells``, and not in the record with these values unless by ``--force``."""
    return [name for name in chosen(names, options) if options.force or not done(name, wanted, record)]


def keep(
    row: dict[str, Any],
    record: Record,
    options: argparse.Namespace,
    *,
    order: Sequence[str],
    summarise: Callable[[list[dict[str, Any]]], list[dict[str, Any]]],
    environment: dict[str, Any] | None = None,
) -> None:
    """Put a finished cell into the record and write it; ``environment`` is that of a record it comes from."""
    rows = [other for other in record["rows"] if other["cell"] != row["cell"]]
    record["rows"] = sorted([*rows, row], key=lambda entry: order.index(entry["cell"]))
    record["summary"] = summarise(record["rows"])
    save(record, options, environment=environment)


def save(record: Record, options: argparse.Namespace, *, environment: dict[str, Any] | None = None) -> None:
    """Write the record whole, with when, where and by which command line it was last added to."""
    record["created"] = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    record["last_command"] = shlex.join(["python", *_without_place(sys.argv)])
    record["environment"] = environment or describe_environment(
        device=options.device, device_name=None, threads=options.threads, seed=options.seed, batch_size=BATCH
    ).model_dump(mode="json")
    options.out.parent.mkdir(parents=True, exist_ok=True)
    atomic_write(options.out, (json.dumps(record, indent=1) + "\n").encode())


def _without_place(words: Sequence[str]) -> list[str]:
    """Return a command line without ``--out`` and ``--work``: where a file was first written decides nothing in it."""
    kept: list[str] = []
    skip = False
    for word in words:
        if not skip and word.partition("=")[0] not in PLACES:
            kept.append(word)
        skip = word in PLACES
    return kept


def source(record: Record) -> str:
    """Return the line that names a table's record and what made it."""
    name = record["command"].rpartition("/")[2].removesuffix(".py")
    commit = (record["environment"].get("git_commit") or "unknown")[:7]
    place = (FOLDER / f"{name}.json").as_posix()
    return f"Record: `{place}` (`{record['command']}`, seed {record['seed']}; last added to at commit {commit})."
