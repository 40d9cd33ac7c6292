"""TGA-ZSR and SAFT: losses and inner objectives against NumPy in float64, descriptions, and whole runs."""

from __future__ import annotations

import copy
import hashlib
import json
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from standin import digits_forest, digits_spec, make_task, small_images
from test_attention import (
    Array,
    make_tower,
    numpy,
    reference_agreement,
    reference_distance,
    reference_min_max,
    reference_tokens,
)
from torch import Tensor, nn

from hierbench.attacks.threat import ThreatModel
from hierbench.datasets.descriptions import shipped_file
from hierbench.defences.base import Batch, Perturbed
from hierbench.defences.methods.saft import SAFT, SAFTSettings
from hierbench.defences.methods.tecoa import TeCoA, TeCoASettings
from hierbench.defences.methods.tga_zsr import TGAZSR, TGAZSRSettings
from hierbench.defences.training.settings import TrainingSettings
from hierbench.defences.training.trainer import TrainingInterruptedError, TrainResult, train
from hierbench.errors import InputError
from hierbench.models.heads import CosineHead
from hierbench.models.pixels import PixelInput
from hierbench.models.zeroshot import ModelInfo, ZeroShotModel

COUNT = 4
SCALE = 5.0
TEXT = {"context_length": 24, "vocab_size": 66, "width": 12, "heads": 2, "layers": 1}


def tokenise(prompts: list[str]) -> Tensor:
    """Words by their hash, and an end that is the largest number."""
    rows = torch.zeros(len(prompts), 24, dtype=torch.long)
    for row, prompt in zip(rows, prompts, strict=True):
        words = prompt.split()[:22]
        for place, word in enumerate(words):
            row[place] = 1 + int(hashlib.blake2b(word.encode(), digest_size=4).hexdigest(), 16) % 64
        row[len(words)] = 65
    return rows


def small_clip(kind: str = "vit") -> ZeroShotModel:
    from open_clip.model import CLIP

    with torch.random.fork_rng():
        torch.manual_seed(4)
        vision = {"image_size": 16, "patch_size": 4, "width": 16, "layers": 1, "head_width": 8}
        clip = CLIP(embed_dim=8, vision_cfg=vision, text_cfg=TEXT).eval().requires_grad_(False)
        nn.init.normal_(clip.text_projection, std=0.5)
    clip.visual = make_tower(kind)
    side = {"vit": 16, "timm": 32}[kind]
    info = ModelInfo(name="clip", defence="none", variant="", backbone="small")
    pixels = PixelInput(side, (0.4, 0.5, 0.6), (0.2, 0.3, 0.25))
    head = CosineHead(logit_scale=float(np.log(SCALE)))
    return ZeroShotModel(info=info, clip=clip, tokenizer=tokenise, pixels=pixels, head=head)


def batch_of(count: int = COUNT, classes: int = 10, *, seed: int = 0) -> Batch:
    generator = torch.Generator().manual_seed(seed)
    pixels = torch.rand(count, 1, 8, 8, generator=generator)
    return Batch(pixels, torch.randint(0, classes, (count,), generator=generator), generator)


def moved(model: ZeroShotModel, *, by: float = 0.1) -> None:
    """Take a step away from the backbone, so that f is not f0."""
    generator = torch.Generator().manual_seed(9)
    with torch.no_grad():
        for parameter in model.visual.parameters():
            parameter += by * parameter.std(correction=0) * torch.randn(parameter.shape, generator=generator)


def task_of(model: Any, classes: tuple[int, ...] | None = None) -> Any:
    return make_task(model, digits_forest("strokes"), classes=classes)


def text_of(defence: Any, model: ZeroShotModel) -> Tensor:
    features: Tensor = defence.task.text_features(model)
    return features


def unit(x: Array) -> Array:
    scaled: Array = x / np.sqrt((x**2).sum(axis=-1, keepdims=True))
    return scaled


