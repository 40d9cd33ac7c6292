"""MMCoA: its loss by NumPy, what its attacks see, and that both towers train, resume and are stored exactly."""

from __future__ import annotations

import copy
import itertools
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from standin import SmallModel, digits_forest, make_task, small_images
from torch import Tensor

from hierbench.attacks.text.sources import WordNetSource
from hierbench.attacks.text.synonyms import SynonymTable, shipped_synonyms
from hierbench.attacks.threat import ThreatModel
from hierbench.defences.base import Batch, Perturbed, TrainingTask
from hierbench.defences.methods.mmcoa import MMCoA, MMCoASettings
from hierbench.defences.training.settings import TrainingSettings
from hierbench.defences.training.trainer import TrainingInterruptedError, TrainResult, train
from hierbench.errors import InputError
from hierbench.models.backbones import load_backbone
from hierbench.models.heads import CosineHead
from hierbench.models.pixels import PixelInput
from hierbench.models.storage import DELTA_FILE, read_model, save_model
from hierbench.models.zeroshot import ModelInfo, ZeroShotModel

LABELS = (3, 1, 3, 7, 1, 0, 3, 2)
CHANGED = {3: "a photo of a trey.", 7: "a photo of a digit septet.", 0: "a photograph of a zero."}
NUMBERS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
PARTS = [
    {},
    {"text_loss": False},
    {"image_loss": False},
    {"mask_same_class": True},
    {"mask_same_class": True, "image_loss": False},
]


def small(settings: dict[str, Any] | None = None, **task: Any) -> tuple[SmallModel, MMCoA, Batch, Tensor]:
    """A model in float64, the defence with some prompts attacked already, a batch, and adversarial images."""
    model = SmallModel(double=True)
    found = replace(make_task(model, digits_forest()), text_moves=True, **task)
    defence = MMCoA(MMCoASettings(**{"text_every": 5, **(settings or {})}), found)
    defence.attach(model)  # type: ignore[arg-type]
    if defence.settings.text_loss:
        clean = found.nodes.prompts
        prompts = {clean[c]: [CHANGED.get(c, clean[c]), 0, 0.25 * (c in CHANGED)] for c in range(10)}
        defence.load_state({"attacked_prompts": prompts})
    generator = torch.Generator().manual_seed(1)
    pixels, noise = torch.rand(2, 8, 1, 8, 8, generator=generator, dtype=torch.float64)
    batch = Batch(pixels, torch.tensor(LABELS), generator, step=2)
    return model, defence, batch, (pixels + 0.1 * (noise - 0.5)).clamp(0, 1)


def unit(x: np.ndarray) -> np.ndarray:
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def array(x: Tensor) -> np.ndarray:
    return x.detach().numpy()


def encoded(model: SmallModel, prompts: Sequence[str]) -> np.ndarray:
    """g(t) of the small model, in NumPy."""
    tower = model.text_tower
    return (array(model.text_hidden(prompts)) @ array(tower.weight).T + array(tower.bias)) @ array(
        model.text_projection
    )


def half(logits: np.ndarray, masked: bool) -> float:
    """0.5 [CE(S) + CE(S^T)], pair by pair."""
    count, total = len(LABELS), 0.0
    for i in range(count):
        kept = [j for j in range(count) if not masked or j == i or LABELS[j] != LABELS[i]]
        row = np.log(sum(np.exp(logits[i, j]) for j in kept)) - logits[i, i]
        column = np.log(sum(np.exp(logits[j, i]) for j in kept)) - logits[i, i]
        total += 0.5 * (row + column) / count
    return total


