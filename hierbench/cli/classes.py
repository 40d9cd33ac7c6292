"""Which class table an outline is built with."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from hierbench.errors import InputError

if TYPE_CHECKING:
    from hierbench.hierarchy.class_table import LeafClass


def classes_for(outline: Path, table: Path | None) -> tuple[LeafClass, ...]:
    """Return the classes of ``table``, else those of the dataset that the outline's ``# dataset:`` line names."""
    from hierbench.datasets.catalogue import get_spec
    from hierbench.hierarchy.class_table import LeafClass, read_class_table

    if table is not None:
        return read_class_table(table)
    try:
        text = outline.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"--outline: cannot read {outline} ({getattr(error, 'strerror', None) or error})") from None
    named = re.search(r"^#\s*dataset\s*:\s*(\S+)\s*$", text, flags=re.MULTILINE)
    if named is None:
        raise InputError(f"{outline}: no line '# dataset: NAME', so its classes are unknown; give --classes")
    return tuple(LeafClass(c.id, c.name, c.noun, c.wordnet) for c in get_spec(named[1]).classes)
