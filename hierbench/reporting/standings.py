"""One figure a model and depth: the per-sample worst case over every record of the model on one ground."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, cast

import numpy as np

from hierbench.board.card import ATTACK_FILE, CARD_FILE, AttackCard
from hierbench.board.kinds import kind_of
from hierbench.board.ledger import PARTS, Entry, Placed, Standing, read_board, read_card
from hierbench.errors import InputError
from hierbench.evaluation.records import DepthScoring, Proportion, Record
from hierbench.evaluation.scores import proportion
from hierbench.evaluation.storage import digest_file
from hierbench.evaluation.stored import read_record, record_paths
from hierbench.evaluation.verdicts import Bools
from hierbench.reporting.collect import Folders, Selection, as_folders, nothing_found
from hierbench.reporting.labels import attack_labels
from hierbench.reporting.rows import is_grey

Scoring = Literal["rollup", "direct"]


@dataclass(frozen=True)
class Shown:
    """Which figure of a standing is shown."""

    scoring: Scoring = "rollup"
    aimed: bool = False
    """True: only the attacks aimed at the depth itself; False: the worst over every attacked depth."""

    def words(self) -> str:
        """Say what the robust figure is."""
        which = "the attacks aimed at this depth" if self.aimed else "every attack at every depth it was aimed at"
        return f"per sample the worst over {which}, scored by {self.scoring}"


@dataclass(frozen=True)
class DepthFigures:
    """One model at one depth."""

    depth: int
    nodes: int
    chance: float
    majority: float | None
    """None: not known of the samples that count."""
    clean: Proportion
    robust: Proportion | None
    """None: not attacked at this depth."""
    grey: bool

    @property
    def relative(self) -> float | None:
        """robust / clean; None where undefined."""
        return None if self.robust is None or not self.clean.count else self.robust.count / self.clean.count


def gather(folders: Folders, selection: Selection) -> list[Placed]:
    """Return the wanted records under a folder or board, or several, with where they lie; none raises ``InputError``.

    Records with a failed trust check are returned too, see ``trusted``. One that lies in several folders counts once.
    """
    wanted: list[Placed] = []
    there = 0
    for folder in as_folders(folders):
        found = _under(folder)
        there += len(found)
        wanted += _new([placed for placed in found if selection.takes(placed.record)], wanted)
    if not wanted:
        raise nothing_found(folders, selection, there)
    selection.check([placed.record for placed in wanted])
    return wanted


def _new(found: Sequence[Placed], known: Sequence[Placed]) -> list[Placed]:
    """Return the records that the folders before have not; another run of a cell that they have is refused.

    Taken together, the two runs would be one attack that searched twice, beside models that were searched once.
    """
    cells = {(p.record.identity.cell, p.record.identity.model.weights_hash): p for p in known if p.credit is None}
    new = []
    for placed in found:
        identity = placed.record.identity
        first = cells.get((identity.cell, identity.model.weights_hash)) if placed.credit is None else None
        if first is None or first.record.identity != identity:
            new.append(placed)
        elif first.record.verdicts.sha256 != placed.record.verdicts.sha256:
            raise InputError(
                f"--records: {first.path} and {placed.path} are two runs of one cell, with other verdicts; give one of "
                "them, or narrow what is asked for"
            )
    return new


def _under(folder: Path) -> list[Placed]:
    if folder.is_file():
        return [Placed(read_record(folder), folder)]
    if any((folder / part).is_dir() for part in PARTS):
        return [placed for entry in read_board(folder).entries for placed in entry.placed]
    paths = [path for path in record_paths(folder) if path.name not in (CARD_FILE, ATTACK_FILE)]
    return [Placed(read_record(path), path, _credit(path)) for path in paths]


def _credit(path: Path) -> AttackCard | None:
    card = path.with_name(ATTACK_FILE)
    return read_card(card, AttackCard) if card.exists() else None


def trusted(placed: Iterable[Placed]) -> tuple[list[Placed], list[str]]:
    """Return the records whose figures may be used together, and a note on each that is left out.

    A record that failed its checks is, and so is an attack on texts beside attacks on images: one worst case is over
    attacks that change the same thing. Attacks on texts alone are a table of their own.
    """
    placed = list(placed)
    kept, notes = [], []
    for found in placed:
        record = found.record
        if record.checks.failed:
            codes = ", ".join(flag.code for flag in record.checks.flags if flag.level == "failed")
            notes.append(f"left out: {record.identity.model.name} under {record.identity.attack.name} failed {codes}")
        else:
            kept.append(found)
    if any(kind_of(found.record) == "image" for found in kept):
        texts = [found for found in kept if kind_of(found.record) != "image"]
        kept = [found for found in kept if found not in texts]
        named = sorted({found.record.identity.attack.name for found in texts})
        notes += [f"left out, as they change texts: {', '.join(named)}; --attack shows them"] if named else []
    if not kept:
        raise InputError(f"--records: no figure may be used ({'; '.join(notes)})")
    return kept, notes


def standings_of(placed: Sequence[Placed]) -> list[Standing]:
    """Return the records as standings, one a model and ground: the undefended model first, then by name."""
    entries: dict[tuple[str, str, str], list[Placed]] = {}
    for found in placed:
        identity = found.record.identity
        key = (identity.protocol.name, identity.model.name, identity.model.weights_hash)
        entries.setdefault(key, []).append(found)
    grouped = [
        standing
        for (protocol, model, weights), found in entries.items()
        for standing in Entry(protocol, model, weights, None, tuple(found)).standings
    ]
    return sorted(grouped, key=lambda s: (_record(s).identity.model.defence != "none", s.entry.model))


def _record(standing: Standing) -> Record:
    return standing.placed[0].record


def names_of(standings: Sequence[Standing]) -> dict[tuple[str, str], str]:
    """Return what each model is called, by (name, weights hash): its name, and its weights where two share it."""
    keys = list(dict.fromkeys((s.entry.model, s.entry.weights_hash) for s in standings))
    names = [name for name, _ in keys]
    return {(n, w): n if names.count(n) == 1 else f"{n} ({w[7:15]})" for n, w in keys}


def figures(standing: Standing, shown: Shown) -> tuple[DepthFigures, ...]:
    """Return a standing's figures by depth, coarsest first; empty without that scoring.

    A single record's own figures are taken as they are; several are put together sample by sample.
    """
    found = []
    if len(standing.placed) > 1:
        check_verdicts(standing)
    for entry in _record(standing).depths:
        scores = cast("DepthScoring | None", getattr(entry, shown.scoring))
        if scores is None:
            return ()
        if len(standing.placed) == 1:
            robust = scores.robust if shown.aimed else scores.worst
        else:
            broken = broken_at(standing, shown, entry.depth)
            robust = None if broken is None else proportion(~broken)
        found.append(
            DepthFigures(entry.depth, entry.nodes, scores.chance, entry.majority, scores.clean, robust, is_grey(entry))
        )
    return tuple(found)


def broken_at(standing: Standing, shown: Shown, depth: int) -> Bools | None:
    """Return [n]: broken at a depth by any attack that counts, or when clean; None where none counts.

    The verdicts must have been checked, see ``check_verdicts``.
    """
    parts = []
    for placed in standing.placed:
        attack = placed.record.identity.attack
        for aimed in placed.verdicts.attacked:
            everywhere = not shown.aimed or (attack.pooled and shown.scoring == "rollup")
            broken = placed.verdicts.attack_broken(aimed, shown.scoring) if everywhere or aimed == depth else None
            if broken is not None:
                parts.append(broken[:, depth - 1])
    return np.logical_or.reduce(parts) if parts else None


def clean_broken_at(standing: Standing, shown: Shown, depth: int) -> Bools | None:
    """Return [n]: wrong at a depth when clean, or None without that scoring; the verdicts must have been checked."""
    broken = standing.placed[0].verdicts.clean_broken(shown.scoring)
    return None if broken is None else broken[:, depth - 1]


def has_verdicts(standing: Standing) -> bool:
    """Return whether the verdicts lie beside every record."""
    return all(_verdict_path(placed).is_file() for placed in standing.placed)


def _verdict_path(placed: Placed) -> Path:
    return placed.path.with_name(placed.record.verdicts.file)


def check_verdicts(standing: Standing) -> None:
    """Raise ``InputError`` unless every record's verdicts are there, unchanged, and of the same samples."""
    first = None
    for placed in standing.placed:
        check_verdict_file(
            placed, "there is no worst case over several attacks and no paired figure; --attack chooses one record"
        )
        ids = placed.verdicts.sample_ids
        if first is not None and ids != first:
            raise InputError(
                f"{_verdict_path(placed)}: other samples than {_verdict_path(standing.placed[0]).name} has"
            )
        first = ids