@pytest.mark.parametrize("part", PARTS)
def test_the_loss_is_the_formula(part: dict[str, Any]) -> None:
    model, defence, batch, adversarial = small(part)
    clean = defence.task.nodes.prompts
    scale, masked = np.exp(model.head.logit_scale.item()), part.get("mask_same_class", False)
    want = {}
    if part.get("image_loss", True):
        text = encoded(model, [clean[c] for c in LABELS])
        want["contrast_image"] = half(scale * unit(array(model.embed(adversarial))) @ unit(text).T, masked)
    if part.get("text_loss", True):
        text = encoded(model, [CHANGED.get(c, clean[c]) for c in LABELS])
        want["contrast_text"] = half(scale * unit(array(model.embed(batch.pixels))) @ unit(text).T, masked)
    features = defence.task.text_features(model)  # type: ignore[arg-type]
    loss, log = defence.loss(model, batch, Perturbed(adversarial), features)  # type: ignore[arg-type]
    assert float(loss.detach()) == pytest.approx(sum(want.values()), rel=1e-12)
    assert {name: float(log[name]) for name in want} == pytest.approx(want, rel=1e-12)
    assert ("contrast_image" in log, "contrast_text" in log) == ("contrast_image" in want, "contrast_text" in want)
    assert float(log["scale"]) == pytest.approx(scale)
    if "contrast_text" in want:
        # Five of the eight images have a changed prompt.
        assert float(log["text_changed"]) == 5 / 8 and float(log["text_moved"]) == pytest.approx(5 / 8 * 0.25)
        assert float(log["text_age"]) == 2
    assert not any(value.requires_grad for value in log.values())


@pytest.mark.parametrize("part", PARTS[:3])
def test_every_gradient_is_the_slope_of_the_loss(part: dict[str, Any]) -> None:
    """By central differences: nothing is cut off, neither the towers, nor the attacked prompts, nor the scale."""
    model, defence, batch, adversarial = small(part)

    def loss() -> Tensor:
        features = defence.task.text_features(model)  # type: ignore[arg-type]
        return defence.loss(model, batch, Perturbed(adversarial), features)[0]  # type: ignore[arg-type]

    model.requires_grad_(True)  # the trainer does so for what the method says it trains
    parameters = dict(model.named_parameters())
    gradients = torch.autograd.grad(loss(), list(parameters.values()))
    stream = np.random.default_rng(0)
    for (name, parameter), gradient in zip(parameters.items(), gradients, strict=True):
        flat = parameter.data.view(-1)
        for place in stream.choice(len(flat), size=min(3, len(flat)), replace=False).tolist():
            old, ends = float(flat[place]), []
            for shift in (1e-6, -1e-6):
                flat[place] = old + shift
                ends.append(float(loss().detach()))
            flat[place] = old
            slope = (ends[0] - ends[1]) / 2e-6
            assert float(gradient.view(-1)[place]) == pytest.approx(slope, rel=1e-4, abs=1e-7), name


def test_the_image_attack_maximises_the_cross_entropy_over_all_classes_at_the_towers_text() -> None:
    model, defence, batch, adversarial = small()
    text = torch.randn(len(defence.task.nodes.prompts), 8, dtype=torch.float64)
    logits = np.exp(2.0) * unit(array(model.embed(adversarial))) @ unit(array(text[:10])).T
    want = (np.log(np.exp(logits).sum(-1)) - logits[np.arange(8), LABELS]).sum()
    got = defence.inner_objective(model, adversarial, batch, text)  # type: ignore[arg-type]
    assert float(got.detach()) == pytest.approx(want, rel=1e-12)
    found = defence.perturb(model, batch, text)  # type: ignore[arg-type]
    moved = defence.inner_objective(model, found.pixels, batch, text)  # type: ignore[arg-type]
    start = defence.inner_objective(model, batch.pixels, batch, text)  # type: ignore[arg-type]
    assert float(moved.detach()) > float(start.detach())
    assert float((found.pixels - batch.pixels).abs().max()) <= 8 / 255 + 1e-9
    # Ten steps of the attack, and the loss's own pass of the clean images.
    assert (found.cost.forwards, found.cost.backwards) == (88, 88)
    assert defence.inner_attack.steps == 10 and defence.inner_attack.alpha == 8 / 255


