"""The file of a run's adversarial images: what is in it, how it is written, and what is checked before it is used."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from hierbench.attacks.threat import ThreatModel
from hierbench.datasets.sampling import list_hash
from hierbench.errors import InputError
from hierbench.evaluation.identity import Environment, Identity, Part
from hierbench.evaluation.replay.form import DIGEST_BYTES, FORMS, Deltas, Form, delta_type
from hierbench.evaluation.replay.keep import KeptVerdicts
from hierbench.evaluation.replay.tensors import (
    MAX_BYTES,
    Column,
    TensorFile,
    open_tensors,
    type_name,
    write_tensors,
)
from hierbench.evaluation.verdicts import Bools, CleanVerdicts, Columns, Ints

FORMAT = "hierbench-images-1"
SUFFIX = ".safetensors"
MAX_BATCH = 65536
Unit = Callable[[], KeptVerdicts]
"""Reads one chunk of a run from its journal."""

MAX_ID = 1000
WHAT = "images"


_UNKEPT = ("logits", "confidence")
"""Of the clean pass: what no verdict on an image follows from."""


class Heading(Part):
    """What the images are of, and where the verdicts beside them were made."""

    form: str
    identity: Identity
    environment: Environment
    limit: int | None
    """First n of the sample list; null is all of it."""
    verdicts_sha256: str
    """Hash of the run's own Parquet file of verdicts."""
    rows: int | None = None
    """The file is a sample: the first rows of its list alone; null is all of them."""


@dataclass(frozen=True)
class JudgedImages(Columns):
    """Verdicts on the images of one attacked depth as they are kept."""

    predicted: Ints
    """[n] predicted leaf; -1 where a logit was not finite."""
    broken_rollup: Bools
    """[n, D]."""
    broken_direct: Bools | None = None
    """[n, D]; None for a model without node prompts."""


@dataclass(frozen=True)
class StoredImages:
    """An opened file whose every field was checked against the others; the images are read when asked for."""

    tensors: TensorFile
    heading: Heading
    form: Form
    threat: ThreatModel
    ids: tuple[str, ...]
    labels: Ints
    digests: NDArray[np.uint8]
    clean: CleanVerdicts

    @property
    def path(self) -> Path:
        """The file."""
        return self.tensors.path

    @property
    def identity(self) -> Identity:
        """The cell the images are of."""
        return self.heading.identity

    @property
    def limit(self) -> int | None:
        """How much of the sample list to load to have exactly these images; None is all of it."""
        return self.heading.limit if self.heading.rows is None else self.heading.rows

    @property
    def checksum(self) -> str:
        """Hash of the file's content."""
        return f"sha256:{self.tensors.metadata['checksum']}"

    def deltas(self, depth: int, start: int, stop: int) -> Deltas:
        """Return the differences [stop - start, c, h, w] of the attack aimed at a depth."""
        return self.tensors.rows(f"d{depth}.delta", start, stop)

    def judged(self, depth: int) -> JudgedImages:
        """Return the verdicts on the images of the attack aimed at a depth."""
        return JudgedImages(**_verdict_columns(self.tensors, f"d{depth}."))

    def refuse(self, reason: str) -> NoReturn:
        """Raise an ``InputError`` that names the file."""
        _refuse(self.path, reason)


def images_path(folder: Path, cell: str, form: Form) -> Path:
    """Return the file of a cell's images, beside its record."""
    return folder / f"{cell}.images-{form}{SUFFIX}"


def check_size(count: int, grid: Sequence[int], depths: int, form: Form, threat: ThreatModel) -> None:
    """Refuse with an ``InputError`` to keep more images than a file may hold, before they are made."""
    size = count * int(np.prod(grid)) * depths * delta_type(form, threat).itemsize
    if size > MAX_BYTES:
        less = "use --limit or fewer --depth" + (", or 8bit" if form == "float" else "")
        raise InputError(f"--store-images: {size / 2**30:.1f} GiB is more than {MAX_BYTES // 2**30}: {less}")


