"""Every malformed file gives one line that names the file and the node or field at fault."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sample_trees import Content, caterpillar, find, node, rehash, save, small_content

from hierbench.errors import ExitCode, InputError
from hierbench.hierarchy import strict_json
from hierbench.hierarchy.content import MAX_FILE_BYTES, MAX_LEVELS
from hierbench.hierarchy.errors import HierarchyError
from hierbench.hierarchy.load import hierarchy_from_content, load_hierarchy_file

Change = Callable[[Content], object]


def refusal(path: Path, classes: list[str] | None = None) -> str:
    """Load a file that must be refused; return what the one line says after the file's name."""
    with pytest.raises(HierarchyError) as caught:
        load_hierarchy_file(path, classes=classes)
    assert isinstance(caught.value, InputError)
    assert caught.value.exit_code is ExitCode.BAD_INPUT
    line = str(caught.value)
    assert line.splitlines() == [line]
    assert line.isprintable()
    assert len(line) < 500 + len(str(path))
    prefix = f"{path}: "
    assert line.startswith(prefix)
    return line.removeprefix(prefix)


def setting(node_id: str, field: str, value: object) -> Change:
    return lambda content: find(content, node_id).__setitem__(field, value)


def top(field: str, value: object) -> Change:
    return lambda content: content.__setitem__(field, value)


def dropping(field: str) -> Change:
    return lambda content: content.pop(field)


def level(depth: int, ids: list[object]) -> Change:
    return lambda content: content["levels"].__setitem__(depth - 1, ids)


def adding(*entries: object) -> Change:
    return lambda content: content["nodes"].extend(entries)


def several(*changes: Change) -> Change:
    return lambda content: [change(content) for change in changes]


TREE_FAULTS: dict[str, tuple[Change, str]] = {
    "cycle": (setting("animal", "parent", "wild"), "node 'animal' is in a cycle through 'wild'"),
    "cycle without a root": (setting("thing", "parent", "pet"), "node 'thing' is in a cycle through 'pet'"),
    "own parent": (setting("wild", "parent", "wild"), "node 'wild' is its own parent"),
    "two roots": (
        setting("vehicle", "parent", None),
        "nodes 'thing' and 'vehicle' both have no parent: a tree has one root",
    ),
    "two parents": (adding(node("cat", "wild")), "node 'cat' has two parents, 'pet' and 'wild'"),
    "duplicate id": (adding(node("cat", "pet")), "node 'cat' is listed twice"),
    "unknown parent": (setting("fox", "parent", "wildlife"), "node 'fox': parent 'wildlife' is not a node of the file"),
    "single-child chain": (
        several(adding(node("farm", "vehicle")), setting("truck", "parent", "farm")),
        "node 'farm' has the single child 'truck': merge the two",
    ),
    "single child of the root": (
        several(adding(node("world", None)), setting("thing", "parent", "world")),
        "node 'world' has the single child 'thing': merge the two",
    ),
    "leaf that is no class": (adding(node("cow", "pet")), "node 'cow' has no children and is not in 'classes'"),
    "class missing": (lambda c: c["classes"].remove("fox"), "node 'fox' has no children and is not in 'classes'"),
    "class unknown": (lambda c: c["classes"].append("cow"), "class 'cow' has no node"),
    "class twice": (lambda c: c["classes"].append("fox"), "class 'fox' is listed twice in 'classes'"),
    "class with children": (lambda c: c["classes"].append("pet"), "class 'pet' has children: classes are leaves"),
}

