"""The site's folder: written beside its place, then moved there; a folder that is no site of ours is left alone."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from hierbench.errors import HierbenchError, InputError
from hierbench.evaluation.storage import digest_file

MANIFEST = "site.json"
FORMAT = "hierbench-site-1"


@contextmanager
def site_folder(out: Path) -> Iterator[Path]:
    """Yield an empty folder that becomes ``out`` if all goes well, and vanishes if anything fails.

    ``out`` may be missing, empty, or a site that was made here and holds nothing else: see ``check_replaceable``.
    ``OSError`` becomes a ``HierbenchError`` naming the folder.
    """
    check_replaceable(out)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{out.name}.", dir=out.parent) as temporary:
            made = Path(temporary) / "new"
            made.mkdir()
            yield made
            _write_manifest(made)
            check_replaceable(out)
            old = Path(temporary) / "old"
            if out.exists():
                out.rename(old)
            try:
                made.rename(out)
            except OSError:
                if old.exists():
                    old.rename(out)
                raise
    except OSError as error:
        raise HierbenchError(f"--out: cannot write {out} ({error.strerror or error}); name another folder") from error


def check_replaceable(out: Path) -> None:
    """Raise ``InputError`` unless ``out`` can become the site without losing anything that is not the site's."""
    if out.is_symlink():
        raise InputError(f"--out: {out} is a symbolic link; name the folder itself")
    if not out.exists():
        return
    if not out.is_dir():
        raise InputError(f"--out: {out} is a file; name a folder")
    present = set(_files_in(out))
    if not present and not any(out.iterdir()):
        return
    try:
        manifest = json.loads((out / MANIFEST).read_text(encoding="utf-8"))
        own = set(manifest["files"]) if manifest["format"] == FORMAT else None
    except (OSError, ValueError, KeyError, TypeError):
        own = None
    if own is None:
        raise InputError(f"--out: {out} is not empty and no site of hierbench's; name another folder")
    strange = sorted(present - own - {MANIFEST})
    if strange:
        raise InputError(
            f"--out: {out} also holds {strange[0]}, which is not the site's; move it or name another folder"
        )


def _write_manifest(folder: Path) -> None:
    files = {name: digest_file(folder / name) for name in sorted(_files_in(folder))}
    content = {"format": FORMAT, "files": files}
    (folder / MANIFEST).write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def _files_in(folder: Path) -> Iterator[str]:
    """Yield what lies in a folder, links and folders without files too, as paths with forward slashes."""
    for place, folders, names in os.walk(folder):
        here = Path(place)
        links = [name for name in folders if (here / name).is_symlink()]
        empty = [here] if here != folder and not folders and not names else []
        for path in (*(here / name for name in (*names, *links)), *empty):
            yield path.relative_to(folder).as_posix()


def copy_file(source: Path, target: Path) -> None:
    """Copy a file's bytes, never following a link out of the board."""
    if source.is_symlink() or not source.is_file():
        raise InputError(f"{source}: a board holds files only, no links and no folders in their place")
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)
