"""The site's folder: whole or not at all, never over anything else, the same bytes every time."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from synthetic_board import Plan, place

from hierbench.errors import HierbenchError, InputError
from hierbench.evaluation.storage import digest_file
from hierbench.evaluation.stored import read_record
from hierbench.evaluation.verdicts import read_verdicts
from hierbench.reporting.site import build, build_site


@pytest.fixture
def small(tmp_path: Path) -> Path:
    board = tmp_path / "board"
    place(board, Plan("clip", dataset="digits", tree="strokes", protocol="digits-v1", eps="32/255"))
    return board


def contents(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_two_builds_are_equal_byte_for_byte(board: Path, site: Path, tmp_path: Path) -> None:
    moved = tmp_path / "elsewhere" / "copy of the board"
    shutil.copytree(board, moved)
    build_site(moved, tmp_path / "again")
    assert contents(tmp_path / "again") == contents(site)


def test_the_files_are_returned_and_listed_with_their_hashes(small: Path, tmp_path: Path) -> None:
    out = tmp_path / "site"
    files = build_site(small, out)
    assert files == sorted(p for p in out.rglob("*") if p.is_file())
    listed = json.loads((out / "site.json").read_text())["files"]
    assert listed == {p.relative_to(out).as_posix(): digest_file(p) for p in files if p.name != "site.json"}


def test_a_record_in_the_site_reads_back_with_its_verdicts(board: Path, site: Path) -> None:
    copied = sorted((site / "records").rglob("*.json"))
    originals = [p for part in ("records", "submissions", "attacks") for p in (board / part).rglob("cell.*.json")]
    assert {p.read_bytes() for p in copied} == {p.read_bytes() for p in originals}
    record = read_record(copied[0])
    assert len(read_verdicts(copied[0].with_name(record.verdicts.file)).labels) == record.counts.scored


def test_an_earlier_site_is_replaced_and_what_is_gone_from_the_board_goes(small: Path, tmp_path: Path) -> None:
    out = tmp_path / "site"
    second = place(small, Plan("tecoa.digits", dataset="digits", tree="strokes", protocol="digits-v1", eps="32/255"))
    build_site(small, out)
    assert len(list((out / "models").iterdir())) == 2
    second.unlink()
    build_site(small, out)
    assert len(list((out / "models").iterdir())) == 1
    assert sorted(p.name for p in tmp_path.iterdir()) == ["board", "site"]


def test_a_folder_that_is_no_site_is_refused_and_left_alone(small: Path, tmp_path: Path) -> None:
    out = tmp_path / "thesis"
    out.mkdir()
    (out / "chapter.tex").write_text("mine")
    with pytest.raises(InputError, match="not empty and no site"):
        build_site(small, out)
    assert contents(out) == {"chapter.tex": b"mine"}


@pytest.mark.parametrize("stranger", ["notes.txt", "models/mine.html", "empty/"])
def test_a_site_that_holds_something_else_is_refused(small: Path, tmp_path: Path, stranger: str) -> None:
    out = tmp_path / "site"
    build_site(small, out)
    target = out / stranger
    if stranger.endswith("/"):
        target.mkdir()
    else:
        target.write_text("mine")
    before = contents(out)
    with pytest.raises(InputError, match=stranger.rstrip("/")):
        build_site(small, out)
    assert contents(out) == before


def test_a_manifest_of_another_kind_makes_no_site(small: Path, tmp_path: Path) -> None:
    out = tmp_path / "app"
    out.mkdir()
    (out / "site.json").write_text('{"format": "other", "files": ["index.html"]}')
    with pytest.raises(InputError, match="no site of hierbench"):
        build_site(small, out)


def test_a_link_or_a_file_in_the_place_is_refused(small: Path, tmp_path: Path) -> None:
    target = tmp_path / "real"
    target.mkdir()
    (tmp_path / "link").symlink_to(target)
    (tmp_path / "file").write_text("x")
    with pytest.raises(InputError, match="symbolic link"):
        build_site(small, tmp_path / "link")
    with pytest.raises(InputError, match="is a file"):
        build_site(small, tmp_path / "file")
    assert list(target.iterdir()) == []


def test_a_site_among_the_records_is_refused(small: Path) -> None:
    with pytest.raises(InputError, match="inside the board's records"):
        build_site(small, small / "records" / "site")


def test_a_build_that_fails_leaves_the_old_site_and_nothing_else(
    small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "site"
    build_site(small, out)
    before = contents(out)

    def fails(board: object, copied: object) -> object:
        yield "index.html", "half"
        raise KeyboardInterrupt

    monkeypatch.setattr(build, "_pages", fails)
    for target in (out, tmp_path / "fresh"):
        with pytest.raises(KeyboardInterrupt):
            build_site(small, target)
    assert contents(out) == before
    assert sorted(p.name for p in tmp_path.iterdir()) == ["board", "site"]


def test_a_place_that_cannot_be_written_is_one_line(small: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(HierbenchError, match="--out: cannot write"):
        build_site(small, tmp_path / "file" / "site")


def test_changed_or_missing_verdicts_stop_the_build(small: Path, tmp_path: Path) -> None:
    (parquet,) = small.rglob("*.parquet")
    whole = parquet.read_bytes()
    parquet.write_bytes(whole + b"\0")
    with pytest.raises(InputError, match=r"cell\..*json: the verdicts beside it are missing or changed"):
        build_site(small, tmp_path / "site")
    parquet.unlink()
    with pytest.raises(InputError, match="missing or changed"):
        build_site(small, tmp_path / "site")
    assert not (tmp_path / "site").exists()


@pytest.mark.parametrize("linked", ["record", "verdicts", "folder"])
def test_a_link_in_the_board_is_not_followed(small: Path, tmp_path: Path, linked: str) -> None:
    (record,) = small.rglob("cell.*.json")
    target = {"record": record, "verdicts": record.with_suffix(".parquet"), "folder": record.parent}[linked]
    outside = tmp_path / "outside"
    target.rename(outside)
    target.symlink_to(outside)
    # a linked folder is not read at all, a linked file is refused by name
    if linked == "folder" and not list(small.rglob("cell.*.json")):
        build_site(small, tmp_path / "site")
        assert not (tmp_path / "site" / "records").exists()
        return
    with pytest.raises(InputError, match="symbolic link"):
        build_site(small, tmp_path / "site")


def test_names_of_copied_files_never_come_from_a_stranger_unchecked(small: Path, tmp_path: Path) -> None:
    (record,) = small.rglob("cell.*.json")
    content = json.loads(record.read_text())
    parquet = record.with_name(content["verdicts"]["file"])
    odd = 'a"><img src=x onerror=alert(1)>.parquet'
    parquet.rename(parquet.with_name(odd))
    content["verdicts"]["file"] = odd
    record.unlink()
    (record.parent / "<b>.json").write_text(json.dumps(content))
    build_site(small, tmp_path / "site")
    names = {p.name for p in (tmp_path / "site" / "records").rglob("*") if p.is_file()}
    assert len(names) == 2
    assert all(set(name) <= set("0123456789abcdef.jsonparquet") for name in names)


def test_an_empty_board_has_a_front_page_that_says_so(tmp_path: Path) -> None:
    board = tmp_path / "board"
    (board / "records").mkdir(parents=True)
    build_site(board, tmp_path / "site")
    assert "No record yet" in (tmp_path / "site" / "index.html").read_text()


def test_a_board_that_is_not_there_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is not a folder"):
        build_site(tmp_path / "nowhere", tmp_path / "site")


def test_a_folder_of_records_is_no_board(tmp_path: Path) -> None:
    """An empty board's page would hide that the folder was the wrong one."""
    (tmp_path / "results" / "tiny-v1").mkdir(parents=True)
    with pytest.raises(InputError, match=r"--board: .* records, submissions or attacks in it; .*results"):
        build_site(tmp_path / "results", tmp_path / "site")
    assert not (tmp_path / "site").exists()