def entropies(embedding: Array, points: Array, labels: list[int]) -> Array:
    """Cross-entropy of each image [B] from embeddings [B, E] and normalised text features [C, E]."""
    logits = SCALE * unit(embedding) @ points.T
    return np.array([np.log(np.exp(row).sum()) - row[label] for row, label in zip(logits, labels, strict=True)])


def reference_attention(
    model: ZeroShotModel, f0: Any, batch: Batch, adversarial: Tensor, directions: Array, token_norm: str
) -> tuple[float, float]:
    """Both mean distances; ``directions`` [B, K, E], whose agreements are averaged before the min-max."""
    side = model.pixels.size
    found = []
    for tower, pixels in ((f0, batch.pixels), (model.visual, adversarial), (model.visual, batch.pixels)):
        tokens, leading = reference_tokens(tower, model.pixels(pixels))
        maps = []
        for image, several in zip(tokens, directions, strict=True):
            each = [reference_agreement(image, leading, row, token_norm) for row in several]
            maps.append(reference_min_max(np.mean(each, axis=0)).reshape(4, 4))
        found.append(maps)
    original, attacked, clean = found

    def mean(first: list[Array]) -> float:
        pairs = zip(first, original, strict=True)
        return float(np.mean([reference_distance(a, b, (side, side)) for a, b in pairs]))

    return mean(attacked), mean(clean)


def reference_embedding(model: ZeroShotModel, pixels: Tensor) -> Array:
    tower = copy.deepcopy(model.visual).double()
    return numpy(tower(model.pixels(pixels).double()))


# -- TGA-ZSR ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("token_norm", ["released", "per_token"])
@pytest.mark.parametrize("kind", ["vit", "timm"])
def test_tga_zsr_adds_both_weighted_distances_to_the_cross_entropy(kind: str, token_norm: Any) -> None:
    model = small_clip(kind)
    f0 = copy.deepcopy(model.visual)
    settings = TGAZSRSettings(adversarial_weight=0.3, clean_weight=0.7, token_norm=token_norm)
    defence = TGAZSR(settings, task_of(model))
    defence.attach(model)
    moved(model)
    batch, adversarial = batch_of(), batch_of(seed=7).pixels
    loss, log = defence.loss(model, batch, Perturbed(adversarial), text_of(defence, model))
    points = unit(numpy(defence.task.hidden[:10]) @ numpy(model.text_projection))
    labels = batch.labels.tolist()
    entropy = entropies(reference_embedding(model, adversarial), points, labels).mean()
    near, kept = reference_attention(model, f0, batch, adversarial, points[labels][:, None], token_norm)
    share = 224 / model.pixels.size
    assert min(near, kept) > 0.05 and abs(near - kept) > 0.01
    assert float(log["ce_leaf"]) == pytest.approx(entropy, rel=1e-4)
    assert float(log["attention_adversarial"]) == pytest.approx(near, rel=2e-3)
    assert float(log["attention_clean"]) == pytest.approx(kept, rel=2e-3)
    assert float(loss.detach()) == pytest.approx(entropy + share * (0.3 * near + 0.7 * kept), rel=2e-3)


def test_tga_zsr_attacks_the_cross_entropy_alone() -> None:
    model = small_clip()
    defence = TGAZSR(TGAZSRSettings(), task_of(model))
    defence.attach(model)
    batch = batch_of()
    got = defence.inner_objective(model, batch.pixels, batch, text_of(defence, model))
    points = unit(numpy(defence.task.hidden[:10]) @ numpy(model.text_projection))
    want = entropies(reference_embedding(model, batch.pixels), points, batch.labels.tolist()).sum()
    assert float(got.detach()) == pytest.approx(want, rel=1e-5)
    text, first, second = text_of(defence, model), batch_of(), batch_of()
    tecoa = TeCoA(TeCoASettings(), defence.task)
    ours, theirs = defence.perturb(model, first, text), tecoa.perturb(model, second, text)
    assert torch.equal(ours.pixels, theirs.pixels) and not torch.equal(ours.pixels, batch.pixels)


