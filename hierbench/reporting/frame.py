"""The long form of a table as a pandas frame, for notebooks."""

from __future__ import annotations

from collections.abc import Sequence
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas

    from hierbench.reporting.build import LayoutName
    from hierbench.reporting.table import Report


def table_frame(
    layout: LayoutName = "depths",
    records: str | PathLike[str] | Sequence[str | PathLike[str]] = "hierbench-results",
    **options: Any,
) -> pandas.DataFrame:
    """Return a layout of some records as a frame: one line a figure's place, shares as fractions in [0, 1].

    ``records``: a folder, or several. ``options`` are those of ``hierbench table``: ``protocol``, ``model``,
    ``dataset``, ``tree``, ``attack``, ``scoring``, ``template``, ``eps`` (wildcards but for the last), ``depth``,
    ``aimed``, ``classes``, ``baseline``, ``reported``.
    What was not measured is NaN. Raises ``InputError`` where records cannot be compared.

    >>> frame = table_frame("methods-depths", "leaderboard/records", protocol="digits-v1")  # doctest: +SKIP
    >>> frame.pivot_table(index="model", columns="depth", values="robust")  # doctest: +SKIP
    """
    from dataclasses import fields

    from hierbench.reporting.build import make_report
    from hierbench.reporting.collect import Selection

    names = {field.name for field in fields(Selection)}
    selection = Selection(**{name: value for name, value in options.items() if name in names})
    rest = {name: value for name, value in options.items() if name not in names}
    if rest.get("classes", "all") is None:
        del rest["classes"]
    if rest.get("depth") is not None:
        rest["depth"] = str(rest["depth"])
    folders = [records] if isinstance(records, str | PathLike) else records
    return to_frame(make_report(layout, [Path(folder) for folder in folders], selection, flat=True, **rest))


def to_frame(report: Report) -> pandas.DataFrame:
    """Return a report's long form as a frame; a number that was not measured is NaN."""
    import pandas

    return pandas.DataFrame(list(report.rows))
