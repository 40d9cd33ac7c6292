"""Files of adversarial images that are damaged or hostile are refused in one line."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cli import fake_model

from evaluation.replaying import N, OtherBound, OtherModel, rewrite, stored
from hierbench.errors import InputError
from hierbench.evaluation import prepare
from hierbench.evaluation.replay.file import images_path, open_images
from hierbench.evaluation.replay.run import replay
from hierbench.evaluation.replay.tensors import Column, open_tensors, write_tensors
from hierbench.evaluation.runner import run_cell

pytestmark = pytest.mark.usefixtures("one_thread")


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
