"""Forward passes at a fixed ladder of batch sizes.

A kernel may round differently at another batch size, so sizes follow one rule: they depend on the number of rows
at hand alone, never on what else the machine is doing. Rows that only fill a batch up are copies of its own rows.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from hierbench.attacks.engine.precision import exact_float32
from hierbench.errors import HierbenchError

Forward = Callable[[Tensor], Tensor]
"""Maps pixels [B, c, h, w] in [0, 1] to logits [B, N], float32."""

SMALLEST_BATCH = 4
_CPU_REFUSAL = "can't allocate memory"


@dataclass
class Cost:
    """What went through the model, in images; copies that only filled a batch are in it, and in ``padding`` too."""

    forwards: int = 0
    backwards: int = 0
    padding: int = 0


def ladder(batch_size: int) -> tuple[int, ...]:
    """Return the batch sizes in use, largest first: the given one, its halves down to 4, and three quarters of each.

    >>> ladder(128), ladder(40), ladder(7)
    ((128, 96, 64, 48, 32, 24, 16, 12, 8, 6, 4), (40, 30, 20, 15, 10, 7, 5), (7,))
    """
    sizes = [batch_size]
    while sizes[-1] // 2 >= SMALLEST_BATCH:
        sizes += [sizes[-1] * 3 // 4, sizes[-1] // 2]
    return tuple(sizes)


def fitting_size(rows: int, batch_size: int) -> int:
    """Return the smallest size of the ladder that holds ``rows``, or the largest there is.

    >>> [fitting_size(rows, 128) for rows in (1, 8, 9, 65, 500)]
    [4, 8, 12, 96, 128]
    """
    return min((size for size in ladder(batch_size) if size >= rows), default=batch_size)


def padded(images: Tensor, size: int) -> Tensor:
    """Return [size, ...]: the rows, then as many copies of them, in order, as fill the batch."""
    if len(images) == size:
        return images
    return images[torch.arange(size, device=images.device) % len(images)]


def checked_forward(forward: Forward, images: Tensor) -> Tensor:
    """Return the logits of one batch; shapes and types that no verdict can rest on are a ``HierbenchError``."""
    logits = forward(images)
    if logits.ndim != 2 or len(logits) != len(images):
        raise HierbenchError(f"the model gave logits {tuple(logits.shape)} for {len(images)} images: want [B, N]")
    if logits.dtype not in (torch.float32, torch.float64):
        raise HierbenchError(f"the model gave {logits.dtype} logits: attacks and verdicts need float32")
    return logits


@torch.no_grad()
def forward_rows(forward: Forward, images: Tensor, *, batch_size: int, device: torch.device, cost: Cost) -> Tensor:
    """Return the logits [n, N] of images [n, c, h, w], in index order, in batches of one fixed layout, in float32.

    A batch that does not fit into the memory goes through in halves, and so do the ones after it.
    """
    found = []
    part = batch_size
    with exact_float32(device):
        for start in range(0, len(images), batch_size):
            batch = images[start : start + batch_size].to(device)
            size = fitting_size(len(batch), batch_size)
            logits, part = _in_parts(forward, padded(batch, size), part)
            found.append(logits[: len(batch)])
            cost.forwards += size
            cost.padding += size - len(batch)
    return torch.cat(found)


def _in_parts(forward: Forward, images: Tensor, part: int) -> tuple[Tensor, int]:
    """Return the logits of a batch and the largest part of it that fitted."""
    while True:
        try:
            starts = range(0, len(images), part)
            return torch.cat([checked_forward(forward, images[s : s + part]) for s in starts]), part
        except (torch.OutOfMemoryError, RuntimeError) as error:
            part = smaller_part(error, min(part, len(images)))


def smaller_part(error: Exception, part: int) -> int:
    """Return half of ``part`` where memory ran out; raise the error where it is another one.

    ``HierbenchError`` says that a single image does not fit.
    """
    if not isinstance(error, torch.OutOfMemoryError) and _CPU_REFUSAL not in str(error):
        raise error
    if part == 1:
        raise HierbenchError("one image does not fit into the memory: use a smaller model") from error
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    return part // 2
