"""Where the project's own data, the user's data sets and the cache are."""

from __future__ import annotations

import os
from pathlib import Path

from hierbench.errors import HierbenchError, InputError


def data_dir() -> Path:
    """Return the folder that holds ``hierarchies/``, ``leaderboard/`` and ``weights/``.

    In a wheel it is ``hierbench/_data``; in a checkout or an editable install, the checkout's root.
    """
    package = Path(__file__).resolve().parent
    for candidate in (package / "_data", package.parent):
        if (candidate / "hierarchies").is_dir():
            return candidate
    raise HierbenchError(f"the class trees are missing beside {package}: reinstall hierbench")


def data_root(given: str | os.PathLike[str] | None = None) -> Path | None:
    """Return the folder of the user's data sets: ``--data-root``, else ``HIERBENCH_DATA_ROOT``, else None.

    Raises ``InputError`` if the named folder does not exist.
    """
    source = "--data-root" if given is not None else "HIERBENCH_DATA_ROOT"
    value = given if given is not None else os.environ.get("HIERBENCH_DATA_ROOT")
    if not value:
        return None
    path = Path(value).expanduser()
    if not path.is_dir():
        raise InputError(f"{source}: {path} is not a folder; it should hold <dataset>/<split>-*.parquet")
    return path


def cache_dir() -> Path:
    """Return the cache folder (``HIERBENCH_CACHE``, else the platform's), made if missing."""
    value = os.environ.get("HIERBENCH_CACHE")
    if value:
        path = Path(value).expanduser()
    else:
        import platformdirs

        path = Path(platformdirs.user_cache_dir("hierbench", appauthor=False))
    path.mkdir(parents=True, exist_ok=True)
    return path
