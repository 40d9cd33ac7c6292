"""Adversarial images on disk: exact, judged again, shown to another model; damaged and hostile files are refused."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from cli import fake_model
from hypothesis import given
from hypothesis import strategies as st
from safetensors import safe_open
from torch import Tensor

from hierbench.attacks.threat import ThreatModel, distances
from hierbench.datasets.sampling import list_hash
from hierbench.errors import InputError
from hierbench.evaluation import prepare, runner
from hierbench.evaluation.prepare import prepare_cell
from hierbench.evaluation.replay import file as image_file
from hierbench.evaluation.replay.file import images_path, open_images
from hierbench.evaluation.replay.form import decode, delta_type, encode, outside
from hierbench.evaluation.replay.run import replay
from hierbench.evaluation.replay.tensors import Column, open_tensors, write_tensors
from hierbench.evaluation.request import Request
from hierbench.evaluation.runner import evaluate, run_cell
from hierbench.evaluation.stored import read_record
from hierbench.evaluation.verdicts import read_verdicts
from hierbench.evaluation.victim import EngineVictim

N = 24
RUN: dict[str, Any] = {"limit": N, "settings": {"steps": 3}, "batch_size": 4, "device": "cpu", "eps": "24/255"}


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Threads cost more than they bring on tensors this small."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


class OtherModel(fake_model.FakeModel):
    """A model of the fake ones, with weights of its own."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.weights_hash = "sha256:" + hashlib.sha256(name.encode()).hexdigest()


class OtherBound(fake_model.FakeBound):
    """Class means that are a little off, differently for each model."""

    def __init__(self, model: OtherModel, hierarchy: Any) -> None:
        super().__init__(hierarchy)
        generator = torch.Generator().manual_seed(len(model.name))
        self.points = self.points + 0.05 * torch.randn(self.points.shape, generator=generator)


@pytest.fixture
def out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    fake_model.install(monkeypatch)
    monkeypatch.setattr(prepare, "load_model", lambda entry, **_: OtherModel(entry.name))
    monkeypatch.setattr(prepare, "bind", lambda model, hierarchy, template: OtherBound(model, hierarchy))
    return tmp_path / "results"


def images_of(out: Path, form: str) -> Path:
    (path,) = out.rglob(f"*.images-{form}.safetensors")
    return path


def stored(out: Path, form: str = "float", **changes: Any) -> Path:
    evaluate("clip", out=out, store_images=form, **{**RUN, **changes})
    return images_of(out, form)


# -- the two forms ---------------------------------------------------------------------------------------------------

pixel_rows = st.lists(st.integers(0, 255), min_size=4, max_size=4)
shifts = st.lists(st.floats(-1, 1, width=32), min_size=4, max_size=4)
radii = st.sampled_from(["1/255", "8/255", "1/3", "200/255", "1/1000"])


def pair(levels: list[int], shift: list[float], threat: ThreatModel) -> tuple[Tensor, Tensor]:
    clean = torch.tensor(levels, dtype=torch.uint8).view(1, 1, 2, 2)
    moved = clean.float() / 255 + torch.tensor(shift, dtype=torch.float32).view(1, 1, 2, 2)
    return clean, threat.project(moved, clean.float() / 255)


@given(pixel_rows, shifts, radii, st.sampled_from(["linf", "l2"]))
def test_float_gives_back_the_very_bits(levels: list[int], shift: list[float], eps: str, norm: Any) -> None:
    threat = ThreatModel(norm, Fraction(eps))
    clean, adversarial = pair(levels, shift, threat)
    back = decode(encode(adversarial, clean, form="float", threat=threat), clean, form="float")
    assert back.numpy().tobytes() == adversarial.numpy().tobytes()


def test_a_float_difference_would_lose_bits() -> None:
    """The reason for storing bit patterns: a pixel that is nearly 0 beside one that is not."""
    clean = torch.full((1, 1, 1, 2), 30, dtype=torch.uint8)
    still = clean.float() / 255
    moved = torch.tensor([[[[1e-7, -0.0]]]])
    assert not torch.equal(still + (moved - still), moved)
    threat = ThreatModel("linf", Fraction(1, 5))
    back = decode(encode(moved, clean, form="float", threat=threat), clean, form="float")
    assert back.numpy().tobytes() == moved.numpy().tobytes()


