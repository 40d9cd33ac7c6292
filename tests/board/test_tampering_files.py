"""Hostile files, words and names in a package are refused, unread where reading is the danger."""

from __future__ import annotations

import json
import pickle
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from board import toy
from board.conftest import Submitted
from board.forge import forge_record, images_of, record_of, reseal
from board.tampering import BAD_INPUT, UNTRUSTED, Harm, refused, set_
from board.toy import edit_json, sign
from hierbench.board.verify import parquet as guard
from hierbench.evaluation.storage import digest_file
from hierbench.evaluation.verdicts import read_verdicts
from hierbench.models.load import load_model


def test_a_huge_file_is_refused_unread(submitted: Submitted, capsys: pytest.CaptureFixture[str]) -> None:
    path = record_of(submitted.folder).with_suffix(".parquet")
    with path.open("r+b") as stream:
        stream.truncate(65 * 2**20)
    refused(submitted.verify(capsys), BAD_INPUT, path.name, "no file of a package has more than")


def test_a_path_outside_the_folder_is_refused(submitted: Submitted, capsys: pytest.CaptureFixture[str]) -> None:
    secret = submitted.folder.parent / "secret.json"
    secret.write_text("{}")
    edit_json(submitted.folder / "submission.json", set_("files", 0, "name", to="../secret.json"))
    refused(submitted.verify(capsys), BAD_INPUT, "submission.json", "files.0.name: String should match pattern")


def test_verdicts_outside_the_folder_are_refused(submitted: Submitted, capsys: pytest.CaptureFixture[str]) -> None:
    path = forge_record(submitted.folder, set_("verdicts", "file", to="../secret.parquet"))
    refused(submitted.verify(capsys), BAD_INPUT, path.name, "verdicts.file")


@pytest.mark.parametrize("what", ["file", "folder"])
def test_a_symbolic_link_is_refused(
    submitted: Submitted, capsys: pytest.CaptureFixture[str], tmp_path: Path, what: str
) -> None:
    path = record_of(submitted.folder).with_suffix(".parquet") if what == "file" else submitted.folder
    elsewhere = tmp_path / "elsewhere"
    path.rename(elsewhere)
    path.symlink_to(elsewhere)
    refused(submitted.verify(capsys), BAD_INPUT, path.name, "is a symbolic link")


def test_a_sub_folder_an_extra_file_and_a_missing_one_are_refused(
    submitted: Submitted, capsys: pytest.CaptureFixture[str]
) -> None:
    (submitted.folder / "more").mkdir()
    refused(submitted.verify(capsys), BAD_INPUT, "more", "is a folder")
    (submitted.folder / "more").rmdir()
    (submitted.folder / "readme.md").write_text("hello")
    refused(submitted.verify(capsys), BAD_INPUT, "readme.md", "is not among the files of submission.json")
    (submitted.folder / "readme.md").unlink()
    path = record_of(submitted.folder)
    path.unlink()
    refused(submitted.verify(capsys), BAD_INPUT, path.name, "is missing; submission.json lists it")


def test_a_header_that_announces_gigabytes_is_refused(submitted: Submitted, capsys: pytest.CaptureFixture[str]) -> None:
    path = images_of(record_of(submitted.folder))
    size = 10 * 2**30
    header = json.dumps({"x": {"dtype": "U8", "shape": [size], "data_offsets": [0, size]}}).encode()
    path.write_bytes(len(header).to_bytes(8, "little") + header)
    sign(submitted.folder)
    refused(submitted.verify(capsys), BAD_INPUT, path.name, "not a whole safetensors file")


def bomb(submitted: Submitted, table: pa.Table, **options: object) -> Path:
    """Put a Parquet file in the place of the verdicts, every hash right."""
    path = record_of(submitted.folder)
    parquet = path.with_suffix(".parquet")
    pq.write_table(table, parquet, compression="zstd", **options)
    edit_json(path, lambda r: r["verdicts"].update(sha256=digest_file(parquet), rows=table.num_rows))
    reseal(submitted.folder, path)
    return parquet


