"""External attacks: images that somebody else made against a listed model, shown to it and packed."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hierbench.errors import HierbenchError, InputError
from hierbench.evaluation.cell import Cell, Chunk, Effort, StepReport, cell_name
from hierbench.evaluation.identity import Arguments, AttackIdentity, Settings
from hierbench.evaluation.replay.form import decode, encode, in_unit_range, outside, pixel_digests
from hierbench.evaluation.replay.keep import keep_images
from hierbench.evaluation.replay.victim import judged_images
from hierbench.evaluation.verdicts import AttackVerdicts, CleanVerdicts
from hierbench.evaluation.victim import EngineVictim

if TYPE_CHECKING:
    from hierbench.attacks.threat import ThreatModel

PREFIX = "external:"
MAX_ARRAY = 8 * 2**30
Given = Callable[[int, int, int, Tensor], Tensor]
"""(attacked depth, first row, row behind the last, clean uint8) -> images float32 [n, c, h, w]."""


@dataclass(frozen=True)
class ForeignImages:
    """Adversarial images of a protocol's whole sample list, in its order."""

    path: Path
    checksum: str
    depths: tuple[int, ...] | None
    """Attacked depths; None: one image a sample, aimed at the leaves."""
    take: Given
    source: str
    """Who made them, in words for the record."""


def open_foreign(path: Path, images: Any, threat: ThreatModel) -> ForeignImages:
    """Open a file of images: what ``eval --store-images`` wrote, or one array, ``.npy`` or ``.safetensors``.

    An array is [n, c, h, w], float in [0, 1] or uint8, one image a sample of ``images``, in its order. ``InputError``
    names the file and what is wrong: never unpickled, of other samples or shapes, or too large.
    """
    from hierbench.evaluation.storage import digest_file

    try:
        size = path.stat().st_size
    except OSError as error:
        raise InputError(f"--attack-images: {path}: {error.strerror or error}") from None
    if not path.is_file() or size > MAX_ARRAY:
        raise InputError(f"--attack-images: {path} is no file of at most {MAX_ARRAY} bytes")
    if path.suffix == ".safetensors" and (found := _stored(path, images)) is not None:
        return found
    array = _array(path)
    count, (height, width, channels) = len(images.ids), images.spec.grid
    if array.shape != (count, channels, height, width):
        wanted = [count, channels, height, width]
        raise InputError(f"--attack-images: {path}: shape {list(array.shape)}, and the sample list needs {wanted}")
    if array.dtype not in (np.uint8, np.float32, np.float64, np.float16):
        raise InputError(f"--attack-images: {path}: {array.dtype}; give uint8, or floats in [0, 1]")

    def take(depth: int, start: int, stop: int, clean: Tensor) -> Tensor:
        rows = np.array(array[start:stop])
        return torch.from_numpy(rows / np.float32(255) if rows.dtype == np.uint8 else rows.astype(np.float32))

    return ForeignImages(path, digest_file(path), None, take, f"array {array.dtype}")


def _stored(path: Path, images: Any) -> ForeignImages | None:
    from hierbench.evaluation.replay.file import FORMAT, open_images
    from hierbench.evaluation.replay.tensors import open_tensors

    try:
        if open_tensors(path, what="images").metadata.get("format") != FORMAT:
            return None
    except InputError as error:
        if "checksum" in str(error):
            return None  # a plain array has none
        raise
    stored = open_images(path)
    if stored.ids != tuple(images.ids):
        stored.refuse(f"it does not hold the {len(images.ids)} samples of the protocol in their order")
    if (stored.digests != pixel_digests(images.pixels(np.arange(len(images.ids))))).any():
        stored.refuse("its images were made from other pixels than those at hand")

    def take(depth: int, start: int, stop: int, clean: Tensor) -> Tensor:
        return decode(stored.deltas(depth, start, stop), clean, form=stored.form)

    made = stored.identity
    return ForeignImages(path, stored.checksum, made.attack.depths, take, f"{made.attack.name} on {made.model.name}")


def _array(path: Path) -> NDArray[Any]:
    try:
        if path.suffix == ".npy":
            found: NDArray[Any] = np.load(path, mmap_mode="r", allow_pickle=False)
            return found
        if path.suffix == ".safetensors":
            from safetensors import safe_open

            with safe_open(str(path), framework="numpy") as opened:
                names = list(opened.keys())
                if len(names) != 1:
                    raise InputError(f"--attack-images: {path}: {len(names)} tensors; give one, of images")
                tensor: NDArray[Any] = opened.get_tensor(names[0])
            return tensor
    except InputError:
        raise
    except Exception as error:  # noqa: BLE001 - whatever a library says of a stranger's file, it is one line
        first = (str(error).splitlines() or [type(error).__name__])[0][:120]
        raise InputError(f"--attack-images: {path}: not readable ({first})") from None
    raise InputError(f"--attack-images: {path}: give .npy, .safetensors, or what eval --store-images wrote")