LEVEL_FAULTS: dict[str, tuple[Change, str]] = {
    "leaf in no node": (
        level(2, ["rock", "pet", "vehicle"]),
        "level 2 is no partition: no node of it holds leaf 'wolf'",
    ),
    "last leaf in no node": (
        level(1, ["animal", "vehicle"]),
        "level 1 is no partition: no node of it holds leaf 'rock'",
    ),
    "leaf in two nodes": (
        level(2, ["rock", "pet", "wild", "animal", "vehicle"]),
        "level 2 is no partition: 'pet' and 'animal' both hold leaf 'cat'",
    ),
    "leaf beside its own node": (
        level(1, ["animal", "vehicle", "truck", "rock"]),
        "level 1 is no partition: 'vehicle' and 'truck' both hold leaf 'truck'",
    ),
    "not nested": (
        several(level(1, ["pet", "wild", "vehicle", "rock"]), level(2, ["animal", "car", "truck", "rock"])),
        "levels 1 and 2 are not nested: node 'animal' of level 2 lies in more than one node of level 1",
    ),
    "same level twice": (
        level(2, ["rock", "vehicle", "animal"]),
        "levels 1 and 2 are the same cut: leave one out",
    ),
    "one node": (level(1, ["thing"]), "field 'levels', entry 0 (from 0) has 1 entries, at least 2 are needed"),
    "empty level": (level(2, []), "field 'levels', entry 1 (from 0) has 0 entries, at least 2 are needed"),
    "unknown node": (level(1, ["animal", "vehicles", "rock"]), "level 1: 'vehicles' is not a node of the file"),
    "node twice": (level(1, ["animal", "vehicle", "rock", "animal"]), "level 1: node 'animal' is listed twice"),
    "last level in another order": (
        lambda c: c["levels"][-1].reverse(),
        "level 3, the last, is not 'classes' in label order",
    ),
    "no leaf level": (lambda c: c["levels"].pop(), "level 2, the last, is not 'classes' in label order"),
    "shared noun": (
        setting("wild", "noun", "A PET"),
        "level 2: nodes 'pet' and 'wild' share the noun 'A PET'",
    ),
    "shared noun of leaves": (
        setting("fox", "noun", "a wolf"),
        "level 3: nodes 'wolf' and 'fox' share the noun 'a wolf'",
    ),
    "noun shared with a ragged leaf": (
        setting("rock", "noun", "a vehicle"),
        "level 1: nodes 'vehicle' and 'rock' share the noun 'a vehicle'",
    ),
}

