"""``replay``: stored images judged again on the model they were made for, or shown to another one."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from hierbench.errors import InputError
from hierbench.evaluation import scores
from hierbench.evaluation.cell import Cell, cell_name
from hierbench.evaluation.environment import code_hash
from hierbench.evaluation.identity import Arguments, AttackIdentity, Settings
from hierbench.evaluation.observer import Observer
from hierbench.evaluation.records import DepthScores, Record
from hierbench.evaluation.replay.cut import first_rows
from hierbench.evaluation.replay.file import StoredImages, open_images
from hierbench.evaluation.replay.victim import ReplayVictim, judged_images, right_when_clean
from hierbench.evaluation.request import Request
from hierbench.evaluation.runner import run_cell
from hierbench.evaluation.storage import digest_file
from hierbench.evaluation.stored import finished_record
from hierbench.evaluation.verdicts import AttackVerdicts, CleanVerdicts, Verdicts, read_verdicts
from hierbench.evaluation.victim import EngineVictim

if TYPE_CHECKING:
    from hierbench.models.zeroshot import ZeroShotModel

PREFIX = "transfer:"


@dataclass(frozen=True)
class Replay:
    """What came of a replay."""

    stored: StoredImages
    target: str
    """Name of the model the images were shown to."""
    transferred: bool
    """False where it is the model they were made for, by its weights."""
    depths: tuple[DepthScores, ...]
    """Scores of the target."""
    source_depths: tuple[DepthScores, ...]
    """Scores that the file holds, of the model the images were made for on the images as they are kept."""
    differing: dict[int, int]
    """Verdicts that came out otherwise than the file says, by attacked depth (0: the clean images); empty for a
    transfer."""
    record: Record | None
    """The record of a transfer."""
    record_path: Path | None
    notes: tuple[str, ...]

    @property
    def confirmed(self) -> bool:
        """True unless a verdict of the file was not found again, or the record of a transfer failed a check."""
        return not any(self.differing.values()) and not (self.record is not None and self.record.checks.failed)


def replay(
    file: str | Path,
    *,
    model: str | ZeroShotModel | None = None,
    data_root: str | Path | None = None,
    device: str | None = None,
    out: str | Path | None = None,
    force: bool = False,
    observer: Observer | None = None,
) -> Replay:
    """Judge the stored images of a run again.

    Without ``model``, or with one of the same weights, they are verified: sample ids, count, clean pixels, box, ball
    and every verdict. On another model they are a transfer attack, named ``transfer:<source>/<attack>``, whose record
    goes to ``<out>/<protocol>/<model>/`` like any other; it is resumable, and read if it is there unless ``force``.

    Raises ``InputError``, one line, on a file that is damaged or hostile, on data other than those attacked, and on a
    model that is not there. Verdicts that differ raise nothing: see ``Replay.confirmed``. METHODS.md 2.
    """
    from hierbench.evaluation.prepare import prepare_cell

    stored = open_images(Path(file))
    given = model if model is None or isinstance(model, str) else model.name
    request = _request(stored, given, data_root=data_root, device=device, out=out)
    cell = prepare_cell(request, model=None if model is None or isinstance(model, str) else model)
    notes = _check_cell(stored, cell)
    same = cell.identity.model.weights_hash == stored.identity.model.weights_hash
    if not same and model is None:
        stored.refuse(f"model {cell.identity.model.name} has other weights now; name a model to transfer to (--model)")
    if not isinstance(cell.victim, EngineVictim):
        raise InputError(f"--model: {cell.identity.model.name} cannot be shown stored images")
    victim = ReplayVictim(cell.victim, stored)
    if same:
        return _verify(cell, victim, notes)
    return _transfer(cell, victim, notes, force=force, observer=observer)


def _request(
    stored: StoredImages,
    model: str | None,
    *,
    data_root: str | Path | None,
    device: str | None,
    out: str | Path | None,
) -> Request:
    from hierbench.models.catalogue import MODELS

    identity, attack = stored.identity, stored.identity.attack
    name = identity.model.name
    if model is None and name not in MODELS:  # a name in a file must not become a path
        stored.refuse(f"it is of the model {name!r}, which is not in `hierbench list models`; name one with --model")
    environment = stored.heading.environment
    return Request(
        model=name if model is None else model,
        dataset=identity.dataset.name,
        tree=identity.hierarchy.name,
        eps=attack.eps,
        norm=attack.norm,
        scoring=attack.scoring,
        depths=attack.depths,
        limit=stored.limit,
        split=identity.dataset.split,
        template=identity.dataset.template,
        seed=environment.seed,
        batch_size=environment.batch_size,
        protocol=identity.protocol.name,
        device=device,
        out=out,
        data_root=data_root,
    )


def _check_cell(stored: StoredImages, cell: Cell) -> tuple[str, ...]:
    """Refuse images of other samples, pixels or trees than those at hand; return what is worth a note."""
    theirs, ours = stored.identity, cell.identity
    where = f"{ours.dataset.name} {ours.dataset.split}"
    if theirs.hierarchy.hash != ours.hierarchy.hash:
        stored.refuse(f"its tree {theirs.hierarchy.name} is not the one of this installation")
    if theirs.dataset.grid != ours.dataset.grid:
        stored.refuse(f"its pixel grid {theirs.dataset.grid} is not that of {where}, {ours.dataset.grid}")
    ids, labels = tuple(cell.images.ids), np.asarray(cell.images.labels)
    if ids != stored.ids:
        known = set(ids)
        stranger = next((sample for sample in stored.ids if sample not in known), None)
        if len(ids) != len(stored.ids):
            stored.refuse(f"it holds {len(stored.ids)} samples where the list of {where} has {len(ids)}")
        if stranger is not None:
            stored.refuse(f"sample {stranger!r} is not in the list of {where}")
        stored.refuse(f"its samples are not in the order of the list of {where}")
    if not np.array_equal(labels, stored.labels):
        row = int(np.flatnonzero(labels != stored.labels)[0])
        stored.refuse(f"sample {ids[row]!r} has another label in {where}")
    if ours.dataset.revision == theirs.dataset.revision:
        return ()
    return (f"data revision {ours.dataset.revision} here, {theirs.dataset.revision} in the file; the pixels are equal",)


def _verify(cell: Cell, victim: ReplayVictim, notes: tuple[str, ...]) -> Replay:
    stored, attack = victim.stored, victim.stored.identity.attack
    clean_parts: list[CleanVerdicts] = []
    parts: dict[int, list[AttackVerdicts]] = {depth: [] for depth in attack.depths}
    for _, chunk in cell.chunks():
        clean, _ = victim.clean(chunk)
        clean_parts.append(clean)
        for depth in attack.depths:
            parts[depth].append(victim.attack(chunk, clean, depth, lambda done, survivors, passes: None)[0])
    clean = CleanVerdicts.join(clean_parts)
    attacked = {depth: AttackVerdicts.join(found) for depth, found in parts.items()}
    differing = {0: _differing(clean, stored.clean)}
    differing |= {depth: _differing(found, stored.judged(depth)) for depth, found in attacked.items()}
    verdicts = Verdicts(stored.ids, stored.labels, clean, attacked)
    if any(differing.values()):
        notes += _environment_notes(cell, stored)
    return Replay(
        stored=stored,
        target=cell.identity.model.name,
        transferred=False,
        depths=scores.depth_scores(verdicts, cell.hierarchy, pooled=attack.pooled),
        source_depths=_source_depths(stored, cell),
        differing=differing,
        record=None,
        record_path=None,
        notes=notes + _beside(stored),
    )


def _differing(found: CleanVerdicts | AttackVerdicts, said: object) -> int:
    """Return how many samples have another prediction or another verdict at some depth."""
    theirs = {n: getattr(said, n) for n in ("predicted", "broken_rollup", "broken_direct")}
    unequal = found.predicted != theirs["predicted"]
    unequal |= (found.broken_rollup != theirs["broken_rollup"]).any(axis=1)
    if found.broken_direct is not None and theirs["broken_direct"] is not None:
        unequal |= (found.broken_direct != theirs["broken_direct"]).any(axis=1)
    return int(np.count_nonzero(unequal))


def _environment_notes(cell: Cell, stored: StoredImages) -> tuple[str, ...]:
    """Say what differs between the two machines, as that is what may turn a verdict near a tie."""
    ours, theirs = cell.environment, stored.heading.environment
    pairs = [(name, getattr(theirs, name), getattr(ours, name)) for name in ("device", "device_name", "threads")]
    pairs += [(p, theirs.packages.get(p), ours.packages.get(p)) for p in ("torch", "open_clip_torch", "timm")]
    found = [f"{name} {then} then, {now} now" for name, then, now in pairs if then != now]
    if theirs.code_hash != code_hash():
        found.append("other code of hierbench")
    return ("the run was made elsewhere: " + "; ".join(found),) if found else ()


def _beside(stored: StoredImages) -> tuple[str, ...]:
    """Hold the file against the record beside it, if there is one; images of other verdicts are an ``InputError``."""
    folder, cell = stored.path.parent, stored.identity.cell
    parquet = folder / f"{cell}.parquet" if cell == Path(cell).name else None
    if parquet is None or not parquet.is_file() or finished_record(parquet.with_suffix(".json")) is None:
        return ("no record lies beside the file, so that its verdicts were held against the model alone",)
    if digest_file(parquet) != stored.heading.verdicts_sha256:
        return ("the record beside the file is of another run",)
    verdicts, count = read_verdicts(parquet), len(stored.ids)
    unequal = _differing(first_rows(verdicts.clean, count), stored.clean)
    if stored.form == "float":
        unequal += sum(_differing(first_rows(v, count), stored.judged(d)) for d, v in verdicts.attacked.items())
    if unequal:
        stored.refuse(f"its verdicts are not those of the record beside it ({unequal} differ)")
    return ()


def _source_depths(stored: StoredImages, cell: Cell) -> tuple[DepthScores, ...]:
    attacked = {}
    for depth in stored.identity.attack.depths:
        said = stored.judged(depth)
        attacked[depth] = judged_images(
            predicted=said.predicted,
            broken_rollup=said.broken_rollup,
            broken_direct=said.broken_direct,
            searched=right_when_clean(stored.clean, stored, depth),
        )
    verdicts = Verdicts(stored.ids, stored.labels, stored.clean, attacked)
    return scores.depth_scores(verdicts, cell.hierarchy, pooled=stored.identity.attack.pooled)


def _transfer(
    cell: Cell, victim: ReplayVictim, notes: tuple[str, ...], *, force: bool, observer: Observer | None
) -> Replay:
    stored = victim.stored
    cell = transfer_cell(cell, victim, notes)
    record = run_cell(cell, force=force, observer=observer)
    return Replay(
        stored=stored,
        target=cell.identity.model.name,
        transferred=True,
        depths=record.depths,
        source_depths=_source_depths(stored, cell),
        differing={},
        record=record,
        record_path=cell.record_path,
        notes=notes,
    )


def transfer_cell(cell: Cell, victim: ReplayVictim, notes: tuple[str, ...] = ()) -> Cell:
    """Return a model's cell with stored images for its attack; the attack's name says whose images they are."""
    stored = victim.stored
    theirs = stored.identity
    name = f"{PREFIX}{theirs.model.name}/{theirs.attack.name}"
    if len(name) > 200:
        stored.refuse("the names of its model and attack are too long for a record")
    parameters: Settings = {
        **theirs.attack.parameters,
        "source_model": theirs.model.name,
        "source_weights": theirs.model.weights_hash,
        "source_images": stored.checksum,
        "source_form": stored.form,
    }
    attack = AttackIdentity.model_validate(
        {
            **theirs.attack.model_dump(),
            "name": name,
            "parameters": parameters,
            "components": tuple(f"{PREFIX}{component}" for component in theirs.attack.components),
            "severity_samples": 0,
        }
    )
    protocol = cell.identity.protocol
    words = [w for w in protocol.deviations if not w.startswith("depths: ")]  # those of the protocol's own attack
    deviations = (f"attack: one of the protocol's -> {name}", *words)
    identity = cell.identity.model_copy(
        update={
            "protocol": protocol.model_copy(update={"custom": True, "deviations": deviations}),
            "attack": attack,
        }
    )
    environment = cell.environment
    named = cell_name(identity, seed=environment.seed, batch_size=environment.batch_size)
    resolved = {k: v for k, v in cell.arguments.resolved.items() if not k.startswith(("settings.", "step_length"))}
    resolved |= {"attack": name, "severity_samples": 0}
    return dataclasses.replace(
        cell,
        identity=identity.model_copy(update={"cell": named}),
        arguments=Arguments(given=cell.arguments.given, resolved=resolved),
        victim=victim,
        replayed=True,
        notes=(*cell.notes, *notes),
    )
