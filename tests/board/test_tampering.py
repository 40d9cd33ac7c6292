"""Tampered packages are refused, each with the file and the reason; the untouched one verifies."""

from __future__ import annotations

import json
import os
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from board import toy
from board.conftest import Submitted
from board.forge import forge_record, forge_verdicts, images_of, record_of, reseal, rewrite
from board.toy import edit_json, sign
from hierbench.board.verify import parquet as guard
from hierbench.evaluation.scores import proportion
from hierbench.evaluation.storage import digest_file
from hierbench.evaluation.verdicts import read_verdicts
from hierbench.models.load import load_model

BAD_INPUT, UNTRUSTED = 2, 3


def refused(said: tuple[int, str], code: int, file: str, reason: str) -> None:
    """One line names the file and the reason, and the exit code is the one of its kind."""
    found, text = said
    lines = [line for line in text.splitlines() if line.startswith(("refused: ", "hierbench: error: "))]
    assert any(file in line and reason in line for line in lines), text
    assert found == code, text


def test_the_untouched_package_verifies(submitted: Submitted, capsys: pytest.CaptureFixture[str]) -> None:
    code, text = submitted.verify(capsys)
    assert code == 0 and "verified: " in text
    assert "not checked: weights hash, verdicts on the weights, acceptance rules, because the weights of" in text
    code, text = submitted.verify(capsys, "--weights", str(submitted.weights))
    assert code == 0 and "verified: " in text and "not checked" not in text


def test_a_package_signed_anew_without_a_change_verifies(
    submitted: Submitted, capsys: pytest.CaptureFixture[str]
) -> None:
    """The forger's tools alone are not what is found."""
    forge_record(submitted.folder, lambda record: None)
    forge_verdicts(submitted.folder, lambda columns: None)
    assert submitted.verify(capsys, "--weights", str(submitted.weights))[0] == 0


# -- numbers and verdicts --------------------------------------------------------------------------------------------


def raise_robust(record: dict) -> None:
    scores = record["depths"][2]["rollup"]
    mask = np.arange(scores["robust"]["of"]) <= scores["robust"]["count"]
    scores["robust"] = proportion(mask).model_dump(mode="json")


def set_(*path: str | int, to: object) -> Callable[[dict], None]:
    def change(record: dict) -> None:
        inner = record
        for part in path[:-1]:
            inner = inner[part]  # type: ignore[index]
        inner[path[-1]] = to  # type: ignore[index]

    return change


def test_an_edited_number_is_refused_by_its_hash(submitted: Submitted, capsys: pytest.CaptureFixture[str]) -> None:
    path = record_of(submitted.folder)
    edit_json(path, lambda r: r["cost"].update(seconds=r["cost"]["seconds"] * 0 + 1.25))
    text = path.read_text()
    path.write_text(text[:-1] + " " * (size_of(submitted, path) - len(text)) + "\n")
    refused(submitted.verify(capsys), UNTRUSTED, path.name, "sha256 is not that of submission.json")


def size_of(submitted: Submitted, path: Path) -> int:
    card = json.loads((submitted.folder / "submission.json").read_text())
    return next(file["size"] for file in card["files"] if file["name"] == path.name)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (raise_robust, "depths.2.rollup.robust.count"),
        (set_("depths", 2, "rollup", "relative", to=0.99), "depths.2.rollup.relative: 0.99, and the verdicts give"),
        (set_("mistakes", 0, "ahd", to=0.01), "mistakes.0.ahd: 0.01"),
        (set_("counts", "attacked", to=3), "counts.attacked: 3"),
        (set_("hca_direct", to=None), "hca_direct"),
        (set_("transfer", to=[]), "transfer: 0 entries"),
        (set_("checks", "max_linf", to=0.01), "checks.max_linf"),
        (set_("calibration_error_clean", to=0.001), "calibration_error_clean: 0.001, and the verdicts give"),
        (set_("calibration_error_attacked", to=0.001), "calibration_error_attacked: 0.001, and the verdicts give"),
        (set_("rank_preservation", to=0.5), "rank_preservation: 0.5, and the verdicts give None"),
        (set_("seen", to=None), "seen"),
        (set_("checks", "zero_gradient_share", to=0.5), "zero_gradient_share: 50.0% of the image gradients"),
    ],
)
def test_an_edited_number_is_refused_though_it_was_signed(
    submitted: Submitted, capsys: pytest.CaptureFixture[str], change: Callable[[dict], None], reason: str
) -> None:
    path = forge_record(submitted.folder, change)
    refused(submitted.verify(capsys), UNTRUSTED, path.name, reason)


