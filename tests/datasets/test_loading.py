"""The loader on built-in data, on files in the Hub's layout, and on damaged ones."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from hierbench.datasets.catalogue import get_spec
from hierbench.datasets.load import load_images
from hierbench.datasets.seen import load_seen
from hierbench.errors import InputError


def png(value: int, size: int = 32, mode: str = "RGB") -> bytes:
    buffer = io.BytesIO()
    Image.new(mode, (size, size), value if mode == "L" else (value,) * 3).save(buffer, "PNG")
    return buffer.getvalue()


def write_cifar100(folder: Path, **change: Any) -> Path:
    """Write a small file in exactly the Hub's layout, with one thing changed."""
    spec = get_spec("cifar100")
    names = change.get("names", list(spec.class_ids))
    blobs = change.get("blobs", [png(10 * i) for i in range(6)])
    columns = {
        change.get("image_column", "img"): [{"bytes": b, "path": None} for b in blobs],
        change.get("label_column", "fine_label"): change.get("labels", [0, 1, 2, 3, 4, 99]),
    }
    feature = {"names": names, "_type": "ClassLabel"}
    metadata = {"info": {"features": {"img": {"_type": "Image"}, "fine_label": feature}}}
    table = pa.table(columns).replace_schema_metadata({"huggingface": json.dumps(metadata)})
    target = folder / "cifar100" / "test-00000-of-00001.parquet"
    target.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, target)
    return target


def test_digits_are_on_the_eight_bit_grid_and_split_once() -> None:
    train, heldout, test = (load_images("digits", split=s) for s in ("train", "heldout", "test"))
    assert (len(train), len(heldout), len(test)) == (1294, 143, 360)
    assert not set(train.ids) & set(test.ids) and not set(train.ids) & set(heldout.ids)
    assert test.array.shape == (360, 1, 8, 8) and test.array.dtype == np.uint8
    raw = np.unique(np.concatenate([train.array, test.array]))
    assert raw.tolist() == np.rint(np.arange(17) * 255 / 16).astype(np.uint8).tolist()
    assert np.bincount(test.labels).tolist() == [36] * 10


def test_a_limit_is_a_prefix_of_a_longer_one() -> None:
    ten, forty = load_images("digits", limit=10), load_images("digits", limit=40)
    assert forty.ids[:10] == ten.ids
    assert sorted(ten.labels.tolist()) == list(range(10))


def test_the_hub_layout_is_read(tmp_path: Path) -> None:
    write_cifar100(tmp_path)
    images = load_images("cifar100", root=tmp_path)
    assert len(images) == 6
    place = images.ids.index("test/000003")
    assert images.labels[place] == 3
    assert (images.array[place] == 30).all()
    assert images.revision.startswith("file:sha256:")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"image_column": "image"}, "no column 'img'"),
        ({"label_column": "label"}, "no column 'fine_label'"),
        ({"labels": [0, 1, 2, 3, 4, 100]}, "holds 100; labels are 0 to 99"),
        ({"labels": [0, 1, 2, 3, 4, -1]}, "holds -1"),
        ({"blobs": [png(1)] * 5 + [b"<html>not found</html>"]}, "test/000005: not a readable image"),
        ({"blobs": [png(1)] * 5 + [png(1)[:60]]}, "test/000005: not a readable image"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, change: dict[str, Any], said: str) -> None:
    write_cifar100(tmp_path, **change)
    with pytest.raises(InputError) as caught:
        load_images("cifar100", root=tmp_path)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_changed_label_order_is_refused(tmp_path: Path) -> None:
    names = list(get_spec("cifar100").class_ids)
    names[3], names[4] = names[4], names[3]
    write_cifar100(tmp_path, names=names)
    with pytest.raises(InputError, match="label 3 is 'beaver' there and 'bear'"):
        load_images("cifar100", root=tmp_path)


def test_missing_folders_and_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no folder 'cifar100'"):
        load_images("cifar100", root=tmp_path)
    (tmp_path / "cifar100").mkdir()
    with pytest.raises(InputError, match=r"no test-\*\.parquet"):
        load_images("cifar100", root=tmp_path)
    with pytest.raises(InputError, match="--data-root"):
        load_images("cifar100", root=tmp_path / "nowhere")
    (tmp_path / "cifar100" / "test-00000-of-00001.parquet").write_bytes(b"PAR1 but not really")
    with pytest.raises(InputError, match="not a readable Parquet file"):
        load_images("cifar100", root=tmp_path)


def test_unknown_names_are_answered_with_near_ones() -> None:
    with pytest.raises(InputError, match="did you mean 'cifar100'"):
        load_images("cifar1000")
    with pytest.raises(InputError, match="has no split 'val'; it has train, test, heldout"):
        load_images("digits", split="val")
    with pytest.raises(InputError, match="--limit"):
        load_images("digits", limit=0)


def test_unseen_classes_are_those_of_the_committed_split() -> None:
    seen = load_seen("seen-v1")
    sizes = {d: len(seen.known(d)) for d in ("cifar100", "tiny_imagenet", "cifar10", "digits")}
    assert sizes == {"cifar100": 80, "tiny_imagenet": 160, "cifar10": 0, "digits": 10}
    assert "streetcar" not in seen.known("cifar100")


@pytest.mark.data
def test_the_real_files_are_read(data_root: Path) -> None:
    images = load_images("cifar100", root=data_root)
    assert len(images) == 916 and images.array.shape[1:] == (3, 32, 32)
    first = decode_first(data_root / "cifar100" / "test-00000-of-00001.parquet")
    assert (images.array[images.ids.index("test/000000")] == first).all()


def decode_first(path: Path) -> np.ndarray:
    data = pq.read_table(path)["img"][0].as_py()["bytes"]
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB")).transpose(2, 0, 1)


@pytest.mark.data
def test_nips_2017_is_read_at_both_grids(data_root: Path) -> None:
    large, small = (load_images(name, root=data_root, limit=12) for name in ("nips2017", "nips2017@32"))
    assert large.ids == small.ids and large.notes == ()
    assert tuple(large.pixels([0]).shape) == (1, 3, 224, 224) and tuple(small.pixels([0]).shape) == (1, 3, 32, 32)
    reduced = large.pixels(range(12)).float().unfold(2, 7, 7).unfold(3, 7, 7).mean(dim=(-1, -2))
    assert (reduced - small.pixels(range(12)).float()).abs().mean() < 8


@pytest.mark.slow
@pytest.mark.data
@pytest.mark.parametrize("name", ["nips2017", "nips2017@32"])
def test_nips_2017_is_evaluated_with_imagenets_tree(name: str, data_root: Path, tmp_path: Path) -> None:
    import hierbench

    record = hierbench.evaluate(
        "clip", dataset=name, attack="leaf_pgd", limit=3, settings={"steps": 1}, batch_size=4, out=tmp_path,
        data_root=data_root,
    )  # fmt: skip
    assert record.identity.hierarchy.leaves == 1000 and record.counts.scored == 3
    assert record.identity.dataset.grid == (get_spec(name).grid)


def test_a_part_of_a_split_is_said_in_the_record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from hierbench.evaluation.prepare import prepare_cell
    from hierbench.evaluation.request import Request

    write_cifar100(tmp_path)
    cell = prepare_cell(Request(dataset="cifar100", attack="leaf_pgd", data_root=tmp_path, out=tmp_path / "out"))
    assert cell.notes == ("test: 6 of the 10000 samples, a part of the split",)
