"""The trainer: what moves, what it refuses, and that a killed run ends in the same bits."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from standin import SmallModel, digits_forest, mixed_forest, small_images
from torch import Tensor

from hierbench.attacks.threat import ThreatModel
from hierbench.defences.base import Batch, Perturbed
from hierbench.defences.catalogue import DefenceSpec
from hierbench.defences.methods.hier_aft.settings import HierAFTSettings
from hierbench.defences.methods.tecoa import TeCoA, TeCoASettings
from hierbench.defences.training.checkpoint import CHECKPOINT_FILE
from hierbench.defences.training.settings import TrainingSettings
from hierbench.defences.training.trainer import RECORD_FILE, TrainingInterruptedError, TrainProgress, TrainResult, train
from hierbench.errors import ExitCode, HierbenchError, InputError

RECIPE: dict[str, Any] = {
    "steps": 12,
    "batch_size": 16,
    "learning_rate": 3e-3,
    "checkpoint_steps": 2,
    "prepare_images": 32,
    "log_points": 6,
}


def run(out: Path, name: str = "hier_aft", *, model: SmallModel | None = None, **options: Any) -> TrainResult:
    recipe = {**RECIPE, **options.pop("recipe", {})}
    defaults: dict[str, Any] = {
        "images": small_images(),
        "forest": digits_forest("strokes"),
        "template": "a photo of {noun}.",
        "threat": ThreatModel("linf", Fraction(8, 255)),
        "seed": 3,
    }
    given: Any = model or SmallModel()
    return train(name, model=given, out_dir=out, training=TrainingSettings(**recipe), **{**defaults, **options})


def tensors(model: Any) -> dict[str, Tensor]:
    return {name: t.detach().clone() for name, t in model.state_dict().items()}


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


@pytest.mark.parametrize(
    ("name", "settings", "moves"),
    [
        ("tecoa", None, ("visual",)),
        ("tecoa", TeCoASettings(train_text_projection=True), ("visual", "text_projection")),
        ("hier_aft", None, ("visual", "text_projection", "head")),
        ("hier_aft", HierAFTSettings(train_scalars=False), ("visual", "text_projection")),
        ("hier_aft", HierAFTSettings(geometry="euclidean"), ("visual", "text_projection", "head")),
        ("hier_aft", HierAFTSettings(geometry="cosine", perturbation="leaf"), ("visual", "text_projection")),
    ],
)
def test_only_what_a_defence_trains_moves(tmp_path: Path, name: str, settings: Any, moves: tuple[str, ...]) -> None:
    before = tensors(SmallModel())
    model = SmallModel()
    state_before = torch.random.get_rng_state()
    result = run(tmp_path, name, settings=settings, model=model)
    assert torch.equal(torch.random.get_rng_state(), state_before)
    after = tensors(result.model)
    parameters = dict(result.model.named_parameters())
    if result.model.head.kind != "cosine":
        del before["head.logit_scale"]  # that head was replaced
    for key, tensor in before.items():
        moved = not torch.equal(after[key], tensor)
        trains = key in parameters and key.startswith(moves)
        assert moved == trains, key
    if name == "hier_aft" and result.model.head.kind == "hyperbolic":
        head: Any = result.model.head
        start = torch.linspace(1.0, 0.5, 3)
        assert torch.equal(head.level_scale.detach(), start) == ("head" not in moves)
    assert not result.model.training and not any(p.requires_grad for p in parameters.values())


@pytest.mark.parametrize("name", ["tecoa", "hier_aft"])
def test_training_helps_under_attack(tmp_path: Path, name: str) -> None:
    recipe = {"steps": 100, "learning_rate": 2e-2, "log_points": 5, "augmentation": "none"}
    result = run(tmp_path, name, recipe=recipe, threat=ThreatModel("linf", Fraction(4, 255)))
    first, last = result.record["run"]["curve"][0], result.record["run"]["curve"][-1]
    assert last["ce_leaf"] < 0.8 * np.log(10) < first["ce_leaf"]
    assert last["loss"] < 0.7 * first["loss"]


def test_record_says_what_was_done(tmp_path: Path) -> None:
    result = run(tmp_path, forest=mixed_forest())
    record = json.loads((tmp_path / RECORD_FILE).read_text())
    assert record == json.loads(json.dumps(result.record))
    assert record["given"]["settings"] == HierAFTSettings().as_dict()
    assert record["given"]["trees"] == [tree.content_hash for tree in mixed_forest().trees]
    assert record["given"]["threat"] == {"norm": "linf", "eps": "8/255"}
    assert record["given"]["backbone"] == {"name": "small", "weights": SmallModel().weights_hash}
    assert record["weights_hash"] == result.model.weights_hash
    done = record["run"]
    assert (done["steps"], done["batch_size"], done["images"], done["warmup_steps"]) == (12, 16, 60, 1)
    assert done["alpha"] == pytest.approx(4 / 255)
    assert (done["forwards"], done["backwards"]) == (12 * 16 * 4, 12 * 16 * 4)
    assert [point["step"] for point in done["curve"]] == [2, 4, 6, 8, 10, 12]
    assert done["prepared"]["zeta_vic"] > 0
    assert {"flags", "text_radius", "norm_order_violated", "recent"} <= set(done["guards"])
    assert {"ce_leaf", "ce/strokes/1", "skipped_nodes", "clipped_images", "gap_intra_active", "attack_gain"} <= set(
        done["guards"]["recent"]
    )
    assert record["environment"]["packages"]["torch"] and record["environment"]["threads"] >= 1
    assert record["augmentation"] == "digit"


def test_the_text_tower_runs_once_and_unseen_classes_take_no_part(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, images = SmallModel(), small_images()
    asked: list[str] = []
    encode = model.text_hidden
    monkeypatch.setattr(model, "text_hidden", lambda prompts: asked.extend(prompts) or encode(prompts))
    drawn: list[int] = []
    pixels = type(images).pixels
    monkeypatch.setattr(
        type(images),
        "pixels",
        lambda self, indices: drawn.extend(self.labels[indices].tolist()) or pixels(self, indices),
    )
    result = run(tmp_path, model=model, images=images, classes=[0, 1, 2, 6, 8])
    assert len(asked) == len(set(asked)) == model.encoded
    assert set(drawn) == {0, 1, 2, 6, 8}
    nouns = [leaf.noun for leaf in digits_forest().trees[0].leaves]
    assert not any(f"a photo of {nouns[c]}." in asked for c in (3, 4, 5, 7, 9))
    assert "a photo of a straight stroke." not in asked
    assert result.record["given"]["classes"] == [0, 1, 2, 6, 8] and result.record["run"]["images"] == 30


def test_learning_rates_by_scope_and_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[list[tuple[float, float, int]]] = []
    step = torch.optim.AdamW.step

    def spy(self: Any, *args: Any, **rest: Any) -> Any:
        seen.append([(g["lr"], g["weight_decay"], len(g["params"])) for g in self.param_groups])
        return step(self, *args, **rest)

    monkeypatch.setattr(torch.optim.AdamW, "step", spy)
    run(tmp_path, recipe={"steps": 20, "learning_rate": 1e-3, "weight_decay": 0.01})
    visual, projection, head = zip(*seen, strict=True)
    assert [row[0] for row in visual[:3]] == pytest.approx([5e-4, 1e-3, 1e-3])
    assert [row[0] for row in projection] == pytest.approx([0.1 * row[0] for row in visual])
    assert [row[0] for row in head] == [row[0] for row in visual]
    assert (visual[0][1], projection[0][1], head[0][1]) == (0.01, 0.01, 0.0)
    assert (projection[0][2], head[0][2]) == (1, 3)


class StoppedError(Exception):
    """Stands in for a kill."""


def stop_at(step: int) -> Any:
    def progress(where: TrainProgress) -> None:
        if where.step == step:
            raise StoppedError

    return progress


@pytest.mark.parametrize("name", ["tecoa", "hier_aft"])
@pytest.mark.parametrize("optimiser", ["adamw", "sgd"])
def test_a_killed_run_ends_in_the_same_bits(tmp_path: Path, name: str, optimiser: str) -> None:
    recipe = {"optimiser": optimiser, "checkpoint_steps": 3}
    whole = run(tmp_path / "whole", name, recipe=recipe)
    want = tensors(whole.model)
    stops = np.random.default_rng(len(name)).choice(np.arange(1, 12), size=3, replace=False)
    for stop in sorted(stops.tolist()):
        with pytest.raises(StoppedError):
            run(tmp_path / "killed", name, recipe=recipe, progress=stop_at(stop))
    steps: list[TrainProgress] = []
    resumed = run(tmp_path / "killed", name, recipe=recipe, progress=steps.append)
    assert same(tensors(resumed.model), want)
    assert resumed.record["run"]["curve"] == whole.record["run"]["curve"]
    assert resumed.record["weights_hash"] == whole.record["weights_hash"]
    assert resumed.record["run"]["forwards"] == whole.record["run"]["forwards"]
    assert steps[0].resumed_at == (max(stops) - 1) // 3 * 3 and steps[-1].step == 12
    # A finished run is not trained again.
    again = run(tmp_path / "killed", name, recipe=recipe, progress=stop_at(12))
    assert same(tensors(again.model), want)


def test_a_run_repeats_and_its_seed_matters(tmp_path: Path) -> None:
    first = tensors(run(tmp_path / "a").model)
    assert same(tensors(run(tmp_path / "b").model), first)
    assert not same(tensors(run(tmp_path / "c", seed=4).model), first)


def test_stopping_on_request_keeps_everything(tmp_path: Path) -> None:
    count = 0

    def should_stop() -> bool:
        nonlocal count
        count += 1
        return count == 5

    with pytest.raises(TrainingInterruptedError, match="step 5 of 12") as caught:
        run(tmp_path, recipe={"checkpoint_steps": None}, should_stop=should_stop)
    assert caught.value.exit_code == ExitCode.INTERRUPTED
    assert not (tmp_path / RECORD_FILE).exists()
    steps: list[TrainProgress] = []
    resumed = run(tmp_path, recipe={"checkpoint_steps": None}, progress=steps.append)
    assert steps[0].step == 6
    assert same(tensors(resumed.model), tensors(run(tmp_path / "whole", recipe={"checkpoint_steps": None}).model))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"seed": 4}, "seed differs: was 3, is 4"),
        ({"threat": ThreatModel("linf", Fraction(4, 255))}, "threat differs: eps was '8/255', is '4/255'"),
        ({"recipe": {"learning_rate": 1e-4}}, "learning_rate was 0.003, is 0.0001"),
        ({"settings": HierAFTSettings(hnsa="off")}, "hnsa was 'both', is 'off'"),
        ({"forest": digits_forest("parity")}, "trees differs"),
        ({"classes": [0, 1, 2, 3]}, "data differs|classes differs"),
        ({"images": small_images(count=50)}, "data differs"),
        ({"model": SmallModel(seed=1)}, "weights was"),
    ],
)
def test_a_checkpoint_of_another_run_is_refused(tmp_path: Path, change: dict[str, Any], words: str) -> None:
    with pytest.raises(StoppedError):
        run(tmp_path, progress=stop_at(3))
    with pytest.raises(InputError, match=words) as caught:
        run(tmp_path, **change)
    assert "\n" not in str(caught.value)
    run(tmp_path, **change, resume=False)


def test_two_trainings_do_not_share_a_folder(tmp_path: Path) -> None:
    """Each would write the other's checkpoint."""

    def second(progress: Any) -> None:
        if progress.step == 2:
            before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
            with pytest.raises(InputError, match=r"another run is writing .*; wait for it or name another folder"):
                run(tmp_path)
            assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
            asked.append(progress.step)

    asked: list[int] = []
    done = run(tmp_path, progress=second)
    assert asked == [2] and (tmp_path / "training.json").exists()
    assert not list(tmp_path.glob(".*lock")), "nothing is left of the lock"
    assert same(tensors(done.model), tensors(run(tmp_path / "alone").model))


