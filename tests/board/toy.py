"""A small protocol on digits and a model of its own: what the board's tests submit."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path

import torch

from hierbench.evaluation.protocol import PROTOCOLS, Protocol, load_protocol_file
from hierbench.evaluation.storage import digest_file
from hierbench.models.load import load_model
from hierbench.models.storage import save_model

NAME = "toyboard-v1"
ATTACKS = ("leaf_pgd", "superclass_pgd", "multilevel_apgd")
TOML = """
name = "toyboard-v1"
version = 1
title = "Toy"
description = "Digits, a few of them."
backbone = "tiny_clip-v1"
variant = "digits"
scorings = ["rollup", "direct"]
seed = 0
batch_size = 24
severity_samples = 8
seen_split = "seen-v1"

[train]
dataset = "digits"
eps = "32/255"

[attack]
names = ["leaf_pgd", "superclass_pgd", "multilevel_apgd"]
default = "leaf_pgd"
headline = "multilevel_apgd"
required = ["leaf_pgd", "superclass_pgd", "multilevel_apgd"]
norm = "linf"

[attack.parameters."*pgd"]
steps = 4

[[dataset]]
name = "digits"
tree = "strokes"
split = "test"
eps = ["16/255", "32/255"]
default_eps = "32/255"
limit = 24
"""


def add_protocol(folder: Path) -> Protocol:
    """Make the protocol known, once a process."""
    if NAME not in PROTOCOLS:
        path = folder / f"{NAME}.toml"
        path.write_text(TOML, encoding="utf-8")
        PROTOCOLS.add(NAME, load_protocol_file(path))
    return PROTOCOLS.get(NAME)


def make_model(folder: Path, name: str = "nudged.digits", by: float = 0.01) -> Path:
    """Write a model that is nobody's: a shipped one, moved a little."""
    model = load_model("clip")
    model.info = dataclasses.replace(model.info, name=name, defence="nudged", variant="digits", trained_on="digits")
    with torch.no_grad():
        last = list(model.visual.parameters())[-1]
        last.add_(by * torch.linspace(-1, 1, last.numel()).view_as(last))
    return save_model(model, folder)


def edit_json(path: Path, change: Callable[[dict], object]) -> None:
    """Change a JSON file in place."""
    content = json.loads(path.read_text(encoding="utf-8"))
    change(content)
    path.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def sign(folder: Path) -> None:
    """Make the card list the files as they are now: what a forger would do."""
    card = next(folder / n for n in ("submission.json", "attack.json") if (folder / n).exists())

    def files(content: dict) -> None:
        paths = sorted(p for p in folder.iterdir() if p.name != card.name)
        content["files"] = [{"name": p.name, "sha256": digest_file(p), "size": p.stat().st_size} for p in paths]

    edit_json(card, files)