def make_right(place: int, prefix: str = "attack_d3_") -> Callable[[dict[str, list]], None]:
    """Turn the ``place``-th broken sample of the attack into one that is right."""

    def change(columns: dict[str, list]) -> None:
        broken = [
            i for i, b in enumerate(columns[f"{prefix}broken_rollup_d3"]) if b and columns["attack_d3_searched"][i]
        ]
        row = broken[place]
        for depth in (1, 2, 3):
            for scoring in ("rollup", "direct"):
                columns[f"{prefix}broken_{scoring}_d{depth}"][row] = False
        columns[f"{prefix}prediction"][row] = columns["label"][row]

    return change


def test_an_edited_verdict_is_refused_by_its_hash(submitted: Submitted, capsys: pytest.CaptureFixture[str]) -> None:
    path = record_of(submitted.folder)
    before = path.read_text()
    forge_verdicts(submitted.folder, make_right(0), figures=False)
    path.write_text(before)
    sign(submitted.folder)
    refused(submitted.verify(capsys), UNTRUSTED, f"{path.stem}.parquet", "verdicts.sha256 differs")


def test_an_edited_verdict_contradicts_the_figures(submitted: Submitted, capsys: pytest.CaptureFixture[str]) -> None:
    path = forge_verdicts(submitted.folder, make_right(0), figures=False)
    refused(submitted.verify(capsys), UNTRUSTED, path.name, "depths.1.rollup.worst.count")


def test_an_edited_verdict_contradicts_the_stored_image(
    submitted: Submitted, capsys: pytest.CaptureFixture[str]
) -> None:
    """Every hash and every figure was made to fit; the image that broke the model is still there."""
    path = forge_verdicts(submitted.folder, make_right(0))
    said = submitted.verify(capsys)
    refused(said, UNTRUSTED, images_of(path).name, "1 stored images break the model where")
    assert said[1].count("refused: ") == said[1].count("1 stored images break"), "the figures were to fit"


def test_an_edited_verdict_contradicts_its_prediction(submitted: Submitted, capsys: pytest.CaptureFixture[str]) -> None:
    def change(columns: dict[str, list]) -> None:
        row = columns["clean_broken_rollup_d3"].index(False)
        columns["clean_broken_rollup_d3"][row] = True

    path = forge_verdicts(submitted.folder, change)
    refused(
        submitted.verify(capsys), UNTRUSTED, f"{path.stem}.parquet", "clean_broken_rollup: not what clean_prediction"
    )


def test_an_edited_clean_verdict_contradicts_the_weights(
    submitted: Submitted, capsys: pytest.CaptureFixture[str]
) -> None:
    """A sample whose image was not packed: only the weights know."""

    def change(columns: dict[str, list]) -> None:
        row = columns["clean_broken_direct_d1"].index(False, 16)
        columns["clean_broken_direct_d1"][row] = True

    path = forge_verdicts(submitted.folder, change)
    assert submitted.verify(capsys)[0] == 0
    said = submitted.verify(capsys, "--weights", str(submitted.weights))
    refused(said, UNTRUSTED, f"{path.stem}.parquet", "clean_prediction: the weights give other verdicts on 1 of")


def test_robust_above_clean_is_refused(submitted: Submitted, capsys: pytest.CaptureFixture[str]) -> None:
    def change(record: dict) -> None:
        scores = record["depths"][2]["rollup"]
        scores["robust"] = scores["worst"] = proportion(np.ones(24, dtype=bool)).model_dump(mode="json")
        scores["clean"] = proportion(np.arange(24) < 23).model_dump(mode="json")

    path = forge_record(submitted.folder, change)
    refused(
        submitted.verify(capsys), UNTRUSTED, path.name, "impossible: rollup, depth 3: worst case 1.0000 is above clean"
    )


def test_right_below_a_depth_where_it_is_wrong_is_refused(
    submitted: Submitted, capsys: pytest.CaptureFixture[str]
) -> None:
    def change(columns: dict[str, list]) -> None:
        row = columns["attack_d3_broken_rollup_d3"].index(False)
        columns["attack_d3_broken_rollup_d1"][row] = True

    path = forge_verdicts(submitted.folder, change)
    said = submitted.verify(capsys)
    refused(said, UNTRUSTED, f"{path.stem}.parquet", "is broken at depth 1 and right at depth 2, below it")


def test_an_attack_of_fewer_steps_is_refused(submitted: Submitted, capsys: pytest.CaptureFixture[str]) -> None:
    path = forge_record(submitted.folder, set_("identity", "attack", "parameters", "steps", to=1))
    refused(submitted.verify(capsys), UNTRUSTED, path.name, "identity.attack.parameters.steps: 1, and")


def test_a_search_in_coarser_arithmetic_is_refused(submitted: Submitted, capsys: pytest.CaptureFixture[str]) -> None:
    path = forge_record(submitted.folder, set_("identity", "attack", "parameters", "search_precision", to="bf16"))
    refused(submitted.verify(capsys), UNTRUSTED, path.name, "search_precision: fp32 -> bf16")


