"""Packages with other numbers or verdicts are refused, with the file and the reason; the untouched one verifies."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from board.conftest import Submitted
from board.forge import forge_record, forge_verdicts, images_of, record_of
from board.tampering import UNTRUSTED, refused, set_
from board.toy import edit_json, sign
from hierbench.evaluation.scores import proportion


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


def raise_robust(record: dict) -> None:
    scores = record["depths"][2]["rollup"]
    mask = np.arange(scores["robust"]["of"]) <= scores["robust"]["count"]
    scores["robust"] = proportion(mask).model_dump(mode="json")


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
