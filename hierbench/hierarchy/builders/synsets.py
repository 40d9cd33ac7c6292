"""The rule that makes a tree of WordNet's nouns: one hypernym for every synset (METHODS.md section 1)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from hierbench.errors import InputError

# Three synsets that ImageNet uses have no path to `physical entity`: the two signs are abstract communications and the
# ball a geometrical shape. What the images show is a signboard, and for the ball (above `bubble`) a sphere.
RE_ATTACHED = {"n06794110": "n04217882", "n06874185": "n04217882", "n13899404": "n04274530"}


@dataclass
class NounTree:
    """WordNet's nouns as a tree, climbed from synsets upward; ``parents`` grows with every climb.

    ``wordnet`` is nltk's reader of WordNet 3.0; another version, whose offsets differ, raises ``InputError``.
    """

    wordnet: Any
    parents: dict[str, str | None] = field(default_factory=dict)
    _choices: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        version = self.wordnet.get_version()
        if version != "3.0":
            raise InputError(f"WordNet 3.0 is needed, whose offsets are the ids; this is WordNet {version}")

    def climb(self, wnid: str) -> None:
        """Add a synset and everything above it."""
        trail: list[str] = []
        here: str | None = wnid
        while here is not None and here not in self.parents:
            if here in trail:
                raise InputError(f"WordNet: {self.label(here)} is above itself")
            trail.append(here)
            here = self._parent(here)
        for below in reversed(trail):
            self.parents[below] = here
            here = below

    def choices(self) -> list[str]:
        """Return one line for every synset that had another hypernym too, or was re-attached, by id."""
        return [self._choices[wnid] for wnid in sorted(self._choices) if wnid in self.parents]

    def label(self, wnid: str) -> str:
        """Return a synset's id and first word, as in ``n02084071 (dog)``."""
        return f"{wnid} ({self.synset(wnid).lemma_names()[0].replace('_', ' ')})"

    def synset(self, wnid: str) -> Any:
        """Return a noun synset by id; an id that is none raises ``InputError``."""
        from nltk.corpus.reader.wordnet import WordNetError

        # nltk reads whatever stands at an offset: inside another line that may be anything, and fail anyhow
        try:
            found = self.wordnet.synset_from_pos_and_offset("n", int(wnid[1:]))
        except (WordNetError, ValueError, IndexError, KeyError, AttributeError, AssertionError):
            found = None
        if found is None or wnid_of(found) != wnid:
            raise InputError(f"{wnid} is no noun synset of WordNet 3.0")
        return found

    def _parent(self, wnid: str) -> str | None:
        synset = self.synset(wnid)
        above = synset.hypernyms() + synset.instance_hypernyms()
        # deepest first, then by name: nothing is left to the order of the files
        above.sort(key=lambda one: (-one.max_depth(), one.name()))
        found = [wnid_of(one) for one in above]
        if wnid in RE_ATTACHED:
            kept, dropped = RE_ATTACHED[wnid], found
            self._choices[wnid] = f"{self.label(wnid)}: re-attached under {self.label(kept)}; {self._said(dropped)}"
            return kept
        if len(found) > 1:
            self._choices[wnid] = f"{self.label(wnid)}: under {self.label(found[0])}; {self._said(found[1:])}"
        return found[0] if found else None

    def _said(self, dropped: Iterable[str]) -> str:
        return "dropped " + ", ".join(self.label(one) for one in dropped)


def wnid_of(synset: Any) -> str:
    """Return a synset's part of speech and offset, as in ``n02084071``."""
    return f"{synset.pos()}{synset.offset():08d}"


def sense_choice(tree: NounTree, class_id: str, name: str, wnid: str) -> str | None:
    """Say which sense of a class's name was picked, or None where its name has that one sense only."""
    synset = tree.synset(wnid)
    # without WordNet's lists of irregular forms, which not every copy of it carries
    senses = [wnid_of(one) for one in tree.wordnet.synsets(name.replace(" ", "_"), "n", check_exceptions=False)]
    if senses == [wnid]:
        return None
    meant = f"{tree.label(wnid)}, '{synset.definition()}'"
    if wnid in senses:
        return f"class {class_id}: sense {senses.index(wnid) + 1} of {len(senses)} of '{name}': {meant}"
    if senses:
        return f"class {class_id}: none of the {len(senses)} senses of '{name}', taken for {meant}"
    return f"class {class_id}: '{name}' is no noun of WordNet, taken for {meant}"


def children_of(parents: Mapping[str, str | None]) -> dict[str, list[str]]:
    """Return the children of every node."""
    children: dict[str, list[str]] = {node: [] for node in parents}
    for node, above in parents.items():
        if above is not None:
            children[above].append(node)
    return children
