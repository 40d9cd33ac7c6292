"""The part of a record that says what was measured, with which settings, and where."""

from __future__ import annotations

from typing import Annotated, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator

Share: TypeAlias = Annotated[float, Field(ge=0.0, le=1.0)]
Count: TypeAlias = Annotated[int, Field(ge=0)]
Depth: TypeAlias = Annotated[int, Field(ge=1)]
Positive: TypeAlias = Annotated[float, Field(ge=0.0)]
Digest: TypeAlias = Annotated[str, StringConstraints(pattern=r"^sha256:[0-9a-f]{64}$")]
Name: TypeAlias = Annotated[str, StringConstraints(min_length=1, max_length=200)]
ScoringName: TypeAlias = Literal["rollup", "direct"]
Scalar: TypeAlias = str | int | float | bool | None
Settings: TypeAlias = dict[str, Scalar | list[Scalar]]


class Part(BaseModel):
    """A piece of a record: immutable, no unknown fields, no coercion, no NaN."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", strict=True, allow_inf_nan=False, use_attribute_docstrings=True
    )


class ProtocolIdentity(Part):
    """The protocol the cell was run under."""

    name: Name
    version: Annotated[int, Field(ge=1)]
    hash: Digest
    """SHA-256 of the protocol's content as canonical JSON."""
    custom: bool
    """True if any setting that the protocol fixes was changed."""
    deviations: tuple[str, ...]
    """Which settings differ, as ``field: protocol value -> value used``; empty unless ``custom``."""

    @model_validator(mode="after")
    def _custom_says_why(self) -> ProtocolIdentity:
        if self.custom != bool(self.deviations):
            raise ValueError("protocol.custom and protocol.deviations disagree")
        return self


class ModelIdentity(Part):
    """What was evaluated."""

    name: Name
    weights_hash: Digest
    backbone: Name
    backbone_hash: Digest | None = None
    defence: Name
    """``none`` for the undefended backbone."""
    trained_on: str | None = None
    """Dataset the defence was fine-tuned on."""
    head: str | None = None
    """How image and text embeddings become logits: ``cosine``, ``hyperbolic``, ..."""
    activation: str | None = None
    """Non-linearity of the towers (``gelu``, ``quickgelu``): lost silently by some loaders."""
    parameters: Count | None = None
    training: Settings | None = None
    """Settings the defence was trained with, as its model file states them."""
    guards: dict[str, float] | None = None
    """Collapse guards: norms per level, spread of text norms, shares clipped and skipped."""
    guard_flags: tuple[Name, ...] = ()
    """Guards beyond their limits at the end of training."""


class DatasetIdentity(Part):
    """Which images, in which order, shown how."""

    name: Name
    split: Name
    revision: str | None
    """Pinned revision or content hash of the source; null where the source has none."""
    content_hash: Digest | None = None
    sample_list_hash: Digest
    """SHA-256 over the scored sample ids in order."""
    sampling_rule: Name
    """Rule that made the sample list, of which ``--limit n`` takes the first n."""
    grid: tuple[Count, Count, Count]
    """Height, width and channels of the pixels the threat model acts on."""
    template: str
    """Prompt template of every node, or ``ensemble`` for the data set's ensemble of them."""
    prompts_hash: Digest | None = None
    """SHA-256 over the prompts that made the logits, leaves first."""


class HierarchyIdentity(Part):
    """The tree that groups the classes."""

    name: Name
    hash: Digest
    leaves: Annotated[int, Field(ge=2)]
    nodes_per_depth: tuple[Annotated[int, Field(ge=2)], ...]
    """Number of nodes at depth 1 (coarsest) .. D (leaves)."""


class AttackIdentity(Part):
    """What searched for adversarial images."""

    name: Name
    parameters: Settings
    """Every parameter of the attack, defaults included."""
    components: tuple[str, ...]
    """Elementary attacks that ran; a name never promises more than is listed here."""
    substitutions: tuple[str, ...] = ()
    """Parts that were undefined at some depth and what ran instead, in words."""
    engine: Name
    """Whose loop ran: ``hierbench`` or the library's name."""
    norm: Literal["linf", "l2"]
    eps: Annotated[str, StringConstraints(pattern=r"^\d+(/\d+)?$")]
    """Radius as an exact fraction, such as ``4/255``."""
    eps_value: Annotated[float, Field(ge=0.0)]
    """The same radius as a number in pixel units of [0, 1]."""
    depths: Annotated[tuple[Depth, ...], Field(min_length=1)]
    """Depths the attack was aimed at, one full run each."""
    pooled: bool = False
    """True where one search from the leaves' depth upwards filled every depth with its worst case (roll-up)."""
    scoring: ScoringName
    """The scoring whose verdict stopped the search."""
    severity_samples: Count
    """First samples of the list that were searched to the full budget."""


class SeenSplit(Part):
    """The committed file that says which classes were never in any training."""

    name: Name
    hash: Digest


class Identity(Part):
    """All that says which cell this is."""

    cell: Name
    """Name of the cell: stem of its files."""
    protocol: ProtocolIdentity
    model: ModelIdentity
    dataset: DatasetIdentity
    hierarchy: HierarchyIdentity
    attack: AttackIdentity
    seen_split: SeenSplit | None = None


class Arguments(Part):
    """What the caller said, and what it became."""

    given: Settings
    resolved: Settings


class Environment(Part):
    """Where it ran."""

    hierbench: str
    code_hash: Digest
    """SHA-256 over the package's own modules that decide a result."""
    packages: dict[str, str]
    python: str
    platform: str
    git_commit: str | None
    git_dirty: bool | None
    device: str
    device_name: str | None = None
    dtype: str
    threads: Annotated[int, Field(ge=1)]
    seed: Count
    batch_size: Annotated[int, Field(ge=1)]
    world_size: Annotated[int, Field(ge=1)] = 1
