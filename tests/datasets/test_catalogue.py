"""Every entry of the catalogue says what two people have to agree on, and says it right."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from hierbench.datasets import labels
from hierbench.datasets.catalogue import DATASETS, get_spec
from hierbench.datasets.spec import class_hash, fill_template
from hierbench.errors import InputError

ROOT = Path(__file__).resolve().parents[2]
NAMES = DATASETS.names()
BASE_NAMES = [name for name in NAMES if "@" not in name]
SIXTEEN = {
    "tiny_imagenet": 200, "cifar10": 10, "cifar100": 100, "stl10": 10, "sun397": 397, "food101": 101,
    "oxford_pets": 37, "flowers102": 102, "dtd": 47, "eurosat": 10, "fgvc_aircraft": 100, "imagenet": 1000,
    "caltech101": 102, "caltech256": 257, "stanford_cars": 196, "pcam": 2,
}  # fmt: skip
BEYOND = {
    "imagenet_v2": 1000, "imagenet_r": 200, "imagenet_sketch": 1000, "imagenet_a": 200, "cub200": 200,
    "inaturalist": 100, "nips2017": 1000, "digits": 10,
}  # fmt: skip


def test_the_sixteen_sets_of_the_literature_and_the_others_are_there() -> None:
    sizes = {name: len(get_spec(name).classes) for name in BASE_NAMES}
    assert sizes == SIXTEEN | BEYOND
    assert {"tiny_imagenet@32", "nips2017@32"} <= set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_the_class_order_is_the_pinned_one(name: str) -> None:
    spec = get_spec(name)
    assert class_hash(spec.class_ids) == spec.class_order_hash


def test_the_class_order_hash_sees_an_order() -> None:
    ids = get_spec("cifar10").class_ids
    assert class_hash(ids) != class_hash((ids[1], ids[0], *ids[2:]))
    assert class_hash(("ab", "c")) != class_hash(("a", "bc"))


@pytest.mark.parametrize("name", NAMES)
def test_every_entry_says_what_has_to_be_agreed(name: str) -> None:
    spec = get_spec(name)
    assert spec.name == name and spec.title and spec.licence and spec.citation and spec.confirmation
    assert spec.evaluation_split in spec.splits
    assert spec.grid[0] == spec.grid[1] and spec.grid[2] == (1 if name == "digits" else 3)
    assert spec.hub_revision is None or re.fullmatch(r"[0-9a-f]{40}", spec.hub_revision)
    assert (spec.hub_id is None) <= (spec.hub_revision is None)
    assert spec.hub_layout in ("parquet", "webdataset")
    if spec.confirmed and spec.hub_id is not None:
        assert spec.hub_revision is not None and all(source.exact for source in spec.splits.values())
    assert spec.revision_shown == (spec.hub_revision or "unpinned")


def test_pixel_grids_are_those_of_the_threat_models() -> None:
    sides = {"digits": 8, "cifar10": 32, "cifar100": 32, "tiny_imagenet": 64, "stl10": 96, "pcam": 96}
    for name in BASE_NAMES:
        assert get_spec(name).grid[0] == sides.get(name, 224), name
    assert get_spec("tiny_imagenet@32").grid == get_spec("nips2017@32").grid == (32, 32, 3)


@pytest.mark.parametrize("name", NAMES)
def test_prompts_of_a_data_set_are_all_different(name: str) -> None:
    spec = get_spec(name)
    prompts = [fill_template(spec.template, c.name, c.noun) for c in spec.classes]
    assert len(set(prompts)) == len(prompts)
    assert all(c.name and c.noun and c.id for c in spec.classes)
    for template in (spec.literature_template, *spec.ensemble):
        assert template.count("{}") == 1 and "{noun}" not in template
    assert len(set(spec.ensemble)) == len(spec.ensemble) >= 1


def test_single_prompts_are_the_literatures() -> None:
    this_is = {"cifar10", "cifar100", "stl10", "sun397", "imagenet", "tiny_imagenet"}
    assert {get_spec(name).literature_template for name in this_is} == {"This is a photo of a {}."}
    a_photo = {"caltech101", "caltech256", "stanford_cars"}
    assert {get_spec(name).literature_template for name in a_photo} == {"A photo of a {}."}
    assert get_spec("dtd").literature_template == "A surface with a {} texture."
    assert get_spec("eurosat").literature_template == "A centered satellite photo of {}."
    assert get_spec("food101").literature_template == "A photo of {}, a type of food."
    kinds = {"fgvc_aircraft": "aircraft", "flowers102": "flower", "oxford_pets": "pet"}
    for name, kind in kinds.items():
        assert get_spec(name).literature_template == f"A photo of a {{}}, a type of {kind}."


@pytest.mark.parametrize("name", ["imagenet_v2", "imagenet_sketch", "nips2017", "nips2017@32"])
def test_sets_over_imagenets_classes_share_its_trees(name: str) -> None:
    from hierbench.hierarchy.catalogue import load_hierarchy

    spec = get_spec(name)
    assert spec.tree_dataset == "imagenet" and spec.class_ids == get_spec("imagenet").class_ids
    assert load_hierarchy(spec.tree_dataset, classes=spec.class_ids).num_leaves == 1000


@pytest.mark.parametrize("name", ["imagenet_a", "imagenet_r"])
def test_subsets_of_imagenets_classes_are_in_its_order(name: str) -> None:
    ids = get_spec(name).class_ids
    assert [i for i in get_spec("imagenet").class_ids if i in set(ids)] == list(ids)


def test_imagenets_label_names_belong_to_its_classes() -> None:
    names = [line.split("\t")[0] for line in (ROOT / "hierbench/datasets/labels/imagenet.txt").read_text().splitlines()]
    spec = get_spec("imagenet")
    labels.check_label_order(names, spec, where="x")
    assert names[0] == "tench, Tinca tinca" and names[134] == "crane" and names[517] == "crane2"
    agree = sum(labels.plain(c.name) in labels.plain(n) for c, n in zip(spec.classes, names, strict=True))
    assert agree > 600  # a shifted list agrees almost nowhere
    names[3], names[4] = names[4], names[3]
    with pytest.raises(InputError, match="label 3 is 'hammerhead"):
        labels.check_label_order(names, spec, where="x")


@pytest.mark.parametrize("name", BASE_NAMES)
def test_a_class_folder_is_found_by_id_and_by_wordnet_id(name: str) -> None:
    spec = get_spec(name)
    wordnet = [c.wordnet for c in spec.classes]
    for place in {0, len(spec.classes) // 2, len(spec.classes) - 1}:
        entry = spec.classes[place]
        assert labels.find_class(entry.id, spec) == place
        if entry.wordnet and wordnet.count(entry.wordnet) == 1 and entry.wordnet not in spec.class_ids:
            assert labels.find_class(entry.wordnet, spec) == place
    assert labels.find_class("no such class at all", spec) is None


def test_the_catalogue_is_light() -> None:
    import subprocess
    import sys

    code = (
        "import sys; from hierbench.datasets.catalogue import DATASETS; DATASETS.names();"
        "print([m for m in ('torch', 'PIL', 'pyarrow', 'pandas', 'nltk', 'datasets') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("name", NAMES)
def test_show_tells_revision_counts_and_doubts(name: str) -> None:
    from hierbench.cli.listing import dataset_facts

    spec = get_spec(name)
    lines = dict(dataset_facts(spec))
    if spec.hub_id is not None:
        assert lines["Hub"].startswith(f"{spec.hub_id} @ {spec.hub_revision or 'unpinned'}")
        assert ("gated" in lines["Hub"]) == spec.gated
    assert lines["confirmed"].startswith("yes" if spec.confirmed else "not all of it")
    assert lines["trees"] != "none" and lines["literature's template"] == spec.literature_template
    assert sum(label == "split" for label, _ in dataset_facts(spec)) == len(spec.splits)


def test_a_list_marks_what_to_know_before_use() -> None:
    from hierbench.cli.listing import summary

    marks = {name: re.findall(r"\[(.*)\]$", summary(get_spec(name))) for name in NAMES}
    assert marks["imagenet"] == ["gated"] and marks["imagenet_v2"] == ["unpinned, unconfirmed"]
    assert marks["nips2017"] == marks["inaturalist"] == ["no Hub copy"]
    assert marks["cifar10"] == marks["digits"] == [] and marks["fgvc_aircraft"] == ["unconfirmed"]


def test_the_documentations_table_is_the_catalogue() -> None:
    text = (ROOT / "docs" / "datasets.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `([^`]+)` \| (\d+) \| (\d+) \| (.*) \|$", text, re.MULTILINE)
    assert [row[0] for row in rows] == NAMES
    for name, side, classes, rest in rows:
        spec = get_spec(name)
        assert (int(side), int(classes)) == (spec.grid[0], len(spec.classes))
        splits, hub, revision, state = (cell.strip() for cell in rest.split(" | "))
        for part in splits.split(", "):
            split, _, rows_said = part.partition(" ")
            rows_known = spec.splits[split].rows
            assert rows_said.strip("~*").replace(",", "") == ("?" if rows_known is None else str(rows_known)), name
            assert rows_said.startswith("~") == (not spec.splits[split].exact)
            assert rows_said.endswith("*") == (split == spec.evaluation_split)
        assert len(splits.split(", ")) == len(spec.splits)
        assert hub == (f"`{spec.hub_id}`" if spec.hub_id else "–")
        assert revision == (f"`{spec.hub_revision[:7]}`" if spec.hub_revision else "unpinned" if spec.hub_id else "–")
        assert ("gated" in state) == spec.gated
        assert ("unconfirmed" in state) == (spec.hub_id is not None and not spec.confirmed)