def test_without_weights_tga_zsr_is_tecoa_and_an_unweighted_clean_term_costs_nothing() -> None:
    model = small_clip()
    defence = TGAZSR(TGAZSRSettings(adversarial_weight=0.0, clean_weight=0.0), task_of(model))
    defence.attach(model)
    moved(model)
    batch, text = batch_of(), text_of(defence, model)
    perturbed = Perturbed(batch_of(seed=7).pixels)
    runs: list[int] = []
    hook = model.visual.register_forward_hook(lambda *_: runs.append(1))
    loss, log = defence.loss(model, batch, perturbed, text)
    hook.remove()
    want, _ = TeCoA(TeCoASettings(), defence.task).loss(model, batch, perturbed, text)
    assert torch.equal(loss, want) and len(runs) == 1 and "attention_clean" not in log


@pytest.mark.parametrize("kind", ["vit", "timm"])
def test_the_start_where_f_is_f0_has_a_finite_gradient(kind: str) -> None:
    model = small_clip(kind)
    defence = TGAZSR(TGAZSRSettings(), task_of(model))
    defence.attach(model)
    model.visual.requires_grad_(True)
    batch = batch_of()
    loss, log = defence.loss(model, batch, Perturbed(batch.pixels), text_of(defence, model))
    distances = [float(log["attention_adversarial"]), float(log["attention_clean"])]
    if kind == "timm":
        assert distances == [0.0, 0.0]
    else:  # attention runs other kernels where nothing trains, which round otherwise
        assert max(distances) < 1e-4
    loss.backward()  # type: ignore[no-untyped-call]
    gradients = [p.grad for p in model.visual.parameters() if p.grad is not None]
    assert gradients and all(bool(torch.isfinite(g).all()) for g in gradients)
    if kind == "vit":
        return
    tecoa = TeCoA(TeCoASettings(), defence.task)
    plain, _ = tecoa.loss(model, batch, Perturbed(batch.pixels), text_of(defence, model))
    own = torch.autograd.grad(plain, [p for p in model.visual.parameters() if p.grad is not None])
    for got, want in zip(gradients, own, strict=True):
        torch.testing.assert_close(got, want)


