"""The written file: round trip, canonical form, stable hash, atomic write, and the published schema."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import jsonschema
import pytest
from hypothesis import given, settings
from sample_trees import Content, find, random_contents, rehash, save, small_content

from hierbench.hierarchy.content import content_hash, hierarchy_content
from hierbench.hierarchy.errors import HierarchyError
from hierbench.hierarchy.load import hierarchy_from_content, load_hierarchy_file
from hierbench.hierarchy.schema import json_schema, schema_text
from hierbench.hierarchy.write import hierarchy_text, write_hierarchy

quick = settings(max_examples=40, deadline=None)
PUBLISHED = Path(__file__).parents[2] / "hierarchies" / "schema-v1.json"


def schema_checker() -> jsonschema.Draft202012Validator:
    return jsonschema.Draft202012Validator(json_schema())


@quick
@given(random_contents())
def test_what_is_written_is_read_back(content: Content) -> None:
    tree = hierarchy_from_content(content, where="test")
    written = json.loads(hierarchy_text(tree))
    assert written == content
    again = hierarchy_from_content(written, where="test")
    assert again == tree
    assert again.nodes == tree.nodes
    assert again.levels == tree.levels
    assert hierarchy_text(again) == hierarchy_text(tree)


def test_a_file_has_one_node_a_line_and_its_fields_in_order(content: Content, tmp_path: Path) -> None:
    path = write_hierarchy(hierarchy_from_content(content, where="test"), tmp_path / "new" / "small.json")
    text = path.read_text(encoding="utf-8")
    assert text.endswith("}\n")
    assert list(json.loads(text)) == list(content)
    lines = text.splitlines()
    for entry in content["nodes"]:
        assert sum(line.startswith(f'    {{"id": "{entry["id"]}"') for line in lines) == 1
    assert [p.name for p in path.parent.iterdir()] == ["small.json"]
    assert load_hierarchy_file(path).content_hash == content["hash"]


def test_names_beyond_ascii_stay_readable(content: Content, tmp_path: Path) -> None:
    find(content, "cat")["name"] = "gâteau ねこ"
    path = write_hierarchy(hierarchy_from_content(rehash(content), where="test"), tmp_path / "small.json")
    assert "gâteau ねこ" in path.read_text(encoding="utf-8")
    assert load_hierarchy_file(path).leaves[1].name == "gâteau ねこ"


def hash_by_the_words_of_the_format(content: Content) -> str:
    body = {key: value for key, value in content.items() if key != "hash"}
    text = json.dumps(body, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return "sha256:" + hashlib.sha256(text.encode("utf-8")).hexdigest()


def test_the_hash_is_what_the_format_says(content: Content) -> None:
    assert content["hash"] == hash_by_the_words_of_the_format(content)
    # Frozen: records and tables name trees by this.
    assert content["hash"] == "sha256:891ee5b1f65e56f27ea2efedcb481536f9be4f57c0b1a56eb1974fce99db77e0"
    find(content, "cat")["name"] = "gâteau ねこ"
    assert content_hash(content) == hash_by_the_words_of_the_format(content)


def test_the_hash_is_of_the_content_not_of_the_layout(content: Content, tmp_path: Path) -> None:
    turned = dict(reversed(content.items()))
    turned["nodes"] = [dict(reversed(entry.items())) for entry in content["nodes"]]
    assert content_hash(turned) == content["hash"]
    path = tmp_path / "small.json"
    path.write_text(json.dumps(turned, indent=7, ensure_ascii=True), encoding="utf-8")
    tree = load_hierarchy_file(path)
    assert tree.content_hash == content["hash"]
    assert hierarchy_content(tree) == content


def test_a_write_that_fails_leaves_the_old_file(
    content: Content, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "small.json"
    path.write_text("old")

    def full_disk(handle: int) -> None:
        raise OSError("no space left")

    monkeypatch.setattr("os.fsync", full_disk)
    with pytest.raises(OSError, match="no space left"):
        write_hierarchy(hierarchy_from_content(content, where="test"), path)
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["small.json"]


def test_the_published_schema_is_the_one_in_the_code() -> None:
    assert PUBLISHED.read_text(encoding="utf-8") == schema_text()
    jsonschema.Draft202012Validator.check_schema(json_schema())


@quick
@given(random_contents())
def test_the_schema_agrees_with_the_loader_on_valid_trees(content: Content) -> None:
    schema_checker().validate(content)


@pytest.mark.parametrize(
    ("holder", "field", "value"),
    [
        ("file", "format", 2),
        ("file", "format", "1"),
        ("file", "default", "yes"),
        ("file", "title", ""),
        ("file", "title", "a\x1bb"),
        ("file", "tree", "../x"),
        ("file", "levels", []),
        ("file", "levels", [["animal"]]),
        ("file", "hash", "sha256:0"),
        ("file", "colour", "red"),
        ("node", "colour", "red"),
        ("node", "name", ""),
        ("node", "noun", "[b]"),
        ("node", "noun", "n" * 201),
        ("node", "id", "a b"),
        ("node", "parent", 3),
        ("node", "wordnet", None),
        ("node", "wordnet", ""),
    ],
)
def test_the_schema_and_the_loader_refuse_the_same_fields(holder: str, field: str, value: object) -> None:
    content = small_content()
    (content if holder == "file" else content["nodes"][3])[field] = value
    assert not schema_checker().is_valid(content)
    with pytest.raises(HierarchyError, match="field"):
        hierarchy_from_content(content, where="test")


@pytest.mark.parametrize("field", sorted(set(small_content())))
def test_the_schema_and_the_loader_need_the_same_fields(field: str) -> None:
    content = small_content()
    del content[field]
    assert not schema_checker().is_valid(content)
    with pytest.raises(HierarchyError, match=f"field '{field}' is missing"):
        hierarchy_from_content(content, where="test")


def test_a_file_may_be_named_by_a_string(content: Content, tree_path: Path) -> None:
    assert load_hierarchy_file(str(save(content, tree_path))).tree == "small"
