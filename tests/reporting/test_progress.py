from __future__ import annotations

import io
from pathlib import Path

import pytest
from evaluation.toy_cell import toy_cell, with_victim
from rich.console import Console

from hierbench.evaluation.runner import run_cell
from hierbench.reporting.progress import RichProgress


def watched(folder: Path, *, terminal: bool) -> tuple[RichProgress, io.StringIO]:
    out = io.StringIO()
    console = Console(file=out, force_terminal=terminal, width=140, markup=False)
    return RichProgress(console), out


def test_a_terminal_sees_depths_survivors_and_speed(tmp_path: Path) -> None:
    progress, out = watched(tmp_path, terminal=True)
    drawn: list[str] = []
    original = progress.bars.update

    def update(task, **changes):  # type: ignore[no-untyped-def]
        original(task, **changes)
        drawn.append(f"{progress.bars.tasks[task].description}: {changes.get('state')}")

    progress.bars.update = update  # type: ignore[method-assign]
    record = run_cell(toy_cell(tmp_path), observer=progress)
    survivors = record.depths[0].rollup.robust
    assert survivors is not None
    last = [line for line in drawn if line.startswith("attack at depth 1")][-1]
    assert f"{survivors.count} survive" in last
    assert "images/s" in last
    assert "attack at depth 2" in out.getvalue()
    assert progress.tasks == {}, "the bars must be gone at the end"


def test_a_pipe_sees_no_bars(tmp_path: Path) -> None:
    progress, out = watched(tmp_path, terminal=False)
    run_cell(toy_cell(tmp_path), observer=progress)
    assert "\x1b" not in out.getvalue()
    assert "survive" not in out.getvalue()


def test_bars_end_with_an_interruption_and_a_finished_cell_is_said(tmp_path: Path) -> None:
    progress, out = watched(tmp_path, terminal=True)
    cell = toy_cell(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        run_cell(with_victim(cell, stop_at=3), observer=progress)
    assert progress.tasks == {}
    assert not progress.bars.live.is_started
    run_cell(with_victim(cell), observer=progress)
    run_cell(with_victim(cell), observer=progress)
    assert "already evaluated" in out.getvalue()
