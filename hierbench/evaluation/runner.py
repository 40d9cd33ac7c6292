"""Running one cell to its record: clean pass, one attack a depth, journal, checks."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from datetime import UTC, datetime
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from hierbench.attacks.text.specs import is_text_attack
from hierbench.errors import HierbenchError
from hierbench.evaluation import scores, trust
from hierbench.evaluation.cell import Cell, Effort, TextFacts
from hierbench.evaluation.identity import Identity
from hierbench.evaluation.journal import Journal, UnitKey, locked
from hierbench.evaluation.memory import peak_memory_bytes
from hierbench.evaluation.observer import Observer
from hierbench.evaluation.records import Cost, DepthCost, Record, VerdictFile
from hierbench.evaluation.replay.gather import finished, gather_images
from hierbench.evaluation.replay.keep import KeptVerdicts, bare
from hierbench.evaluation.request import Request
from hierbench.evaluation.storage import atomic_write, digest_file
from hierbench.evaluation.stored import read_record
from hierbench.evaluation.team import SharedUnits, Team, units_in
from hierbench.evaluation.verdicts import AttackVerdicts, CleanVerdicts, Verdicts, write_verdicts

if TYPE_CHECKING:
    from hierbench.models.zeroshot import ZeroShotModel

Found = TypeVar("Found", CleanVerdicts, AttackVerdicts)


def evaluate(
    model: str | ZeroShotModel = "clip",
    *,
    backbone: str | None = None,
    weights_layout: str | None = None,
    dataset: str | None = None,
    tree: str | None = None,
    attack: str | None = None,
    eps: str | float | Fraction | None = None,
    norm: str | None = None,
    scoring: str | None = None,
    depths: Sequence[int] | None = None,
    limit: int | None = None,
    split: str | None = None,
    template: str | None = None,
    settings: Mapping[str, object] | None = None,
    seed: int | None = None,
    batch_size: int | None = None,
    severity_samples: int | None = None,
    engine: str | None = None,
    search_precision: str | None = None,
    compile: bool | None = None,
    protocol: str | None = None,
    device: str | None = None,
    out: str | Path | None = None,
    data_root: str | Path | None = None,
    store_images: str | None = None,
    rank_preservation: bool | None = None,
    force: bool = False,
    observer: Observer | None = None,
) -> Record:
    """Attack a model over a dataset and return the record, which is also written beside its verdicts.

    What is not said is the protocol's: without ``protocol`` the first one that has the dataset, without both
    ``digits-v1``. ``model`` is a name (a bare defence means the protocol's variant), a model folder, a backbone, a
    checkpoint file (then ``backbone`` says what it was trained from, and ``weights_layout`` how its tensors lie if that
    is not found out), or a loaded model. ``eps`` is a
    fraction or a number in pixel units of [0, 1]; ``depths`` are 1 (coarsest) to D (leaves); ``settings`` are the
    attack's own, such as ``{"steps": 50}``. Results go to ``<out>/<protocol>/<model>/``; a finished cell is read unless
    ``force``, an interrupted one goes on from its journal. ``search_precision`` (``fp32``, ``tf32``, ``bf16``) is the
    search's alone, and so is ``compile`` (``torch.compile``). ``store_images`` (``8bit`` or ``float``) keeps the
    adversarial images too, for ``replay``. ``rank_preservation`` compares the attacked top five leaves with those of
    the undefended backbone, which is loaded beside the model.

    Raises ``InputError`` naming what is wrong with the arguments. A run that fails a trust check returns all the same,
    with ``record.checks.failed`` set. Source: METHODS.md sections 1, 2, 4, 7.
    """
    from hierbench.evaluation.prepare import prepare_cell

    request = Request(
        model=model if isinstance(model, str) else model.name,
        backbone=backbone,
        weights_layout=weights_layout,
        dataset=dataset,
        tree=tree,
        attack=attack,
        eps=eps,
        norm=norm,
        scoring=scoring,
        depths=tuple(depths) if depths is not None else None,
        limit=limit,
        split=split,
        template=template,
        settings=dict(settings or {}),
        seed=seed,
        batch_size=batch_size,
        severity_samples=severity_samples,
        engine=engine,
        search_precision=search_precision,
        compile=compile,
        protocol=protocol,
        device=device,
        out=out,
        data_root=data_root,
        store_images=store_images,
        rank_preservation=rank_preservation,
    )
    cell = prepare_cell(request, model=None if isinstance(model, str) else model)
    return run_cell(cell, force=force, observer=observer)


def run_cell(cell: Cell, *, force: bool = False, observer: Observer | None = None, team: Team | None = None) -> Record:
    """Evaluate a cell and return its record, which also lies in ``cell.folder`` beside the verdicts.

    A cell that is finished is read, not run, unless ``force``. An interrupted one goes on from its journal and ends
    with the same verdicts. The processes of a ``team`` share the work, each calling this with the same cell; the
    verdicts are those of one. Raises ``InputError`` if another run holds the cell or the folder cannot be written.
    """
    watcher = observer or Observer()
    if team is not None and team.size > 1:
        return _run_together(cell, team, force=force, watcher=watcher)
    if not force and (done := finished(cell)) is not None:
        watcher.note(f"already evaluated: {cell.record_path} (--force runs it again)")
        return done
    tried = cell.record_path.exists()
    with locked(cell.journal_path):
        if not force and not tried and (done := finished(cell)) is not None:
            return done  # by a run that held the lock until now
        journal = Journal(cell.journal_path, cell.fingerprint())
        session = journal.begin_session(fresh=force)
        if journal.outdated:
            watcher.note("the journal is of other code, packages, device or threads: the cell begins again")
        watcher.begin(cell.identity.cell, samples=len(cell.images.ids), attacked_depths=cell.identity.attack.depths)
        try:
            record = _Run(cell, journal, session, watcher).record()
        finally:
            watcher.end()
        journal.discard()
    return record


def _run_together(cell: Cell, team: Team, *, force: bool, watcher: Observer) -> Record:
    environment = cell.environment.model_copy(update={"world_size": team.size})
    cell = dataclasses.replace(cell, environment=environment)
    done = finished(cell) if team.leads and not force else None
    if team.told(done is not None):
        watcher.note(f"already evaluated: {cell.record_path} (--force runs it again)")
        return done or read_record(cell.record_path)
    with locked(cell.journal_path) if team.leads else nullcontext():
        journal = Journal(cell.journal_path, cell.fingerprint())
        session = journal.begin_session(fresh=force) if team.leads else 0
        before = units_in(journal) if team.leads else 0
        team.meet()  # what is left of another session is gone, or ours
        watcher.begin(cell.identity.cell, samples=len(cell.images.ids), attacked_depths=cell.identity.attack.depths)
        try:
            SharedUnits(cell, journal, team, watcher).work()
        finally:
            watcher.end()
        team.meet()  # every unit is there
        if team.leads:
            _Run(cell, journal, session, Observer(), resumed=before).record()
            journal.discard()
    team.meet()  # the record is there
    return read_record(cell.record_path)


class _Run:
    """One session on one cell."""

    def __init__(
        self, cell: Cell, journal: Journal, session: int, observer: Observer, *, resumed: int | None = None
    ) -> None:
        self.resumed = resumed
        """Units of earlier sessions; None: those that this one reads."""
        self.cell = cell
        self.journal = journal
        self.session = session
        self.observer = observer
        self.kept: dict[int, list[UnitKey]] = {}
        """Units that hold images, by attacked depth."""

    def record(self) -> Record:
        cell, attack = self.cell, self.cell.identity.attack
        clean_parts, clean_effort = self._clean_pass()
        attacked: dict[int, AttackVerdicts] = {}
        efforts: dict[int, Effort] = {}
        for depth in attack.depths:
            parts, efforts[depth] = self._attack_pass(depth, clean_parts)
            attacked[depth] = AttackVerdicts.join(parts)
        labels = np.asarray(cell.images.labels, dtype=np.int64)
        verdicts = Verdicts(tuple(cell.images.ids), labels, CleanVerdicts.join(clean_parts), attacked)
        write_verdicts(cell.verdicts_path, verdicts)
        record = self._assemble(verdicts, clean_effort, efforts)
        if cell.store_images is not None:
            gather_images(cell, self.journal, self.kept, verdicts, record.verdicts.sha256)
        atomic_write(cell.record_path, record.to_json().encode())
        return record

    def _clean_pass(self) -> tuple[list[CleanVerdicts], Effort]:
        parts: list[CleanVerdicts] = []
        effort = Effort()
        for index, chunk in self.cell.chunks():
            clean, spent = self._unit(
                UnitKey("clean", 0, index, chunk.content_hash()),
                CleanVerdicts.from_arrays,
                lambda chunk=chunk: self.cell.victim.clean(chunk),  # type: ignore[misc]
            )
            parts.append(clean)
            effort += spent
            self.observer.clean(done=sum(len(p.predicted) for p in parts), total=len(self.cell.images.ids))
        return parts, effort

    def _attack_pass(self, depth: int, clean: list[CleanVerdicts]) -> tuple[list[AttackVerdicts], Effort]:
        parts: list[AttackVerdicts] = []
        effort = Effort()
        progress = _DepthProgress(self.observer, depth, len(self.cell.images.ids))
        form = self.cell.store_images
        for index, chunk in self.cell.chunks():
            key = UnitKey(self.cell.attack_phase, depth, index, chunk.content_hash())
            attacked, spent = self._unit(
                key,
                AttackVerdicts.from_arrays if form is None else KeptVerdicts.from_arrays,
                lambda chunk=chunk, index=index: self.cell.victim.attack(  # type: ignore[misc]
                    chunk, clean[index], depth, progress.within_chunk
                ),
            )
            if form is not None:
                attacked = bare(attacked)
                self.kept.setdefault(depth, []).append(key)
            parts.append(attacked)
            effort += spent
            broken = attacked.broken_rollup if self._scoring == "rollup" else attacked.broken_direct
            wrong = clean[index].broken_rollup if self._scoring == "rollup" else clean[index].broken_direct
            if broken is None or wrong is None:
                raise HierbenchError(f"the model gave no {self._scoring} verdicts")
            progress.chunk_done(len(chunk.ids), int(np.count_nonzero(~(broken | wrong)[:, depth - 1])))
        return parts, effort

    @property
    def _scoring(self) -> str:
        return self.cell.identity.attack.scoring

    def _unit(
        self,
        key: UnitKey,
        restore: Callable[[dict[str, NDArray[Any]]], Found],
        compute: Callable[[], tuple[Found, Effort]],
    ) -> tuple[Found, Effort]:
        """Return a unit from the journal, or compute it and keep it."""
        kept = self.journal.read(key)
        if kept is not None:
            return restore(kept), Effort.from_arrays(kept)
        verdicts, effort = compute()
        self.journal.write(key, {**verdicts.to_arrays(), **effort.to_arrays()})
        return verdicts, effort

    def _assemble(self, verdicts: Verdicts, clean_effort: Effort, efforts: dict[int, Effort]) -> Record:
        cell, identity = self.cell, self.cell.identity
        pooled = identity.attack.pooled
        depths = scores.depth_scores(verdicts, cell.hierarchy, pooled=pooled)
        # A pooled search keeps one image a sample, the coarsest mistake: it says nothing of transfer.
        transfer = () if pooled else scores.transfer_cells(verdicts)
        checks = trust.run_checks(
            verdicts,
            efforts,
            clean_effort=clean_effort,
            declared=len(cell.images.ids),
            norm=identity.attack.norm,
            eps=identity.attack.eps_value,
            scoring=identity.attack.scoring,
            depths=depths,
            transfer=transfer,
            replayed=cell.replayed,
            pooled=pooled,
            unmoved=_unmoved(identity),
        )
        text = TextFacts() if cell.text is None else cell.text()
        flags = checks.flags + trust.guard_warnings(identity.model.guard_flags)
        refused = None if text.refused is None else dict(text.refused)
        checks = checks.model_copy(update={"flags": flags, "text_rejected": refused})
        calibration_clean, calibration_attacked = scores.calibration_errors(verdicts)
        seen = None
        if cell.seen is not None:
            seen = scores.seen_parts(verdicts, cell.class_ids, cell.seen, identity.attack.scoring)
        return Record(
            created=datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
            identity=identity,
            arguments=cell.arguments,
            environment=cell.environment,
            counts=scores.counts(verdicts, declared=len(cell.images.ids)),
            depths=depths,
            transfer=transfer,
            mistakes=scores.tree_mistakes(verdicts, cell.hierarchy),
            hca_direct=scores.hca_direct(verdicts),
            seen=seen,
            rank_preservation=scores.rank_preservation(verdicts),
            calibration_error_clean=calibration_clean,
            calibration_error_attacked=calibration_attacked,
            cost=self._cost(verdicts, clean_effort, efforts, text),
            checks=checks,
            verdicts=VerdictFile(
                file=cell.verdicts_path.name,
                sha256=digest_file(cell.verdicts_path),
                rows=len(verdicts.sample_ids),
            ),
            notes=cell.notes,
        )

    def _cost(self, verdicts: Verdicts, clean_effort: Effort, efforts: dict[int, Effort], text: TextFacts) -> Cost:
        attack = sum(efforts.values(), Effort())
        total = attack + clean_effort
        passes = attack.forwards + attack.backwards
        return Cost(
            forwards=total.forwards,
            backwards=total.backwards,
            text_forwards=text.forwards,
            seconds=total.seconds,
            images_per_second=passes / attack.seconds if attack.seconds > 0 else None,
            peak_memory_bytes=peak_memory_bytes(self.cell.environment.device),
            per_depth=tuple(
                DepthCost(
                    depth=depth,
                    forwards=effort.forwards,
                    backwards=effort.backwards,
                    seconds=effort.seconds,
                    mean_steps=_mean_steps(verdicts.attacked[depth]),
                )
                for depth, effort in efforts.items()
            ),
            sessions=self.session,
            units_resumed=self.journal.resumed if self.resumed is None else self.resumed,
        )


class _DepthProgress:
    """Turns the reports of one chunk into progress over all samples."""

    def __init__(self, observer: Observer, depth: int, total: int) -> None:
        self.observer = observer
        self.depth = depth
        self.total = total
        self.done = 0
        self.survivors = 0

    def within_chunk(self, done: int, survivors: int, passes: int) -> None:
        self._tell(self.done + done, self.survivors + survivors, passes)

    def chunk_done(self, done: int, survivors: int) -> None:
        self.done += done
        self.survivors += survivors
        self._tell(self.done, self.survivors, 0)

    def _tell(self, done: int, survivors: int, passes: int) -> None:
        self.observer.attack(self.depth, done=done, total=self.total, survivors=survivors, passes=passes)


def _unmoved(identity: Identity) -> str | None:
    """Return why the attack may leave samples as they were; None for one that has no excuse."""
    if identity.attack.engine != "hierbench":
        return "its library keeps successes only"
    return "no prompt that they are judged by could be changed" if is_text_attack(identity.attack.name) else None


def _mean_steps(attack: AttackVerdicts) -> float | None:
    return float(attack.steps[attack.searched].mean()) if attack.searched.any() else None
