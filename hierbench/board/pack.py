"""Packages: a folder with a card and the files that it names, written whole or not at all."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

from hierbench.board.card import (
    ATTACK_FILE,
    CARD_FILE,
    MAX_FILE_BYTES,
    MAX_FILES,
    AttackCard,
    Card,
    PackedFile,
)
from hierbench.errors import HierbenchError, InputError
from hierbench.evaluation.storage import UNFINISHED, digest_file, make_folder

MakeCard = Callable[[tuple[PackedFile, ...]], Card | AttackCard]


def pack(folder: Path, fill: Callable[[Path], None], make_card: MakeCard) -> Card | AttackCard:
    """Let ``fill`` put files into a new folder, add the card over them, and put the folder in its place.

    A package that is there already is replaced; any other folder is an ``InputError``. After an error nothing has
    changed.
    """
    if folder.exists() and not any((folder / name).is_file() for name in (CARD_FILE, ATTACK_FILE)):
        raise InputError(f"--out: {folder} exists and is no package; name another folder")
    make_folder(folder.parent)
    waiting = folder.with_name(f".{folder.name}{UNFINISHED}")
    shutil.rmtree(waiting, ignore_errors=True)
    try:
        waiting.mkdir()
        fill(waiting)
        card = make_card(packed_files(waiting))
        write_card(waiting, card)
        old = folder.with_name(f".{folder.name}.replaced")
        shutil.rmtree(old, ignore_errors=True)
        if folder.exists():
            folder.rename(old)
        waiting.rename(folder)
        shutil.rmtree(old, ignore_errors=True)
    except OSError as error:
        raise HierbenchError(f"cannot write {folder}: {error.strerror or error}") from error
    finally:
        shutil.rmtree(waiting, ignore_errors=True)
    return card


def packed_files(folder: Path) -> tuple[PackedFile, ...]:
    """Return a folder's files as a card lists them; too many, or one too large, is an ``InputError``."""
    paths: Sequence[Path] = sorted(p for p in folder.iterdir() if p.name not in (CARD_FILE, ATTACK_FILE))
    if len(paths) > MAX_FILES:
        raise InputError(f"{len(paths)} files; a package has at most {MAX_FILES}: leave cells out with --attack")
    for path in paths:
        if path.stat().st_size > MAX_FILE_BYTES:
            raise InputError(f"{path.name}: larger than {MAX_FILE_BYTES} bytes; pack fewer images with --samples")
    return tuple(PackedFile(name=p.name, sha256=digest_file(p), size=p.stat().st_size) for p in paths)


def write_card(folder: Path, card: Card | AttackCard) -> None:
    """Write a package's card into its folder."""
    name = CARD_FILE if isinstance(card, Card) else ATTACK_FILE
    text = json.dumps(card.model_dump(mode="json"), indent=1, ensure_ascii=False, allow_nan=False)
    (folder / name).write_text(text + "\n", encoding="utf-8")
