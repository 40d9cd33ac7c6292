"""One cell, loaded and ready to run: what the runner needs and nothing about where it came from."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from hierbench.evaluation.identity import Arguments, Environment, Identity
from hierbench.evaluation.storage import digest_json
from hierbench.evaluation.verdicts import AttackVerdicts, CleanVerdicts

if TYPE_CHECKING:
    from torch import Tensor

    from hierbench.evaluation.replay.form import Form
    from hierbench.hierarchy.tree import Hierarchy

UNITS_PER_CHUNK = 4
"""A chunk is this many batches: enough for freed slots to be refilled, little enough to lose."""


@dataclass(frozen=True)
class TextFacts:
    """What the text side did for a run."""

    forwards: int = 0
    """Texts encoded, for the nodes' prompts and by the attack."""
    refused: Mapping[str, int] | None = None
    """A text attack's proposed edits, and those that each rule refused."""


class Images(Protocol):
    """What the runner reads of a data set: see ``datasets.images.ImageSet``."""

    @property
    def ids(self) -> Sequence[str]:
        """Stable sample ids."""

    @property
    def labels(self) -> NDArray[np.int64]:
        """True leaves [n]."""

    def pixels(self, indices: Sequence[int] | NDArray[np.int64]) -> Tensor:
        """Return uint8 images [b, c, H, W]."""


@dataclass(frozen=True)
class Effort:
    """What one chunk cost and what its gradients looked like."""

    forwards: int = 0
    """Images sent forward."""
    backwards: int = 0
    """Images sent backward."""
    zero_gradients: int = 0
    """Image gradients that were exactly zero everywhere."""
    gradients: int = 0
    """Image gradients taken."""
    nonfinite: int = 0
    """Images whose logits were not finite."""
    seconds: float = 0.0

    def __add__(self, other: Effort) -> Effort:
        return Effort(
            self.forwards + other.forwards,
            self.backwards + other.backwards,
            self.zero_gradients + other.zero_gradients,
            self.gradients + other.gradients,
            self.nonfinite + other.nonfinite,
            self.seconds + other.seconds,
        )

    def to_arrays(self) -> dict[str, NDArray[Any]]:
        """Return the figures as arrays for the journal."""
        counters = [self.forwards, self.backwards, self.zero_gradients, self.gradients, self.nonfinite]
        return {"effort_counters": np.array(counters, dtype=np.int64), "effort_seconds": np.array([self.seconds])}

    @staticmethod
    def from_arrays(arrays: Mapping[str, NDArray[Any]]) -> Effort:
        """Restore from the journal's arrays."""
        forwards, backwards, zero_gradients, gradients, nonfinite = (int(v) for v in arrays["effort_counters"])
        seconds = float(arrays["effort_seconds"][0])
        return Effort(forwards, backwards, zero_gradients, gradients, nonfinite, seconds)


@dataclass(frozen=True)
class Chunk:
    """Some samples: pixels uint8 [n, c, H, W], labels [n], ids, and which are searched to the full budget [n]."""

    pixels: Tensor
    labels: NDArray[np.int64]
    ids: tuple[str, ...]
    full_budget: NDArray[np.bool_]

    def content_hash(self) -> str:
        """Hash of all that differs from chunk to chunk, the pixels included."""
        pixels = np.ascontiguousarray(self.pixels.cpu().numpy())
        content = hashlib.sha256(pixels.tobytes()).hexdigest()
        return digest_json(
            [list(self.ids), self.labels.tolist(), self.full_budget.tolist(), list(pixels.shape), content]
        )


StepReport = Callable[[int, int, int], None]
"""Called with (samples of the chunk done, of these survivors, image passes since the last call)."""


class Victim(Protocol):
    """A model and an attack bound to a tree: all computing the runner asks for."""

    def clean(self, chunk: Chunk) -> tuple[CleanVerdicts, Effort]:
        """Return the clean verdicts of a chunk."""

    def attack(
        self, chunk: Chunk, clean: CleanVerdicts, depth: int, report: StepReport
    ) -> tuple[AttackVerdicts, Effort]:
        """Attack a chunk at one depth; the result is a function of the chunk, the depth and the cell alone."""


