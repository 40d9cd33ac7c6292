"""Processes that ``torchrun`` started together: which one this is, and how it joins and leaves the others."""

from __future__ import annotations

import atexit
import os
from datetime import timedelta

PATIENCE = timedelta(days=14)
"""How long one waits for another: the longest cell of a slow machine. A process that dies ends the wait at once."""


def own_device(device: str) -> str:
    """Return the device of this process: under ``torchrun`` each takes the GPU of its own number.

    >>> own_device("cpu")
    'cpu'
    """
    local = os.environ.get("LOCAL_RANK")
    return f"cuda:{local}" if device == "cuda" and local is not None else device


def in_company() -> bool:
    """Return whether ``torchrun`` set ``WORLD_SIZE`` above 1."""
    return os.environ.get("WORLD_SIZE", "1") != "1"


def join_group(backend: str) -> tuple[int, int]:
    """Join the processes that ``torchrun`` started and return (own number, how many); alone it is (0, 1).

    ``backend`` is torch.distributed's, ``gloo`` or ``nccl``. Raises ``InputError`` where ``WORLD_SIZE`` is set without
    the rest that joining takes.
    """
    if not in_company():
        return 0, 1
    import torch

    from hierbench.errors import InputError

    if not torch.distributed.is_initialized():
        try:
            torch.distributed.init_process_group(backend, timeout=PATIENCE)
        except ValueError as error:
            raise InputError(f"WORLD_SIZE is set, but the processes cannot be joined ({error}); use torchrun") from None
        # A process that leaves without a word can bring down one that still listens to it.
        atexit.register(_leave)
    return torch.distributed.get_rank(), torch.distributed.get_world_size()


def _leave() -> None:
    import torch

    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()
