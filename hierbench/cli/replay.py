"""``hierbench replay``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hierbench.cli.common import console
from hierbench.errors import ExitCode

if TYPE_CHECKING:
    from hierbench.evaluation.records import DepthScores, DepthScoring
    from hierbench.evaluation.replay.run import Replay
    from hierbench.reporting.table import Report, Value


def add_to(app: typer.Typer) -> None:
    """Add the command."""
    app.command("replay")(replay)


def replay(
    file: Annotated[Path, typer.Argument(help="Images that `hierbench eval --store-images` kept.")],
    model: Annotated[
        str | None, typer.Option(help="Another model to show them to. [the one they were made for]")
    ] = None,
    device: Annotated[str | None, typer.Option(help="cpu, cuda, cuda:1, ... [cuda if there is one]")] = None,
    out: Annotated[Path | None, typer.Option(help="Folder of a transfer's record. [./hierbench-results]")] = None,
    data_root: Annotated[Path | None, typer.Option(help="Folder of the image data. [HIERBENCH_DATA_ROOT]")] = None,
    force: Annotated[bool, typer.Option("--force", help="Score a finished transfer again.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="Print the outcome only.")] = False,
) -> int:
    """Judge stored adversarial images again, on their own model or on another one.

    On their own model everything is verified: samples, clean pixels, box, ball, every verdict. On another model they
    are a transfer attack, with a record like that of any attack.
    """
    from hierbench.evaluation.observer import Observer
    from hierbench.evaluation.replay.run import replay as run
    from hierbench.reporting.formats import render_rich
    from hierbench.reporting.progress import RichProgress

    observer = Observer() if quiet else RichProgress(console(stderr=True))
    done = run(file, model=model, data_root=data_root, device=device, out=out, force=force, observer=observer)
    show = console()
    if not quiet:
        show.print(render_rich(replay_report(done)))
    for line in outcome(done):
        show.print(line, soft_wrap=True)
    return ExitCode.DONE if done.confirmed else ExitCode.UNTRUSTED


def outcome(done: Replay) -> list[str]:
    """Return in lines what a replay found."""
    if done.transferred:
        return [f"record: {done.record_path}"]
    of = len(done.stored.ids)
    wrong = {depth: count for depth, count in done.differing.items() if count}
    if not wrong:
        depths = len(done.stored.identity.attack.depths)
        word = "depth" if depths == 1 else "depths"
        return [f"verified: {of} samples, {depths} attacked {word}: box, ball and every verdict as in the file"]
    return [
        f"not verified: {count} of {of} verdicts differ "
        + ("on the clean images" if depth == 0 else f"under the attack at depth {depth}")
        for depth, count in wrong.items()
    ]


def replay_report(done: Replay) -> Report:
    """Return the table of a replay: accuracies by depth and scoring, the source model's beside a transfer's."""
    from hierbench.reporting.layouts import flag_notes
    from hierbench.reporting.table import Report, Table, Value, printable

    identity = done.stored.identity
    source, attack = identity.model.name, identity.attack
    columns = ["depth", "nodes", "scoring", "clean", "robust", "worst"]
    columns += [f"{source} clean", f"{source} robust"] if done.transferred else []
    rows = []
    for target, made_for in zip(done.depths, done.source_depths, strict=True):
        for scoring in ("rollup", "direct"):
            scores = _scoring(target, scoring)
            if scores is None:
                continue
            line = [Value(target.depth, "integer"), Value(target.nodes, "integer"), Value(scoring)]
            line += [_share(scores, name) for name in ("clean", "robust", "worst")]
            if done.transferred:
                theirs = _scoring(made_for, scoring)
                line += [Value(None, "share") if theirs is None else _share(theirs, n) for n in ("clean", "robust")]
            rows.append(tuple(line))
    notes = [
        f"{len(done.stored.ids)} images of {identity.dataset.name} {identity.dataset.split}, "
        f"{attack.norm} eps {attack.eps}, kept as {done.stored.form}; accuracies in % with Wilson 95 % intervals",
        "robust: under the images made at this depth; worst: under those of every attacked depth, per sample",
        *([] if done.record is None else flag_notes(done.record)),
        *done.notes,
    ]
    title = f"{done.target} under images that {attack.name} made for {source}"
    if not done.transferred:
        title = f"{source} under its own images of {attack.name}, judged again"
    return Report((Table(printable(title), tuple(columns), tuple(rows), tuple(map(printable, notes))),), ())


def _scoring(entry: DepthScores, name: str) -> DepthScoring | None:
    return entry.rollup if name == "rollup" else entry.direct


def _share(scores: DepthScoring, name: str) -> Value:
    from hierbench.reporting.layouts import proportion_value

    return proportion_value(getattr(scores, name))
