"""Files that are no checkpoints, or worse: each is refused in one line, and nothing in them runs."""

from __future__ import annotations

import io
import pickle
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from hierbench.errors import InputError
from hierbench.models.load import load_model

Write = Callable[[str], Path]


def refused(path: Path, tuned: Any) -> str:
    """Return the one line with which a file is refused."""
    with pytest.raises(InputError) as caught:
        load_model(str(path), backbone=tuned.backbone)
    said = str(caught.value)
    assert str(path) in said and "\n" not in said and len(said) < 700
    return said


class Payload:
    """Unpickling it would write a file."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self.marker,))


def content_of(path: Path) -> Any:
    if path.suffix != ".safetensors":
        return torch.load(path, weights_only=False)
    return {name: tensor.clone() for name, tensor in load_file(path).items()}  # the file itself is written over


def test_a_payload_in_any_layout_is_not_run(layout_of_six: str, tuned: Any, write: Write, tmp_path: Path) -> None:
    path, marker = write(layout_of_six), tmp_path / "owned"
    torch.save(content_of(path) | {"extra": Payload(marker)}, path)
    said = refused(path, tuned)
    assert not marker.exists()
    assert "nothing in it was run" in said or "safetensors" in said
    torch.load(path.rename(tmp_path / "same.pt"), weights_only=False)
    assert marker.exists(), "the payload is a real one"


def test_a_payload_in_the_old_format_is_not_run(tuned: Any, tmp_path: Path) -> None:
    path, marker = tmp_path / "old.pt", tmp_path / "owned"
    torch.save({"conv1.weight": Payload(marker)}, path, _use_new_zipfile_serialization=False)
    assert "nothing in it was run" in refused(path, tuned)
    assert not marker.exists()


def test_a_payload_behind_a_numpy_scalar_is_not_run(tuned: Any, tmp_path: Path) -> None:
    """The constructors that are let through build nothing: their arguments are dropped."""
    path, marker = tmp_path / "scalar.pt", tmp_path / "owned"

    class Scalar:
        def __reduce__(self) -> tuple[Any, ...]:
            import numpy as np

            return (np.dtype, (Payload(marker),))

    torch.save({"best": Scalar()}, path)
    refused(path, tuned)
    assert not marker.exists()


def test_a_plain_pickle_is_not_opened(tuned: Any, tmp_path: Path) -> None:
    path, marker = tmp_path / "plain.pt", tmp_path / "owned"
    path.write_bytes(pickle.dumps(Payload(marker)))
    assert "plain pickle" in refused(path, tuned)
    assert not marker.exists()


def test_wrong_shapes_in_any_layout_are_refused(layout_of_six: str, tuned: Any, write: Write) -> None:
    path = write(layout_of_six)

    def spoil(value: Any) -> Any:
        if isinstance(value, torch.Tensor):
            return torch.zeros(2, 3) if value.shape == (16, 12) else value
        return {k: spoil(v) for k, v in value.items()} if isinstance(value, dict) else value

    spoilt = spoil(dict(content_of(path)))
    save_file(spoilt, path) if path.suffix == ".safetensors" else torch.save(spoilt, path)
    assert "proj is (2, 3)" in refused(path, tuned)


def test_a_web_page_in_place_of_any_layout_is_refused(layout_of_six: str, tuned: Any, write: Write) -> None:
    path = write(layout_of_six)
    path.write_text("\n <!DOCTYPE html><html><title>Google Drive - Virus scan warning</title></html>")
    assert "a web page, not weights" in refused(path, tuned)


def test_a_truncated_file_of_any_layout_is_refused(layout_of_six: str, tuned: Any, write: Write) -> None:
    path = write(layout_of_six)
    whole = path.read_bytes()
    for share in (0.1, 0.6, 0.999):
        path.write_bytes(whole[: int(share * len(whole))])
        assert "cut off" in refused(path, tuned)


def test_an_empty_file_of_any_layout_is_refused(layout_of_six: str, tuned: Any, write: Write) -> None:
    path = write(layout_of_six)
    path.write_bytes(b"")
    assert "empty (0 bytes)" in refused(path, tuned)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_numbers_that_are_none_are_refused(value: float, tuned: Any, write: Write) -> None:
    path = write("visual")
    state = content_of(path)
    state["proj"][3, 4] = value
    torch.save(state, path)
    assert "proj holds NaN or infinity" in refused(path, tuned)


def damaged(state: dict[str, Any], tensor: Any) -> dict[str, Any]:
    return {**state, "proj": tensor}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda s: damaged(s, s["proj"].to(torch.float64)), "stored as float64; it should be float32, float16"),
        (lambda s: damaged(s, s["proj"].to(torch.int8)), "stored as int8"),
        (lambda s: damaged(s, s["proj"].to(torch.complex64)), "stored as complex64"),
        (lambda s: damaged(s, s["proj"].to_sparse()), "stored as float32, torch.sparse_coo"),
        (lambda s: damaged(s, s["proj"].to(torch.float8_e4m3fn)), "stored as float8_e4m3fn"),
        (lambda s: damaged(s, torch.zeros(1).expand(10**6, 10**6)), "proj is (1000000, 1000000)"),
        (lambda s: damaged(s, torch.zeros(16, 12, device="meta")), "stored as"),
        (lambda s: damaged(s, "text"), "holds 'proj' beside tensors (the first is a str)"),
        (lambda s: {k: v for k, v in s.items() if "ln_" not in k}, "lacks 'ln_pre.weight'"),
        (lambda s: {**s, **{f"prompt{i}": torch.zeros(1) for i in range(5)}}, "'prompt2' and 2 more, which"),
        (lambda s: {"a": torch.zeros(1), "b": torch.zeros(1)}, "its keys ('a', 'b') name nothing in this backbone"),
        (lambda s: {"vision_model.embeddings.class_embedding": torch.zeros(1)}, "transformers' CLIPModel"),
        (lambda s: [s], "holds a list where a dictionary"),
        (lambda s: {}, "where a dictionary of tensors by name should be"),
        (lambda s: {1: torch.zeros(1)}, "where a dictionary of tensors by name should be"),
        (lambda s: {"vision_encoder_state_dict": None}, "'vision_encoder_state_dict' should be tensors by name"),
        (
            lambda s: {"vision_encoder_state_dict": s, "state_dict": {"pad_up": torch.zeros(1, 3, 30, 224)}},
            "'state_dict' holds a visual prompt ('pad_up')",
        ),
        (
            lambda s: {"modules": {"clip.visual": s}, "params": {"image_prompt": torch.zeros(1, 3, 32, 32)}},
            "'params' holds a visual prompt ('image_prompt')",
        ),
        (lambda s: {"modules": {"clip.visual": s, "clip.transformer": s}, "params": {}}, "'clip.transformer'"),
    ],
)
def test_what_does_not_fit_is_named(change: Any, said: str, tuned: Any, write: Write) -> None:
    path = write("visual")
    torch.save(change(content_of(path)), path)
    assert said in refused(path, tuned)


def test_missing_and_unexpected_names_are_all_counted(tuned: Any, write: Write) -> None:
    path = write("full")
    state = content_of(path)["state_dict"]
    gone = [name for name in state if "transformer" in name]
    torch.save({k: v for k, v in state.items() if k not in gone} | {"module.extra": torch.zeros(1)}, path)
    said = refused(path, tuned)
    assert f"({len(gone)} missing, 1 unexpected)" in said and f"and {len(gone) - 3} more" in said and "'extra'" in said


def test_a_runaway_logit_scale_is_refused(tuned: Any, tmp_path: Path) -> None:
    torch.save({**tuned.both.clip.state_dict(), "logit_scale": torch.tensor(99.0)}, tmp_path / "full.pt")
    assert "logit_scale is 99" in refused(tmp_path / "full.pt", tuned)


def rewrite(path: Path, change: Callable[[str, bytes], bytes], *, compression: int = zipfile.ZIP_STORED) -> None:
    with zipfile.ZipFile(path) as archive:
        entries = [(name, archive.read(name)) for name in archive.namelist()]
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, data in entries:
            archive.writestr(name, change(name, data))


def test_a_compressed_archive_is_taken_for_a_bomb(tuned: Any, tmp_path: Path) -> None:
    path = tmp_path / "bomb.pt"
    torch.save({"proj": torch.zeros(4_000_000)}, path)
    rewrite(path, lambda name, data: data, compression=zipfile.ZIP_DEFLATED)
    assert path.stat().st_size < 200_000
    assert "is compressed or encrypted, which torch.save never does (an archive bomb" in refused(path, tuned)


def test_entries_that_claim_more_than_the_file_are_refused(tuned: Any, write: Write) -> None:
    path = write("visual")
    data = bytearray(path.read_bytes())
    place = data.rindex(b"PK\x01\x02")
    data[place + 20 : place + 28] = (0x7FFFFFFF).to_bytes(4, "little") * 2
    path.write_bytes(bytes(data))
    assert "archive bomb" in refused(path, tuned)


def test_an_index_that_claims_more_than_its_tensors_have_is_refused(tuned: Any, tmp_path: Path) -> None:
    """Reading what the index says would read this process's own memory beyond the tensor."""
    path = tmp_path / "claims.pt"
    torch.save({"proj": torch.zeros(3_000_000)}, path)
    rewrite(path, lambda name, data: data[:16] if name.endswith("data/0") else data)
    assert "weights-only reader refuses it" in refused(path, tuned)


