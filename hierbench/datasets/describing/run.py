"""``hierbench describe``: asks an endpoint about every class, keeps what is good, and writes the file when it is whole.

SAFT (arXiv 2602.12461) has its descriptions written by such models; METHODS.md 5.6.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from datetime import UTC, datetime
from fnmatch import fnmatchcase
from pathlib import Path

from hierbench.datasets.catalogue import get_spec
from hierbench.datasets.describing.answers import Kept
from hierbench.datasets.describing.asking import Asking, Report
from hierbench.datasets.describing.endpoint import Endpoint, find_base_url, find_key, require_library
from hierbench.datasets.describing.journal import Journal, locked, writing
from hierbench.datasets.describing.loops import run_to_the_end
from hierbench.datasets.describing.pictures import ClassPictures, Picture, enlargement
from hierbench.datasets.describing.prompt import PROMPT_VERSION, Sofar, question_text, shown_messages
from hierbench.datasets.descriptions import (
    MAX_CLASSES,
    MAX_SENTENCES,
    Descriptions,
    descriptions_from_content,
    write_descriptions,
)
from hierbench.datasets.spec import DatasetSpec
from hierbench.errors import InputError
from hierbench.hierarchy.errors import one_line, shown

MAX_IMAGES = 64
MAX_CONCURRENCY = 64


@dataclass(frozen=True, kw_only=True)
class DescribeRequest:
    """What to ask about which data set, and whom; the fields are the options of ``hierbench describe``."""

    dataset: str
    model: str
    out: Path | None = None
    """The file; ``./<dataset>.descriptions.json`` if None."""
    base_url: str | None = None
    count: int = 8
    images: int = 0
    split: str = "train"
    data_root: Path | None = None
    classes: tuple[str, ...] = ()
    """Ids or names, or wildcards; all classes if empty."""
    concurrency: int = 4
    seed: int | None = None
    temperature: float | None = None
    language: str = "en"
    licence: str = "not stated"
    again: int = 3
    timeout: float = 300.0
    resume: bool = True


@dataclass(frozen=True)
class Outcome:
    """What a run ended with: the file, or None while classes that were not asked about are missing."""

    file: Path | None
    complete: int
    """Classes with all their sentences."""
    classes: int


class Describer:
    """A checked request: everything that can be wrong with it is said before the first question.

    Raises ``InputError`` naming the option.
    """

    def __init__(self, request: DescribeRequest) -> None:
        _check_numbers(request)
        self.request = request
        self.spec = get_spec(request.dataset)
        self.dataset = self.spec.tree_dataset
        self.out = request.out or Path(f"{self.dataset}.descriptions.json")
        if self.out.exists():
            raise InputError(f"--out: {self.out} is there already; name another file, or move it away")
        self.endpoint = Endpoint(
            find_base_url(request.base_url),
            request.model,
            temperature=request.temperature,
            seed=request.seed,
            timeout=request.timeout,
        )
        self.labels = _matching(self.spec, request.classes)
        self._check_words()
        self.pictures: ClassPictures | None = None
        revision = None
        if request.images:
            from hierbench.datasets.load import load_images

            images = load_images(request.dataset, split=request.split, root=request.data_root)
            revision = images.revision
            self.pictures = ClassPictures(images, self.labels, request.images, seed=request.seed or 0)
        self.journal = Journal(self.out, self._asked(revision))
        self.kept = Kept(self.spec.class_ids, request.count)

    def preview(self) -> str:
        """Return the first question that a run would ask, and how many it would; nothing is asked or written."""
        request = self.request
        self._restore(self.journal.read() if request.resume else [])
        left = self.left()
        lines = [
            f"endpoint: {self.endpoint.host}, model {one_line(request.model)}, prompt {PROMPT_VERSION}",
            f"requests: {len(left)}, one a class; a class is asked about again, up to {_times(request.again)}, "
            "for what is refused",
        ]
        if request.images:
            lines.append(f"images: {self._about_images()}")
        if not left:
            return "\n".join(lines)
        class_id = self.spec.class_ids[left[0]]
        text, pictures = self.question(left[0], Sofar(self.kept.sentences[class_id]))
        return "\n".join([*lines, f"class {class_id!r}:", shown_messages(text, pictures)])

    def run(self, report: Report | None = None) -> Outcome:
        """Ask about every class that lacks sentences; write the file once no class of the data set does.

        Raises ``HierbenchError`` where the endpoint failed or a class did not get its sentences. However it ends,
        what was got is in the journal, and the same request goes on from there.
        """
        require_library()
        find_key()
        with locked(self.out):
            self._restore(self.journal.open(resume=self.request.resume))
            asked = Asking(self, report or (lambda *_: None))
            if self.left():
                run_to_the_end(asked.run)
            asked.raise_failures()
            complete = sum(not self.kept.missing(class_id) for class_id in self.spec.class_ids)
            if complete < len(self.spec.class_ids):
                return Outcome(None, complete, len(self.spec.class_ids))
            with writing(self.out):
                write_descriptions(self._descriptions(), self.out)
            self.journal.discard()
        return Outcome(self.out, complete, complete)

    def left(self) -> list[int]:
        """Return the labels that are asked about and lack sentences."""
        return [label for label in self.labels if self.kept.missing(self.spec.class_ids[label])]

    def question(self, label: int, sofar: Sofar) -> tuple[str, list[Picture]]:
        """Return the text that asks for what a class lacks, and the pictures that go with it."""
        wanted = self.kept.missing(self.spec.class_ids[label])
        pictures = self.pictures.of(label) if self.pictures is not None else []
        language = self.request.language
        text = question_text(self.spec, label, wanted=wanted, language=language, pictures=pictures, sofar=sofar)
        return text, pictures

    def _restore(self, answers: list[tuple[str, list[object]]]) -> None:
        for class_id, sentences in answers:
            if class_id not in self.kept.sentences:
                raise InputError(
                    f"{one_line(str(self.journal.path))}: {shown(class_id)} is no class of {self.dataset}; "
                    "begin anew with --no-resume"
                )
            self.kept.offer(class_id, sentences)

    def _asked(self, revision: str | None) -> dict[str, object]:
        request = self.request
        table = json.dumps([(c.id, c.name, c.noun) for c in self.spec.classes])
        return {
            "prompt": PROMPT_VERSION,
            "dataset": self.spec.name if request.images else self.spec.base_name,
            "class table": hashlib.sha256(table.encode()).hexdigest()[:16],
            "model": request.model,
            "endpoint": self.endpoint.host,
            "count": request.count,
            "language": request.language,
            "temperature": request.temperature,
            "seed": request.seed,
            "images": request.images,
            "split": request.split if request.images else None,
            "revision": revision,
        }

    def _about_images(self) -> str:
        height, width, _ = self.spec.grid
        factor = enlargement(height, width)
        enlarged = f", enlarged {factor} times (nearest neighbour)" if factor > 1 else ""
        request = self.request
        return f"{request.images} a class from {request.split} of {self.spec.name}, {height} x {width} pixels{enlarged}"

    def _source(self) -> str:
        request = self.request
        chosen = {"seed": request.seed, "temperature": request.temperature}
        given = [f"{name} {value}" for name, value in chosen.items() if value is not None]
        seen = f"class names and images ({self._about_images()})" if request.images else "class names only"
        date = datetime.now(UTC).date().isoformat()
        parts = [f"written by {request.model} at {self.endpoint.host} from {seen}", f"prompt {PROMPT_VERSION}", *given]
        return "; ".join([*parts, f"hierbench describe, {date}"])

    def _descriptions(self) -> Descriptions:
        return Descriptions(
            self.dataset,
            self.request.language,
            self._source(),
            self.request.licence,
            self.spec.class_ids,
            tuple(tuple(self.kept.sentences[class_id]) for class_id in self.spec.class_ids),
        )

    def _check_words(self) -> None:
        """Check now what the file will be checked for in the end, with a sentence for each class."""
        ids = self.spec.class_ids
        if len(ids) > MAX_CLASSES:
            raise InputError(f"--dataset: {self.spec.name} has {len(ids)} classes, a file holds at most {MAX_CLASSES}")
        words = (self.dataset, self.request.language, self._source(), self.request.licence)
        made = Descriptions(*words, ids, tuple((f"Sentence {number}.",) for number in range(len(ids))))
        descriptions_from_content(json.loads(made.text()), where="describe", dataset=self.dataset, class_ids=ids)


def _matching(spec: DatasetSpec, patterns: tuple[str, ...]) -> list[int]:
    """Return the labels whose id or name one of the patterns matches, in label order; all without patterns."""
    for pattern in patterns:
        if not any(fnmatchcase(word, pattern) for c in spec.classes for word in (c.id, c.name)):
            raise InputError(f"--classes: no class of {spec.name} has an id or a name like {shown(pattern)}")
    return [
        label
        for label, c in enumerate(spec.classes)
        if not patterns or any(fnmatchcase(word, pattern) for pattern in patterns for word in (c.id, c.name))
    ]


def _check_numbers(request: DescribeRequest) -> None:
    ranges: tuple[tuple[str, float, float, float], ...] = (
        ("--count", request.count, 1, MAX_SENTENCES),
        ("--images", request.images, 0, MAX_IMAGES),
        ("--concurrency", request.concurrency, 1, MAX_CONCURRENCY),
        ("--again", request.again, 0, 100),
        ("--seed", request.seed or 0, 0, 2**31 - 1),
        ("--temperature", request.temperature or 0, 0, 2),
        ("--timeout", request.timeout, 0.1, 3600),
    )
    for flag, value, low, high in ranges:
        if not low <= value <= high:
            raise InputError(f"{flag}: {value} is not from {low:g} to {high:.12g}")
    if not request.model.strip():
        raise InputError("--model: is empty; name a model of the endpoint")


def _times(count: int) -> str:
    return "once" if count == 1 else f"{count} times"
