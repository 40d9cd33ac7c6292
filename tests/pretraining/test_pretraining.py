"""Pre-training: what it may see, what its losses are, and one short run from end to end."""

from __future__ import annotations

import json
import random
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from hierbench.datasets.catalogue import get_spec
from hierbench.datasets.load import load_images
from hierbench.datasets.seen import load_seen
from hierbench.models.load import load_model
from hierbench.pretraining import run as pretraining
from hierbench.pretraining.augment import vary
from hierbench.pretraining.joint import ImagePool, JointSettings, caption, joint_loss
from hierbench.pretraining.nouns import NounEntry, article, misspell, render
from hierbench.pretraining.tasks import Concept, build_tasks, known_training_images
from hierbench.pretraining.text import MAX_TOKENS, TextSettings, cut


def test_no_task_has_a_column_for_an_unseen_class() -> None:
    seen = load_seen()
    names = ("cifar100", "tiny_imagenet@32", "digits")
    concepts, tasks = build_tasks([get_spec(n) for n in names], seen)
    for name in names:
        spec = get_spec(name)
        known = np.array(seen.known_mask(name))
        leaf = next(t for t in tasks if t.dataset == name and t.depth_name == "leaf")
        assert leaf.stop - leaf.start == known.sum()
        for task in (t for t in tasks if t.dataset == name):
            assert (task.target[~known] == -1).all()
            assert set(task.target[known].tolist()) == set(range(task.stop - task.start))
        shown = {concepts[c].noun for c in range(leaf.start, leaf.stop)}
        assert not shown & {c.noun for c, k in zip(spec.classes, known, strict=True) if not k}
        above = sum(t.weight for t in tasks if t.dataset == name and t.depth_name != "leaf")
        assert above == pytest.approx(0.5, abs=0.13)


def test_images_of_unseen_classes_are_left_out_and_refused() -> None:
    seen = load_seen()
    digits = load_images("digits", split="train")
    assert len(known_training_images(digits, seen)) == len(digits)
    hidden = replace(seen, name="hide", unseen={"digits": ("3",)})
    kept = known_training_images(digits, hidden)
    assert 3 not in kept.labels and len(kept) == int((digits.labels != 3).sum())
    with pytest.raises(Exception, match="unseen class"):
        pretraining._refuse_unseen(digits, hidden)


def test_the_joint_loss_is_the_weighted_smoothed_cross_entropy() -> None:
    seen = load_seen()
    digits = load_images("digits", split="train", limit=50)
    concepts, tasks = build_tasks([digits.spec], seen)
    pool = ImagePool([digits, fake_photos()], 32, 0.5)
    pairs = np.array([[0, 4], [0, 9], [0, 11]])
    rng = np.random.default_rng(0)
    image = unit(rng.normal(size=(3, 8)))
    text = unit(rng.normal(size=(len(concepts), 8)))
    loss = joint_loss(torch.tensor(image), torch.tensor(text), torch.tensor(7.0), pairs, pool, tasks)
    expected = 0.0
    for task in tasks:
        z = 7.0 * image @ text[task.start : task.stop].T
        logp = z - np.log(np.exp(z).sum(1, keepdims=True))
        target = task.target[digits.labels[pairs[:, 1]]]
        own = -logp[np.arange(3), target]
        expected += task.weight * (0.95 * own.mean() + 0.05 * -logp.mean(1).mean())
    assert float(loss) == pytest.approx(expected, rel=1e-6)


def fake_photos() -> object:
    images = load_images("digits", split="test", limit=8)
    return replace(images, spec=get_spec("cifar100"))


def unit(x: np.ndarray) -> np.ndarray:
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def test_captions_read_naturally() -> None:
    rng = random.Random(0)
    texts = {caption(Concept("pretzel", "a pretzel", "food or drink"), rng) for _ in range(200)}
    assert "a photo of a pretzel, a type of food or drink." in texts
    assert not any("{" in t for t in texts)
    assert {article("apple"), article("unicorn"), article("dog")} == {"an", "a"}


