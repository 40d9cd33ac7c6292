"""Figures that papers report: another's numbers under another's protocol, never beside measured ones."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from hierbench.reporting.reported import FILE, Reported, read_reported
from hierbench.reporting.site.names import short_hash


@dataclass(frozen=True)
class ReportedGroup:
    """The figures of one paper's protocol."""

    protocol: str
    rows: tuple[Reported, ...]

    @property
    def id(self) -> str:
        """Short name of the group."""
        return short_hash("reported", self.protocol)

    @property
    def sources(self) -> tuple[str, ...]:
        """Where the figures come from."""
        return tuple(dict.fromkeys(row.source for row in self.rows))


def reported_groups(folder: Path) -> tuple[ReportedGroup, ...]:
    """Read the board's ``reported_results.csv``, by protocol in the order of the file; none without the file."""
    path = folder / FILE
    groups: dict[str, list[Reported]] = {}
    for row in read_reported(path) if path.is_file() else ():
        groups.setdefault(row.protocol, []).append(row)
    return tuple(ReportedGroup(protocol, tuple(found)) for protocol, found in groups.items())