FIELD_FAULTS: dict[str, tuple[Change, str]] = {
    "wrong version": (top("format", 2), "field 'format' is 2; this version reads format 1"),
    "version as text": (top("format", "1"), "field 'format' is '1'; this version reads format 1"),
    "version as a fraction": (top("format", 1.0), "field 'format' is 1.0; this version reads format 1"),
    "version as a boolean": (top("format", True), "field 'format' is true; this version reads format 1"),
    "no version": (dropping("format"), "field 'format' is missing; this version reads format 1"),
    "missing field": (dropping("licence"), "field 'licence' is missing"),
    "no nodes": (dropping("nodes"), "field 'nodes' is missing"),
    "no hash": (dropping("hash"), "field 'hash' is missing"),
    "unknown field": (top("colour", "red"), "field 'colour' is not a field of the format"),
    "unknown field of a node": (
        setting("cat", "colour", "red"),
        "node 'cat': field 'colour' is not a field of the format",
    ),
    "node without a parent field": (lambda c: find(c, "cat").pop("parent"), "node 'cat': field 'parent' is missing"),
    "node without an id": (lambda c: find(c, "cat").pop("id"), "node number 3 (from 0): field 'id' is missing"),
    "empty name": (setting("cat", "name", ""), "node 'cat': field 'name' is empty"),
    "blank name": (setting("cat", "name", "   "), "node 'cat': field 'name' is empty"),
    "empty noun": (setting("cat", "noun", ""), "node 'cat': field 'noun' is empty"),
    "empty id": (setting("cat", "id", ""), "node number 3 (from 0): field 'id' is empty"),
    "empty title": (top("title", ""), "field 'title' is empty"),
    "padded name": (setting("cat", "name", " cat"), "node 'cat': field 'name' begins or ends with a space"),
    "padded title": (top("title", "Small "), "field 'title' begins or ends with a space"),
    "doubled space": (setting("cat", "noun", "a  cat"), "node 'cat': field 'noun' holds two spaces in a row"),
    "line break": (setting("cat", "name", "c\nat"), "node 'cat': field 'name' holds the control character U+000A"),
    "line break at the end": (setting("cat", "name", "cat\n"), "node 'cat': field 'name' begins or ends with a space"),
    "terminal escape": (
        setting("cat", "noun", "a \x1b[31mcat"),
        "node 'cat': field 'noun' holds the control character U+001B",
    ),
    "null": (setting("cat", "noun", "a\x00cat"), "node 'cat': field 'noun' holds the control character U+0000"),
    "right-to-left override": (
        setting("cat", "name", "c\u202eat"),
        "node 'cat': field 'name' holds the control character U+202E",
    ),
    "zero-width space": (
        setting("cat", "name", "c\u200bat"),
        "node 'cat': field 'name' holds the control character U+200B",
    ),
    "line separator": (
        setting("cat", "name", "c\u2028at"),
        "node 'cat': field 'name' holds the control character U+2028",
    ),
    "paragraph separator": (
        setting("cat", "name", "c\u2029at"),
        "node 'cat': field 'name' holds the control character U+2029",
    ),
    "no-break space": (setting("cat", "name", "c\u00a0at"), "node 'cat': field 'name' holds the space U+00A0"),
    "control in the source": (top("source", "a\x07b"), "field 'source' holds the control character U+0007"),
    "override in the licence": (top("licence", "a\u202eb"), "field 'licence' holds the control character U+202E"),
    "half a surrogate pair": (
        setting("cat", "name", "c\ud800at"),
        "node 'cat': field 'name' holds half of a surrogate pair",
    ),
    "rich markup": (
        setting("cat", "name", "[red]cat"),
        "node 'cat': field 'name' holds '[', which names may not: they are plain text",
    ),
    "html": (
        setting("cat", "noun", "a <b>cat"),
        "node 'cat': field 'noun' holds '<', which names may not: they are plain text",
    ),
    "template": (
        setting("cat", "noun", "a {cat}"),
        "node 'cat': field 'noun' holds '{', which names may not: they are plain text",
    ),
    "long name": (
        setting("cat", "name", "c" * 201),
        "node 'cat': field 'name' has 201 characters, at most 200 are allowed",
    ),
    "long id": (
        setting("cat", "id", "c" * 201),
        f"node '{'c' * 60}...': field 'id' has 201 characters, at most 200 are allowed",
    ),
    "long title": (top("title", "t" * 2001), "field 'title' has 2001 characters, at most 2000 are allowed"),
    "id with a path": (
        setting("cat", "id", "../cat"),
        "node '../cat': field 'id' is '../cat': letters, digits, '_', '.', '+' and '-' make an id",
    ),
    "tree with a path": (
        top("tree", "../small"),
        "field 'tree' is '../small': lower-case letters, digits, '_' and '-' make a name",
    ),
    "dataset with a path": (
        top("dataset", "/etc/toys"),
        "field 'dataset' is '/etc/toys': lower-case letters, digits, '_' and '-' make a name",
    ),
    "name of another type": (setting("cat", "name", 7), "node 'cat': field 'name' is 7, a string is needed"),
    "id of another type": (setting("cat", "id", 7), "node number 3 (from 0): field 'id' is 7, a string is needed"),
    "default as text": (top("default", "yes"), "field 'default' is 'yes', true or false is needed"),
    "default as a number": (top("default", 1), "field 'default' is 1, true or false is needed"),
    "nodes as an object": (top("nodes", {}), "field 'nodes' is a JSON object, an array is needed"),
    "levels as text": (top("levels", "all"), "field 'levels' is 'all', an array is needed"),
    "level as text": (level(1, "animal"), "field 'levels', entry 0 (from 0) is 'animal', an array is needed"),  # type: ignore[arg-type]
    "level entry of another type": (
        level(1, ["animal", 3, "rock"]),
        "field 'levels', entry 0 (from 0), entry 1 (from 0) is 3, a string is needed",
    ),
    "node as text": (adding("cow"), "node number 12 (from 0) is 'cow', an object is needed"),
    "node as null": (adding(None), "node number 12 (from 0) is null, an object is needed"),
    "class as null": (
        lambda c: c["classes"].append(None),
        "field 'classes', entry 7 (from 0) is null, a string is needed",
    ),
    "too few nodes": (top("nodes", []), "field 'nodes' has 0 entries, at least 3 are needed"),
    "too few levels": (top("levels", []), "field 'levels' has 0 entries, at least 1 are needed"),
    "too many levels": (
        top("levels", [["animal", "rock"]] * (MAX_LEVELS + 1)),
        f"field 'levels' has more than {MAX_LEVELS} entries, the limit",
    ),
    "wordnet as a word": (
        setting("cat", "wordnet", "cat.n.01"),
        "node 'cat': field 'wordnet' is 'cat.n.01': one of n, v, a, r, s and eight digits make a WordNet id",
    ),
    "wordnet as null": (setting("cat", "wordnet", None), "node 'cat': field 'wordnet' is null, a string is needed"),
    "empty wordnet": (setting("cat", "wordnet", ""), "node 'cat': field 'wordnet' is empty"),
    "hash of another kind": (
        top("hash", "md5:00"),
        "field 'hash' is 'md5:00': 'sha256:' and 64 hexadecimal digits make a hash",
    ),
}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        pytest.param(*fault, id=name)
        for table in (TREE_FAULTS, LEVEL_FAULTS, FIELD_FAULTS)
        for name, fault in table.items()
    ],
)
def test_a_malformed_tree_is_refused_in_one_line(change: Change, said: str, content: Content, tree_path: Path) -> None:
    change(content)
    if isinstance(content.get("hash"), str) and "surrogate" not in said:
        # The right hash, so that nothing but the planted fault can be the reason.
        content["hash"] = content["hash"] if "'hash'" in said else rehash(content)["hash"]
    assert refusal(save(content, tree_path)) == said


