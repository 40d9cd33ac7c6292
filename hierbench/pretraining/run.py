"""``hierbench pretrain``: make the small backbone, and the record of how it was made."""

from __future__ import annotations

import dataclasses
import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from hierbench.datasets.catalogue import get_spec
from hierbench.datasets.images import ImageSet
from hierbench.datasets.load import load_images
from hierbench.datasets.seen import SeenSplit, load_seen
from hierbench.errors import InputError
from hierbench.models.backbones import CONFIG_FILE, WEIGHTS_FILE, load_backbone
from hierbench.models.pixels import PixelInput
from hierbench.paths import data_dir
from hierbench.pretraining.joint import ImagePool, JointSettings, train_joint
from hierbench.pretraining.nouns import merged, wordnet_entries
from hierbench.pretraining.report import accuracy_report
from hierbench.pretraining.tasks import build_tasks, known_training_images
from hierbench.pretraining.teacher import TEACHER, teacher_vectors
from hierbench.pretraining.text import NounSampler, TextSettings, text_retrieval, train_text

Report = Callable[[str, int, int, dict[str, float]], None]

IMAGE_SETS = (("cifar100", "train"), ("tiny_imagenet@32", "pretrain"), ("digits", "train"))
HELDOUT_SETS = (("cifar100", "heldout"), ("digits", "heldout"))
TEST_SETS = (("cifar100", "test"), ("tiny_imagenet@32", "valid"), ("cifar10", "test"), ("digits", "test"))


def run(
    *,
    out: Path,
    architecture: str = "tiny_clip-v1",
    seen: str = "seen-v1",
    seed: int = 0,
    text: TextSettings | None = None,
    joint: JointSettings | None = None,
    root: str | os.PathLike[str] | None = None,
    report: Report | None = None,
) -> dict[str, Any]:
    """Pre-train a small open_clip backbone and write it to ``out`` in open_clip's ``local-dir:`` layout.

    First the text tower alone on WordNet nouns (kept in ``out`` and reused when its settings are unchanged),
    then both towers on images of known classes only. Returns the record, which stands beside the weights.
    Needs the data root, WordNet 3.0 and the ``pretrain`` extra.
    """
    text, joint = text or TextSettings(), joint or JointSettings()
    tell = report or (lambda phase, step, steps, parts: None)
    split = load_seen(seen)
    source = data_dir() / "weights" / architecture / CONFIG_FILE
    if not source.is_file():
        raise InputError(f"pretrain: --architecture {architecture!r} has no {source}")
    started = time.monotonic()
    sets = [known_training_images(load_images(name, split=part, root=root), split) for name, part in IMAGE_SETS]
    for images in sets:
        _refuse_unseen(images, split)
    out.mkdir(parents=True, exist_ok=True)
    (out / CONFIG_FILE).write_text(source.read_text(encoding="utf-8"), encoding="utf-8")

    clip, tokenizer, pixels = _fresh(architecture, seed)
    concepts, tasks = build_tasks([get_spec(name) for name, _ in IMAGE_SETS], split)
    entries = wordnet_entries()
    phrases = list(dict.fromkeys((c.name, c.noun) for c in concepts))
    everything = merged(entries, phrases)
    vectors = np.concatenate([teacher_vectors(entries), teacher_vectors(everything[len(entries) :])])
    bridge = torch.nn.Linear(clip.text_projection.shape[1], vectors.shape[1])
    _text_phase(
        clip, bridge, NounSampler(entries, vectors, tokenizer, seed=seed, noise=text.noise), text, out, seed, tell
    )

    sampler = NounSampler(everything, vectors, tokenizer, seed=seed + 10, noise=text.noise)
    pool = ImagePool(sets, pixels.size, joint.digits_share)
    train_joint(
        clip, bridge, sampler, pool, concepts, tasks, tokenizer, pixels, joint,
        seed=seed, report=lambda step, steps, parts: tell("images", step, steps, parts),
    )  # fmt: skip
    _save(clip, out)
    model = load_backbone(f"local-dir:{out}")
    record: dict[str, Any] = {
        "format": 1,
        "backbone": architecture,
        "weights_hash": model.weights_hash,
        "seed": seed,
        "class_split": seen,
        "teacher": {"name": TEACHER, "wordnet": "3.0", "nouns": len(entries)},
        "settings": {"text": dataclasses.asdict(text), "joint": dataclasses.asdict(joint)},
        "training_images": [
            {
                "dataset": s.spec.name,
                "split": s.split,
                "revision": s.revision,
                "n": len(s),
                "sample_hash": s.sample_hash,
            }
            for s in sets
        ],
        "caption_tasks": [{"dataset": t.dataset, "level": t.depth_name, "nodes": t.stop - t.start} for t in tasks],
        "seconds": round(time.monotonic() - started, 1),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
    }
    return finish_record(record, model, tokenizer, split, out, root=root, seed=seed)