@given(pixel_rows, shifts, radii, st.sampled_from(["linf", "l2"]))
def test_8_bit_is_on_the_grid_in_box_and_ball_and_near(
    levels: list[int], shift: list[float], eps: str, norm: Any
) -> None:
    threat = ThreatModel(norm, Fraction(eps))
    clean, adversarial = pair(levels, shift, threat)
    deltas = encode(adversarial, clean, form="8bit", threat=threat)
    assert deltas.dtype == delta_type("8bit", threat)
    image = decode(deltas, clean, form="8bit")
    grid = clean.numpy().astype(int) + deltas
    assert ((grid >= 0) & (grid <= 255)).all()
    assert torch.equal(image, torch.from_numpy(grid).float() / 255)
    exact = [Fraction(int(d), 255) for d in deltas.ravel()]  # in exact arithmetic: no tolerance
    assert max(map(abs, exact)) <= threat.eps if norm == "linf" else sum(d * d for d in exact) <= threat.eps**2
    assert outside(image, clean, threat) == [""]
    off = (image.double() - adversarial.double()).abs().max() * 255
    assert off <= (1.0 if norm == "linf" else 2.0) + 1e-4


def test_8_bit_rounds_to_the_nearest_where_the_ball_allows_it() -> None:
    clean = torch.tensor([[[[100, 100, 100, 0, 255]]]], dtype=torch.uint8)
    moved = clean.float() / 255 + torch.tensor([7.6, 3.4, -7.6, -0.4, 0.4]) / 255
    for eps, expected in (("8/255", [8, 3, -8, 0, 0]), ("15/510", [7, 3, -7, 0, 0])):
        deltas = encode(moved, clean, form="8bit", threat=ThreatModel("linf", Fraction(eps)))
        assert deltas.ravel().tolist() == expected and deltas.dtype == np.int8


def test_8_bit_in_l2_gives_up_no_more_than_it_must() -> None:
    clean = torch.full((1, 1, 1, 3), 100, dtype=torch.uint8)
    moved = clean.float() / 255 + torch.tensor([2.6, 2.6, 0.2]) / 255
    deltas = encode(moved, clean, form="8bit", threat=ThreatModel("l2", Fraction(37, 2550)))  # 3.7 levels; 3, 3 is 4.2
    assert sorted(deltas.ravel().tolist()) == [0, 2, 3]


def test_large_radii_need_two_bytes() -> None:
    assert delta_type("8bit", ThreatModel("linf", Fraction(127, 255))) == np.int8
    assert delta_type("8bit", ThreatModel("linf", Fraction(128, 255))) == np.int16


@pytest.mark.parametrize(
    ("value", "words"),
    [(float("nan"), "not finite"), (float("inf"), "not finite"), (-0.01, "outside [0, 1]"), (1.5, "outside [0, 1]"),
     (0.9, "0.507843 from its clean image in linf, and eps is 0.100000")],
)  # fmt: skip
def test_what_is_wrong_with_an_image_is_said(value: float, words: str) -> None:
    clean = torch.full((2, 1, 2, 2), 100, dtype=torch.uint8)
    images = clean.float() / 255
    images[1, 0, 1, 1] = value
    fine, wrong = outside(images, clean, ThreatModel("linf", Fraction(1, 10)))
    assert fine == "" and words in wrong


# -- keeping the images of a run -------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["8bit", "float"])
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"norm": "l2", "eps": "3/4"},
        {"attack": "leaf_pgd"},
        {"attack": "multilevel_apgd"},
        {"scoring": "direct"},
        {"eps": "0"},
    ],
    ids=str,
)
def test_stored_images_are_verified_from_disk(out: Path, form: str, changes: dict[str, Any]) -> None:
    done = replay(stored(out, form, **changes), device="cpu")
    assert done.confirmed and not done.transferred
    assert set(done.differing.values()) == {0}
    assert done.depths == done.source_depths
    assert done.notes == ()