def test_without_the_image_loss_no_image_is_attacked_and_without_the_text_loss_no_prompt() -> None:
    model, defence, batch, _ = small({"image_loss": False})
    text = defence.task.text_features(model).detach()  # type: ignore[arg-type]
    found = defence.perturb(model, batch, text)  # type: ignore[arg-type]
    assert torch.equal(found.pixels, batch.pixels) and found.cost.forwards == 0 and not defence.adversarial
    model, defence, batch, _ = small({"text_loss": False})
    encodings = model.encoded
    found = defence.perturb(model, batch, text)  # type: ignore[arg-type]
    assert model.encoded == encodings and found.cost.forwards == 80 and defence.adversarial
    assert defence.state() == {}


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"image_loss": False, "text_loss": False}, "one of image_loss and text_loss should be on"),
        ({"text_every": 0}, "text_every = 0: it should be 1 or more"),
        ({"text_source": "synonyms"}, "choose 'wordnet' or 'characters' or 'mlm'"),
        ({"text_positions": -1}, "0 \\(all places\\) or more"),
        ({"attack_steps": 0}, "attack_steps"),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        MMCoASettings(**settings)


def test_published_defaults() -> None:
    settings = MMCoASettings()
    assert (settings.attack_steps, settings.alpha_share, settings.text_every) == (10, 1.0, 1)
    assert settings.image_loss and settings.text_loss and not settings.mask_same_class


# -- the attack on the prompts, with a real text tower ----------------------------------------------------------------


@pytest.fixture(scope="module")
def backbone() -> ZeroShotModel:
    """A CLIP model of open_clip with random weights and towers that take no time."""
    import open_clip
    from open_clip.model import CLIP, CLIPTextCfg, CLIPVisionCfg

    with torch.random.fork_rng():
        torch.manual_seed(0)
        vision = CLIPVisionCfg(layers=1, width=32, head_width=16, patch_size=8, image_size=32)
        clip = CLIP(16, vision, CLIPTextCfg(context_length=24, width=16, heads=2, layers=2))
        for parameter in clip.token_embedding.parameters():
            torch.nn.init.normal_(parameter)
    return ZeroShotModel(
        info=ModelInfo("clip", "none", "", "little"),
        clip=clip.requires_grad_(False),
        tokenizer=open_clip.SimpleTokenizer(context_length=24),
        pixels=PixelInput(32, (0.5, 0.5, 0.5), (0.25, 0.25, 0.25)),
        head=CosineHead(logit_scale=3.0),
    )


@pytest.fixture
def model(backbone: ZeroShotModel) -> ZeroShotModel:
    return copy.deepcopy(backbone)


def attacker(model: ZeroShotModel, *, classes: Sequence[int] | None = None, **settings: Any) -> MMCoA:
    task: TrainingTask = make_task(model, digits_forest(), classes=classes)  # type: ignore[arg-type]
    defence = MMCoA(MMCoASettings(**settings), replace(task, text_moves=True))
    defence.attach(model)
    return defence


def search(defence: MMCoA, model: ZeroShotModel, labels: Sequence[int], step: int = 0) -> dict[int, str]:
    """Run a step's attack and return the attacked prompts by class."""
    generator = torch.Generator().manual_seed(0)
    batch = Batch(torch.rand(len(labels), 1, 8, 8, generator=generator), torch.tensor(labels), generator, step)
    with torch.no_grad():
        text = defence.task.text_features(model)
    with torch.enable_grad():
        model.requires_grad_(False)
        defence.perturb(model, batch, text)
    return {place: kept.text for place, kept in defence.prompt_attack.kept.items()}


def moved_tower(model: ZeroShotModel, amount: float = 1.0) -> None:
    """Change the text tower as training would, all at once."""
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in model.clip.transformer.parameters():
            parameter += amount * parameter.std() * torch.randn(parameter.shape, generator=generator)


def best_by_hand(model: ZeroShotModel, prompt: str) -> tuple[str, float]:
    """Replace each content word in turn by its synonyms; take the best of the most important word that has one."""

    def shift(texts: list[str]) -> np.ndarray:
        with torch.no_grad():
            hidden = torch.cat([model.encode_text([text]) for text in texts])
        features = unit(hidden.double().numpy() @ model.text_projection.detach().double().numpy())
        p = np.exp(features) / np.exp(features).sum(-1, keepdims=True)
        return (p[0] * np.log(p[0] / p)).sum(-1)[1:]

    words = prompt.rstrip(".").split()
    content = [w for w in words if w not in ("a", "of", "the")]
    importance = shift([prompt, *(prompt.replace(w, "[UNK]") for w in content)])
    for _, word in sorted(zip(-importance, content, strict=True)):
        options = [new for new in shipped_synonyms().of(word) if new not in NUMBERS]
        if options:
            texts = [prompt.replace(word, new).replace("a exposure", "an exposure") for new in options]
            scores = shift([prompt, *texts])
            return texts[int(scores.argmax())], float(scores.max())
    return prompt, 0.0