def check_verdict_file(placed: Placed, without: str) -> None:
    """Raise ``InputError`` unless a record's verdicts are there, and unchanged; ``without`` them, what there is not."""
    path = _verdict_path(placed)
    if not path.is_file():
        raise InputError(f"{path} is missing: without verdicts beside the records {without}")
    if digest_file(path) != placed.record.verdicts.sha256:
        raise InputError(f"{path}: not the verdicts that its record was made with (another SHA-256)")


def attack_names(placed: Sequence[Placed], among: Sequence[Placed]) -> tuple[str, ...]:
    """Return the attacks of some records in words, told apart from all those of ``among``."""
    labels = dict(zip(map(_key, among), attack_labels([p.record for p in among]), strict=True))
    scorings: dict[str, set[str]] = {}
    for found in among:
        scorings.setdefault(labels[_key(found)], set()).add(found.record.identity.attack.scoring)
    named = []
    for found in placed:
        label, attack = labels[_key(found)], found.record.identity.attack
        aims = " and ".join(map(str, attack.depths)) if len(attack.depths) < 3 else ""
        every = len(attack.depths) == len(found.record.depths)
        parts = [f"at depth {aims}"] if aims and not every and not attack.pooled else []
        parts += ["pooled"] if attack.pooled else []
        parts += [f"stopped by {attack.scoring}"] if len(scorings[label]) > 1 else []
        parts += [f"images by {', '.join(found.credit.authors)}"] if found.credit else []
        named.append(" ".join([label, *parts]))
    return tuple(sorted(dict.fromkeys(named)))


