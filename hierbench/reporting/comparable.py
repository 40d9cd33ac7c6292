"""Which records may stand in one table."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from hierbench.errors import InputError
from hierbench.evaluation.records import Record

MUST_AGREE: tuple[tuple[str, Callable[[Record], object]], ...] = (
    ("protocol", lambda r: (r.identity.protocol.name, r.identity.protocol.version)),
    ("dataset", lambda r: r.identity.dataset.name),
    ("split", lambda r: r.identity.dataset.split),
    ("pixel grid", lambda r: r.identity.dataset.grid),
    ("dataset revision", lambda r: r.identity.dataset.revision),
    ("sample list", lambda r: r.identity.dataset.sample_list_hash),
    ("prompt template", lambda r: r.identity.dataset.template),
    ("tree", lambda r: (r.identity.hierarchy.name, r.identity.hierarchy.hash)),
)
"""Everything that must be equal before two figures can be compared; attack, eps and scoring are named in each row."""


def differences(records: Sequence[Record]) -> list[str]:
    """Return what keeps records out of one table, each with the two first values that differ."""
    found = []
    for name, read in MUST_AGREE:
        values = list(dict.fromkeys(map(read, records)))
        if len(values) > 1:
            found.append(f"{name} ({_words(values[0])} and {_words(values[1])})")
    return found


def check_comparable(records: Sequence[Record]) -> None:
    """Raise ``InputError`` saying what differs, unless the records may stand in one table."""
    found = differences(records)
    if found:
        advice = "narrow them with --protocol, --dataset, --tree or --model"
        raise InputError(
            f"these {len(records)} records cannot share a table: they differ in {'; '.join(found)}; {advice}"
        )


def _words(value: object) -> str:
    if isinstance(value, tuple):
        return " ".join(map(_words, value))
    text = str(value)
    return text[:19] if text.startswith("sha256:") else text
