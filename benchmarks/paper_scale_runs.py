"""What the benchmark at real size runs in a process of its own: a training, an evaluation, the engine, a bare loop."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

DATASET, TRAINED_ON, EPS, ATTACK_STEPS = "nips2017", "tiny_imagenet", "1/255", 3


def child(task: dict[str, Any]) -> None:
    """Do one task in this process and write its row."""
    import torch

    from hierbench.evaluation.environment import describe_environment
    from hierbench.evaluation.memory import peak_memory_bytes

    torch.set_num_threads(task["threads"])
    work = {"train": train, "eval": evaluate, "eval-hier_aft": evaluate, "bare": bare}
    row = work.get(task["job"], engine)(task)
    gpu = task["device"].startswith("cuda")
    environment = describe_environment(
        device=task["device"],
        device_name=torch.cuda.get_device_name(task["device"]) if gpu else torch.backends.cpu.get_cpu_capability(),
        threads=task["threads"],
        seed=task["seed"],
        batch_size=task["batch"],
    ).model_dump(mode="json")
    row |= {"environment": environment, "gpu_memory_bytes": peak_memory_bytes(task["device"]) if gpu else None}
    Path(task["result"]).write_text(json.dumps(row), encoding="utf-8")


def command(words: list[str]) -> None:
    """Run a command of hierbench in this process; a failed trust check (exit code 3) is a result, too."""
    from hierbench.cli.app import app

    code = app(words, standalone_mode=False)
    if code not in (None, 0, 3):
        raise SystemExit(int(code))


def train(task: dict[str, Any]) -> dict[str, Any]:
    """Train Hier-AFT for a few steps, into ``hier_aft`` of the work folder."""
    from hierbench.defences.training.checkpoint import CHECKPOINT_FILE

    out = Path(task["work"]) / "hier_aft"
    settings = {
        "steps": task["train_steps"], "batch_size": task["batch"], "accumulate": 1, "prepare_images": task["batch"],
        "attack_steps": ATTACK_STEPS, "validation_images": 0, "checkpoint_seconds": 3600,
    }  # fmt: skip
    words = ["train", "--recipe", "paper/hier_aft", "--dataset", TRAINED_ON, "--backbone", task["backbone"]]
    words += ["--limit", str(task["batch"] * task["train_steps"]), "--seed", str(task["seed"])]
    words += ["--device", task["device"], "--out", str(out), "--restart"]
    command([*words, *(word for name, value in settings.items() for word in ("--set", f"{name}={value}"))])
    done = json.loads((out / "training.json").read_text(encoding="utf-8"))["run"]
    (out / CHECKPOINT_FILE).unlink(missing_ok=True)  # gigabytes, and nothing goes on from it
    return {
        "n": done["images"],
        "dataset": TRAINED_ON,
        "precision": "fp32",
        **{name: done[name] for name in ("forwards", "backwards", "seconds")},
    }


def evaluate(task: dict[str, Any]) -> dict[str, Any]:
    """Attack the undefended or the trained model at every depth."""
    from hierbench.evaluation.stored import read_record

    out = Path(task["work"]) / f"results-{task['job']}"
    model = task["backbone"] if task["job"] == "eval" else str(Path(task["work"]) / "hier_aft")
    words = ["eval", "--model", model, "--dataset", DATASET, "--attack", "superclass_pgd", "--eps", EPS]
    words += ["--protocol", "imagenet-eps1-v1", "--steps", str(task["steps"]), "--limit", str(task["limit"])]
    words += ["--severity-samples", str(task["limit"]), "--batch-size", str(task["batch"])]
    words += ["--seed", str(task["seed"]), "--device", task["device"], "--out", str(out), "--force", "--quiet"]
    command(words)
    (path,) = out.glob("*/*/*.json")
    found = read_record(path)
    cost = found.cost
    return {
        "n": found.counts.scored,
        "attacked": [depth.rollup.clean.count for depth in found.depths],
        "dataset": DATASET,
        "precision": "fp32",
        "forwards": sum(depth.forwards for depth in cost.per_depth),
        "backwards": sum(depth.backwards for depth in cost.per_depth),
        "seconds": sum(depth.seconds for depth in cost.per_depth),
        "text_forwards": cost.text_forwards,
        "weights_hash": found.identity.model.weights_hash,
        "activation": found.identity.model.activation,
        "flags": [flag.code for flag in found.checks.flags],
    }


def real_tower(task: dict[str, Any]) -> tuple[Any, Any, Any]:
    """Return a map of pixels to logits over one drawn direction a class, the images [n, 3, 224, 224], and their set."""
    import numpy as np
    import torch

    import hierbench
    from hierbench.datasets.load import load_images

    model = hierbench.load_model(task["backbone"], device=task["device"]).eval()
    images = load_images(DATASET, limit=task["limit"])
    draws = torch.Generator().manual_seed(task["seed"])
    size = model.text_projection.shape[1]
    directions = torch.nn.functional.normalize(torch.randn(len(images.spec.classes), size, generator=draws), dim=1)
    directions = directions.to(task["device"])
    pixels = images.pixels(np.arange(len(images))).float() / 255
    return (lambda part: model.logits(model.embed(part), directions)), pixels, images


def engine(task: dict[str, Any]) -> dict[str, Any]:
    """Run the engine where every sample is attacked to the full budget."""
    import numpy as np
    import torch

    from hierbench.attacks.catalogue import ATTACKS
    from hierbench.attacks.engine.attack import run_attack
    from hierbench.attacks.threat import ThreatModel, parse_eps
    from hierbench.hierarchy.catalogue import load_hierarchy
    from hierbench.models.layout import NodeLayout

    forward, pixels, images = real_tower(task)
    tree = load_hierarchy(images.spec.tree_dataset, classes=images.spec.class_ids)
    layout = NodeLayout.from_hierarchy(tree, direct=False).to(torch.device(task["device"]))
    with torch.no_grad():
        own = torch.cat([forward(part.to(task["device"])).argmax(1).cpu() for part in pixels.split(task["batch"])])
    spec = ATTACKS.get("superclass_pgd")
    settings = spec.settings({"steps": task["steps"]})
    depth = tree.num_depths
    result = run_attack(
        forward,
        pixels,
        own.numpy(),
        tuple(images.ids),
        plan=spec.plan(depth=depth, layout=layout, scoring="rollup", settings=settings),
        layout=layout,
        threat=ThreatModel("linf", parse_eps(EPS, norm="linf", name="eps:")),
        depth=depth,
        scoring="rollup",
        batch_size=task["batch"],
        seed=task["seed"],
        dataset=DATASET,
        attack_name=spec.name,
        full_budget=np.ones(len(pixels), dtype=np.bool_),
        device=task["device"],
        search_precision="bf16" if task["job"] == "engine-bf16" else "fp32",
    )
    return {
        "n": len(pixels),
        "dataset": DATASET,
        "precision": "bf16 search" if task["job"] == "engine-bf16" else "fp32",
        "labels": "the model's own predictions",
        "forwards": result.forwards,
        "backwards": result.backwards,
        "seconds": result.seconds,
    }


def bare(task: dict[str, Any]) -> dict[str, Any]:
    """Make the passes that the engine made, in a plain loop."""
    import torch

    forward, pixels, _ = real_tower(task)
    device, batch = task["device"], task["batch"]
    parts = [part.to(device) for part in pixels.split(batch)]
    targets = torch.zeros(batch, dtype=torch.long, device=device)
    pairs, alone = task["backwards"] // batch, (task["forwards"] - task["backwards"]) // batch
    with torch.no_grad():
        float(forward(parts[0]).sum())  # the engine's model has made a forward before, too
    began = time.perf_counter()
    for number in range(pairs):
        query = parts[number % len(parts)].clone().requires_grad_()
        loss = torch.nn.functional.cross_entropy(forward(query), targets, reduction="sum")
        (gradient,) = torch.autograd.grad(loss, query)
        gradient.sign()
    with torch.no_grad():
        for number in range(alone):
            forward(parts[number % len(parts)])
    if device.startswith("cuda"):
        torch.cuda.synchronize(device)
    seconds = time.perf_counter() - began
    return {
        "n": len(pixels),
        "dataset": DATASET,
        "precision": "fp32",
        "forwards": (pairs + alone) * batch,
        "backwards": pairs * batch,
        "seconds": seconds,
    }
