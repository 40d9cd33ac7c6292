"""What needs the weights: that they are those of the card, and that they say what the verdicts say."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from hierbench.board.card import AttackCard, Card
from hierbench.board.verify import rules
from hierbench.board.verify.figures import Cell, differing
from hierbench.board.verify.grounds import search_precision
from hierbench.errors import InputError
from hierbench.evaluation.identity import Identity
from hierbench.evaluation.protocol import PROTOCOLS
from hierbench.evaluation.request import Request
from hierbench.evaluation.verdicts import Bools

if TYPE_CHECKING:
    from torch import Tensor

    from hierbench.attacks.engine.verify import Judgement
    from hierbench.evaluation.victim import EngineVictim
    from hierbench.models.zeroshot import ZeroShotModel

CLEAN = 256
"""Samples whose clean verdicts are computed again."""
TIE = 1e-3
"""Two logits that are nearer than this share of the spread may change places from machine to machine."""
_PICKLES = (b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05", b"PK\x03\x04", b"\x1f\x8b")
_MODEL_FILES = ("model.json", "delta.safetensors", "training.json", "checkpoint.safetensors")


@dataclass(frozen=True)
class AtHand:
    """A model whose weights can be asked, or why not."""

    model: ZeroShotModel | None
    why: str = ""


def weights_at_hand(card: Card | AttackCard, folder: Path | None, backbone: str) -> AtHand:
    """Return the model of a card: from ``folder``, or shipped with hierbench.

    Raises ``InputError``, naming the file, for a folder that holds a pickle or anything else that could run, and for
    weights that are damaged.
    """
    from hierbench.models.catalogue import MODELS, UNDEFENDED
    from hierbench.models.load import load_model

    if folder is not None:
        check_folder(folder)
        # an absolute path, so that no name of the registry is meant
        return AtHand(load_model(str(folder.absolute())))
    if card.model not in MODELS:
        return AtHand(None, f"the weights of {card.model} are not at hand (--weights FOLDER)")
    return AtHand(load_model(card.model, backbone=backbone if card.model == UNDEFENDED else None))


def check_folder(folder: Path) -> None:
    """Refuse with an ``InputError`` a model folder with anything in it that loading could run."""
    if not folder.is_dir():
        raise InputError(f"--weights: {folder} is not a folder; give one that hierbench train wrote")
    for path in sorted(folder.iterdir()):
        if path.is_symlink() or not path.is_file():
            continue
        with path.open("rb") as stream:
            head = stream.read(4)
        if head.startswith(_PICKLES) or (path.suffix in (".pt", ".pth", ".pkl", ".bin", ".ckpt", ".npy")):
            raise InputError(f"{path}: a pickle or an archive, which could run code: weights are safetensors files")
        if path.name not in _MODEL_FILES and path.suffix == ".safetensors":
            raise InputError(f"{path}: a model folder holds {', '.join(_MODEL_FILES)}")


def against_weights(
    cells: list[Cell],
    card: Card | AttackCard,
    card_path: Path,
    model: ZeroShotModel,
    root: str | None,
) -> Iterator[tuple[Path, str]]:
    """Yield (file, reason) for everything that the weights contradict; the images must be at hand."""
    stated = card.weights.weights_hash if isinstance(card, Card) else card.weights_hash
    if model.weights_hash != stated:
        field = "weights.weights_hash" if isinstance(card, Card) else "weights_hash"
        yield card_path, f"{field}: {stated[:19]}..., and the weights given are {model.weights_hash[:19]}..."
        return
    protocol, behaved = PROTOCOLS.get(card.protocol), False
    for cell in cells:
        try:
            victim, images, identity = _bound(cell, model, root)
        except InputError as error:
            yield cell.path, f"identity: {error}"
            continue
        yield from ((cell.path, reason) for reason in _identity(cell, identity))
        if isinstance(card, Card) and not behaved:
            behaved = True
            names = tuple(c.record.identity.attack.name for c in cells)
            yield from ((card_path, r) for r in _rules(victim, images, protocol, card.variant, names))
        yield from _verdicts(cell, victim, images)


def _bound(cell: Cell, model: ZeroShotModel, root: str | None) -> tuple[EngineVictim, Any, Identity]:
    """Return the cell's model bound as for its attack, the images of a sample, and the identity it has here."""
    from hierbench.evaluation.prepare import prepare_cell
    from hierbench.evaluation.victim import EngineVictim

    identity = cell.record.identity
    rows = 0 if cell.images is None else len(cell.images.ids)
    request = Request(
        model=identity.model.name,
        dataset=identity.dataset.name,
        tree=identity.hierarchy.name,
        attack=None if cell.shown else identity.attack.name,
        eps=identity.attack.eps,
        norm=identity.attack.norm,
        scoring=identity.attack.scoring,
        search_precision=None if cell.shown else search_precision(identity.attack),
        protocol=identity.protocol.name,
        limit=min(max(CLEAN, rows), len(cell.verdicts.sample_ids)),
        data_root=root,
        device="cpu",
    )
    here = prepare_cell(request, model=model)
    if not isinstance(here.victim, EngineVictim):
        raise InputError(f"{identity.model.name} cannot be asked again")
    return here.victim, here.images, here.identity