def finish_record(
    record: dict[str, Any], model: Any, tokenizer: Any, split: SeenSplit, out: Path, *, root: Any, seed: int
) -> dict[str, Any]:
    """Measure the stored backbone (held-out and test images, text retrieval), add it to the record and write that."""
    record["heldout"] = [accuracy_report(model, load_images(n, split=p, root=root), split) for n, p in HELDOUT_SETS]
    record["test"] = [accuracy_report(model, load_images(n, split=p, root=root), split) for n, p in TEST_SETS]
    record["text_retrieval"] = text_retrieval(model.clip, tokenizer, wordnet_entries(), seed)
    (out / "record.json").write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    return record


def _refuse_unseen(images: ImageSet, split: SeenSplit) -> None:
    known = split.known_mask(images.spec.name)
    if not all(known[label] for label in images.labels.tolist()):
        raise InputError(f"pretrain: {images.spec.name} {images.split} holds an unseen class")


def _fresh(architecture: str, seed: int) -> tuple[Any, Any, PixelInput]:
    import logging

    import open_clip

    config = json.loads((data_dir() / "weights" / architecture / CONFIG_FILE).read_text(encoding="utf-8"))
    torch.manual_seed(seed)
    logging.getLogger().setLevel(logging.ERROR)
    clip = open_clip.create_model(architecture, load_weights=False)
    with torch.no_grad():
        clip.logit_scale.fill_(float(np.log(20.0)))
    preprocess = config["preprocess_cfg"]
    pixels = PixelInput(config["model_cfg"]["vision_cfg"]["image_size"], preprocess["mean"], preprocess["std"])
    return clip.to(memory_format=torch.channels_last), open_clip.get_tokenizer(architecture), pixels


def _text_phase(
    clip: Any, bridge: torch.nn.Linear, sampler: NounSampler, settings: TextSettings, out: Path, seed: int, tell: Report
) -> None:
    from safetensors.torch import load_file, save_file

    kept = out / "text-phase.safetensors"
    key = json.dumps({"seed": seed, "nouns": len(sampler.entries), **dataclasses.asdict(settings)}, sort_keys=True)
    note = out / "text-phase.json"
    if kept.is_file() and note.is_file() and note.read_text(encoding="utf-8") == key:
        state = load_file(kept)
        bridge.load_state_dict({k.removeprefix("bridge."): v for k, v in state.items() if k.startswith("bridge.")})
        clip.load_state_dict({k: v for k, v in state.items() if not k.startswith("bridge.")}, strict=False)
        return
    train_text(clip, bridge, sampler, settings, lambda step, parts: tell("nouns", step, settings.steps, parts))
    state = {k: v.contiguous() for k, v in clip.state_dict().items() if not k.startswith("visual.")}
    save_file(state | {f"bridge.{k}": v.contiguous() for k, v in bridge.state_dict().items()}, kept)
    note.write_text(key, encoding="utf-8")


def _save(clip: Any, out: Path) -> None:
    from safetensors.torch import save_file

    with torch.no_grad():
        clip.logit_scale.clamp_(max=float(np.log(50.0)))
    half = {
        k: (v.half() if v.is_floating_point() else v).contiguous().clone() for k, v in clip.eval().state_dict().items()
    }
    part = out / (WEIGHTS_FILE + ".part")
    save_file(half, part)
    part.replace(out / WEIGHTS_FILE)
