"""Reading the results of earlier runs."""

from __future__ import annotations

import warnings
from pathlib import Path

from pydantic import ValidationError

from hierbench.errors import InputError
from hierbench.evaluation.records import Record
from hierbench.evaluation.storage import DamagedFileWarning, digest_file


def finished_record(path: Path) -> Record | None:
    """Return a finished cell's record, or None if there is none; one that is damaged warns and counts as none."""
    if not path.exists():
        return None
    try:
        record = read_record(path)
        verdicts = path.with_name(record.verdicts.file)
        if not verdicts.exists() or digest_file(verdicts) != record.verdicts.sha256:
            raise InputError(f"{path}: the verdicts beside it are missing or changed")
    except InputError as error:
        warnings.warn(f"{error}; the cell is evaluated again", DamagedFileWarning, stacklevel=2)
        return None
    return record


def record_paths(folder: Path) -> list[Path]:
    """Return the JSON files under a folder by name, without hidden ones and hidden folders, such as a sweep's."""
    return sorted(
        p for p in folder.rglob("*.json") if not any(part.startswith(".") for part in p.relative_to(folder).parts)
    )


def read_record(path: Path) -> Record:
    """Read and validate one record; anything wrong raises ``InputError`` naming the file and the field."""
    try:
        return Record.model_validate_json(path.read_bytes())
    except OSError as error:
        raise InputError(f"record {path}: {error.strerror or error}") from None
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"]) or "file"
        raise InputError(f"record {path}: {where}: {first['msg']}") from None