def _identity(cell: Cell, here: Identity) -> Iterator[str]:
    theirs = cell.record.identity
    stated = ("name", "weights_hash", "backbone_hash", "defence", "trained_on", "head", "activation", "parameters")
    for name in (*stated, "guard_flags"):
        yield from differing(f"identity.model.{name}", getattr(theirs.model, name), getattr(here.model, name))
    yield from differing("identity.dataset.prompts_hash", theirs.dataset.prompts_hash, here.dataset.prompts_hash)
    if not cell.shown:
        yield from differing("identity.attack.parameters", theirs.attack.parameters, here.attack.parameters)


def _rules(victim: EngineVictim, images: Any, protocol: Any, variant: str, names: tuple[str, ...]) -> Iterator[str]:
    import torch

    count = min(rules.IMAGES, len(images.ids))
    pixels = images.pixels(np.arange(count)).to(torch.float32) / 255
    labels = torch.from_numpy(np.asarray(images.labels[:count]))
    forward: Any = victim.forward
    leaves = victim.layout.num_leaves
    seen = rules.observe(lambda given: forward(given)[:, :leaves], forward, pixels, labels)
    yield from (f"variant: {reason}" for reason in rules.breaches(seen, protocol, variant=variant, evaluated=names))


def _verdicts(cell: Cell, victim: EngineVictim, images: Any) -> Iterator[tuple[Path, str]]:
    """Ask the weights for the clean verdicts of a sample, then for those on the stored images."""
    count = len(images.ids)
    clean = _judged(victim, images.pixels(np.arange(count)).float() / 255, images.labels)
    told = cell.verdicts.clean
    for reason in _contradictions(clean, told, cell.verdicts.sample_ids[:count]):
        yield cell.verdicts_path, f"clean_prediction: {reason}"
        return
    stored = cell.images
    if stored is None:
        return
    from hierbench.evaluation.replay.form import decode

    rows = len(stored.ids)
    pixels = images.pixels(np.arange(rows))
    for depth in stored.identity.attack.depths:
        shown = decode(stored.deltas(depth, 0, rows), pixels, form=stored.form).clamp(0, 1)
        found = _judged(victim, shown, images.labels[:rows])
        for reason in _contradictions(found, stored.judged(depth), stored.ids):
            yield stored.path, f"d{depth}.predicted: {reason}"


def _judged(victim: EngineVictim, pixels: Tensor, labels: Any) -> Judgement:
    import torch

    from hierbench.attacks.engine.batching import Cost, forward_rows
    from hierbench.attacks.engine.verify import judge

    logits = forward_rows(victim.forward, pixels, batch_size=victim.batch_size, device=victim.device, cost=Cost())
    return judge(logits, torch.from_numpy(np.array(labels)).to(victim.device), victim.layout.to(victim.device))


def _contradictions(found: Judgement, told: Any, ids: tuple[str, ...]) -> Iterator[str]:
    """Yield where the weights say otherwise, and not for the sake of a tie that another machine may break."""
    rows = len(ids)
    wrong = found.predictions["rollup"][:, -1].cpu().numpy() != told.predicted[:rows]
    for name, said in (("rollup", told.broken_rollup), ("direct", told.broken_direct)):
        if said is not None and name in found.broken:
            wrong |= (found.broken[name].cpu().numpy() != said[:rows]).any(axis=1)  # type: ignore[index]
    wrong &= ~_tied(found)
    if wrong.any():
        first = ids[int(np.flatnonzero(wrong)[0])]
        yield f"the weights give other verdicts on {int(wrong.sum())} of {rows} samples (first {first!r})"


def _tied(found: Judgement) -> Bools:
    """Return [n]: two of the largest logits are so near that rounding may decide between them."""
    logits = found.logits.float().cpu()
    top = logits.topk(min(2, logits.shape[1]), dim=1).values
    spread = (logits.amax(dim=1) - logits.amin(dim=1)).clamp_min(1e-12)
    return np.asarray((top[:, 0] - top[:, -1] < TIE * spread).numpy())