def test_float_images_carry_the_verdicts_of_the_record(out: Path) -> None:
    file = open_images(stored(out))
    verdicts = read_verdicts(next(out.rglob("*.parquet")))
    for depth, attack in verdicts.attacked.items():
        judged = file.judged(depth)
        assert np.array_equal(judged.predicted, attack.predicted)
        assert np.array_equal(judged.broken_rollup, attack.broken_rollup)
        deltas = file.deltas(depth, 0, N)
        clean = prepare_cell(request(out)).images.pixels(np.arange(N))
        far = distances(decode(deltas, clean, form="float"), clean.float() / 255, norm="linf")
        assert np.array_equal(far.numpy(), attack.linf)


def test_8_bit_images_have_verdicts_of_their_own(out: Path) -> None:
    """With a radius of a grid step and a half a third of every change is lost, and some success with it."""
    changes = {"eps": "3/510", "limit": 360, "attack": "leaf_pgd", "settings": {"steps": 5}, "batch_size": 64}
    coarse, fine = (open_images(stored(out, form, **changes)) for form in ("8bit", "float"))
    assert (fine.judged(3).broken_rollup & ~coarse.judged(3).broken_rollup).any()
    assert coarse.tensors.shapes["d3.delta"] == ("I8", (360, 1, 8, 8))
    assert np.abs(coarse.deltas(3, 0, 360)).max() == 1
    assert replay(coarse.path, device="cpu").confirmed


def request(out: Path, form: str | None = None, **changes: Any) -> Request:
    return Request(model="clip", out=out, store_images=form, **{**RUN, **changes})


@pytest.mark.parametrize("form", ["8bit", "float"])
def test_keeping_images_changes_no_figure(out: Path, form: str) -> None:
    plain = run_cell(prepare_cell(request(out / "a")))
    kept = run_cell(prepare_cell(request(out / "b", form)))
    varying = {"created": True, "cost": {"seconds", "images_per_second", "per_depth", "peak_memory_bytes"}}
    assert plain.model_dump(exclude=varying) == kept.model_dump(exclude=varying)
    assert plain.cost.forwards == kept.cost.forwards


