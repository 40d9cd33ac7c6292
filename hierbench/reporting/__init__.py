"""Tables, plots and progress displays made from records."""

from __future__ import annotations

from hierbench.reporting.frame import table_frame, to_frame

__all__ = ["table_frame", "to_frame"]