def test_the_gradient_is_that_of_the_moving_tower_only() -> None:
    """Against finite differences of the loss along one direction of the weights, f0 held."""
    model = small_clip()
    defence = TGAZSR(TGAZSRSettings(adversarial_weight=0.3, clean_weight=0.7), task_of(model))
    defence.attach(model)
    moved(model)
    model.visual.requires_grad_(True)
    batch, perturbed = batch_of(), Perturbed(batch_of(seed=7).pixels)
    text = text_of(defence, model).detach()
    model.visual.double()
    defence.guide.original.double()
    model.pixels.double()
    batch = replace(batch, pixels=batch.pixels.double())
    perturbed = Perturbed(perturbed.pixels.double())
    model.head.double()

    def value() -> Tensor:
        return defence.loss(model, batch, perturbed, text.double())[0]

    weight = model.visual.conv1.weight
    (gradient,) = torch.autograd.grad(value(), weight)
    along = torch.randn(weight.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    with torch.no_grad():
        weight += 1e-6 * along
        up = float(value())
        weight -= 2e-6 * along
        down = float(value())
    assert float((gradient * along).sum()) == pytest.approx((up - down) / 2e-6, rel=1e-4)
    assert not any(p.requires_grad for p in defence.guide.original.parameters())


def test_a_tower_with_too_few_positions_is_refused_before_training() -> None:
    model = small_clip()
    model.clip.visual = make_tower("vit", image_size=12)
    model.pixels.size = 12
    defence = TGAZSR(TGAZSRSettings(), task_of(model))
    with pytest.raises(InputError, match="3 x 3 positions"):
        defence.attach(model)


@pytest.mark.parametrize(
    ("settings", "values", "words"),
    [
        (TGAZSRSettings, {"adversarial_weight": -0.1}, "adversarial_weight"),
        (TGAZSRSettings, {"clean_weight": -1.0}, "clean_weight"),
        (TGAZSRSettings, {"token_norm": "layer"}, "token_norm.*released"),
        (SAFTSettings, {"count": 0}, "count"),
        (SAFTSettings, {"minimum": 1.5}, "minimum"),
        (SAFTSettings, {"descriptions": ""}, "descriptions"),
        (SAFTSettings, {"attention": 1}, "attention"),
    ],
)
def test_settings_without_sense_are_refused(settings: Any, values: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        settings(**values)


def test_the_defaults_are_the_published_ones() -> None:
    settings = TGAZSRSettings()
    assert (settings.adversarial_weight, settings.clean_weight, settings.token_norm) == (0.08, 0.05, "released")
    assert (settings.attack_steps, settings.alpha(Fraction(1, 255))) == (2, 1 / 255)
    described = SAFTSettings()
    assert (described.count, described.descriptions, described.attention) == (5, "shipped", False)


# -- SAFT -------------------------------------------------------------------------------------------------------------


def chosen_by_hand(model: ZeroShotModel, label: int, count: int) -> list[str]:
    """The shipped sentences of a digit nearest to its name."""
    path = shipped_file("digits")
    sentences = {c["id"]: c["sentences"] for c in json.loads(path.read_text())["classes"]}[str(label)]
    name = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"][label]
    features = unit(numpy(model.text_hidden([name, *sentences])) @ numpy(model.text_projection))
    order = np.argsort(-(features[1:] @ features[0]), kind="stable")
    return [sentences[int(i)] for i in order[:count]]


def description_points(model: ZeroShotModel, labels: tuple[int, ...], count: int) -> Array:
    """Normalised features [K, C, E] of T[k][c], by hand."""
    rows = [chosen_by_hand(model, label, count) for label in labels]
    features = [unit(numpy(model.text_hidden(row)) @ numpy(model.text_projection)) for row in rows]
    return np.stack(features, axis=1)


@pytest.mark.parametrize(("classes", "count"), [(None, 5), ((1, 4, 7), 3)])
def test_saft_is_the_mean_cross_entropy_over_the_descriptions(classes: Any, count: int) -> None:
    model = small_clip()
    defence = SAFT(SAFTSettings(count=count), task_of(model, classes))
    defence.attach(model)
    labels = tuple(range(10)) if classes is None else classes
    points = description_points(model, labels, count)
    assert list(defence.sentences[1 :: len(labels)]) == chosen_by_hand(model, labels[1], count)
    moved(model)
    batch, adversarial = batch_of(classes=len(labels)), batch_of(seed=7).pixels
    embedding = reference_embedding(model, adversarial)
    each = np.stack([entropies(embedding, row, batch.labels.tolist()) for row in points])
    loss, log = defence.loss(model, batch, Perturbed(adversarial), text_of(defence, model))
    assert float(loss.detach()) == pytest.approx(each.mean(), rel=1e-5)
    assert float(log["ce_descriptions"]) == pytest.approx(each.mean(), rel=1e-5)
    found = defence.perturb(model, batch, text_of(defence, model))
    assert float((found.pixels - batch.pixels).abs().max()) <= 8 / 255 + 1e-6
    objective = defence.inner_objective(model, adversarial, batch, text_of(defence, model))
    assert float(objective.detach()) == pytest.approx(each.mean(axis=0).sum(), rel=1e-5)
    single = unit(numpy(defence.task.hidden[: len(labels)]) @ numpy(model.text_projection))
    plain = entropies(embedding, single, batch.labels.tolist())
    assert float(log["ce_leaf"]) == pytest.approx(plain.mean(), rel=1e-5)
    assert abs(plain.mean() - each.mean()) > 1e-3


@pytest.mark.parametrize("token_norm", ["released", "per_token"])
def test_safts_attention_averages_the_maps_before_the_min_max(token_norm: Any) -> None:
    model = small_clip("timm")
    f0 = copy.deepcopy(model.visual)
    settings = SAFTSettings(attention=True, adversarial_weight=0.3, clean_weight=0.7, token_norm=token_norm)
    defence = SAFT(settings, task_of(model))
    defence.attach(model)
    moved(model)
    batch, adversarial = batch_of(), batch_of(seed=7).pixels
    labels = batch.labels.tolist()
    loss, log = defence.loss(model, batch, Perturbed(adversarial), text_of(defence, model))
    points = description_points(model, tuple(range(10)), 5)
    embedding = reference_embedding(model, adversarial)
    entropy = np.mean([entropies(embedding, row, labels).mean() for row in points])
    directions = points[:, labels].transpose(1, 0, 2)
    near, kept = reference_attention(model, f0, batch, adversarial, directions, token_norm)
    assert min(near, kept) > 0.05 and abs(near - kept) > 0.01
    assert float(log["attention_adversarial"]) == pytest.approx(near, rel=2e-3)
    assert float(log["attention_clean"]) == pytest.approx(kept, rel=2e-3)
    assert float(loss.detach()) == pytest.approx(entropy + 7 * (0.3 * near + 0.7 * kept), rel=2e-3)


def test_descriptions_are_encoded_once_unless_the_text_tower_trains() -> None:
    model = small_clip()
    task = task_of(model)
    defence = SAFT(SAFTSettings(), task)
    defence.attach(model)
    before = model.text_forwards
    batch = batch_of()
    for _ in range(2):
        defence.loss(model, batch, Perturbed(batch.pixels), text_of(defence, model))
    assert model.text_forwards == before
    defence = SAFT(SAFTSettings(), replace(task, text_moves=True))
    defence.attach(model)
    before = model.text_forwards
    weight = model.clip.token_embedding.weight.requires_grad_(True)
    loss, _ = defence.loss(model, batch, Perturbed(batch.pixels), task.text_features(model))
    assert model.text_forwards == before + 50
    (gradient,) = torch.autograd.grad(loss, weight)
    assert float(gradient.abs().max()) > 0


def test_a_text_projection_that_trains_gets_its_gradient_and_the_attack_none() -> None:
    model = small_clip()
    defence = SAFT(SAFTSettings(), task_of(model))
    defence.attach(model)
    model.text_projection.requires_grad_(True)
    batch = batch_of()
    loss, _ = defence.loss(model, batch, Perturbed(batch.pixels), text_of(defence, model))
    (gradient,) = torch.autograd.grad(loss, model.text_projection)
    assert float(gradient.abs().max()) > 0
    defence.perturb(model, batch, text_of(defence, model).detach())
    assert not defence.points.requires_grad


def write_file(path: Path, counts: dict[int, int], *, rest: int = 6) -> str:
    classes = [
        {"id": str(label), "sentences": [f"Sentence {n} on digit {label}." for n in range(counts.get(label, rest))]}
        for label in range(10)
    ]
    fields = {"format": 1, "dataset": "digits", "language": "en", "source": "made up", "licence": "Apache-2.0"}
    path.write_text(json.dumps({**fields, "classes": classes}))
    return str(path)


def test_fewer_than_k_descriptions_is_an_error_that_names_the_class(tmp_path: Path) -> None:
    model = small_clip()
    file = write_file(tmp_path / "own.json", {3: 4})
    with pytest.raises(InputError, match=r"class '3' has 4 sentences.* 5 are needed") as found:
        SAFT(SAFTSettings(descriptions=file), task_of(model)).attach(model)
    assert "own.json" in str(found.value) and "\n" not in str(found.value)
    defence = SAFT(SAFTSettings(descriptions=file, count=4), task_of(model))
    defence.attach(model)
    assert len(defence.sentences) == 40 and all("Sentence" in sentence for sentence in defence.sentences)


def test_only_trained_classes_need_descriptions(tmp_path: Path) -> None:
    model = small_clip()
    file = write_file(tmp_path / "own.json", {3: 1, 5: 0})
    defence = SAFT(SAFTSettings(descriptions=file), task_of(model, (2, 4, 9)))
    defence.attach(model)
    assert all(s.endswith(f"digit {label}.") for s, label in zip(defence.sentences, (2, 4, 9) * 5, strict=True))


def test_far_descriptions_are_filtered_out_and_missing_files_named(tmp_path: Path) -> None:
    model = small_clip()
    with pytest.raises(InputError, match=r"class '\d' has \d+ sentences with a cosine of 0.999"):
        SAFT(SAFTSettings(minimum=0.999), task_of(model)).attach(model)
    with pytest.raises(InputError, match=r"nowhere\.json"):
        SAFT(SAFTSettings(descriptions=str(tmp_path / "nowhere.json")), task_of(model)).attach(model)
    bare = replace(task_of(model), images_of=replace(digits_spec(), trees_of="cars"))
    with pytest.raises(InputError, match="cars has no descriptions"):
        SAFT(SAFTSettings(), bare).attach(model)


def test_a_checkpoint_of_other_descriptions_is_refused(tmp_path: Path) -> None:
    model = small_clip()
    shipped = SAFT(SAFTSettings(), task_of(model))
    own = SAFT(SAFTSettings(descriptions=write_file(tmp_path / "own.json", {})), task_of(model))
    shipped.attach(model)
    own.attach(model)
    shipped.load_state(json.loads(json.dumps(shipped.state())))
    with pytest.raises(InputError, match=r"descriptions.*other sentences"):
        own.load_state(shipped.state())


# -- whole runs -------------------------------------------------------------------------------------------------------


def run(out: Path, name: str, settings: Any, **options: Any) -> TrainResult:
    recipe = TrainingSettings(steps=4, batch_size=8, checkpoint_steps=1, prepare_images=8, log_points=4)
    given: dict[str, Any] = {
        "images": small_images(),
        "forest": digits_forest("strokes"),
        "template": "a photo of {noun}.",
        "threat": ThreatModel("linf", Fraction(8, 255)),
    }
    return train(name, model=small_clip(), out_dir=out, settings=settings, training=recipe, **{**given, **options})


@pytest.mark.parametrize(
    ("name", "settings"), [("tga_zsr", TGAZSRSettings()), ("saft", SAFTSettings(count=2, attention=True))]
)
def test_a_run_that_is_stopped_and_resumed_compares_with_the_same_original(
    tmp_path: Path, name: str, settings: Any
) -> None:
    start = small_clip().state_dict()
    whole = run(tmp_path / "whole", name, settings)
    asked = iter([False, True])
    with pytest.raises(TrainingInterruptedError):
        run(tmp_path / "cut", name, settings, should_stop=lambda: next(asked))
    resumed = run(tmp_path / "cut", name, settings)
    assert resumed.record["run"]["resumes"] == 1
    ended, again = whole.model.state_dict(), resumed.model.state_dict()
    assert all(torch.equal(ended[key], again[key]) for key in ended)
    trained = dict(whole.model.named_parameters())
    for key, tensor in start.items():
        assert torch.equal(ended[key], tensor) != (key in trained and key.startswith("clip.visual")), key
    curve = whole.record["run"]["curve"]
    assert all(np.isfinite(point["attention_clean"]) for point in curve)
    assert curve[-1]["attention_clean"] > 0
    if name == "saft":
        assert whole.record["run"]["guards"]["descriptions_hash"].startswith("sha256:")