def test_the_prompts_of_the_batch_are_attacked_by_the_tower_as_it_is_now(model: ZeroShotModel) -> None:
    labels = [6, 3, 3, 8]
    defence = attacker(model)
    prompts = defence.task.nodes.prompts
    model.text_hidden([*prompts, *(best_by_hand(model, prompts[c])[0] for c in labels)])
    before = search(defence, model, labels)
    moved_tower(model)
    found = search(defence, model, labels, step=1)
    assert found.keys() == {3, 6, 8}
    assert found != before  # so that features of the old tower would show
    for label, kept in defence.prompt_attack.kept.items():
        text, score = best_by_hand(model, prompts[label])
        assert kept.text == text
        assert kept.moved == pytest.approx(score, rel=1e-4)


def test_features_of_the_old_tower_are_forgotten(model: ZeroShotModel) -> None:
    defence = attacker(model)
    before = model.text_hidden(defence.task.nodes.prompts)
    moved_tower(model)
    search(defence, model, [1, 2])
    assert not torch.equal(model.text_hidden(defence.task.nodes.prompts), before)


def test_only_prompts_of_the_batch_are_encoded_and_each_class_once_a_step(
    model: ZeroShotModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    defence = attacker(model)
    asked: list[str] = []
    tokenizer = model.tokenizer
    monkeypatch.setattr(defence.task.__class__, "text_features", lambda self, m: self.hidden @ m.text_projection)
    monkeypatch.setattr(model, "tokenizer", lambda texts: asked.extend(texts) or tokenizer(texts))
    search(defence, model, [4, 4, 9, 4])
    assert len(asked) == len(set(asked)) == defence.prompt_attack.text_forwards > 4
    others = set(NUMBERS) - {"four", "nine"}
    assert not any(set(text.rstrip(".").split()) & others for text in asked)
    search(defence, model, [9, 4], step=0)  # another part of the same step's batch
    assert defence.prompt_attack.text_forwards == 0
    search(defence, model, [9, 4], step=1)
    assert defence.prompt_attack.text_forwards > 4


def test_an_attacked_prompt_is_kept_for_text_every_steps(model: ZeroShotModel) -> None:
    defence = attacker(model, text_every=3)
    found: list[set[int]] = []
    for step, labels in enumerate([[1, 2], [2, 5], [1, 5], [1, 5], [1, 2, 5]]):
        search(defence, model, labels, step=step)
        found.append({place for place, kept in defence.prompt_attack.kept.items() if kept.step == step})
    assert found == [{1, 2}, {5}, set(), {1}, {2, 5}]


def test_kept_prompts_survive_a_checkpoint_and_none_are_stored_where_none_outlive_a_step(model: ZeroShotModel) -> None:
    defence = attacker(model, text_every=4)
    search(defence, model, [7, 0], step=2)
    state = json.loads(json.dumps(defence.state()))
    assert list(state["attacked_prompts"]) == [defence.task.nodes.prompts[c] for c in (0, 7)]
    other = attacker(model, text_every=4)
    other.load_state(state)
    assert other.prompt_attack.kept == defence.prompt_attack.kept
    search(other, model, [7, 0], step=5)
    assert other.prompt_attack.text_forwards == 0
    plain = attacker(model)
    search(plain, model, [7, 0])
    assert plain.prompt_attack.kept and plain.state() == {}


def test_positions_are_those_of_the_trained_classes(model: ZeroShotModel) -> None:
    defence = attacker(model, classes=[2, 5, 9])
    found = search(defence, model, [0, 2])
    prompts = defence.task.nodes.prompts
    assert found.keys() == {0, 2} and "two" in prompts[0] and "nine" in prompts[2]
    for place in found:
        assert found[place] == best_by_hand(model, prompts[place])[0] != prompts[place]


def test_a_word_that_names_an_untrained_class_is_refused(model: ZeroShotModel) -> None:
    defence = attacker(model, classes=[2, 5, 9])
    words = {"digit": (), "photo": (), "two": ("eight",), "five": ("quint",), "nine": ("Eight", "ennead")}
    defence.prompt_attack.source = WordNetSource(SynonymTable({}, words))
    found = search(defence, model, [0, 1, 2])
    assert [found[place].removeprefix("a photo of the digit ") for place in range(3)] == ["two.", "quint.", "ennead."]
    assert defence.prompt_attack.changed([0, 1, 2]).keys() == {1, 2}
    assert defence.prompt_attack.kept[0].moved == 0


@pytest.mark.parametrize("source", ["wordnet", "characters"])
def test_the_class_name_alone_may_be_attacked(
    model: ZeroShotModel, source: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    defence = attacker(model, text_source=source, text_span="class_name", text_positions=2)
    asked: list[str] = []
    tokenizer = model.tokenizer
    monkeypatch.setattr(model, "tokenizer", lambda texts: asked.extend(texts) or tokenizer(texts))
    defence.prompt_attack.search(model, [8], 0)
    found = defence.prompt_attack.kept[8].text
    assert found in asked and found != f"a photo of {digits_forest().trees[0].leaves[8].noun}."
    assert all(text.startswith("a photo of ") and text.endswith(".") for text in asked)


def test_kept_prompts_and_several_processes_are_refused_together(
    model: ZeroShotModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda: 2)
    attacker(model)
    with pytest.raises(InputError, match="text_every = 2: with several processes it should be 1"):
        attacker(model, text_every=2)


# -- through the trainer ----------------------------------------------------------------------------------------------


def run(out: Path, backbone: ZeroShotModel, *, steps: int = 6, **options: Any) -> TrainResult:
    settings = MMCoASettings(attack_steps=2, **options.pop("settings", {}))
    recipe = {"steps": steps, "batch_size": 12, "learning_rate": 1e-3, "optimiser": "adam", "weight_decay": 0.2}
    training = TrainingSettings(**{**recipe, "prepare_images": 16, "log_points": 6, **options.pop("recipe", {})})
    return train(
        "mmcoa",
        model=copy.deepcopy(backbone),
        images=small_images(count=40),
        forest=digits_forest(),
        template="a photo of {noun}.",
        threat=ThreatModel("linf", Fraction(8, 255)),
        out_dir=out,
        seed=3,
        settings=settings,
        training=training,
        **options,
    )


def tensors(model: ZeroShotModel) -> dict[str, Tensor]:
    return {name: t.detach().clone() for name, t in model.state_dict().items()}


def stop_after(asked: Iterator[int], steps: int) -> Callable[[], bool]:
    return lambda: next(asked) >= steps


def differing(a: dict[str, Tensor], b: dict[str, Tensor]) -> set[str]:
    assert a.keys() == b.keys()
    return {name for name in a if not torch.equal(a[name], b[name])}


@pytest.mark.parametrize("text_every", [1, 4])
def test_both_towers_train_and_a_stopped_run_ends_in_the_same_bits(
    tmp_path: Path, backbone: ZeroShotModel, text_every: int
) -> None:
    settings = {"text_every": text_every}
    whole = run(tmp_path / "whole", backbone, settings=settings)
    before, after = tensors(backbone), tensors(whole.model)
    moved = differing(before, after)
    assert whole.record["run"]["trains"] == ["visual", "text", "text_projection", "head"]
    for name in (
        "head.logit_scale",
        "clip.text_projection",
        "clip.token_embedding.weight",
        "clip.positional_embedding",
        "clip.ln_final.weight",
        "clip.transformer.resblocks.0.attn.in_proj_weight",
        "clip.visual.proj",
    ):
        assert name in moved, name
    assert "clip.logit_scale" not in moved
    assert not whole.model._hidden  # features of the untouched tower are gone
    for at, further in ((1, 1), (2, 1), (5, 3)):
        asked = itertools.count(1)
        with pytest.raises(TrainingInterruptedError, match=f"step {at} of 6"):
            run(tmp_path / "killed", backbone, settings=settings, should_stop=stop_after(asked, further))
    resumed = run(tmp_path / "killed", backbone, settings=settings)
    assert resumed.record["run"]["resumes"] == 3
    assert not differing(tensors(resumed.model), after)
    curve = whole.record["run"]["curve"]
    assert resumed.record["run"]["curve"] == curve
    assert resumed.record["run"]["prepared"] == whole.record["run"]["prepared"]
    forwards = [point["text_forwards"] for point in curve]
    assert forwards[0] > 0 and (min(forwards) > 0 if text_every == 1 else min(forwards) == 0)
    assert all(point["text_changed"] == 1 for point in curve)
    # Four passes an image: two steps of the attack, adversarial and clean in the loss.
    assert whole.record["run"]["forwards"] == 6 * 12 * 4
    assert whole.record["run"]["images_compared"] == 12


@pytest.mark.parametrize("part", [{"image_loss": False}, {"text_loss": False}, {"mask_same_class": True}])
def test_either_half_alone_trains(tmp_path: Path, backbone: ZeroShotModel, part: dict[str, Any]) -> None:
    result = run(tmp_path, backbone, steps=2, settings=part)
    moved = differing(tensors(backbone), tensors(result.model))
    assert {"head.logit_scale", "clip.text_projection", "clip.token_embedding.weight"} <= moved
    assert result.record["run"]["checks"]["loss_uses_attack"] == part.get("image_loss", True)


def test_with_a_frozen_text_tower_the_rest_trains(tmp_path: Path, backbone: ZeroShotModel) -> None:
    result = run(tmp_path, backbone, steps=2, recipe={"train_scope": "visual"})
    moved = differing(tensors(backbone), tensors(result.model))
    assert {"head.logit_scale", "clip.text_projection"} <= moved
    assert not any(name.startswith(("clip.transformer", "clip.token_embedding")) for name in moved)


@pytest.fixture(scope="module")
def tiny() -> ZeroShotModel:
    return load_backbone("tiny_clip-v1")


@pytest.fixture(scope="module")
def trained(tiny: ZeroShotModel, tmp_path_factory: pytest.TempPathFactory) -> TrainResult:
    recipe = {"weight_decay": 0.0, "augmentation": "none"}
    return run(tmp_path_factory.mktemp("run"), tiny, steps=16, settings={"mask_same_class": True}, recipe=recipe)


def test_training_aligns_pairs_under_both_attacks(trained: TrainResult) -> None:
    first, last = trained.record["run"]["curve"][0], trained.record["run"]["curve"][-1]
    assert last["contrast_image"] < 0.8 * first["contrast_image"]
    assert last["contrast_text"] < 0.8 * first["contrast_text"]


def test_a_trained_model_is_stored_and_read_back_exactly(
    tmp_path: Path, tiny: ZeroShotModel, trained: TrainResult
) -> None:
    model = trained.model
    model.info = ModelInfo("mmcoa.test", "mmcoa", "test", "tiny_clip-v1")
    folder = save_model(model, tmp_path / "mmcoa.test")
    back = read_model(folder)
    assert back.weights_hash == model.weights_hash
    assert not differing(tensors(back), tensors(model))
    assert torch.equal(back.head.logit_scale, model.head.logit_scale)  # type: ignore[arg-type]
    assert not torch.equal(back.head.logit_scale, tiny.head.logit_scale)  # type: ignore[arg-type]
    pixels = torch.rand(5, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    prompts = [f"a photo of {leaf.noun}." for leaf in digits_forest().trees[0].leaves]
    with torch.no_grad():
        answers = [m(pixels, m.node_points(prompts, steps_above_leaf=0)) for m in (model, back, tiny)]
    assert torch.equal(answers[0], answers[1]) and not torch.allclose(answers[1], answers[2], atol=1e-3)
    # fp16 of both towers: most of it is token vectors.
    assert 10_000_000 < (folder / DELTA_FILE).stat().st_size < 12_500_000