def test_the_tree_the_faults_are_planted_in_is_fine(content: Content, tree_path: Path) -> None:
    assert load_hierarchy_file(save(content, tree_path), classes=content["classes"]).num_leaves == 7


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (top("title", "Smaller"), "field 'hash' is sha256:"),
        (setting("cat", "noun", "one cat"), "field 'hash' is sha256:"),
        (top("default", False), "field 'hash' is sha256:"),
        (lambda c: c["levels"][0].reverse(), "field 'hash' is sha256:"),
        (lambda c: c["nodes"].reverse(), "field 'hash' is sha256:"),
    ],
)
def test_a_changed_tree_no_longer_has_its_hash(change: Change, said: str, content: Content, tree_path: Path) -> None:
    change(content)
    line = refusal(save(content, tree_path))
    assert line.startswith(said)
    assert "the file was changed" in line


@pytest.mark.parametrize(
    ("classes", "said"),
    [
        (["truck", "cat", "wolf", "rock", "dog", "car"], "class 'fox' is not a class of the data set"),
        (
            ["truck", "cat", "wolf", "rock", "dog", "car", "fox", "cow"],
            "class 'cow' of the data set is missing",
        ),
        (
            ["truck", "cat", "wolf", "rock", "car", "dog", "fox"],
            "class 'dog' is in the wrong place: label 4 of the data set is 'car'",
        ),
    ],
)
def test_classes_must_be_the_data_sets_in_label_order(
    classes: list[str], said: str, content: Content, tree_path: Path
) -> None:
    assert refusal(save(content, tree_path), classes) == said