def write_images(
    path: Path,
    heading: Heading,
    *,
    ids: Sequence[str],
    labels: Ints,
    clean: CleanVerdicts,
    units: Mapping[int, Sequence[Unit]],
) -> None:
    """Write the images of a finished cell, whole or not at all.

    ``units`` gives for each attacked depth the run's chunks in order, each a call that reads it from the journal, so
    that one chunk is in memory at a time.
    """
    form: Form = "float" if heading.form == "float" else "8bit"
    count = len(ids)
    height, width, channels = heading.identity.dataset.grid
    threat = _threat(heading.identity)
    listed = np.frombuffer(json.dumps(list(ids)).encode(), dtype=np.uint8)
    first = next(iter(units.values()))
    digests = Column("clean.digest", np.dtype(np.uint8), (count, DIGEST_BYTES), (u().kept_digest for u in first))
    columns = [Column.of("ids", listed), Column.of("labels", labels), digests]
    columns += [Column.of(f"clean.{name}", array) for name, array in clean.to_arrays().items() if name not in _UNKEPT]
    kind = delta_type(form, threat)
    for depth, chunks in units.items():
        judged = JudgedImages.join([_judged(unit()) for unit in chunks])
        columns += [Column.of(f"d{depth}.{name}", array) for name, array in judged.to_arrays().items()]
        columns.append(
            Column(f"d{depth}.delta", kind, (count, channels, height, width), (u().kept_delta for u in chunks))
        )
    metadata = {"format": FORMAT, "heading": heading.model_dump_json()}
    write_tensors(path, columns, metadata)


def stored_for(path: Path, verdicts_sha256: str) -> bool:
    """Return whether a whole file of images of exactly these verdicts is there."""
    if not path.exists():
        return False
    try:
        return open_images(path).heading.verdicts_sha256 == verdicts_sha256
    except InputError:
        return False


def open_images(path: Path) -> StoredImages:
    """Open a file of images and check everything that can be checked without a model or a data set.

    Raises ``InputError``, one line that names the file: damaged, of another format, wrong shapes, ids that repeat or
    are not the list its identity names. The images themselves are checked where their clean ones are at hand.
    """
    tensors = open_tensors(path, what=WHAT)
    if tensors.metadata.get("format") != FORMAT:
        _refuse(path, f"not a file of images that hierbench eval --store-images wrote (format {FORMAT})")
    heading = _heading(path, tensors.metadata.get("heading", ""))
    form = next((f for f in FORMS if f == heading.form), None)
    if form is None:
        _refuse(path, f"form {heading.form!r} is none of {', '.join(FORMS)}")
    threat = _checked_threat(path, heading.identity)
    count = _check_tensors(path, tensors, heading.identity, delta_type(form, threat))
    labels: Ints = tensors.rows("labels")
    ids = _ids(path, tensors, count)
    identity = heading.identity
    if labels.min(initial=0) < 0 or labels.max(initial=0) >= identity.hierarchy.leaves:
        _refuse(path, f"a label is not one of the {identity.hierarchy.leaves} leaves")
    if heading.rows is not None and heading.rows != count:
        _refuse(path, f"it says that it is a sample of {heading.rows} and holds {count}")
    if heading.rows is None and list_hash(ids, labels) != identity.dataset.sample_list_hash:
        _refuse(path, "its sample ids and labels are not the list that its identity names")
    return StoredImages(
        tensors=tensors,
        heading=heading,
        form=form,
        threat=threat,
        ids=ids,
        labels=labels,
        digests=tensors.rows("clean.digest"),
        clean=CleanVerdicts(**_verdict_columns(tensors, "clean.")),
    )


def _judged(kept: KeptVerdicts) -> JudgedImages:
    return JudgedImages(kept.kept_predicted, kept.kept_broken_rollup, kept.kept_broken_direct)


def _verdict_columns(tensors: TensorFile, prefix: str) -> dict[str, Any]:
    names = ("predicted", "broken_rollup", "broken_direct")
    return {name: tensors.rows(prefix + name) for name in names if prefix + name in tensors.shapes}


def _refuse(path: Path, reason: str) -> NoReturn:
    raise InputError(f"{WHAT} {path}: {reason}")


