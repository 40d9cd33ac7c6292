"""Which classes a backbone or a defence has seen: a committed split, fixed before any training."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from hierbench.datasets.catalogue import get_spec
from hierbench.errors import HierbenchError, InputError
from hierbench.paths import data_dir


@dataclass(frozen=True)
class SeenSplit:
    """Class ids that no image training, fine-tuning or search may use, by data set base name."""

    name: str
    unseen: dict[str, tuple[str, ...]]
    content_hash: str
    """SHA-256 of its file, as records name it."""

    def known(self, dataset: str) -> tuple[str, ...]:
        """Return the class ids of a data set that training may use, in label order."""
        spec = get_spec(dataset)
        hidden = set(self.unseen.get(spec.base_name, ()))
        return tuple(c for c in spec.class_ids if c not in hidden)

    def speaks_of(self, dataset: str) -> bool:
        """Return whether the split says anything of a data set's classes."""
        return get_spec(dataset).base_name in self.unseen

    def known_mask(self, dataset: str) -> list[bool]:
        """Return one flag a class, in label order: may training use it?"""
        known = set(self.known(dataset))
        return [c in known for c in get_spec(dataset).class_ids]


@lru_cache(maxsize=8)
def load_seen(name: str = "seen-v1") -> SeenSplit:
    """Read ``leaderboard/splits/<name>.json`` and check every class id in it."""
    folder = data_dir() / "leaderboard" / "splits"
    available = sorted(p.stem for p in folder.glob("*.json"))
    if name not in available:
        raise InputError(f"unknown class split {name!r}: known are {', '.join(available) or 'none'}")
    data = (folder / f"{name}.json").read_bytes()
    content = json.loads(data)
    unseen: dict[str, Sequence[str]] = content["unseen"]
    for dataset, ids in unseen.items():
        classes = set(get_spec(dataset).class_ids)
        strange = [i for i in ids if i not in classes]
        if strange:
            raise HierbenchError(f"class split {name}: {dataset} has no class {strange[0]!r}")
    digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
    return SeenSplit(name, {d: tuple(ids) for d, ids in unseen.items()}, digest)
