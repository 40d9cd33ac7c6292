"""Packages with other samples, data or trees than the protocol's are refused."""

from __future__ import annotations

import pytest

from board.conftest import Submitted
from board.forge import forge_record, forge_verdicts, record_of
from board.tampering import BAD_INPUT, UNTRUSTED, refused, set_
from board.toy import edit_json, sign
from hierbench.evaluation.verdicts import read_verdicts


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
