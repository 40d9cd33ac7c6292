"""What was answered so far, beside the file to be: a line an answer, on disk before the next question is asked."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from hierbench.errors import HierbenchError, InputError
from hierbench.hierarchy.errors import one_line, shown
from hierbench.hierarchy.strict_json import parse_json, read_bytes
from hierbench.hierarchy.write import write_atomically
from hierbench.locking import sole_writer

FORMAT = 1
MAX_BYTES = 128 * 2**20

Question = Mapping[str, object]


class Journal:
    """The answers to one question; it is valid for that question only.

    Args:
        out: the descriptions file it is beside.
        question: what is asked, by field: the answers to another one are not mixed in.
    """

    def __init__(self, out: Path, question: Question) -> None:
        self.path = out.with_name(f"{out.name}.journal")
        self.question = dict(question)

    def read(self) -> list[tuple[str, list[object]]]:
        """Return class ids with sentences, unchecked, in the order they came; an unfinished last line is left out.

        A journal of another question, or one that is damaged, raises ``InputError``; one without an answer is none.
        """
        if not self.path.exists():
            return []
        where = one_line(str(self.path))
        lines = read_bytes(self.path, max_bytes=MAX_BYTES).split(b"\n")[:-1]
        if not lines:
            return []
        match parse_json(lines[0], where=f"{where}: line 1"):
            case {"format": int(version), "question": dict(found)} if version == FORMAT:
                if len(lines) > 1:
                    self._check(found, where)
            case _:
                raise InputError(f"{where}: is not a journal of descriptions; move it away, or name another --out")
        answers: list[tuple[str, list[object]]] = []
        for number, line in enumerate(lines[1:], start=2):
            match parse_json(line, where=f"{where}: line {number}"):
                case {"class": str(class_id), "sentences": list(sentences)}:
                    answers.append((class_id, sentences))
                case _:
                    raise InputError(f"{where}: line {number} is not an answer; begin anew with --no-resume")
        return answers

    def open(self, *, resume: bool) -> list[tuple[str, list[object]]]:
        """Make the journal ready for ``add`` and return what is in it; without ``resume`` it is emptied."""
        answers = self.read() if resume else []
        with writing(self.path):
            if answers:
                with self.path.open("rb+") as file:  # cut off a line that a kill left unfinished
                    file.truncate(file.read().rfind(b"\n") + 1)
            else:
                write_atomically(_line({"format": FORMAT, "question": self.question}), self.path)
        return answers

    def add(self, class_id: str, sentences: Sequence[str]) -> None:
        """Keep sentences of a class: they are on disk when this returns."""
        line = _line({"class": class_id, "sentences": list(sentences)})
        with writing(self.path), self.path.open("ab") as file:
            file.write(line.encode("utf-8"))
            file.flush()
            os.fsync(file.fileno())

    def discard(self) -> None:
        """Remove the journal; its file is written."""
        self.path.unlink(missing_ok=True)

    def _check(self, found: Question, where: str) -> None:
        for name in {**self.question, **found}:
            now, then = self.question.get(name), found.get(name)
            if now != then:
                raise InputError(
                    f"{where}: was begun with {name} {shown(then)}, and now it is {shown(now)}; ask as it was begun, "
                    "name another --out, or begin anew with --no-resume"
                )


def locked(out: Path) -> AbstractContextManager[None]:
    """Hold the lock beside ``out``; a second holder raises ``InputError`` at once."""
    return sole_writer(out.with_name(f".{out.name}.lock"), out, kind="file")


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn an error of the file system into one line that names the file."""
    try:
        yield
    except OSError as error:
        raise HierbenchError(f"--out: cannot write {one_line(str(path))} ({error.strerror or error})") from None


def _line(content: Mapping[str, object]) -> str:
    return json.dumps(content, ensure_ascii=False, allow_nan=False) + "\n"
