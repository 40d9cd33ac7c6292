"""Every tree in the repository: valid, what its outline builds, and fit for prompts."""

from __future__ import annotations

import json
from pathlib import Path

import jsonschema
import pytest

from hierbench.hierarchy.catalogue import load_forest, load_hierarchy
from hierbench.hierarchy.class_table import read_class_table
from hierbench.hierarchy.load import load_hierarchy_file
from hierbench.hierarchy.outline import build_outline_file
from hierbench.hierarchy.schema import json_schema
from hierbench.hierarchy.shuffle import shuffle
from hierbench.hierarchy.strict_json import parse_json
from hierbench.hierarchy.text import same_text_key
from hierbench.hierarchy.write import hierarchy_text

ROOT = Path(__file__).parents[2]
TREES = sorted((ROOT / "hierarchies").glob("*/*.json"))
OUTLINES = sorted((ROOT / "hierarchies").glob("*/*.outline"))
DATASETS = sorted({path.parent.name for path in TREES})
# The CIFAR-100 release has its twenty superclasses and nothing above them.
TWO_DEPTHS = {("cifar100", "official")}


def name_of(path: Path) -> str:
    return f"{path.parent.name}/{path.stem}"


def classes_file(dataset: str) -> Path:
    return ROOT / "hierbench" / "datasets" / "classes" / f"{dataset}.tsv"


each_tree = pytest.mark.parametrize("path", TREES, ids=name_of)


def test_there_are_trees_and_each_outline_has_its_file() -> None:
    assert {"digits", "cifar100"} <= set(DATASETS)
    made = {name_of(path) for path in TREES}
    assert {name_of(path) for path in OUTLINES} <= made
    assert len([path for path in TREES if path.parent.name == "digits"]) >= 3


@each_tree
def test_a_committed_tree_is_valid_and_canonical(path: Path) -> None:
    rows = read_class_table(classes_file(path.parent.name))
    tree = load_hierarchy_file(path, classes=[row.id for row in rows])
    assert (tree.dataset, tree.tree) == (path.parent.name, path.stem)
    assert path.read_text(encoding="utf-8") == hierarchy_text(tree)
    jsonschema.Draft202012Validator(json_schema()).validate(parse_json(path.read_bytes(), where=str(path)))
    for row, leaf in zip(rows, tree.leaves, strict=True):
        assert (row.name, row.noun, row.wordnet) == (leaf.name, leaf.noun, leaf.wordnet)


@each_tree
def test_a_committed_tree_is_deep_and_its_prompts_differ(path: Path) -> None:
    tree = load_hierarchy_file(path)
    if tree.dataset == "pcam":  # two classes: their one level is all there is
        assert tree.num_depths == 1
    elif (tree.dataset, tree.tree) in TWO_DEPTHS:
        assert tree.num_depths == 2
    else:
        assert tree.num_depths >= 3
    for level in tree.levels:
        assert len({same_text_key(noun) for noun in level.nouns}) == len(level)
        assert len({same_text_key(name) for name in level.names}) == len(level)


@pytest.mark.parametrize("outline", OUTLINES, ids=name_of)
def test_a_committed_tree_is_what_its_outline_builds(outline: Path) -> None:
    built = build_outline_file(outline, read_class_table(classes_file(outline.parent.name)))
    assert hierarchy_text(built) == outline.with_suffix(".json").read_text(encoding="utf-8")


@pytest.mark.parametrize("dataset", DATASETS)
def test_each_data_set_has_one_default_and_its_trees_make_a_forest(dataset: str) -> None:
    forest = load_forest(dataset)
    assert forest.trees[0] == load_hierarchy(dataset)
    assert [tree.default for tree in forest] == [True] + [False] * (len(forest) - 1)


@each_tree
def test_a_committed_tree_has_a_shuffled_control(path: Path) -> None:
    tree = load_hierarchy_file(path)
    control = shuffle(tree, 0)
    for depth in list(tree.depths)[:-1]:
        assert control.level(depth).leaf_counts.tolist() == tree.level(depth).leaf_counts.tolist()
        assert control.level(depth).leaf_to_node.tolist() != tree.level(depth).leaf_to_node.tolist()


def test_cifar100_has_the_levels_of_the_specification() -> None:
    assert [len(level) for level in load_hierarchy("cifar100", "deep").levels] == [2, 4, 8, 20, 100]
    official = load_hierarchy("cifar100", "official")
    assert [len(level) for level in official.levels] == [20, 100]
    assert set(official.level(1).leaf_counts.tolist()) == {5}


@pytest.mark.data
@pytest.mark.parametrize(("tree", "depth"), [("official", 1), ("deep", 4)])
def test_cifar100_superclasses_are_those_of_the_data(tree: str, depth: int, data_root: Path) -> None:
    import pyarrow.parquet as parquet

    files = sorted((data_root / "cifar100").rglob("*.parquet"))
    assert files, f"no parquet files under {data_root / 'cifar100'}"
    features = json.loads(parquet.read_schema(files[0]).metadata[b"huggingface"])["info"]["features"]
    assert [leaf.id for leaf in load_hierarchy("cifar100", tree).leaves] == features["fine_label"]["names"]
    pairs: set[tuple[int, int]] = set()
    for file in files:
        table = parquet.read_table(file, columns=["fine_label", "coarse_label"])
        pairs |= set(zip(table["fine_label"].to_pylist(), table["coarse_label"].to_pylist(), strict=True))
    assert {fine for fine, _ in pairs} == set(range(100))
    node_of = load_hierarchy("cifar100", tree).level(depth).leaf_to_node
    matched = {(coarse, int(node_of[fine])) for fine, coarse in pairs}
    # One superclass, one node: as many pairs as there are of either.
    assert len(matched) == len({coarse for coarse, _ in matched}) == len({node for _, node in matched}) == 20