@pytest.mark.parametrize("kind", ["rows", "dictionary", "pages"])
def test_a_parquet_bomb_is_refused_before_it_is_read(
    submitted: Submitted, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    unpacked: list[str] = []
    monkeypatch.setattr(guard, "read_verdicts", lambda path: unpacked.append(path.name) or read_verdicts(path))
    kept = pq.read_table(record_of(submitted.folder).with_suffix(".parquet"))
    if kind == "rows":
        path = bomb(submitted, pa.table({"label": pa.array(np.zeros(3_000_000, np.int64))}))
        assert path.stat().st_size < 100_000
        reason = "3000000 rows"
    else:
        long = pa.array(["x" * 2_000_000] * kept.num_rows)
        plain = kind == "pages"
        path = bomb(submitted, kept.set_column(0, "sample_id", long), use_dictionary=not plain, write_statistics=False)
        assert path.stat().st_size < 200_000
        reason = "a name of more than 1000 bytes"
        if plain:
            monkeypatch.setattr(guard, "MAX_UNPACKED", 1 << 20)
            reason = "would unpack to 48"
    refused(submitted.verify(capsys), BAD_INPUT, path.name, reason)
    assert unpacked and path.name not in unpacked


def test_a_pickle_in_place_of_verdicts_is_refused(
    submitted: Submitted, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path = record_of(submitted.folder)
    parquet = path.with_suffix(".parquet")
    parquet.write_bytes(pickle.dumps(Harm()))
    edit_json(path, lambda r: r["verdicts"].update(sha256=digest_file(parquet)))
    reseal(submitted.folder, path)
    refused(submitted.verify(capsys), BAD_INPUT, parquet.name, "not a readable Parquet file")
    assert not Path("harmed").exists()


@pytest.mark.parametrize(
    ("field", "text", "reason"),
    [
        ("title", "<script>alert(1)</script>", "holds <, which belongs to HTML or LaTeX"),
        ("authors", ["A. \\input{/etc/passwd}"], "holds \\, which belongs to HTML or LaTeX"),
        ("licence", "MIT\x1b[31m", "cannot be printed"),
        ("code", "javascript:alert(1)", "code: String should match pattern"),
        ("paper", 'https://x.org/" onclick="', "paper: String should match pattern"),
        ("model", "../../x", "model: String should match pattern"),
    ],
)
def test_html_and_latex_in_a_name_are_refused(
    submitted: Submitted, capsys: pytest.CaptureFixture[str], field: str, text: object, reason: str
) -> None:
    edit_json(submitted.folder / "submission.json", set_(field, to=text))
    refused(submitted.verify(capsys), BAD_INPUT, "submission.json", reason)


@pytest.mark.parametrize("text", ["<b>mine</b>", "\\textbf mine", "mine\x07"])
def test_markup_in_a_record_is_refused(submitted: Submitted, capsys: pytest.CaptureFixture[str], text: str) -> None:
    path = record_of(submitted.folder)
    edit_json(path, set_("identity", "model", "defence", to=text))
    sign(submitted.folder)
    refused(submitted.verify(capsys), BAD_INPUT, path.name, "identity.model.defence: holds")


def rename(folder: Path, name: str, weights: str | None = None) -> Path:
    """Make a copy of a submission that calls itself otherwise."""
    other = folder.parent / name
    shutil.copytree(folder, other)
    for attack in toy.ATTACKS:
        change: dict[str, str] = {"name": name} | ({} if weights is None else {"weights_hash": weights})
        forge_record(other, lambda r, c=change: r["identity"]["model"].update(c), attack)
    edit_json(other / "submission.json", set_("model", to=name))
    if weights is not None:
        edit_json(other / "submission.json", set_("weights", "weights_hash", to=weights))
    return other


def test_a_duplicate_of_an_existing_row_is_refused(submitted: Submitted, capsys: pytest.CaptureFixture[str]) -> None:
    other = rename(submitted.folder, "mine.digits")
    said = submitted.verify(capsys, folder=other)
    refused(said, UNTRUSTED, "submission.json", "nudged.digits of toyboard-v1 is on the board with the same weights")


def test_the_name_of_an_existing_row_with_other_weights_is_refused(
    submitted: Submitted, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    elsewhere = tmp_path / "new" / "submissions" / toy.NAME / "nudged.digits"
    shutil.copytree(submitted.folder, elsewhere)
    wrong = "sha256:" + "ab" * 32
    for attack in toy.ATTACKS:
        forge_record(elsewhere, set_("identity", "model", "weights_hash", to=wrong), attack)
    edit_json(elsewhere / "submission.json", set_("weights", "weights_hash", to=wrong))
    said = submitted.verify(capsys, folder=elsewhere)
    refused(
        said, UNTRUSTED, "submission.json", "model: nudged.digits of toyboard-v1 is on the board with other weights"
    )


def test_the_name_of_a_shipped_model_is_refused(submitted: Submitted, capsys: pytest.CaptureFixture[str]) -> None:
    assert load_model("tecoa.digits").name == "tecoa.digits"
    other = rename(submitted.folder, "tecoa.digits")
    shutil.rmtree(submitted.folder)
    refused(submitted.verify(capsys, folder=other), UNTRUSTED, "submission.json", "a model that hierbench ships")


def test_a_cell_that_is_left_out_in_silence_is_refused(
    submitted: Submitted, capsys: pytest.CaptureFixture[str]
) -> None:
    for path in submitted.folder.glob("*superclass_pgd*"):
        path.unlink()
    sign(submitted.folder)
    refused(submitted.verify(capsys), UNTRUSTED, "submission.json", "left_out: digits superclass_pgd is neither there")
    edit_json(submitted.folder / "submission.json", set_("left_out", to=["digits superclass_pgd"]))
    assert submitted.verify(capsys)[0] == 0


def test_a_package_in_another_place_is_refused(submitted: Submitted, capsys: pytest.CaptureFixture[str]) -> None:
    other = submitted.folder.with_name("elsewhere")
    submitted.folder.rename(other)
    said = submitted.verify(capsys, folder=other)
    refused(said, UNTRUSTED, "submission.json", "model: 'nudged.digits', and the package lies in a folder called")
