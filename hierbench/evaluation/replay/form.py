"""How adversarial images are written down: as differences from the reader's own clean images, never as images.

``8bit``: the image is rounded to the 8-bit grid inside box and ball, and the difference is a whole number of 1/255.
``float``: the difference of the two float32 bit patterns, read as whole numbers (for numbers that are not negative
the pattern grows with the value), so that the image is rebuilt bit for bit; a rounded difference of floats could not
promise that.
"""

from __future__ import annotations

import hashlib
from typing import Any, Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hierbench.attacks.threat import BALL_TOLERANCE, ThreatModel, distances
from hierbench.errors import InputError

Form = Literal["8bit", "float"]
FORMS: tuple[Form, ...] = get_args(Form)

Deltas = NDArray[np.int8] | NDArray[np.int16] | NDArray[np.int32]

DIGEST_BYTES = 16
LEVELS = 255


def read_form(name: str) -> Form:
    """Return a form by name; another name is an ``InputError``."""
    for form in FORMS:
        if name == form:
            return form
    raise InputError(f"--store-images: {name!r} is none of {', '.join(FORMS)}")


def delta_type(form: Form, threat: ThreatModel) -> np.dtype[Any]:
    """Return the type of a stored difference: int8 (int16 where eps allows more than 127/255), int32 for floats.

    >>> from fractions import Fraction
    >>> delta_type("8bit", ThreatModel("linf", Fraction(8, 255))).name
    'int8'
    """
    if form == "float":
        return np.dtype(np.int32)
    return np.dtype(np.int8 if _reach(threat) <= np.iinfo(np.int8).max else np.int16)


def encode(adversarial: Tensor, clean: Tensor, *, form: Form, threat: ThreatModel) -> Deltas:
    """Return the differences [n, c, h, w] of images float32 in [0, 1] from clean ones uint8, both [n, c, h, w].

    With ``8bit``, ``decode`` gives the nearest image on the grid that still lies in the ball; with ``float`` the very
    same image.
    """
    kind = delta_type(form, threat)
    if form == "float":
        moved, still = _bits(adversarial), _bits(in_unit_range(clean))
        return np.asarray(moved - still, dtype=kind)
    exact = adversarial.detach().cpu().double().numpy() * LEVELS - clean.cpu().double().numpy()
    grid = np.rint(exact)
    if threat.norm == "linf":
        grid = np.clip(grid, -_reach(threat), _reach(threat))
    else:
        grid = np.stack([_trimmed(row, limit=_square_limit(threat)) for row in _paired(grid, exact)])
    return np.asarray(grid, dtype=kind)


def decode(deltas: Deltas, clean: Tensor, *, form: Form) -> Tensor:
    """Return the images float32 [n, c, h, w] that differ from clean ones uint8 [n, c, h, w] by ``deltas``.

    Nothing is clipped: what a damaged file makes of an image is for ``outside`` to find.
    """
    if form == "float":
        bits = _bits(in_unit_range(clean)) + np.asarray(deltas, dtype=np.int32)
        return torch.from_numpy(np.ascontiguousarray(bits).view(np.float32))
    levels = clean.cpu().to(torch.int16) + torch.from_numpy(np.asarray(deltas, dtype=np.int16))
    return levels.to(torch.float32) / LEVELS


def outside(images: Tensor, clean: Tensor, threat: ThreatModel) -> list[str]:
    """Return what is wrong with each image [n, c, h, w] against clean ones uint8: empty where nothing is.

    An image must be finite, in the box [0, 1], and in the ball (1e-6 of float rounding allowed).
    """
    flat = images.flatten(1)
    finite = torch.isfinite(flat).all(dim=1)
    boxed = ((flat >= 0) & (flat <= 1)).all(dim=1)
    far = distances(images, in_unit_range(clean), norm=threat.norm)
    words = []
    for ok, inside, distance in zip(finite.tolist(), boxed.tolist(), far.tolist(), strict=True):
        if not ok:
            words.append("has pixels that are not finite")
        elif not inside:
            words.append("has pixels outside [0, 1]")
        elif distance > threat.radius + BALL_TOLERANCE:
            words.append(f"is {distance:.6f} from its clean image in {threat.norm}, and eps is {threat.radius:.6f}")
        else:
            words.append("")
    return words


def pixel_digests(clean: Tensor) -> NDArray[np.uint8]:
    """Return uint8 [n, 16]: a hash of each clean image uint8 [n, c, h, w], which names it without showing it."""
    rows = np.ascontiguousarray(clean.cpu().numpy())
    made = [hashlib.blake2b(row.tobytes(), digest_size=DIGEST_BYTES, person=b"hierbench").digest() for row in rows]
    return np.frombuffer(b"".join(made), dtype=np.uint8).reshape(len(rows), DIGEST_BYTES).copy()


def in_unit_range(clean: Tensor) -> Tensor:
    """Return uint8 pixels as float32 in [0, 1], on the CPU: the same bits everywhere."""
    return clean.cpu().to(torch.float32) / LEVELS


def _bits(images: Tensor) -> NDArray[np.int32]:
    return np.ascontiguousarray(images.detach().cpu().numpy(), dtype=np.float32).view(np.int32)


def _reach(threat: ThreatModel) -> int:
    """How many grid levels one pixel may move."""
    return min(LEVELS, int(threat.eps * LEVELS))


def _square_limit(threat: ThreatModel) -> int:
    """The largest sum of squared levels in the l2 ball."""
    return int((threat.eps * LEVELS) ** 2)


def _paired(grid: NDArray[np.float64], exact: NDArray[np.float64]) -> list[tuple[NDArray[np.float64], ...]]:
    return list(zip(grid, exact, strict=True))


def _trimmed(row: tuple[NDArray[np.float64], ...], *, limit: int) -> NDArray[np.float64]:
    """Return one image's levels with as few of them moved a level towards 0 as bring it back into the l2 ball.

    Those that rounding had moved furthest outward go first.
    """
    grid, exact = row[0].ravel().copy(), row[1].ravel()
    while (excess := int((grid**2).sum()) - limit) > 0:
        outward = np.where(grid != 0, np.abs(grid) - np.abs(exact), -np.inf)
        order = np.argsort(-outward, kind="stable")[: np.count_nonzero(grid)]
        gain = np.cumsum(2 * np.abs(grid[order]) - 1)
        chosen = order[: int(np.searchsorted(gain, excess)) + 1]
        grid[chosen] -= np.sign(grid[chosen])
    return grid.reshape(row[0].shape)
