"""Peak memory of the running process."""

from __future__ import annotations

import sys


def peak_memory_bytes(device: str) -> int | None:
    """Return the peak memory: of the device where it is a GPU, else of the process; None where nobody counts it."""
    if device.startswith("cuda"):
        import torch

        return int(torch.cuda.max_memory_allocated(device))
    try:
        import resource
    except ImportError:  # not on Windows
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return int(peak) if sys.platform == "darwin" else int(peak) * 1024