def _key(placed: Placed) -> str:
    return f"{placed.path}"


def attack_key(record: Record) -> str:
    """Return what makes two records' attacks the same one."""
    attack = record.identity.attack
    # What a search computed in is no other attack: its verdicts are float32's.
    parameters = {name: value for name, value in attack.parameters.items() if name != "search_precision"}
    parts = (attack.name, attack.engine, attack.scoring, attack.depths, attack.pooled, parameters)
    return json.dumps(parts, sort_keys=True, default=str)


def on_common_attacks(standings: Sequence[Standing], *, everywhere: str = "") -> tuple[list[Standing], list[str]]:
    """Return the standings with only the attacks that all of them met (``everywhere`` in words), and what was not."""
    keys = [{attack_key(p.record) for p in s.placed} for s in standings]
    common = set.intersection(*keys)
    among = [p for s in standings for p in s.placed]
    if not common:
        said = "; ".join(
            f"{s.entry.model} at {s.ground.eps}: {', '.join(attack_names(s.placed, among))}" for s in standings[:3]
        )
        raise InputError(f"--attack: these models met no attack in common{everywhere} ({said})")
    left = [p for p in among if attack_key(p.record) not in common]
    kept = [
        Standing(s.entry, s.ground, tuple(p for p in s.placed if attack_key(p.record) in common)) for s in standings
    ]
    named = ", ".join(attack_names(left, among))
    return kept, [f"left out, as not every model met them{everywhere}: {named}"] if left else []
