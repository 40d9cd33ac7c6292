"""Records that no note tells of: those of a board, or of a folder that was copied without its notes."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

from hierbench.errors import HierbenchError
from hierbench.evaluation.records import Record
from hierbench.evaluation.request import Request, choose_hierarchy, make_plan, spell_eps
from hierbench.evaluation.stored import read_record, record_paths
from hierbench.sweep.notes import NOTES_FOLDER

Place = tuple[str, str, str]


class KnownRecords:
    """The records under a results folder, looked up by what a request comes to."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def of(self, request: Request) -> Iterator[tuple[str, Record]]:
        """Yield the records (with their paths below the folder) of the very settings that a request comes to.

        Whether they are whole, and of the protocol and weights at hand, is not looked at. A request that comes to
        nothing has none: what is wrong with it is said when it runs.
        """
        found = self._by_place.get((_model(request), str(request.dataset), str(request.attack)), [])
        if found and request.store_images is None:
            try:
                tree = choose_hierarchy(request)
                plan = make_plan(request, tree)
            except HierbenchError:
                return
            wanted: dict[str, Any] = {
                "protocol": plan.protocol.name, "tree": tree.tree, "split": plan.split, "limit": plan.limit,
                "template": plan.template, "norm": plan.norm, "eps": spell_eps(plan.eps), "scoring": plan.scoring,
                "depths": list(plan.depths), "seed": plan.seed, "batch_size": plan.batch_size,
                "severity_samples": plan.severity_samples,
            }  # fmt: skip
            stated = plan.attack.stated(plan.settings)
            wanted |= {f"settings.{name}": value for name, value in stated.items()}
            tacit = {f"settings.{p.name}" for p in plan.attack.parameters if p.name not in stated}
            for path, record in found:
                said, attack = record.arguments.resolved, record.identity.attack
                same = all(name in said and said[name] == value for name, value in wanted.items())
                same &= tacit.isdisjoint(said)
                same &= attack.parameters.get("search_precision", "fp32") == plan.search_precision
                same &= attack.engine.partition(" ")[0] == (request.engine or "hierbench")
                if same and (record.rank_preservation is not None or not request.rank_preservation):
                    yield path, record

    @cached_property
    def _by_place(self) -> dict[Place, list[tuple[str, Record]]]:
        found: dict[Place, list[tuple[str, Record]]] = defaultdict(list)
        for path in record_paths(self._folder) if self._folder.is_dir() else ():
            below = path.relative_to(self._folder)
            if NOTES_FOLDER in below.parts:
                continue
            try:
                record = read_record(path)
            except HierbenchError:
                continue  # what cannot be read is no finished cell
            identity = record.identity
            found[identity.model.name, identity.dataset.name, identity.attack.name].append((below.as_posix(), record))
        return found


def _model(request: Request) -> str:
    """Return a model's name; a plan names a trained one by its folder, which has it."""
    return Path(request.model).name
