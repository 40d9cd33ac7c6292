"""The fields of a class-tree file, once: what the reader checks and what the published JSON Schema says."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, FailFast, Field, ValidationError
from pydantic_core import ErrorDetails

from hierbench.hierarchy.content import FORMAT, MAX_LEVELS, MAX_NODES
from hierbench.hierarchy.errors import HierarchyError, shown
from hierbench.hierarchy.text import MAX_ID, MAX_LINE, MAX_NAME, line_problem, name_problem

SCHEMA_FILE = "schema-v1.json"
_SCHEMA_URI = "https://json-schema.org/draft/2020-12/schema"

# Patterns stay inside what JSON Schema, Python and Rust regular expressions share.
_SLUG = r"^[a-z0-9][a-z0-9_-]*$"
_ID = r"^[A-Za-z0-9_][A-Za-z0-9_.+-]*$"
_NAME = r"^[^\x00-\x1f\x7f-\x9f<>\[\]{}\\|`]+$"
_LINE = r"^[^\x00-\x1f\x7f-\x9f]+$"
_WORDNET = r"^[nvars][0-9]{8}$"
_DIGEST = r"^sha256:[0-9a-f]{64}$"

_IN_WORDS = {
    _SLUG: "lower-case letters, digits, '_' and '-' make a name",
    _ID: "letters, digits, '_', '.', '+' and '-' make an id",
    _WORDNET: "one of n, v, a, r, s and eight digits make a WordNet id",
    _DIGEST: "'sha256:' and 64 hexadecimal digits make a hash",
}

Slug = Annotated[str, Field(pattern=_SLUG, max_length=80)]
NodeId = Annotated[str, Field(pattern=_ID, max_length=MAX_ID)]
Name = Annotated[str, Field(pattern=_NAME, max_length=MAX_NAME)]
Line = Annotated[str, Field(pattern=_LINE, max_length=MAX_LINE)]
WordNetId = Annotated[str, Field(pattern=_WORDNET)]
Digest = Annotated[str, Field(pattern=_DIGEST)]

_STRICT = ConfigDict(strict=True, extra="forbid", frozen=True)


class NodeFields(BaseModel):
    """One node of the tree."""

    model_config = _STRICT

    id: NodeId = Field(description="Unique in the file; a leaf's is the data set's class id.")
    parent: NodeId | None = Field(description="The id of the node above; null at the one root.")
    name: Name = Field(description='Bare name, as in "apple"; plain text.')
    noun: Name = Field(description='Noun phrase as it stands in a sentence, as in "an apple"; unique within a level.')
    wordnet: WordNetId = Field(default="", description="WordNet 3.0 part of speech and offset, if there is one.")


class FileFields(BaseModel):
    """A class tree over one data set's classes, with nested levels."""

    model_config = _STRICT

    format: Literal[1] = Field(description="The version of this format.")
    dataset: Slug = Field(description="The data set's name, without its pixel grid.")
    tree: Slug = Field(description="The tree's name: the file's name without .json.")
    title: Line = Field(description="A few words for tables and plots.")
    description: Line = Field(description="What the tree groups by.")
    default: bool = Field(description="Whether this is the tree used when none is named; one a data set.")
    source: Line = Field(description="Where the tree comes from, every choice made in building it included.")
    licence: Line = Field(description="The licence of the tree, as an SPDX identifier where there is one.")
    levelling: Line = Field(description="The rule by which nodes became levels.")
    choices: Annotated[list[Line], FailFast()] = Field(
        default=[],
        min_length=1,
        max_length=MAX_NODES,
        description="What a builder had to decide, one line a decision: second parents dropped, senses picked.",
    )
    # Fail fast: a file of a million wrong entries must not become a million findings.
    classes: Annotated[list[NodeId], FailFast()] = Field(
        min_length=2, max_length=MAX_NODES, description="The leaves' ids, in the data set's label order."
    )
    nodes: Annotated[list[NodeFields], FailFast()] = Field(
        min_length=3, max_length=MAX_NODES, description="Every node, the root included, in any order."
    )
    levels: Annotated[list[Annotated[list[NodeId], FailFast(), Field(min_length=2)]], FailFast()] = Field(
        min_length=1,
        max_length=MAX_LEVELS,
        description="Nested cuts, coarsest first, each holding every leaf exactly once; the last one is `classes`.",
    )
    hash: Digest = Field(
        description="SHA-256 over the file without this field as JSON: UTF-8, sorted keys, no spaces, non-ASCII as is."
    )