def test_a_damaged_checkpoint_is_one_clear_line(tmp_path: Path) -> None:
    (tmp_path / CHECKPOINT_FILE).write_bytes(b"\x00" * 50)
    with pytest.raises(InputError, match=CHECKPOINT_FILE):
        run(tmp_path)


def test_inputs_that_cannot_be_trained(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="nothing to train"):
        run(tmp_path, "none")
    with pytest.raises(InputError, match="did you mean 'tecoa'"):
        run(tmp_path, "tekoa")
    with pytest.raises(InputError, match="takes HierAFTSettings, not TeCoASettings"):
        run(tmp_path, settings=TeCoASettings())
    with pytest.raises(InputError, match="no image of the 2 trained classes"):
        run(tmp_path, images=small_images(classes=5), classes=[8, 9])
    with pytest.raises(HierbenchError, match="the loss is"):
        run(tmp_path, "tecoa", recipe={"optimiser": "sgd", "learning_rate": 1e30, "clip_norm": None})


class CleanLoss(TeCoA):
    """Its loss looks at the clean images."""

    def loss(self, model: Any, batch: Batch, perturbed: Perturbed, text: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        return super().loss(model, batch, Perturbed(batch.pixels), text)


class NoMove(TeCoA):
    """Its attack returns the clean images."""

    def perturb(self, model: Any, batch: Batch, text: Tensor) -> Perturbed:
        return Perturbed(batch.pixels.clone())


class NoGradient(TeCoA):
    """It claims to train the text projection, and its loss detaches it."""

    trains = ("visual", "text_projection")  # type: ignore[assignment]

    def loss(self, model: Any, batch: Batch, perturbed: Perturbed, text: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        points = model.head.points((self.task.hidden[:10] @ model.text_projection).detach(), 0)
        return torch.nn.functional.cross_entropy(model.logits(model.embed(perturbed.pixels), points), batch.labels), {}


class Nothing(TeCoA):
    """It trains nothing."""

    trains = ()  # type: ignore[assignment]


class Meddler(TeCoA):
    """It moves a weight it does not train."""

    def loss(self, model: Any, batch: Batch, perturbed: Perturbed, text: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        with torch.no_grad():
            model.visual[1].running_mean[0] += 1e-6
        return super().loss(model, batch, perturbed, text)


@pytest.mark.parametrize(
    ("method", "words"),
    [
        (CleanLoss, "does not depend on the adversarial images"),
        (NoMove, "did not move the images"),
        (NoGradient, "'text_projection', but its loss has no gradient"),
        (Nothing, "trains nothing"),
        (Meddler, "a frozen weight moved"),
    ],
)
def test_defences_that_do_not_do_what_they_say_are_refused(
    tmp_path: Path, method: type[TeCoA], words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(DefenceSpec, "load", lambda self: method)
    with pytest.raises(HierbenchError, match=words):
        run(tmp_path, "tecoa")


def test_a_rate_of_zero_trains_nothing_and_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hierbench.defences.training.run.rate_at", lambda *_, **__: 0.0)
    with pytest.raises(HierbenchError, match="did not move 'visual'"):
        run(tmp_path, "tecoa")


def test_batch_norm_statistics_are_frozen_but_its_weights_train(tmp_path: Path) -> None:
    before = tensors(SmallModel())
    after = tensors(run(tmp_path, "tecoa").model)
    assert torch.equal(after["visual.1.running_mean"], before["visual.1.running_mean"])
    assert int(after["visual.1.num_batches_tracked"]) == 0
    assert not torch.equal(after["visual.1.weight"], before["visual.1.weight"])


def test_folding_batch_norms_changes_nothing_but_rounding(tmp_path: Path) -> None:
    recipe = {"steps": 1}
    folded = run(tmp_path / "a", "tecoa", recipe=recipe)
    plain = run(tmp_path / "b", "tecoa", recipe={**recipe, "fold_batch_norm": False})
    assert folded.record["run"]["batch_norms_folded_in_attack"] == 1
    assert plain.record["run"]["batch_norms_folded_in_attack"] == 0
    assert folded.record["run"]["curve"][0]["loss"] == pytest.approx(plain.record["run"]["curve"][0]["loss"], rel=1e-4)


KILLED = """
import sys
from pathlib import Path
sys.path.insert(0, {folder!r})
import torch
torch.set_num_threads(1)
from test_trainer import run
run(Path(sys.argv[1]), recipe={{"steps": 150, "checkpoint_steps": 1}})
"""


@pytest.mark.slow
def test_sigkill_at_random_moments(tmp_path: Path) -> None:
    script = KILLED.format(folder=str(Path(__file__).parent))
    command = [sys.executable, "-c", script]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"}
    subprocess.run([*command, str(tmp_path / "whole")], check=True, env=environment)
    stream = np.random.default_rng(0)
    kills = 0
    for _ in range(12):
        process = subprocess.Popen([*command, str(tmp_path / "killed")], env=environment)
        checkpoint = tmp_path / "killed" / CHECKPOINT_FILE
        seen = checkpoint.stat().st_mtime_ns if checkpoint.exists() else 0
        while process.poll() is None and (not checkpoint.exists() or checkpoint.stat().st_mtime_ns == seen):
            time.sleep(0.005)
        time.sleep(float(stream.uniform(0, 0.3)))
        if process.poll() is not None:
            break
        process.send_signal(signal.SIGKILL)
        process.wait()
        kills += 1
    subprocess.run([*command, str(tmp_path / "killed")], check=True, env=environment)
    assert kills >= 2
    whole, killed = (json.loads((tmp_path / name / RECORD_FILE).read_text()) for name in ("whole", "killed"))
    assert killed["weights_hash"] == whole["weights_hash"]
    assert killed["run"]["curve"] == whole["run"]["curve"]
    assert killed["run"]["resumes"] >= kills - 1
