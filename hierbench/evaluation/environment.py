"""Facts about the machine and the code that a record keeps."""

from __future__ import annotations

import hashlib
import importlib.metadata
import platform
import subprocess
import sys
from functools import cache
from pathlib import Path

import hierbench
from hierbench.evaluation.identity import Environment

PACKAGES = (
    "torch", "torchvision", "open_clip_torch", "timm", "numpy", "safetensors", "scikit-learn", "pillow", "pyarrow",
    "torchattacks", "pyautoattack",
)  # fmt: skip
DECIDING = ("attacks", "datasets", "evaluation", "hierarchy", "models")
"""Subpackages whose code decides a verdict."""


def describe_environment(
    *, device: str, device_name: str | None, threads: int, seed: int, batch_size: int
) -> Environment:
    """Return the environment part of a record."""
    commit, dirty = git_state()
    return Environment(
        hierbench=package_version("hierbench") or "unknown",
        code_hash=code_hash(),
        packages={name: version for name in PACKAGES if (version := package_version(name)) is not None},
        python=platform.python_version(),
        platform=f"{sys.platform}-{platform.machine()}",
        git_commit=commit,
        git_dirty=dirty,
        device=device,
        device_name=device_name,
        dtype="float32",
        threads=threads,
        seed=seed,
        batch_size=batch_size,
    )


def package_version(name: str) -> str | None:
    """Return an installed package's version, or None."""
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


@cache
def code_hash() -> str:
    """Return ``sha256:<hex>`` over the source of all modules that decide a verdict."""
    root = _package_root()
    files = [path for part in DECIDING for path in (root / part).rglob("*.py")]
    digest = hashlib.sha256()
    for path in sorted(files):
        content = path.read_bytes().replace(b"\r\n", b"\n")
        digest.update(f"{path.relative_to(root).as_posix()}\0{len(content)}\0".encode() + content)
    return f"sha256:{digest.hexdigest()}"


@cache
def git_state() -> tuple[str | None, bool | None]:
    """Return the checkout's commit and whether it has uncommitted changes; (None, None) outside a checkout."""
    root = _package_root().parent
    if not (root / ".git").exists():  # an installed wheel may lie inside somebody else's repository
        return None, None
    commit = _git(root, "rev-parse", "HEAD")
    status = _git(root, "status", "--porcelain", "--untracked-files=no")
    return commit or None, None if status is None else bool(status)


def _git(root: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(["git", *arguments], cwd=root, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def _package_root() -> Path:
    return Path(next(iter(hierbench.__path__)))