@dataclass(frozen=True)
class Cell:
    """One cell to evaluate."""

    identity: Identity
    arguments: Arguments
    environment: Environment
    images: Images
    hierarchy: Hierarchy
    class_ids: tuple[str, ...]
    victim: Victim
    folder: Path
    """Where the record, the verdicts and the journal go."""
    text: Callable[[], TextFacts] | None = None
    """Asked at the end: what the text side did for this run."""
    seen: Mapping[str, str] | None = None
    """``trained``, ``known`` or ``unseen`` for each class id."""
    notes: tuple[str, ...] = field(default=())
    store_images: Form | None = None
    """How the adversarial images are kept beside the record; None keeps none."""
    ranked: bool = False
    """The attacked top five leaves are compared with the backbone's clean ones."""
    replayed: bool = False
    """The images are those of another run: nothing was searched here."""

    @property
    def record_path(self) -> Path:
        """File of the record."""
        return self.folder / f"{self.identity.cell}.json"

    @property
    def verdicts_path(self) -> Path:
        """File of the verdicts."""
        return self.folder / f"{self.identity.cell}.parquet"

    @property
    def journal_path(self) -> Path:
        """Folder of the journal."""
        return self.folder / f"{self.identity.cell}.journal"

    @property
    def chunk_size(self) -> int:
        """Samples in a chunk."""
        return UNITS_PER_CHUNK * self.environment.batch_size

    @property
    def attack_phase(self) -> str:
        """Phase of an attack's units in the journal: with the images or the ranks kept they are other units."""
        return "-".join(["attack", *([self.store_images] if self.store_images else []), *["ranks"] * self.ranked])

    @property
    def vacuous(self) -> bool:
        """True if the threat model allows no change at all (eps = 0)."""
        return self.identity.attack.eps_value == 0.0

    @property
    def num_chunks(self) -> int:
        """Number of chunks."""
        return -(-len(self.images.ids) // self.chunk_size)

    def chunk(self, index: int) -> Chunk:
        """Return one chunk: what is computed, and kept, at once."""
        start = index * self.chunk_size
        stop = min(start + self.chunk_size, len(self.images.ids))
        chosen = np.arange(start, stop)
        return Chunk(
            pixels=self.images.pixels(chosen),
            labels=np.asarray(self.images.labels, dtype=np.int64)[chosen],
            ids=tuple(self.images.ids[start:stop]),
            full_budget=chosen < self.identity.attack.severity_samples,
        )

    def chunks(self) -> Iterator[tuple[int, Chunk]]:
        """Yield the chunks in order with their numbers."""
        for index in range(self.num_chunks):
            yield index, self.chunk(index)

    def fingerprint(self) -> str:
        """Hash of all that decides the verdicts' bits: settings, data, weights, code, packages, device, threads.

        The number of processes is no part of it: what one left unfinished, two may finish.
        """
        environment = self.environment.model_dump(mode="json", exclude={"git_commit", "git_dirty", "hierbench"})
        environment["world_size"] = 1
        return digest_json([self.identity.model_dump(mode="json"), environment])


def safe_name(text: str) -> str:
    """Return a text as part of a file name: letters, digits and ``@_.-`` stay, anything else becomes ``-``.

    >>> safe_name("torchattacks:PGD/../x")
    'torchattacks-PGD-..-x'
    """
    return re.sub(r"[^A-Za-z0-9@_.-]+", "-", text).strip(".") or "-"


def cell_name(identity: Identity, *, seed: int, batch_size: int) -> str:
    """Return the stem of a cell's files: readable parts, then a hash over every setting that tells cells apart."""
    content = identity.model_dump(mode="json", exclude={"cell": True, "protocol": {"hash", "deviations", "custom"}})
    content["model"]["activation"] = None  # the weights hash has it: records from before it was said keep their cells
    attack = identity.attack
    radius = attack.eps.replace("/", "_")
    parts = [identity.dataset.name, identity.hierarchy.name, attack.name, attack.scoring, f"{attack.norm}-{radius}"]
    return ".".join(safe_name(p) for p in parts) + f".{digest_json([content, seed, batch_size])[-8:]}"