def test_a_headline_attack_that_is_weaker_than_another_is_refused(
    submitted: Submitted, capsys: pytest.CaptureFixture[str]
) -> None:
    def all_right(columns: dict[str, list]) -> None:
        for name in list(columns):
            if name.startswith("attack_d3_broken_"):
                columns[name] = list(columns[name.replace("attack_d3_", "clean_")])
        columns["attack_d3_prediction"] = list(columns["clean_prediction"])

    path = forge_verdicts(submitted.folder, all_right, "multilevel_apgd")
    said = submitted.verify(capsys)
    refused(said, UNTRUSTED, path.name, "multilevel_apgd leaves")


# -- weights ---------------------------------------------------------------------------------------------------------


def test_swapped_weights_are_refused(submitted: Submitted, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    other = toy.make_model(tmp_path / "other", by=0.05)
    said = submitted.verify(capsys, "--weights", str(other))
    refused(said, UNTRUSTED, "submission.json", "weights.weights_hash: sha256:")


def test_weights_that_only_the_card_has_are_refused(submitted: Submitted, capsys: pytest.CaptureFixture[str]) -> None:
    wrong = "sha256:" + "ab" * 32
    edit_json(submitted.folder / "submission.json", set_("weights", "weights_hash", to=wrong))
    path = record_of(submitted.folder)
    refused(submitted.verify(capsys), UNTRUSTED, path.name, "identity.model.weights_hash: 'sha256:")


def test_weights_renamed_everywhere_are_refused_by_the_weights(
    submitted: Submitted, capsys: pytest.CaptureFixture[str]
) -> None:
    wrong = "sha256:" + "ab" * 32
    for attack in toy.ATTACKS:
        forge_record(submitted.folder, set_("identity", "model", "weights_hash", to=wrong), attack)
    edit_json(submitted.folder / "submission.json", set_("weights", "weights_hash", to=wrong))
    said = submitted.verify(capsys, "--weights", str(submitted.weights))
    refused(said, UNTRUSTED, "submission.json", "and the weights given are")


class Harm:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, ("harmed",)


@pytest.mark.parametrize("name", ["delta.safetensors", "weights.pt", "model.bin"])
def test_a_pickle_inside_a_checkpoint_is_refused(
    submitted: Submitted,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
) -> None:
    weights = tmp_path / "weights"
    shutil.copytree(submitted.weights, weights)
    (weights / name).write_bytes(pickle.dumps(Harm()))
    monkeypatch.chdir(tmp_path)
    said = submitted.verify(capsys, "--weights", str(weights))
    refused(said, BAD_INPUT, name, "a pickle or an archive, which could run code")
    assert not Path("harmed").exists()


# -- images ----------------------------------------------------------------------------------------------------------


def test_an_image_outside_the_ball_is_refused(submitted: Submitted, capsys: pytest.CaptureFixture[str]) -> None:
    path = images_of(record_of(submitted.folder))
    rewrite(path, tensors=lambda t: t["d3.delta"].__setitem__((0, 0, 0, 0), 33))
    sign(submitted.folder)
    refused(submitted.verify(capsys), UNTRUSTED, path.name, "d3.delta: sample 'digits/")


def test_an_image_outside_the_box_is_refused(submitted: Submitted, capsys: pytest.CaptureFixture[str]) -> None:
    """Inside the ball, and darker than black: the clean images are needed to see it."""
    path = images_of(record_of(submitted.folder))

    def darken(tensors: dict[str, np.ndarray]) -> None:
        moved = np.flatnonzero((tensors["d3.delta"] != 0).any(axis=(1, 2, 3)))[0]
        tensors["d3.delta"][moved, 0, 0, 0] = -32  # the corner of a digit is black

    rewrite(path, tensors=darken)
    sign(submitted.folder)
    refused(submitted.verify(capsys), UNTRUSTED, path.name, "has pixels outside [0, 1]")


def test_images_of_another_sample_are_refused_by_their_pixels(
    submitted: Submitted, capsys: pytest.CaptureFixture[str]
) -> None:
    path = images_of(record_of(submitted.folder))
    rewrite(path, tensors=lambda t: t["clean.digest"].__setitem__([0, 1], t["clean.digest"][[1, 0]]))
    sign(submitted.folder)
    refused(submitted.verify(capsys), UNTRUSTED, path.name, "clean.digest: sample 'digits/")


def test_the_image_of_another_sample_is_refused_by_the_weights(
    submitted: Submitted, capsys: pytest.CaptureFixture[str]
) -> None:
    path = images_of(record_of(submitted.folder, "superclass_pgd"))

    def still(tensors: dict[str, np.ndarray]) -> None:
        tensors["d3.delta"][:] = 0  # the clean images, sold as attacked ones

    rewrite(path, tensors=still)
    sign(submitted.folder)
    said = submitted.verify(capsys, "--weights", str(submitted.weights))
    refused(said, UNTRUSTED, path.name, "d3.predicted: the weights give other verdicts on")


def test_a_missing_sample_of_images_is_refused(submitted: Submitted, capsys: pytest.CaptureFixture[str]) -> None:
    path = images_of(record_of(submitted.folder))
    path.unlink()
    sign(submitted.folder)
    refused(submitted.verify(capsys), BAD_INPUT, path.name, "is missing: every attack on images stores a sample")


# -- samples, data, trees --------------------------------------------------------------------------------------------


def drop_last(columns: dict[str, list]) -> None:
    for values in columns.values():
        values.pop()


def test_a_missing_sample_is_refused(submitted: Submitted, capsys: pytest.CaptureFixture[str]) -> None:
    path = forge_verdicts(submitted.folder, drop_last)
    said = submitted.verify(capsys)
    refused(said, UNTRUSTED, f"{path.stem}.parquet", "sample_id, label: not the list of the record")


def test_a_shorter_list_of_ones_own_is_refused(submitted: Submitted, capsys: pytest.CaptureFixture[str]) -> None:
    from hierbench.datasets.sampling import list_hash

    path = forge_verdicts(submitted.folder, drop_last)
    verdicts = read_verdicts(path.with_suffix(".parquet"))
    listed = list_hash(verdicts.sample_ids, verdicts.labels)
    forge_record(submitted.folder, set_("identity", "dataset", "sample_list_hash", to=listed))
    said = submitted.verify(capsys)
    refused(said, UNTRUSTED, path.name, "identity.dataset.sample_list_hash: not the sample list of digits")


def test_a_repeated_sample_is_refused(submitted: Submitted, capsys: pytest.CaptureFixture[str]) -> None:
    path = forge_verdicts(submitted.folder, lambda c: c["sample_id"].__setitem__(1, c["sample_id"][0]))
    refused(submitted.verify(capsys), BAD_INPUT, f"{path.stem}.parquet", "occurs twice")


def test_another_dataset_revision_is_refused(submitted: Submitted, capsys: pytest.CaptureFixture[str]) -> None:
    path = forge_record(submitted.folder, set_("identity", "dataset", "revision", to="sklearn:sha256:" + "0" * 64))
    said = submitted.verify(capsys)
    refused(said, UNTRUSTED, path.name, "identity.dataset.revision: 'sklearn:sha256:0000")


def test_another_tree_is_refused(submitted: Submitted, capsys: pytest.CaptureFixture[str]) -> None:
    path = forge_record(submitted.folder, set_("identity", "hierarchy", "hash", to="sha256:" + "0" * 64))
    refused(
        submitted.verify(capsys), UNTRUSTED, path.name, "identity.hierarchy.hash: the tree strokes of digits is another"
    )


def test_another_protocol_is_refused(submitted: Submitted, capsys: pytest.CaptureFixture[str]) -> None:
    path = forge_record(submitted.folder, set_("identity", "protocol", "hash", to="sha256:" + "0" * 64))
    refused(submitted.verify(capsys), UNTRUSTED, path.name, "identity.protocol.hash: toyboard-v1 says something else")


def test_nan_in_a_record_is_refused(submitted: Submitted, capsys: pytest.CaptureFixture[str]) -> None:
    path = record_of(submitted.folder)
    edit_json(path, set_("cost", "seconds", to=float("nan")))
    sign(submitted.folder)
    refused(submitted.verify(capsys), BAD_INPUT, path.name, "cost.seconds")


def test_nan_in_verdicts_is_refused(submitted: Submitted, capsys: pytest.CaptureFixture[str]) -> None:
    path = forge_verdicts(submitted.folder, lambda c: c["attack_d3_linf"].__setitem__(0, float("nan")), figures=False)
    refused(submitted.verify(capsys), BAD_INPUT, f"{path.stem}.parquet", "attack_d3_linf: holds NaN")


@pytest.mark.parametrize("name", ["clean_confidence", "attack_d3_severity_confidence"])
def test_a_confidence_that_is_none_is_refused(
    submitted: Submitted, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = forge_verdicts(submitted.folder, lambda c: c[name].__setitem__(0, 1.5), figures=False)
    refused(submitted.verify(capsys), BAD_INPUT, f"{path.stem}.parquet", f"{name}: not ")


# -- files -----------------------------------------------------------------------------------------------------------


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


# -- words -----------------------------------------------------------------------------------------------------------


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


# -- the board -------------------------------------------------------------------------------------------------------


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