@dataclass(frozen=True)
class ShownVictim:
    """A bound model that is shown images from elsewhere, rounded to 8 bits as they are kept."""

    base: EngineVictim
    foreign: ForeignImages
    ids: tuple[str, ...]

    def clean(self, chunk: Chunk) -> tuple[CleanVerdicts, Effort]:
        """Return the clean verdicts of a chunk."""
        return self.base.clean(chunk)

    def attack(
        self, chunk: Chunk, clean: CleanVerdicts, depth: int, report: StepReport
    ) -> tuple[AttackVerdicts, Effort]:
        """Judge the images of a chunk; one outside box or ball is an ``InputError`` naming its sample."""
        began = perf_counter()
        base = self.base
        start = self.ids.index(chunk.ids[0])
        given = self.foreign.take(depth, start, start + len(chunk.ids), chunk.pixels)
        for sample, reason in zip(chunk.ids, outside(given, chunk.pixels, base.threat), strict=True):
            if reason:
                raise InputError(f"--attack-images: {self.foreign.path}: the image of sample {sample!r} {reason}")
        if clean.logits is None:
            raise HierbenchError("shown images need the clean logits")
        delta = encode(given, chunk.pixels, form="8bit", threat=base.threat)
        rounded = decode(delta, chunk.pixels, form="8bit")
        still = in_unit_range(chunk.pixels)
        change = (rounded - still).flatten(1).double()
        broken = clean.broken_rollup if base.scoring == "rollup" else clean.broken_direct
        if broken is None:
            raise InputError(f"--against: the model has no {base.scoring} verdicts")
        n = len(chunk.ids)
        blank = judged_images(
            predicted=clean.predicted,
            broken_rollup=clean.broken_rollup,
            broken_direct=clean.broken_direct,
            searched=np.asarray(~broken[:, depth - 1]),
            linf=change.abs().amax(dim=1).numpy(),
            l2=change.norm(dim=1).numpy(),
        )
        kept = keep_images(
            blank,
            rounded,
            chunk.pixels,
            chunk.labels,
            form="8bit",
            forward=base.forward,
            layout=base.layout,
            threat=base.threat,
            batch_size=base.batch_size,
            clean_logits=torch.from_numpy(clean.logits).to(base.device),
        )
        judged = dataclasses.replace(
            kept,
            predicted=kept.kept_predicted,
            broken_rollup=kept.kept_broken_rollup,
            broken_direct=kept.kept_broken_direct,
        )
        report(n, int(np.count_nonzero(~judged.broken_rollup[:, depth - 1])), n)
        nonfinite = int(np.count_nonzero(kept.kept_predicted < 0))
        return judged, Effort(forwards=n, nonfinite=nonfinite, seconds=perf_counter() - began)


def external_cell(cell: Cell, foreign: ForeignImages, name: str) -> Cell:
    """Return a listed model's cell with the images of others for its attack, which is called ``external:<name>``."""
    base = cell.victim
    if not isinstance(base, EngineVictim):
        raise InputError(f"--against: {cell.identity.model.name} cannot be shown images")
    depths = foreign.depths or (cell.hierarchy.num_depths,)
    if max(depths) > cell.hierarchy.num_depths:
        raise InputError(f"--attack-images: {foreign.path}: made for a tree of more depths than {cell.hierarchy.tree}")
    called = f"{PREFIX}{name}"
    parameters: Settings = {"source": foreign.source, "source_images": foreign.checksum}
    attack = AttackIdentity.model_validate(
        {
            **cell.identity.attack.model_dump(),
            "name": called,
            "parameters": parameters,
            "components": (called,),
            "substitutions": (),
            "depths": depths,
            "pooled": False,
            "severity_samples": 0,
        }
    )
    protocol = cell.identity.protocol
    words = f"attack: one of the protocol's -> {called}"
    identity = cell.identity.model_copy(
        update={"protocol": protocol.model_copy(update={"custom": True, "deviations": (words,)}), "attack": attack}
    )
    environment = cell.environment
    named = cell_name(identity, seed=environment.seed, batch_size=environment.batch_size)
    resolved = {k: v for k, v in cell.arguments.resolved.items() if not k.startswith(("settings.", "step_length"))}
    resolved |= {"attack": called, "severity_samples": 0, "depths": list(depths)}
    return dataclasses.replace(
        cell,
        identity=identity.model_copy(update={"cell": named}),
        arguments=Arguments(given=cell.arguments.given, resolved=resolved),
        victim=ShownVictim(base, foreign, tuple(cell.images.ids)),
        store_images="8bit",
        replayed=True,
    )


def threat_of(cell: Cell) -> ThreatModel:
    """Return the threat model of a cell."""
    if not isinstance(cell.victim, EngineVictim):
        raise InputError(f"--against: {cell.identity.model.name} cannot be shown images")
    return cell.victim.threat


def check_fields(fields: dict[str, Any]) -> None:
    """Refuse words that an attack's card could not hold, naming the flag, before anything is judged."""
    from hierbench.board.card import AttackCard, PackedFile
    from hierbench.board.submit import read_words, today

    nothing = "sha256:" + "0" * 64
    file = PackedFile(name="record.json", sha256=nothing, size=1)
    read_words(
        AttackCard, protocol="any", model="any", weights_hash=nothing, submitted=today(), files=(file,), **fields
    )


def pack_external(out: Path, cell: Cell, fields: dict[str, Any]) -> Path:
    """Write the package of a judged external cell to ``<out>/attacks/<protocol>/<model>/<name>/``; return the folder.

    ``fields`` are the card's: name, title, authors, paper, code, note.
    """
    from hierbench.board.card import AttackCard
    from hierbench.board.pack import pack
    from hierbench.board.submit import read_words, today
    from hierbench.evaluation.replay.file import images_path

    identity = cell.identity

    def fill(folder: Path) -> None:
        kept = images_path(cell.folder, identity.cell, "8bit")
        for path in (cell.record_path, cell.verdicts_path, kept):
            shutil.copyfile(path, folder / path.name)

    def make_card(files: Any) -> AttackCard:
        card: AttackCard = read_words(
            AttackCard,
            protocol=identity.protocol.name,
            model=identity.model.name,
            weights_hash=identity.model.weights_hash,
            submitted=today(),
            files=files,
            **fields,
        )
        return card

    folder = out / "attacks" / identity.protocol.name / identity.model.name / str(fields["name"])
    pack(folder, fill, make_card)
    return folder