GOOD = json.dumps(small_content())
BYTE_FAULTS: dict[str, tuple[bytes, str]] = {
    "latin-1": (GOOD.replace('"Small"', '"Smäll"').encode("latin-1"), "is not UTF-8: byte "),
    "utf-16": (GOOD.encode("utf-16"), "is not UTF-8: byte 0 is wrong"),
    "byte order mark": (GOOD.encode("utf-8-sig"), "begins with a byte order mark"),
    "empty": (b"", "is empty"),
    "blank": (b" \n ", "is empty"),
    "truncated": (GOOD[: len(GOOD) // 2].encode(), "is not complete JSON: "),
    "truncated in a string": (GOOD[: GOOD.index("Small") + 2].encode(), "is not complete JSON: Unterminated string"),
    "two documents": ((GOOD + GOOD).encode(), "is not complete JSON: Extra data at line 1 column "),
    "python, not JSON": (GOOD.replace('"', "'").encode(), "is not complete JSON: "),
    "array": (b"[]", "is not a JSON object with the fields of a class tree"),
    "null": (b"null", "is not a JSON object with the fields of a class tree"),
    "number": (b"1", "is not a JSON object with the fields of a class tree"),
    "not a number": (GOOD.replace('"default": true', '"default": NaN').encode(), "holds NaN, which is not JSON"),
    "infinity": (
        GOOD.replace('"default": true', '"default": -Infinity').encode(),
        "holds -Infinity, which is not JSON",
    ),
    "huge number": (GOOD.replace('"format": 1', '"format": ' + "1" * 5000).encode(), "holds a number that is too long"),
    "infinite float": (GOOD.replace('"format": 1', '"format": 1e999').encode(), "field 'format' is inf"),
    "duplicate field": (
        GOOD.replace('"title": "Small"', '"title": "Small", "title": "Large"').encode(),
        "field 'title' occurs twice",
    ),
    "duplicate field of a node": (
        GOOD.replace('"noun": "a cat"', '"noun": "a cat", "noun": "a dog"').encode(),
        "node 'cat': field 'noun' occurs twice",
    ),
    "raw line break in a string": (
        GOOD.replace("Small", "Sm\nall").encode(),
        "is not complete JSON: Invalid control character",
    ),
    "nesting bomb of arrays": (b"[" * 1_000_000, "is nested more than 16 deep"),
    "nesting bomb of objects": (b'{"a":' * 1_000_000, "is nested more than 16 deep"),
    "closed nesting bomb": (b"[" * 100_000 + b"]" * 100_000, "is nested more than 16 deep"),
    "nesting bomb in a field": (
        GOOD.replace('"title": "Small"', '"title": ' + "[" * 500 + "]" * 500).encode(),
        "is nested more than 16 deep",
    ),
    "object of many fields": (
        ("{" + ",".join(f'"k{i}": 1' for i in range(300)) + "}").encode(),
        "holds an object of 300 fields, at most 256 are allowed",
    ),
}


@pytest.mark.parametrize(("data", "said"), [pytest.param(*fault, id=name) for name, fault in BYTE_FAULTS.items()])
def test_malformed_bytes_are_refused_in_one_line(data: bytes, said: str, tree_path: Path) -> None:
    tree_path.write_bytes(data)
    assert refusal(tree_path).startswith(said)


def test_a_nesting_bomb_is_refused_whatever_the_recursion_limit(tree_path: Path) -> None:
    tree_path.write_bytes(b"[" * 5_000_000)
    before = sys.getrecursionlimit()
    sys.setrecursionlimit(10**6)
    try:
        assert refusal(tree_path).startswith("is nested more than 16 deep")
    finally:
        sys.setrecursionlimit(before)


@pytest.mark.parametrize(
    "data",
    [b'"' + b'\\"' * 2_000_000, b'"\\' * 2_000_000, b'"' * 3_000_001, b'["' + b"[" * 3_000_000],
    ids=["escaped quotes", "escapes", "quotes", "brackets in an open string"],
)
def test_hostile_strings_take_one_pass(data: bytes, tree_path: Path) -> None:
    tree_path.write_bytes(data)
    assert refusal(tree_path).startswith("is not complete JSON")


def test_brackets_inside_strings_are_no_nesting(content: Content, tree_path: Path) -> None:
    content["source"] = "[" * 50 + '\\" {{{{' + "{" * 50
    assert load_hierarchy_file(save(rehash(content), tree_path)).source == content["source"]


def test_many_wrong_entries_end_at_the_first(content: Content, tree_path: Path) -> None:
    content["nodes"] = [{}] * 150_000
    assert refusal(save(content, tree_path)) == "node number 0 (from 0): field 'id' is missing"


def test_a_file_over_the_size_limit_is_not_read(tree_path: Path) -> None:
    with tree_path.open("wb") as file:
        file.truncate(MAX_FILE_BYTES + 1)
    assert refusal(tree_path) == "is larger than 32 MiB, the limit"


def test_what_is_no_file_is_refused(tmp_path: Path) -> None:
    assert refusal(tmp_path / "none.json") == "no such file"
    assert refusal(tmp_path) == "is a folder; a file is needed"
    assert refusal(Path("/dev/zero")) == "is not a regular file"
    pipe = tmp_path / "pipe.json"
    os.mkfifo(pipe)
    assert refusal(pipe) == "is not a regular file"


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_an_unreadable_file_is_refused(content: Content, tree_path: Path) -> None:
    save(content, tree_path).chmod(0)
    assert refusal(tree_path).startswith("cannot be read: ")


def test_a_file_name_with_a_line_break_stays_on_one_line(tmp_path: Path) -> None:
    with pytest.raises(HierarchyError) as caught:
        load_hierarchy_file(tmp_path / "a\nb\x1b[31m.json")
    assert str(caught.value).splitlines() == [str(caught.value)]
    assert "\x1b" not in str(caught.value)
    with pytest.raises(HierarchyError):
        load_hierarchy_file("a\0b")


def test_a_deep_tree_in_a_shallow_file_is_fine(tree_path: Path) -> None:
    assert load_hierarchy_file(save(caterpillar(2000), tree_path)).num_leaves == 2000


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=8,
)


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_any_value_anywhere_is_refused_or_fine_but_never_crashes(data: st.DataObject) -> None:
    content = small_content()
    holder: Content = content
    if data.draw(st.booleans()):
        holder = data.draw(st.sampled_from(content["nodes"]))
    field = data.draw(st.sampled_from(sorted(holder)))
    holder[field] = data.draw(json_values)
    try:
        hierarchy_from_content(content, where="a file")
    except HierarchyError as error:
        assert str(error).isprintable()
        assert str(error).startswith("a file: ")
        assert len(str(error)) < 1000


@settings(max_examples=150, deadline=None)
@given(st.integers(0, len(GOOD) - 1), st.binary(min_size=0, max_size=3))
def test_any_changed_bytes_are_refused(place: int, put: bytes) -> None:
    before = GOOD.encode()
    changed = before[:place] + put + before[place + 1 :]
    try:
        content = strict_json.parse_json(changed, where="a file")
        hierarchy_from_content(content, where="a file")
    except HierarchyError as error:
        assert str(error).isprintable()
    else:
        assert content == json.loads(before)
