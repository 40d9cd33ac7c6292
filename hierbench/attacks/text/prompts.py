"""Prompts as an attack sees them: the text, where the class name stands in it, and whose prompt it is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from hierbench.attacks.text.words import article_of
from hierbench.datasets.spec import fill_template

if TYPE_CHECKING:
    from hierbench.attacks.text.settings import Span
    from hierbench.hierarchy.tree import Hierarchy, Level, Node


@dataclass(frozen=True)
class Prompt:
    """One node's prompt.

    Args:
        node: the node's index within its level.
        text: the prompt.
        spans: start and stop of the class name (the noun phrase, or the bare name) wherever it stands in ``text``.
        name: the node's bare name.
        synset: the node's WordNet 3.0 id (``n`` and offset), if it has one.
    """

    node: int
    text: str
    spans: tuple[tuple[int, int], ...]
    name: str
    synset: str | None = None

    def regions(self, span: Span) -> tuple[tuple[int, int], ...]:
        """Return start and stop of what may change."""
        return self.spans if span == "class_name" else ((0, len(self.text)),)


@dataclass(frozen=True)
class Site:
    """A place of a prompt where something may stand instead.

    Args:
        start, stop: its characters; equal for a place between two.
        probe: what is put there to see how much the place matters.
    """

    start: int
    stop: int
    probe: str


def prompts_of(hierarchy: Hierarchy, template: str, depth: int) -> tuple[Prompt, ...]:
    """Return the prompts of the nodes at one depth, in level order; the texts are those a bound model encodes."""
    level: Level = hierarchy.level(depth)
    return tuple(prompt_of(node, index, template) for index, node in enumerate(level.nodes))


def prompt_of(node: Node, index: int, template: str) -> Prompt:
    """Return one node's prompt; a template without a place for the name is an ``InputError``."""
    filled = node.noun if "{noun}" in template else node.name
    text = fill_template(template, node.name, node.noun)
    pieces = template.split("{noun}" if "{noun}" in template else "{}")
    spans, at = [], 0
    for piece in pieces[:-1]:
        at += len(piece)
        spans.append((at, at + len(filled)))
        at += len(filled)
    return Prompt(index, text, tuple(spans), node.name, node.wordnet)


def replaced(text: str, site: Site, replacement: str, *, agree: bool = False) -> str:
    """Return a text with something else at a site; ``agree`` sets an article right before it to a or an.

    >>> replaced("a photo of an apple.", Site(14, 19, ""), "pear", agree=True)
    'a photo of a pear.'
    """
    before, after = text[: site.start], text[site.stop :]
    if agree:
        rest, space, last = before.rstrip(" ").rpartition(" ")
        if last.lower() in ("a", "an") and before.endswith(" "):
            article = article_of(replacement)
            before = rest + space + (article.capitalize() if last[0].isupper() else article) + " "
    return before + replacement + after