def test_nouns_are_rendered_with_and_without_noise() -> None:
    dog = NounEntry("n1", ("dog",), ("a dog",), "an animal that barks at strangers in the night time", -1)
    rng = random.Random(1)
    assert {render(dog, None, rng, noise=0.0) for _ in range(300)} >= {"dog", "This is a photo of a dog."}
    spoiled = {misspell("elephant", rng) for _ in range(100)}
    assert len(spoiled) > 20 and all(abs(len(s) - 8) <= 1 for s in spoiled)
    assert misspell("dog", rng) == "dog"


def test_cut_keeps_the_end_token() -> None:
    tokens = torch.zeros(2, 32, dtype=torch.long)
    tokens[0, :5] = torch.tensor([49406, 1, 2, 3, 49407])
    tokens[1, :20] = 7
    tokens[1, 20] = 49407
    short = cut(tokens)
    assert short.shape == (2, MAX_TOKENS)
    assert (short == 49407).any(dim=1).all() and short[0, :5].tolist() == tokens[0, :5].tolist()


def test_only_what_may_be_mirrored_is() -> None:
    # a bright left half: after a mirror it would be on the right
    pixels = torch.zeros(64, 3, 32, 32)
    pixels[:, :, :, :16] = 1.0
    out = vary(pixels, torch.arange(64) < 32, torch.Generator().manual_seed(0))
    left_heavy = out[..., :16].mean(dim=(1, 2, 3)) > out[..., 16:].mean(dim=(1, 2, 3))
    assert left_heavy[32:].all() and 0 < int(left_heavy[:32].sum()) < 32


@pytest.mark.slow
def test_a_short_run_writes_what_it_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Digits and a photo set made of digits; the sentence encoder is replaced by random vectors."""
    sizes: list[int] = []

    def vectors(entries: list[NounEntry]) -> np.ndarray:
        sizes.append(len(entries))
        return unit(np.random.default_rng(len(entries)).normal(size=(len(entries), 384))).astype(np.float32)

    real = pretraining.load_images

    def images(name: str, *, split: str, root: object = None) -> object:
        found = real("digits", split="train" if split == "pretrain" else split, limit=64)
        if name == "digits":
            return found
        pixels = np.repeat(np.kron(found.array, np.ones((1, 1, 4, 4), dtype=np.uint8)), 3, axis=1)
        spec = get_spec(name)
        known = [i for i, k in enumerate(load_seen().known_mask(name)) if k][:10]
        return replace(found, spec=spec, array=pixels, labels=np.array(known)[found.labels])

    entries = [
        NounEntry(f"n{i}", (f"thing{i}", f"object{i}"), (f"a thing{i}", f"an object{i}"), "", -1 if i < 9 else i % 9)
        for i in range(200)
    ]
    monkeypatch.setattr(pretraining, "teacher_vectors", vectors)
    monkeypatch.setattr(pretraining, "load_images", images)
    monkeypatch.setattr(pretraining, "wordnet_entries", lambda: entries)
    monkeypatch.setattr(pretraining, "HELDOUT_SETS", (("digits", "heldout"),))
    monkeypatch.setattr(pretraining, "TEST_SETS", (("digits", "test"),))
    out = tmp_path / "tiny"
    text, joint = TextSettings(steps=4, batch=32), JointSettings(epochs=1, batch=32, noun_batch=16)
    record = pretraining.run(out=out, text=text, joint=joint)
    assert json.loads((out / "record.json").read_text()) == record
    assert (out / "open_clip_model.safetensors").stat().st_size < 12_000_000
    from hierbench.models.backbones import load_backbone

    assert load_backbone(f"local-dir:{out}").weights_hash == record["weights_hash"]
    assert record["weights_hash"] != load_model("clip").weights_hash
    again = pretraining.run(out=out, text=text, joint=joint)
    assert again["weights_hash"] == record["weights_hash"], "same seed, same weights"
    assert 200 in sizes
