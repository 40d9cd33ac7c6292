"""Which records may stand in one table."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from hierbench.errors import InputError
from hierbench.evaluation.records import Record

Field = tuple[str, Callable[[Record], object]]

PROTOCOL: tuple[Field, ...] = (("protocol", lambda r: (r.identity.protocol.name, r.identity.protocol.version)),)
MUST_AGREE: tuple[Field, ...] = (
    *PROTOCOL,
    ("dataset", lambda r: r.identity.dataset.name),
    ("split", lambda r: r.identity.dataset.split),
    ("pixel grid", lambda r: r.identity.dataset.grid),
    ("dataset revision", lambda r: r.identity.dataset.revision),
    ("sample list", lambda r: r.identity.dataset.sample_list_hash),
    ("prompt template", lambda r: r.identity.dataset.template),
    ("tree", lambda r: (r.identity.hierarchy.name, r.identity.hierarchy.hash)),
)
"""Everything that must be equal before two figures can be compared; attack, eps and scoring are named in each row."""
SAME_GROUND: tuple[Field, ...] = (
    *MUST_AGREE,
    ("threat model", lambda r: (r.identity.attack.norm, r.identity.attack.eps)),
)
"""What two models must share where rows do not name the radius; the same as ``board.ledger.Ground``, and the grid."""
ADVICE = "narrow them with --protocol, --dataset, --tree, --attack, --eps, --template or --model"


def differences(records: Sequence[Record], fields: Sequence[Field] = MUST_AGREE) -> list[str]:
    """Return what keeps records out of one table, each with the two first values that differ."""
    found = []
    for name, read in fields:
        values = list(dict.fromkeys(map(read, records)))
        if len(values) > 1:
            found.append(f"{name} ({_words(values[0])} and {_words(values[1])})")
    return found


def check_comparable(
    records: Sequence[Record], fields: Sequence[Field] = MUST_AGREE, *, share: str = "share a table"
) -> None:
    """Raise ``InputError`` saying what differs, unless the records may stand in one table."""
    found = differences(records, fields)
    if found:
        raise InputError(f"these {len(records)} records cannot {share}: they differ in {'; '.join(found)}; {ADVICE}")


def _words(value: object) -> str:
    if isinstance(value, tuple):
        return " ".join(map(_words, value))
    return re.sub(r"(sha256:[0-9a-f]{12})[0-9a-f]{52}", r"\1", " ".join(str(value).split()))
