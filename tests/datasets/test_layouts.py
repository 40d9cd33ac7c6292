"""The data root in each of its layouts, and what is refused in each."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hierbench.datasets.catalogue import DATASETS, get_spec
from hierbench.datasets.load import load_images
from hierbench.errors import InputError

ON_HUB = [n for n in DATASETS.names() if get_spec(n).hub_id is not None and "@" not in n]
PARQUET = [n for n in ON_HUB if get_spec(n).hub_layout == "parquet"]
TARS = [n for n in ON_HUB if get_spec(n).hub_layout == "webdataset"]


def colours(images: Any) -> dict[str, int]:
    """Sample id -> the red that its picture was made of."""
    pixels = np.asarray(images.pixels(np.arange(len(images))))
    return {i: int(p[0].astype(float).mean().round()) for i, p in zip(images.ids, pixels, strict=True)}


def refused(name: str, root: Path, **how: Any) -> str:
    with pytest.raises(InputError) as caught:
        images = load_images(name, root=root, **how)
        images.pixels(np.arange(len(images)))
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("name", PARQUET)
def test_every_parquet_entry_is_read_in_the_hubs_layout(name: str, tmp_path: Path, copies: Any) -> None:
    copies.parquet(tmp_path, name)
    spec = get_spec(name)
    images = load_images(name, root=tmp_path)
    split = spec.evaluation_split
    assert sorted(images.ids) == [f"{split}/{i:06d}" for i in range(6)]
    by_id = dict(zip(images.ids, images.labels.tolist(), strict=True))
    assert [by_id[f"{split}/{i:06d}"] for i in range(6)] == copies.labels(spec, 6)
    assert colours(images) == {f"{split}/{i:06d}": 10 * i for i in range(6)}
    assert tuple(images.pixels([0]).shape[1:]) == (3, *spec.grid[:2])
    assert images.revision.startswith("file:sha256:")
    assert images.notes == (f"{split}: 6 of the {spec.splits[split].rows} samples, a part of the split",) or not (
        spec.splits[split].exact
    )


@pytest.mark.parametrize("name", TARS)
def test_every_tar_entry_is_read_in_the_hubs_layout(name: str, tmp_path: Path, copies: Any) -> None:
    copies.tars(tmp_path, name)
    spec = get_spec(name)
    images = load_images(name, root=tmp_path)
    found = colours(images)
    assert sorted(found) == [f"test/{i:06d}" for i in range(6)]
    assert all(abs(found[f"test/{i:06d}"] - 10 * i) <= 4 for i in range(6))  # WebP loses a little
    by_id = dict(zip(images.ids, images.labels.tolist(), strict=True))
    assert [by_id[f"test/{i:06d}"] for i in range(6)] == copies.labels(spec, 6)
    assert images.revision.startswith("wds:sha256:")


@pytest.mark.parametrize("name", PARQUET)
def test_a_missing_column_is_named_for_every_entry(name: str, tmp_path: Path, copies: Any) -> None:
    spec = get_spec(name)
    copies.parquet(tmp_path, name, image_column="photo")
    assert f"no column {spec.image_column!r}; it has photo" in refused(name, tmp_path)
    copies.parquet(tmp_path, name, label_column="kind")
    assert f"no column {spec.label_column!r}; it has" in refused(name, tmp_path)


@pytest.mark.parametrize("name", [n for n in PARQUET if get_spec(n).label_column != "wnid"])
def test_a_changed_label_order_is_named_for_every_entry(name: str, tmp_path: Path, copies: Any) -> None:
    names = copies.hub_names(get_spec(name))
    names[1], names[2] = names[2], names[1]
    copies.parquet(tmp_path, name, names=names)
    assert f"label 1 is {names[1]!r} there and {get_spec(name).class_ids[1]!r}" in refused(name, tmp_path)
    copies.parquet(tmp_path, name, names=copies.hub_names(get_spec(name))[:-1], labels=[0] * 6)
    assert f"{len(names) - 1} class names; {name} has {len(names)}" in refused(name, tmp_path)


@pytest.mark.parametrize("name", ["food101", "imagenet"])
def test_label_names_may_be_spelled_in_their_own_way(name: str, tmp_path: Path, copies: Any) -> None:
    names = [n.upper().replace("_", " ") for n in copies.hub_names(get_spec(name))]
    copies.parquet(tmp_path, name, names=names)
    assert len(load_images(name, root=tmp_path)) == 6


def test_more_samples_than_the_split_has_are_another_version(tmp_path: Path, copies: Any) -> None:
    picture = copies.picture(1, size=(32, 32))
    count = get_spec("dtd").splits["test"].rows + 1
    copies.parquet(tmp_path, "dtd", blobs=[picture] * count, labels=[0] * count, row_group_size=500)
    assert f"{count} samples; dtd test has 1880, so this is another version" in refused("dtd", tmp_path, limit=1)


def test_a_shard_that_is_missing_is_named(tmp_path: Path, copies: Any) -> None:
    copies.parquet(tmp_path, "food101", file="validation-00000-of-00003.parquet")
    copies.parquet(tmp_path, "food101", file="validation-00002-of-00003.parquet")
    assert "file 00001 of 00003 is missing" in refused("food101", tmp_path)
    copies.parquet(tmp_path, "food101", file="validation-00001-of-00003.parquet")
    assert len(load_images("food101", root=tmp_path)) == 18


def test_a_checkout_of_the_hub_repository_is_read(tmp_path: Path, copies: Any) -> None:
    copies.parquet(tmp_path, "food101", file="data/validation-00000-of-00001.parquet")
    copies.parquet(tmp_path, "food101", split="train", file="data/train-00000-of-00001.parquet")
    assert len(load_images("food101", root=tmp_path)) == 6
    copies.parquet(tmp_path, "imagenet_a", file="default/train/0000.parquet")  # the Hub's own conversion
    assert {i[:5] for i in load_images("imagenet_a", root=tmp_path).ids} == {"test/"}


def test_a_truncated_and_an_oversized_image_are_named_with_their_row(tmp_path: Path, copies: Any) -> None:
    from PIL import Image

    good = copies.pictures(6)
    copies.parquet(tmp_path, "food101", blobs=[*good[:3], good[3][:70], *good[4:]])
    assert "validation/000003: not a readable image" in refused("food101", tmp_path)
    stream = io.BytesIO()
    Image.new("1", (9000, 9000)).save(stream, "PNG")
    copies.parquet(tmp_path, "food101", blobs=[*good[:4], stream.getvalue(), good[5]])
    assert "validation/000004: 9000 x 9000 pixels; at most 64000000" in refused("food101", tmp_path)
    copies.parquet(tmp_path, "food101", blobs=[*good[:5], b""])
    assert "validation/000005: not a readable image" in refused("food101", tmp_path)


@pytest.mark.parametrize("row_group_size", [7, 100, 1000])
def test_rows_keep_their_pictures_whatever_the_row_groups(row_group_size: int, tmp_path: Path, copies: Any) -> None:
    blobs = [copies.picture(row, size=(32, 32)) for row in range(200)]
    labels = [row % 10 for row in range(200)]
    copies.parquet(tmp_path, "cifar10", blobs=blobs, labels=labels, row_group_size=row_group_size)
    assert colours(load_images("cifar10", root=tmp_path)) == {f"test/{row:06d}": row for row in range(200)}
    few = load_images("cifar10", root=tmp_path, limit=23)
    assert colours(few) == {i: int(i[-6:]) for i in few.ids}


def test_wnids_beside_labels_are_checked(tmp_path: Path, copies: Any) -> None:
    ids = get_spec("nips2017").class_ids
    labels = [0, 5, 7, 9, 11, 999]
    copies.parquet(tmp_path, "nips2017", labels=labels, columns={"wnid": [ids[i] for i in labels]})
    assert len(load_images("nips2017@32", root=tmp_path)) == 6
    wrong = [ids[i] for i in labels[:-1]] + [ids[998]]
    copies.parquet(tmp_path, "nips2017", labels=labels, columns={"wnid": wrong})
    assert f"row 5 has label 999, which is {ids[999]!r}, and wnid {ids[998]!r}" in refused("nips2017", tmp_path)


# --- image folders


@pytest.mark.parametrize("spelling", ["id", "name", "wordnet", "numbered"])
def test_class_folders_are_found_however_they_are_spelled(spelling: str, tmp_path: Path, copies: Any) -> None:
    spec = get_spec("caltech256")
    chosen = [0, 2, 18]
    spelled = {
        "id": [spec.classes[c].id for c in chosen],
        "name": [spec.classes[c].name.title() for c in chosen],
        "wordnet": [str(spec.classes[c].wordnet) for c in chosen],
        "numbered": [f"{c + 1:03d}.{spec.classes[c].id}" for c in chosen],
    }[spelling]
    copies.folders(tmp_path, "caltech256", dict.fromkeys(spelled, 2), place="caltech256/test")
    images = load_images("caltech256", root=tmp_path)
    assert sorted(images.labels.tolist()) == [0, 0, 2, 2, 18, 18]
    assert f"test/{spec.classes[2].id}/0001" in images.ids
    assert images.revision.startswith("folder:sha256:")


def test_imagenets_own_folders_are_read_under_their_usual_name(tmp_path: Path, copies: Any) -> None:
    ids = get_spec("imagenet").class_ids
    copies.folders(tmp_path, "imagenet", {ids[999]: 1, ids[3]: 2}, place="imagenet/val")
    images = load_images("imagenet", root=tmp_path)
    assert sorted(images.ids) == [
        f"validation/{ids[3]}/0000",
        f"validation/{ids[3]}/0001",
        f"validation/{ids[999]}/0000",
    ]
    assert images.notes == ("validation: 3 of the 50000 samples, a part of the split",)


def test_numbered_folders_are_labels_in_the_order_of_numbers(tmp_path: Path, copies: Any) -> None:
    # ImageNetV2's folders are 0 to 999; sorted as words, 10 would come before 2
    copies.folders(tmp_path, "imagenet_v2", {"2": 1, "10": 1, "999": 1}, place="imagenet-v2")
    assert sorted(load_images("imagenet_v2", root=tmp_path).labels.tolist()) == [2, 10, 999]


def test_inaturalists_folders_are_read_and_other_species_passed_over(tmp_path: Path, copies: Any) -> None:
    ids = get_spec("inaturalist").class_ids
    folders = {
        f"00012_Plantae_Tracheophyta_Magnoliopsida_Sapindales_Sapindaceae_{ids[0]}": 2,
        "00013_Animalia_Arthropoda_Insecta_Coleoptera_Carabidae_Carabus_imaginarius": 2,
    }
    copies.folders(tmp_path, "inaturalist", folders, place="inaturalist/val")
    assert load_images("inaturalist", root=tmp_path).labels.tolist() == [0, 0]


def test_odd_folders_are_named(tmp_path: Path, copies: Any) -> None:
    copies.folders(tmp_path, "dtd", {"banded": 1, "plaid": 1}, place="dtd/test")
    assert "plaid: no class of dtd is called that" in refused("dtd", tmp_path)
    (tmp_path / "dtd/test/plaid").rename(tmp_path / "dtd/test/Banded")
    assert "are both class 'banded' of dtd" in refused("dtd", tmp_path)


def test_a_folders_revision_sees_a_changed_picture(tmp_path: Path, copies: Any) -> None:
    copies.folders(tmp_path, "dtd", {"banded": 2}, place="dtd/test")
    before = load_images("dtd", root=tmp_path).revision
    (tmp_path / "dtd/test/banded/0000.png").write_bytes(copies.picture(99))
    assert load_images("dtd", root=tmp_path).revision != before


# --- tars


def test_tars_go_by_number_and_their_members_are_never_paths(tmp_path: Path, copies: Any) -> None:
    outside = tmp_path / "outside.webp"
    folder = copies.tars(tmp_path / "root", "pcam", labels=[0, 1, 0, 1, 0, 1], prefix="../../../")
    images = load_images("pcam", root=tmp_path / "root")
    assert len(images) == 6 and not outside.exists()
    assert list(tmp_path.rglob("*.webp")) == []
    (folder / "0.tar").rename(folder / "2.tar")
    (folder / "1.tar").rename(folder / "10.tar")  # the brighter half; as words, 10 would come first
    found = colours(load_images("pcam", root=tmp_path / "root"))
    assert all(found[f"test/{i:06d}"] < 25 for i in range(3)), found


def test_odd_tars_are_named(tmp_path: Path, copies: Any) -> None:
    two = [0, 1, 0, 1, 0, 1]
    folder = copies.tars(tmp_path, "pcam", labels=two, without=("s0000001.cls",))
    assert "0.tar: sample '/s0000001' has no label (cls)" in refused("pcam", tmp_path)
    copies.tars(tmp_path, "pcam", labels=two, without=("s0000004.webp",))
    assert "1.tar: sample '/s0000004' has no image" in refused("pcam", tmp_path)
    copies.tars(tmp_path, "pcam", labels=[0, 1, 0, 1, 0, 2])
    assert "sample '/s0000005' holds 2; labels are 0 to 1" in refused("pcam", tmp_path)
    copies.tars(tmp_path, "pcam", labels=[0, 1, 0, 1, 0, "tumor"])
    assert "should be a label, a number" in refused("pcam", tmp_path)
    copies.tars(tmp_path, "pcam", labels=two, nshards="3")
    assert "nshards.txt: says 3 tars; 2 are there" in refused("pcam", tmp_path)
    copies.tars(tmp_path, "pcam", labels=two)
    content = (folder / "1.tar").read_bytes()
    (folder / "1.tar").write_bytes(content[:900])
    assert "1.tar" in refused("pcam", tmp_path)
    with tarfile.open(folder / "1.tar", "w") as tar:
        link = tarfile.TarInfo("s0000003.webp")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(link)
    assert "is a link or a device" in refused("pcam", tmp_path)


def test_prompt_names_out_of_order_are_named(tmp_path: Path, copies: Any) -> None:
    names = [c.name for c in get_spec("imagenet_sketch").classes]
    names[5] = "something that no table has"  # free prose, which says nothing
    copies.tars(tmp_path, "imagenet_sketch", names=names)
    assert len(load_images("imagenet_sketch", root=tmp_path)) == 6
    names[0], names[1] = names[1], names[0]
    copies.tars(tmp_path, "imagenet_sketch", names=names)
    assert "classnames.txt: label 0 is 'goldfish' there, which is label 1" in refused("imagenet_sketch", tmp_path)


# --- CIFAR binaries


@pytest.mark.parametrize("name", ["cifar10", "cifar100"])
@pytest.mark.parametrize("inside", [False, True])
def test_cifar_binaries_are_read(name: str, inside: bool, tmp_path: Path, copies: Any) -> None:
    folder = copies.cifar(tmp_path, name)
    if inside:
        (tmp_path / name).mkdir()
        folder.rename(tmp_path / name / folder.name)
    images = load_images(name, root=tmp_path)
    expected = np.load(tmp_path / "expected.npy")
    for row in range(5):
        place = images.ids.index(f"test/{row:06d}")
        assert images.labels[place] == row
        assert (np.asarray(images.pixels([place]))[0] == expected[row]).all()
    assert images.revision.startswith("cifar-binary:sha256:")


def test_odd_cifar_binaries_are_named(tmp_path: Path, copies: Any) -> None:
    copies.cifar(tmp_path, "cifar10", cut=1)
    assert "no whole number of 3073-byte records" in refused("cifar10", tmp_path)
    names = list(get_spec("cifar10").class_ids)
    copies.cifar(tmp_path, "cifar10", names=names[::-1])
    assert "batches.meta.txt: label 0 is 'truck' there and 'airplane'" in refused("cifar10", tmp_path)
    (tmp_path / "cifar-10-batches-bin" / "data_batch_1.bin").write_bytes(b"")
    assert "data_batch_2.bin: no such file; cifar10 train is 5 of them" in refused("cifar10", tmp_path, split="train")


@pytest.mark.parametrize(("name", "folder"), [("cifar10", "cifar-10-batches-py"), ("cifar100", "cifar-100-python")])
def test_pickles_are_refused_with_advice(name: str, folder: str, tmp_path: Path, copies: Any) -> None:
    (tmp_path / folder).mkdir()
    (tmp_path / folder / "test_batch").write_bytes(b"\x80\x04.")
    said = refused(name, tmp_path)
    assert folder in said and "pickles" in said and "-binary.tar.gz" in said


def test_a_split_that_is_there_twice_names_both(tmp_path: Path, copies: Any) -> None:
    copies.cifar(tmp_path, "cifar10")
    copies.parquet(tmp_path, "cifar10")
    said = refused("cifar10", tmp_path)
    assert "Parquet files in" in said and "CIFAR binaries in" in said
    copies.folders(tmp_path, "dtd", {"banded": 1}, place="dtd/test")
    copies.tars(tmp_path, "dtd")
    said = refused("dtd", tmp_path)
    assert "image folders in" in said and "WebDataset tars in" in said
    copies.parquet(tmp_path, "food101")
    copies.parquet(tmp_path, "food101", file="data/validation-00000-of-00001.parquet")
    assert said.count(" in ") >= 2 and str(tmp_path / "food101" / "data") in refused("food101", tmp_path)
