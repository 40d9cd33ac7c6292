"""Which samples a record may stand on: the protocol's list, or a shorter one that the protocol allows beside it."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from board import toy
from board.conftest import Submitted
from board.forge import forge_record, forge_verdicts
from board.tampering import UNTRUSTED, refused, set_
from hierbench.board.verify import grounds
from hierbench.datasets.sampling import list_hash
from hierbench.evaluation.protocol import PROTOCOLS
from hierbench.evaluation.records import Record
from hierbench.evaluation.stored import read_record
from hierbench.evaluation.verdicts import read_verdicts

RECORDS = Path(__file__).parents[2] / "leaderboard" / "records" / "tiny-v1" / "tecoa.tiny"


def of(attack: str) -> Record:
    (path,) = RECORDS.glob(f"cifar100.deep.{attack}.rollup.linf-4_255.*.json")
    return read_record(path)


def test_lists_of_several_lengths_are_known_side_by_side() -> None:
    whole, shorter = of("multilevel_apgd"), of("square")
    assert (grounds.shorter_list(whole), grounds.shorter_list(shorter)) == (None, 200)
    known = {grounds.key_of(record): record for record in (whole, shorter)}
    for record in (whole, shorter):
        found = grounds.expected_samples(record, known, None)
        assert found is not None and found.list_hash == record.identity.dataset.sample_list_hash
        assert found.source == "the project's own records"


@pytest.mark.data
def test_a_list_that_no_record_has_is_taken_from_the_data() -> None:
    shorter = of("square")
    found = grounds.expected_samples(shorter, {}, None)
    assert found is not None and found.source == "the data at hand"
    assert found.list_hash == shorter.identity.dataset.sample_list_hash


def shortened(submitted: Submitted, count: int) -> Path:
    """Cut the submission's first record down to ``count`` samples, all of it consistent but the figures."""

    def cut(columns: dict[str, list]) -> None:
        for values in columns.values():
            del values[count:]

    path = forge_verdicts(submitted.folder, cut)
    verdicts = read_verdicts(path.with_suffix(".parquet"))
    listed = list_hash(verdicts.sample_ids, verdicts.labels)
    return forge_record(submitted.folder, set_("identity", "dataset", "sample_list_hash", to=listed))


def test_what_a_protocol_requires_is_required_on_its_whole_list(
    submitted: Submitted, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A shorter list that is allowed is no fault of the record, and no required cell either."""
    path = shortened(submitted, 16)
    refused(submitted.verify(capsys), UNTRUSTED, path.name, "sample_list_hash: not the sample list of digits")
    protocol = PROTOCOLS.get(toy.NAME)
    datasets = tuple(dataclasses.replace(entry, limits=(16,)) for entry in protocol.datasets)
    monkeypatch.setitem(PROTOCOLS._entries, toy.NAME, dataclasses.replace(protocol, datasets=datasets))
    code, said = submitted.verify(capsys)
    assert "sample_list_hash" not in said
    assert code != 0 and "is neither there nor said to be left out" in said