def test_a_program_is_not_run(tuned: Any, tmp_path: Path) -> None:
    path = tmp_path / "ViT-B-32.pt"
    torch.jit.save(torch.jit.script(torch.nn.Linear(2, 2)), str(path))
    assert "a TorchScript program" in refused(path, tuned)


def test_a_whole_pickled_model_is_named(tuned: Any, tmp_path: Path) -> None:
    torch.save(tuned.model.clip, tmp_path / "whole.pt")
    said = refused(tmp_path / "whole.pt", tuned)
    assert "asks to load open_clip" in said and "torch.save(model.state_dict(), FILE)" in said


def _tar(path: Path) -> None:
    with tarfile.open(path, "w") as archive:
        archive.addfile(tarfile.TarInfo("storages"), io.BytesIO())


def _zip(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("checkpoint/readme.txt", "no weights")


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda p: p.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n"), "git lfs pull"),
        (lambda p: p.write_bytes(b"\x1f\x8b" + b"\0" * 99), "unpack it"),
        (_tar, "unpack it"),
        (_zip, "without the one data.pkl"),
        (lambda p: p.write_text('{"error": "not found"}'), "which no weights file does"),
        (lambda p: p.write_bytes(b"\x93NUMPY" + b"\0" * 99), "which no weights file does"),
        (lambda p: p.write_bytes((2000).to_bytes(8, "little") + b"{" + b" " * 50), "not a readable safetensors file"),
        (lambda p: (p.write_bytes(b"PK\x03\x04"), p.open("r+b").truncate(33 << 30)), "more than any checkpoint"),
    ],
)
def test_other_files_are_told_by_their_first_bytes(make: Any, said: str, tuned: Any, tmp_path: Path) -> None:
    path = tmp_path / "file.pt"
    make(path)
    assert said in refused(path, tuned)


def test_a_file_that_is_not_there_is_said_to_be(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"gone\.pt is not there"):
        load_model(str(tmp_path / "gone.pt"), backbone="tiny_clip-v1")


def test_an_old_torch_is_not_trusted(tuned: Any, write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write("visual")
    monkeypatch.setattr(torch, "__version__", "2.5.1+cu121")
    assert "install torch 2.6 or newer" in refused(path, tuned)


def test_the_allow_list_is_gone_after_reading(tuned: Any, write: Write) -> None:
    before = set(torch.serialization.get_safe_globals())
    load_model(str(write("vision-encoder")), backbone=tuned.backbone)
    assert set(torch.serialization.get_safe_globals()) == before
