"""Which files of a results folder are read as records."""

from __future__ import annotations

from pathlib import Path

from hierbench.evaluation.stored import record_paths


def test_hidden_files_and_folders_hold_no_records(tmp_path: Path) -> None:
    for name in (
        "tiny-v1/clip/b.json",
        "a.json",
        ".hidden.json",
        ".sweep/note.json",
        "tiny-v1/.part/c.json",
        "d.parquet",
    ):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    assert [p.relative_to(tmp_path).as_posix() for p in record_paths(tmp_path)] == ["a.json", "tiny-v1/clip/b.json"]
    below_hidden = tmp_path / ".sweep"
    assert [p.name for p in record_paths(below_hidden)] == ["note.json"], "a folder that is named is read"