def json_schema() -> dict[str, object]:
    """Return the JSON Schema (draft 2020-12) of a class-tree file, as published in ``hierarchies/schema-v1.json``.

    It holds types, patterns and sizes; that the nodes are one tree and the levels nested cuts is for the loader.
    """
    body = FileFields.model_json_schema()
    definitions = body.pop("$defs")
    for fields in (body, *definitions.values()):
        for name, field in fields["properties"].items():
            field.pop("title", None)
            if name in ("wordnet", "choices"):
                # Left out where there is none: the empty default is the reader's, no value a file may hold.
                field.pop("default", None)
        fields.pop("title", None)
    return {
        "$schema": _SCHEMA_URI,
        "$id": f"urn:hierbench:hierarchy:{FORMAT}",
        "title": f"hierbench class tree, format {FORMAT}",
        **body,
        "$defs": definitions,
    }


def schema_text() -> str:
    """Return the text of the published schema file."""
    return json.dumps(json_schema(), indent=2, ensure_ascii=False) + "\n"


def checked_fields(content: object, *, where: str) -> FileFields:
    """Return the typed fields of a parsed file; the first that is wrong raises ``HierarchyError`` naming it."""
    if not isinstance(content, dict):
        raise HierarchyError(where, "is not a JSON object with the fields of a class tree")
    version = content.get("format")
    if type(version) is not int or version != FORMAT:
        found = f"is {shown(version)}" if "format" in content else "is missing"
        raise HierarchyError(where, f"field 'format' {found}; this version reads format {FORMAT}")
    try:
        return FileFields.model_validate(content)
    except ValidationError as error:
        details = error.errors(include_url=False, include_context=True)[0]
        place, node = _place(content, details["loc"])
        raise HierarchyError(where, f"{place} {_said(details)}", node=node) from None


def _place(content: Mapping[str, object], loc: tuple[int | str, ...]) -> tuple[str, str | None]:
    """Name the field at fault, and the node it belongs to where that has an id."""
    if len(loc) >= 2 and loc[0] == "nodes" and isinstance(loc[1], int):
        nodes = content["nodes"]
        node = nodes[loc[1]] if isinstance(nodes, list) else None
        node_id = node.get("id") if isinstance(node, dict) else None
        named = shown(node_id) if isinstance(node_id, str) and node_id else f"number {loc[1]} (from 0)"
        if len(loc) == 2:
            return f"node {named}", None
        return f"node {named}: field {shown(loc[2])}", node_id if isinstance(node_id, str) else None
    place = f"field {shown(loc[0])}"
    for step in loc[1:]:
        place += f", entry {step} (from 0)"
    return place, None


def _said(details: ErrorDetails) -> str:
    """Put one of pydantic's findings into words; the value is quoted safely."""
    value, context = details["input"], details.get("ctx", {})
    needed = {
        "string_type": "a string",
        "bool_type": "true or false",
        "list_type": "an array",
        "model_type": "an object",
    }
    match details["type"]:
        case "missing":
            return "is missing"
        case "extra_forbidden":
            return "is not a field of the format"
        case "string_too_long":
            return f"has {len(value)} characters, at most {context['max_length']} are allowed"
        case "too_long":
            # Pydantic stops counting one past the limit.
            return f"has more than {context['max_length']} entries, the limit"
        case "too_short":
            return f"has {len(value)} entries, at least {context['min_length']} are needed"
        case "string_pattern_mismatch":
            return _pattern_said(value, context["pattern"])
        case "string_unicode":
            return "holds half of a surrogate pair"
        case kind if kind in needed:
            return f"is {shown(value)}, {needed[kind]} is needed"
        case _:
            return f"is {shown(value)}: {details['msg']}"


def _pattern_said(value: str, pattern: str) -> str:
    if not value:
        return "is empty"
    if pattern in _IN_WORDS:
        return f"is {shown(value)}: {_IN_WORDS[pattern]}"
    problem = name_problem(value) if pattern == _NAME else line_problem(value)
    return problem or f"is {shown(value)}, which is not plain text"
