"""What a submission says of itself: who made the model, from what, where its weights lie, and which files came along.

Cards are files from strangers: every text is bounded and printable, every address is https, every file is named by a
plain name inside the card's own folder, and nothing here is a path.
"""

from __future__ import annotations

from typing import Annotated, Final, Literal, TypeAlias

from pydantic import AfterValidator, Field, StringConstraints, model_validator

from hierbench.evaluation.identity import Digest, Part

CARD_FILE = "submission.json"
ATTACK_FILE = "attack.json"
CARD_FORMAT: Final = "hierbench-submission-1"
ATTACK_FORMAT: Final = "hierbench-attack-1"
MAX_FILES = 200
MAX_FILE_BYTES = 64 * 2**20
"""No packed file is larger: a board is cloned by everybody who wants to look at it."""
MAX_PACKAGE_BYTES = 256 * 2**20


MARKUP = frozenset("<>\\{}$`")
"""Characters that only markup needs: what a page or a paper shows of a stranger is plain text."""


def _printable(text: str) -> str:
    if not text.isprintable():
        raise ValueError("holds characters that cannot be printed")
    if found := sorted(MARKUP & set(text)):
        raise ValueError(f"holds {found[0]}, which belongs to HTML or LaTeX: write plain text")
    return text


Line: TypeAlias = Annotated[str, StringConstraints(min_length=1, max_length=200), AfterValidator(_printable)]
"""One line of text for people."""
Paragraph: TypeAlias = Annotated[str, StringConstraints(min_length=1, max_length=2000), AfterValidator(_printable)]
Address: TypeAlias = Annotated[
    str, StringConstraints(pattern=r"^https://[A-Za-z0-9.-]+(:\d+)?(/[A-Za-z0-9._~%/#?&=+,@:-]*)?$", max_length=500)
]
FileName: TypeAlias = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.@+-]{0,199}$")]
"""A name without a folder: it cannot lead out of the card's own."""
ModelName: TypeAlias = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9_.+-]{0,99}$")]


class PackedFile(Part):
    """One file beside the card."""

    name: FileName
    sha256: Digest
    size: Annotated[int, Field(ge=1, le=MAX_FILE_BYTES)]
    """Bytes."""


class Weights(Part):
    """Which weights were evaluated, and where others find them."""

    weights_hash: Digest
    """Hash of the tensors, as in every record of the model."""
    backbone: Line
    address: Address | None
    """Where the model's folder can be had; null: shipped with hierbench."""


class Packed(Part):
    """What a submission and an external attack have in common."""

    protocol: ModelName
    model: ModelName
    authors: Annotated[tuple[Line, ...], Field(min_length=1, max_length=50)]
    paper: Address | None = None
    code: Address | None = None
    note: Paragraph | None = None
    submitted: Annotated[str, StringConstraints(pattern=r"^\d{4}-\d\d-\d\d$")]
    files: Annotated[tuple[PackedFile, ...], Field(min_length=1, max_length=MAX_FILES)]

    @model_validator(mode="after")
    def _files_once(self) -> Packed:
        names = [file.name.casefold() for file in self.files]
        if len(set(names)) != len(names):
            raise ValueError("a file is listed twice")
        return self


class Card(Packed):
    """``submission.json``: a model with its records."""

    format: Literal["hierbench-submission-1"] = CARD_FORMAT
    title: Line
    """What the defence is called in print."""
    trained_on: Line
    """Data the defence was trained on, in words."""
    licence: Line
    weights: Weights
    variant: Literal["standard", "rand"] = "standard"
    """rand: the forward draws at random, so that only attacks which average over draws may judge it."""
    left_out: Annotated[tuple[Line, ...], Field(max_length=1000)] = ()
    """Cells of the protocol that were not evaluated, each as ``dataset attack``; empty: the protocol is whole."""


class AttackCard(Packed):
    """``attack.json``: adversarial images that somebody else made against a listed model."""

    format: Literal["hierbench-attack-1"] = ATTACK_FORMAT
    title: Line
    """What the attack is called in print."""
    name: ModelName
    """Its folder's name, and that of the attack in the record."""
    weights_hash: Digest
    """Weights the images were shown to."""