def test_a_killed_run_goes_on_and_ends_with_the_same_file(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = stored(out / "whole")
    real, calls = EngineVictim.attack, [0]

    def failing(self: EngineVictim, *arguments: Any) -> Any:
        calls[0] += 1
        if calls[0] == 4:
            raise KeyboardInterrupt
        return real(self, *arguments)

    with monkeypatch.context() as patched:
        patched.setattr(EngineVictim, "attack", failing)
        with pytest.raises(KeyboardInterrupt):
            stored(out / "killed")
    assert not list((out / "killed").rglob("*.images-*"))
    record = run_cell(prepare_cell(request(out / "killed", "float")))
    assert record.cost.units_resumed > 0
    killed = images_of(out / "killed", "float")
    tensors, again = open_images(whole).tensors, open_images(killed).tensors
    assert all(np.array_equal(tensors.rows(name), again.rows(name)) for name in tensors.shapes)
    assert [p.suffix for p in sorted(killed.parent.iterdir())] == [".safetensors", ".json", ".parquet"]


def test_a_run_that_was_killed_without_images_goes_on_with_them(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = EngineVictim.attack

    def failing(self: EngineVictim, chunk: Any, clean: Any, depth: int, report: Any) -> Any:
        if depth == 3:
            raise KeyboardInterrupt
        return real(self, chunk, clean, depth, report)

    with monkeypatch.context() as patched:
        patched.setattr(EngineVictim, "attack", failing)
        with pytest.raises(KeyboardInterrupt):
            run_cell(prepare_cell(request(out)))
    record = run_cell(prepare_cell(request(out, "8bit")))
    assert record.cost.units_resumed == 2, "the clean pass is kept, the attacks are made again for their images"
    assert replay(images_of(out, "8bit"), device="cpu").confirmed


def test_a_finished_cell_without_its_images_is_run_again(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run_cell(prepare_cell(request(out)))
    path = stored(out)
    held = path.read_bytes()
    monkeypatch.setattr(runner, "_Run", None)  # nothing may run from here on
    assert run_cell(prepare_cell(request(out, "float"))).checks.failed is False
    path.write_bytes(held[:-1])
    with pytest.raises(TypeError):
        run_cell(prepare_cell(request(out, "float")))


def test_more_than_a_file_may_hold_is_refused_before_the_run(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(image_file, "MAX_BYTES", N * 64 * 3 * 4 - 1)
    with pytest.raises(InputError, match=r"--store-images: .* use --limit or fewer --depth, or 8bit"):
        prepare_cell(request(out, "float"))
    prepare_cell(request(out, "8bit"))
    with pytest.raises(InputError, match=r"--store-images: 'png' is none of 8bit, float"):
        prepare_cell(request(out, "png"))


# -- another model ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["8bit", "float"])
def test_a_transfer_is_an_ordinary_record(out: Path, form: str) -> None:
    path = stored(out, form)
    done = replay(path, model="tecoa.digits", device="cpu", out=out)
    record = done.record
    assert record is not None and done.transferred and done.confirmed
    assert done.record_path is not None and read_record(done.record_path) == record
    attack = record.identity.attack
    assert attack.name == "transfer:clip/superclass_pgd"
    assert attack.parameters["source_weights"] == open_images(path).identity.model.weights_hash
    assert record.identity.protocol.custom
    assert record.identity.model.name == "tecoa.digits"
    assert record.checks.raised_share is None
    assert {flag.code for flag in record.checks.flags} >= {"transferred_images"}
    verdicts = read_verdicts(done.record_path.with_suffix(".parquet"))
    stored_images = open_images(path)
    cell = prepare_cell(request(out))
    bound = OtherBound(OtherModel("tecoa.digits"), cell.hierarchy)
    clean = cell.images.pixels(np.arange(N))
    for depth, found in verdicts.attacked.items():  # by hand
        images = decode(stored_images.deltas(depth, 0, N), clean, form=stored_images.form)
        predicted = bound(images)[:, :10].argmax(dim=1).numpy()
        assert np.array_equal(found.predicted, predicted)
        assert found.steps.sum() == 0 and not np.isfinite(found.final_loss).any()


def test_a_transfer_counts_samples_that_the_source_never_attacked(out: Path) -> None:
    path = stored(out, eps="2/255")
    file = open_images(path)
    wrong = int(file.clean.broken_rollup[:, 0].sum())
    assert wrong > 0, "the source gets some wrong"
    record = replay(path, model="tecoa.digits", device="cpu", out=out).record
    assert record is not None and not record.checks.failed
    assert "source_was_wrong" in {flag.code for flag in record.checks.flags}


def test_a_transfer_can_be_interrupted_and_is_read_when_finished(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = stored(out)
    first = replay(path, model="tecoa.digits", device="cpu", out=out).record
    monkeypatch.setattr(runner, "_Run", None)
    assert replay(path, model="tecoa.digits", device="cpu", out=out).record == first


def test_other_weights_of_the_same_name_are_no_verification(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = stored(out)
    monkeypatch.setattr(OtherModel, "__init__", lambda self, name: fake_model.FakeModel.__init__(self, name))
    with pytest.raises(InputError, match="model clip has other weights now"):
        replay(path, device="cpu")
    assert replay(path, model="clip", device="cpu", out=out).transferred


# -- damaged and hostile files ---------------------------------------------------------------------------------------

Parts = tuple[dict[str, np.ndarray], dict[str, Any]]


def rewrite(
    path: Path, change: Callable[[dict[str, np.ndarray], dict[str, Any]], None], *, relist: bool = True
) -> Path:
    """Change tensors and heading of a file and write it anew with a checksum that is right: a hostile author's work."""
    with safe_open(str(path), framework="numpy") as opened:
        tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
        heading = json.loads(opened.metadata()["heading"])
    tensors["ids"] = np.array(json.loads(tensors["ids"].tobytes()), dtype=object)
    change(tensors, heading)
    ids = tensors["ids"].tolist()
    if relist and len(ids) == len(tensors["labels"]) and isinstance(heading.get("identity"), dict):
        heading["identity"]["dataset"]["sample_list_hash"] = list_hash(ids, tensors["labels"])
    tensors["ids"] = np.frombuffer(json.dumps(ids).encode(), dtype=np.uint8)
    columns = [Column.of(name, np.ascontiguousarray(array)) for name, array in tensors.items()]
    changed = path.with_name("changed.safetensors")
    write_tensors(changed, columns, {"format": image_file.FORMAT, "heading": json.dumps(heading)})
    return changed


def refusal(path: Path, **arguments: Any) -> str:
    with pytest.raises(InputError) as caught:
        replay(path, device="cpu", **arguments)
    message = str(caught.value)
    assert "\n" not in message and len(message) < 600
    return message


def setter(*keys: str, to: Any) -> Callable[[Any, dict[str, Any]], None]:
    def change(tensors: Any, heading: dict[str, Any]) -> None:
        place = heading
        for key in keys[:-1]:
            place = place[key]
        place[keys[-1]] = to

    return change


def nan_pixel(tensors: dict[str, np.ndarray], heading: Any) -> None:
    tensors["d1.delta"][3, 0, 0, 0] = np.float32(np.nan).view(np.int32)
    tensors["d1.delta"][3, 0, 0, 0] -= np.float32(0).view(np.int32)


def far_pixel(tensors: dict[str, np.ndarray], heading: Any) -> None:
    tensors["d2.delta"][5, 0, 0, 0] = np.float32(0.9).view(np.int32)  # the corner of a digit is 0


def drop_row(tensors: dict[str, np.ndarray], heading: Any) -> None:
    for name in tensors:
        tensors[name] = tensors[name][:-1]


def wrong_type(tensors: dict[str, np.ndarray], heading: Any) -> None:
    tensors["d1.delta"] = tensors["d1.delta"].astype(np.int16)


def wrong_shape(tensors: dict[str, np.ndarray], heading: Any) -> None:
    tensors["d1.delta"] = tensors["d1.delta"].reshape(N, 1, 4, 16)


def stranger(tensors: dict[str, np.ndarray], heading: Any) -> None:
    tensors["ids"][7] = "nobody"


def twice(tensors: dict[str, np.ndarray], heading: Any) -> None:
    tensors["ids"][7] = tensors["ids"][8]


def swapped(tensors: dict[str, np.ndarray], heading: Any) -> None:
    tensors["ids"][[7, 8]] = tensors["ids"][[8, 7]]
    tensors["labels"][[7, 8]] = tensors["labels"][[8, 7]]


def other_label(tensors: dict[str, np.ndarray], heading: Any) -> None:
    tensors["labels"][7] = (tensors["labels"][7] + 1) % 10


def no_label(tensors: dict[str, np.ndarray], heading: Any) -> None:
    tensors["labels"][7] = 10


def other_pixels(tensors: dict[str, np.ndarray], heading: Any) -> None:
    tensors["clean.digest"][7] ^= 1


def name_with_escape(tensors: dict[str, np.ndarray], heading: Any) -> None:
    tensors["ids"][7] = "\x1b[31m"


HOSTILE: list[tuple[Any, str]] = [
    (nan_pixel, "has pixels that are not finite"),
    (far_pixel, "at depth 2 is 0.900000 from its clean image in linf, and eps is 0.094118"),
    (drop_row, f"it holds {N - 1} samples where the list of digits test has {N}"),
    (wrong_type, "tensor d1.delta is I16"),
    (wrong_shape, f"tensor d1.delta is I32 [{N}, 1, 4, 16], and should be I32 [{N}, 1, 8, 8]"),
    (stranger, "sample 'nobody' is not in the list of digits test"),
    (twice, "occurs twice"),
    (swapped, "not in the order of the list"),
    (other_label, "has another label in digits test"),
    (no_label, "a label is not one of the 10 leaves"),
    (other_pixels, "has other pixels here than those attacked"),
    (name_with_escape, "sample ids are not a list of names"),
    (lambda t, h: t.pop("d2.broken_rollup"), "tensor d2.broken_rollup is missing"),
    (lambda t, h: t.update(extra=np.zeros(3, dtype=np.uint8)), "unknown tensor 'extra'"),
    (lambda t, h: t.update(ids=t["ids"][:-2]), f"{N - 2} sample ids for {N} images"),
    (setter("form", to="jpeg"), "form 'jpeg' is none of 8bit, float"),
    (setter("form", to="8bit"), "tensor d1.delta is I32"),
    (setter("limit", to=None), "it holds 24 samples where the list"),
    (setter("limit", to=0), "limit 0"),
    (setter("limit", to=10**30), "it holds 24 samples where the list"),
    (setter("environment", "batch_size", to=10**9), "batch size 1000000000 is above"),
    (setter("identity", "model", "name", to="../../etc"), "'../../etc', which is not in `hierbench list models`"),
    (setter("identity", "model", "name", to="clip\x1b[2J"), "cannot be printed"),
    (setter("identity", "dataset", "name", to="../digits"), "../digits"),
    (setter("identity", "dataset", "split", to="../test"), "../test"),
    (setter("identity", "dataset", "grid", to=[16, 16, 1]), "tensor d1.delta"),
    (setter("identity", "hierarchy", "name", to="../../parity"), "parity"),
    (setter("identity", "hierarchy", "name", to="parity"), "its tree parity is not the one of this installation"),
    (setter("identity", "protocol", "name", to="../x-v1"), "x-v1"),
    (setter("identity", "attack", "eps", to="9" * 5000), "eps '999"),
    (setter("identity", "attack", "eps", to="1/0"), "eps '1/0'"),
    (setter("identity", "attack", "eps", to="200/255"), "eps 200/255 and its value"),
    (setter("identity", "attack", "depths", to=[1, 2, 9]), "attacked depths 1, 2, 9 are not depths of its tree"),
    (setter("identity", "attack", "depths", to=[1, 2]), "unknown tensor 'd3"),
    (setter("identity", to="nothing"), "identity"),
    (lambda t, h: h.clear(), "Field required"),
]  # fmt: skip


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One good file for all tests that spoil it."""
    with pytest.MonkeyPatch.context() as patched:
        fake_model.install(patched)
        patched.setattr(prepare, "load_model", lambda entry, **_: OtherModel(entry.name))
        patched.setattr(prepare, "bind", lambda model, hierarchy, template: OtherBound(model, hierarchy))
        return stored(tmp_path_factory.mktemp("sample"))


@pytest.mark.parametrize(("change", "words"), HOSTILE, ids=[f"{i}-{w[:24]}" for i, (_, w) in enumerate(HOSTILE)])
def test_a_hostile_file_is_refused_in_one_line(
    out: Path, sample: Path, tmp_path: Path, change: Any, words: str
) -> None:
    copy = tmp_path / "copy.safetensors"
    copy.write_bytes(sample.read_bytes())
    message = refusal(rewrite(copy, change))
    assert words in message
    assert "changed.safetensors" in message or message.startswith(("dataset", "unknown", "--", "no ", "tree"))


def test_the_way_of_spoiling_files_spoils_nothing_by_itself(out: Path, sample: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy.safetensors"
    copy.write_bytes(sample.read_bytes())
    assert replay(rewrite(copy, lambda tensors, heading: None), device="cpu").confirmed


def test_a_list_that_is_not_the_one_it_names_is_refused(out: Path, sample: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy.safetensors"
    copy.write_bytes(sample.read_bytes())
    assert "are not the list that its identity names" in refusal(rewrite(copy, stranger, relist=False))


def test_damage_anywhere_is_noticed(sample: Path, tmp_path: Path) -> None:
    held, path = sample.read_bytes(), tmp_path / "damaged.safetensors"
    for place in (8, 200, len(held) // 2, len(held) - 1):
        path.write_bytes(held[:place] + bytes([held[place] ^ 1]) + held[place + 1 :])
        with pytest.raises(InputError, match="damaged"):
            open_images(path)
    for length in (0, 4, 8, 100, len(held) - 1):
        path.write_bytes(held[:length])
        with pytest.raises(InputError, match="damaged"):
            open_images(path)


@pytest.mark.parametrize(
    "content",
    [
        b"not a tensor file at all",
        (2**63).to_bytes(8, "little") + b"{}",
        (10).to_bytes(8, "little") + b'{"a":[[[[[',
        (100_000).to_bytes(8, "little") + b"[" * 100_000,
        (2).to_bytes(8, "little") + b"{}",
        b"\x80\x05\x95" + b"c" * 64,
        b"\x89PNG\r\n\x1a\n" + bytes(64),
        b"",
    ],
    ids=["text", "length", "torn", "deep", "empty header", "pickle", "png", "nothing"],
)
def test_other_files_are_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "odd.safetensors"
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"^images .*odd\.safetensors: ") as caught:
        open_images(path)
    assert "\n" not in str(caught.value)


def test_a_folder_and_a_missing_file_are_refused(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "missing"):
        with pytest.raises(InputError, match=r"not a file|No such file|directory"):
            open_images(path)


def test_a_huge_file_is_refused_before_it_is_read(
    sample: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from hierbench.evaluation.replay import tensors

    monkeypatch.setattr(tensors, "MAX_BYTES", 1000)
    monkeypatch.setattr(tensors, "MAX_HEADER", 1000)
    with pytest.raises(InputError, match="such a file has at most 1000"):
        open_images(sample)


def test_a_verdict_that_is_not_found_again_is_reported(out: Path, sample: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy.safetensors"
    copy.write_bytes(sample.read_bytes())

    def boast(tensors: dict[str, np.ndarray], heading: Any) -> None:
        tensors["d2.broken_rollup"][:4] ^= True
        tensors["clean.predicted"][0] += 1

    done = replay(rewrite(copy, boast), device="cpu")
    assert not done.confirmed
    assert done.differing == {0: 1, 1: 0, 2: 4, 3: 0}


def test_verdicts_other_than_those_of_the_record_beside_it_are_refused(out: Path) -> None:
    path = stored(out)

    def boast(tensors: dict[str, np.ndarray], heading: Any) -> None:
        tensors["d2.broken_rollup"][:4] ^= True

    assert "not those of the record beside it (4 differ)" in refusal(rewrite(path, boast))
    path.with_name(f"{open_images(path).identity.cell}.json").unlink()
    assert "no record lies beside" in replay(path, device="cpu").notes[0]


def test_another_revision_of_equal_pixels_is_a_note(out: Path, sample: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy.safetensors"
    copy.write_bytes(sample.read_bytes())
    done = replay(rewrite(copy, setter("identity", "dataset", "revision", to="file:other")), device="cpu")
    assert done.confirmed and "the pixels are equal" in done.notes[0]


# -- the file format -------------------------------------------------------------------------------------------------


def test_blocks_must_add_up(tmp_path: Path) -> None:
    from hierbench.errors import HierbenchError

    path = tmp_path / "x.safetensors"
    rows = np.arange(6, dtype=np.int8).reshape(3, 2)
    write_tensors(path, [Column("a", rows.dtype, (3, 2), iter([rows[:1], rows[1:]]))], {"k": "v"})
    opened = open_tensors(path, what="file")
    assert np.array_equal(opened.rows("a"), rows) and np.array_equal(opened.rows("a", 1, 2), rows[1:2])
    assert opened.metadata["k"] == "v"
    for blocks in ([rows[:1]], [rows, rows[:1]], [rows.astype(np.int16)], [rows[:, :1]]):
        with pytest.raises(HierbenchError, match="a"):
            write_tensors(tmp_path / "y.safetensors", [Column("a", rows.dtype, (3, 2), iter(blocks))], {})
    assert [p.name for p in tmp_path.iterdir()] == ["x.safetensors"]


def test_a_checksum_in_the_metadata_cannot_be_confused(tmp_path: Path) -> None:
    """Text that looks like the checksum's place comes later in the header than the place itself, or is no match."""
    path = tmp_path / "x.safetensors"
    metadata = {"a": '"checksum":"' + "0" * 64 + '"', "checksum": "f" * 64}
    write_tensors(path, [Column.of("a", np.zeros(3, dtype=np.int8))], metadata)
    assert open_tensors(path, what="file").metadata["a"] == metadata["a"]


def test_images_of_a_cell_lie_beside_its_record() -> None:
    assert images_path(Path("x"), "cell.1", "8bit") == Path("x/cell.1.images-8bit.safetensors")


def test_a_cell_of_another_kind_of_victim_keeps_no_images(tmp_path: Path) -> None:
    from evaluation.toy_cell import toy_cell

    cell = dataclasses.replace(toy_cell(tmp_path), store_images="8bit")
    with pytest.raises(InputError, match="this attack's images cannot be kept"):
        run_cell(cell)