def _heading(path: Path, text: str) -> Heading:
    try:
        heading = Heading.model_validate_json(text)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"]) or "heading"
        _refuse(path, f"{where[:80]}: {first['msg'][:120]}")
    identity = heading.identity
    named = {
        "model": identity.model.name,
        "dataset": identity.dataset.name,
        "split": identity.dataset.split,
        "tree": identity.hierarchy.name,
        "attack": identity.attack.name,
        "protocol": identity.protocol.name,
        "template": identity.dataset.template,
    }
    for what, name in named.items():
        if not name.isprintable():
            _refuse(path, f"the name of its {what} holds characters that cannot be printed")
    if heading.environment.batch_size > MAX_BATCH:
        _refuse(path, f"batch size {heading.environment.batch_size} is above {MAX_BATCH}")
    if heading.limit is not None and heading.limit < 1:
        _refuse(path, f"limit {heading.limit} is not a number of samples")
    return heading


def _threat(identity: Identity) -> ThreatModel:
    return ThreatModel(identity.attack.norm, Fraction(identity.attack.eps))


def _checked_threat(path: Path, identity: Identity) -> ThreatModel:
    attack = identity.attack
    try:
        threat = _threat(identity)
    except (InputError, ValueError, ArithmeticError) as error:
        _refuse(path, f"eps {attack.eps[:40]!r} cannot be used ({error})")
    if float(threat.eps) != attack.eps_value:
        _refuse(path, f"eps {attack.eps[:40]} and its value {attack.eps_value} disagree")
    return threat


def _check_tensors(path: Path, tensors: TensorFile, identity: Identity, delta: np.dtype[Any]) -> int:
    """Return the number of samples; refuse a tensor that is missing, unknown, or of another type or shape."""
    found = tensors.shapes
    depths, deepest = identity.attack.depths, len(identity.hierarchy.nodes_per_depth)
    if len(set(depths)) != len(depths) or max(depths) > deepest:
        _refuse(path, f"attacked depths {', '.join(map(str, depths[:9]))} are not depths of its tree, 1 to {deepest}")
    if "labels" not in found or len(found["labels"][1]) != 1 or found["labels"][1][0] < 1:
        _refuse(path, "tensor labels is missing or empty")
    count = found["labels"][1][0]
    height, width, channels = identity.dataset.grid
    direct = "clean.broken_direct" in found
    wanted = {
        "ids": ("U8", found["ids"][1] if "ids" in found else ()),
        "labels": ("I64", (count,)),
        "clean.digest": ("U8", (count, DIGEST_BYTES)),
        **_wanted_verdicts("clean.", count, deepest, direct),
    }
    for depth in depths:
        wanted |= _wanted_verdicts(f"d{depth}.", count, deepest, direct)
        wanted[f"d{depth}.delta"] = (type_name(delta), (count, channels, height, width))
    for name, expected in wanted.items():
        if name not in found:
            _refuse(path, f"tensor {name} is missing")
        if found[name] != expected:
            _refuse(path, f"tensor {name} is {_words(found[name])}, and should be {_words(expected)}")
    extra = sorted(set(found) - set(wanted))
    if extra:
        _refuse(path, f"unknown tensor {extra[0][:60]!r}")
    return count


def _wanted_verdicts(prefix: str, count: int, depths: int, direct: bool) -> dict[str, tuple[str, tuple[int, ...]]]:
    wanted: dict[str, tuple[str, tuple[int, ...]]] = {
        f"{prefix}predicted": ("I64", (count,)),
        f"{prefix}broken_rollup": ("BOOL", (count, depths)),
    }
    if direct:
        wanted[f"{prefix}broken_direct"] = ("BOOL", (count, depths))
    return wanted


def _words(kind: tuple[str, tuple[int, ...]]) -> str:
    return f"{kind[0]} {list(kind[1])}"


def _ids(path: Path, tensors: TensorFile, count: int) -> tuple[str, ...]:
    try:
        listed = json.loads(tensors.rows("ids").tobytes())
    except (ValueError, RecursionError):
        listed = None
    good = isinstance(listed, list) and all(
        isinstance(i, str) and 0 < len(i) <= MAX_ID and i.isprintable() for i in listed
    )
    if listed is None or not good:
        _refuse(path, "its sample ids are not a list of names")
    if len(listed) != count:
        _refuse(path, f"{len(listed)} sample ids for {count} images")
    seen: set[str] = set()
    for sample in listed:
        if sample in seen:
            _refuse(path, f"sample {sample!r} occurs twice")
        seen.add(sample)
    return tuple(listed)
