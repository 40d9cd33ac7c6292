"""Training in several processes that ``torchrun`` started: each works on its part of every batch."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from hierbench.errors import HierbenchError
from hierbench.processes import in_company, join_group

T = TypeVar("T")


@dataclass(frozen=True)
class Processes:
    """This process's place among those that train one model together; all hold the same weights after every step."""

    rank: int = 0
    count: int = 1

    @property
    def leads(self) -> bool:
        """Whether this one writes, validates and reports."""
        return self.rank == 0

    def share(self, positions: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """Return this process's part of a batch; parts differ by at most one image."""
        return np.array_split(positions, self.count)[self.rank]

    def sum_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Add the gradients of all processes up, in place; a parameter that none has a gradient for keeps none."""
        if self.count == 1:
            return
        parameters = list(parameters)
        reached = torch.tensor([int(p.grad is not None) for p in parameters], device=parameters[0].device)
        torch.distributed.all_reduce(reached)
        for parameter, processes in zip(parameters, reached.tolist(), strict=True):
            if processes == 0:
                continue
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
            torch.distributed.all_reduce(parameter.grad)

    def gather(self, value: T) -> list[T]:
        """Return every process's value, in order of rank."""
        if self.count == 1:
            return [value]
        values: list[T | None] = [None] * self.count
        torch.distributed.all_gather_object(values, value)
        return values  # type: ignore[return-value]  # every place is filled

    def any(self, value: bool, device: torch.device) -> bool:
        """Return whether any process says yes."""
        if self.count == 1:
            return value
        flag = torch.tensor(int(value), device=device)
        torch.distributed.all_reduce(flag, op=torch.distributed.ReduceOp.MAX)
        return bool(flag)

    def agree(self, own: object, what: str) -> None:
        """Raise ``HierbenchError`` unless ``own``, say a digest of the weights, is the same in all processes."""
        if any(other != own for other in self.gather(own)):
            raise HierbenchError(f"the processes of this training {what}")


def join_processes(device: torch.device) -> Processes:
    """Return this process's place; joins the others where ``torchrun`` set ``WORLD_SIZE`` above 1."""
    if device.type == "cuda" and in_company():
        torch.cuda.set_device(device)  # where NCCL puts what is gathered
    rank, count = join_group("nccl" if device.type == "cuda" else "gloo")
    return Processes(rank=rank, count=count)
