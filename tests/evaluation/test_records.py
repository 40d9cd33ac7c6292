from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from jsonschema import Draft202012Validator
from pydantic import ValidationError

from evaluation.toy_cell import toy_cell
from hierbench.errors import InputError
from hierbench.evaluation.records import Proportion, Record, record_schema
from hierbench.evaluation.runner import run_cell
from hierbench.evaluation.stored import read_record
from hierbench.paths import data_dir


@pytest.fixture(scope="module")
def record(tmp_path_factory: pytest.TempPathFactory) -> Record:
    return run_cell(toy_cell(tmp_path_factory.mktemp("out")))


def content(record: Record) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads(record.to_json())
    return loaded


def test_a_record_reads_back_equal_and_fits_the_published_schema(record: Record) -> None:
    again = Record.model_validate_json(record.to_json())
    assert again == record
    published = json.loads((data_dir() / "leaderboard" / "record-schema-v1.json").read_text(encoding="utf-8"))
    Draft202012Validator(published).validate(content(record))


def test_the_published_schema_is_that_of_the_code() -> None:
    """The schema is frozen: a change must be seen, and needs a new version unless it only adds nullables."""
    published = json.loads((data_dir() / "leaderboard" / "record-schema-v1.json").read_text(encoding="utf-8"))
    assert published == json.loads(json.dumps(record_schema()))


def test_every_field_that_measures_is_documented_or_named(record: Record) -> None:
    for name, part in record_schema()["$defs"].items():
        assert part.get("description"), f"{name} has no description"


def change(data: dict[str, Any], path: str, value: Any) -> dict[str, Any]:
    *parents, last = path.split(".")
    at: Any = data
    for key in parents:
        at = at[int(key)] if key.isdigit() else at[key]
    at[last] = value
    return data


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("depths.0.rollup.clean.value", float("nan")),
        ("cost.seconds", float("inf")),
        ("cost.seconds", "1.5"),
        ("counts.scored", "40"),
        ("counts.scored", 40.0),
        ("depths.0.rollup.clean.value", 97.5),
        ("depths.0.rollup.clean.count", 41),
        ("depths.0.rollup.clean.high", 0.1),
        ("depths.0.nodes", 3),
        ("depths.0.depth", 2),
        ("schema_version", 2),
        ("verdicts.file", "../outside.parquet"),
        ("identity.model.weights_hash", "sha256:short"),
        ("identity.attack.eps", "four"),
        ("identity.protocol.custom", True),
        ("checks.flags", [{"code": "Bad Code", "level": "failed", "message": "x"}]),
        ("mistakes.0.attack_depth", 1),
        ("surprise", 1),
    ],
)
def test_what_cannot_be_is_refused(record: Record, path: str, value: Any) -> None:
    with pytest.raises(ValidationError):
        Record.model_validate_json(json.dumps(change(content(record), path, value)))


def test_a_proportion_must_be_its_counts() -> None:
    with pytest.raises(ValidationError, match="is not 1/4"):
        Proportion(count=1, of=4, value=0.5, low=0.1, high=0.9)


def test_an_edited_record_is_refused_by_file_and_field(record: Record, tmp_path: Path) -> None:
    path = tmp_path / "cell.json"
    path.write_text(json.dumps(change(content(record), "cost.seconds", "fast")), encoding="utf-8")
    with pytest.raises(InputError, match=r"cell\.json: cost\.seconds: "):
        read_record(path)
    path.write_bytes(b'{"schema_version": 1, "created')
    with pytest.raises(InputError, match=r"cell\.json"):
        read_record(path)
    with pytest.raises(InputError, match="No such file"):
        read_record(tmp_path / "none.json")


def test_figures_are_fractions_of_the_counts(record: Record) -> None:
    for entry in record.depths:
        for scores in (entry.rollup, entry.direct):
            assert scores is not None
            assert scores.clean.of == record.counts.scored
            assert scores.clean.value == scores.clean.count / scores.clean.of
            assert scores.robust is not None and scores.success is not None
            assert scores.success.count == scores.clean.count - scores.robust.count
    assert np.isclose(record.depths[0].direct_minus_rollup or 0, record.depths[0].direct.clean.value - 1.0)  # type: ignore[union-attr]
