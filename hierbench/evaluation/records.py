"""The record of one evaluated cell: model x dataset x tree x attack x eps (schema version 1, frozen).

Every share is a fraction in [0, 1], never a percentage; times are seconds, memory is bytes, distances are in pixel
units of [0, 1]. NaN and infinities are refused. A field that is ``null`` was not measured; it is never a zero.
"""

from __future__ import annotations

import json
import math
from typing import Annotated, Any, Literal

from pydantic import Field, StringConstraints, model_validator

from hierbench.evaluation.identity import (
    Arguments,
    Count,
    Depth,
    Digest,
    Environment,
    Identity,
    Part,
    Positive,
    ScoringName,
    Share,
)

SCHEMA_VERSION = 1
SCHEMA_TITLE = "hierbench record, version 1"
_ADDED = {"AttackIdentity": ("pooled",)}
"""Fields that version 1 gained after its first records, which lack them: each has a default that is true of those."""


class Proportion(Part):
    """A share with what it is a share of, and its Wilson 95 % interval."""

    count: Count
    of: Annotated[int, Field(ge=1)]
    value: Share
    low: Share
    high: Share

    @model_validator(mode="after")
    def _consistent(self) -> Proportion:
        if self.count > self.of:
            raise ValueError(f"{self.count} of {self.of} is more than all")
        if not math.isclose(self.value, self.count / self.of, rel_tol=0.0, abs_tol=1e-12):
            raise ValueError(f"value {self.value} is not {self.count}/{self.of}")
        if not self.low <= self.value <= self.high:
            raise ValueError(f"the interval [{self.low}, {self.high}] does not hold {self.value}")
        return self


class Counts(Part):
    """Samples: scored must equal declared."""

    declared: Count
    scored: Count
    attacked: Count
    """Samples attacked at one depth at least."""
    attacked_per_depth: dict[str, Count]
    """Samples attacked at each attacked depth, keyed by the depth."""


class DepthScoring(Part):
    """Accuracies at one depth under one scoring; clean-wrong samples count as broken."""

    chance: Share
    """direct: 1 / nodes. rollup: accuracy of a uniformly drawn leaf, given the scored labels."""
    clean: Proportion
    robust: Proportion | None
    """Under the attack aimed at this depth; null where no attack was."""
    worst: Proportion
    """Per sample the worst over all attacked depths."""
    relative: Positive | None
    """robust / clean; null where undefined."""
    relative_worst: Positive | None
    success: Proportion | None
    """Attack success of this depth's attack among the clean-correct; null where there are none."""
    success_worst: Proportion | None


class DepthScores(Part):
    """All scores at one depth."""

    depth: Depth
    nodes: Annotated[int, Field(ge=2)]
    majority: Share
    """Share of the scored samples in the most frequent node."""
    attacked: bool
    rollup: DepthScoring
    direct: DepthScoring | None
    node_probability: DepthScoring | None = None
    """Third scoring: arg-max of summed leaf probabilities."""
    direct_minus_rollup: float | None
    """Consistency gap of the clean accuracies."""
    median_smallest_eps: Positive | None = None


class TransferCell(Part):
    """The attack aimed at one depth, scored at another."""

    attack_depth: Depth
    score_depth: Depth
    scoring: ScoringName
    robust: Proportion
    relative: Positive | None
    success_share: Proportion | None
    """Of the images that broke the attacked depth, the share that also broke the scored one."""
    implied: bool
    """True where roll-up makes a success at the attacked depth one at the scored depth by construction."""

    @model_validator(mode="after")
    def _implied_is_no_finding(self) -> TransferCell:
        if self.implied and self.success_share is not None:
            raise ValueError("a success share that roll-up implies is not a finding: it must be null")
        return self


class Mistakes(Part):
    """How far wrong leaf predictions are in the tree."""

    attack_depth: Depth | None
    """Null: the clean images."""
    samples: Annotated[int, Field(ge=1)]
    """Samples averaged over; under attack those searched to the full budget."""
    searched: Count
    """Of these, samples the attack searched; the others keep their clean prediction."""
    error_rate: Share
    severity: Positive | None
    """Mean height of the lowest common ancestor over the mistakes; null without a mistake."""
    ahd: Positive
    """Severity x error rate (AHD@1)."""
    tree_induced_error: Positive
    """Mean number of edges between predicted and true leaf, over all samples."""
    precision: Share | None = None
    """Mean |A(p) & A(y)| / |A(p)|, A a node with its ancestors without the root."""
    recall: Share | None = None
    f_score: Share | None = None


class SeenDepth(Part):
    """One depth of one part of the classes."""

    depth: Depth
    clean_rollup: Proportion
    clean_direct: Proportion | None
    robust: Proportion | None
    worst: Proportion
    """Robust figures are under the attacked scoring."""


class SeenPart(Part):
    """Scores of the samples whose classes share what the model has seen of them."""

    part: Literal["trained", "known", "unseen"]
    """trained: the defence was fine-tuned on the class; known: the backbone was; unseen: neither."""
    classes: Annotated[int, Field(ge=1)]
    depths: tuple[SeenDepth, ...]


class DepthCost(Part):
    """Cost of the attack aimed at one depth."""

    depth: Depth
    forwards: Count
    backwards: Count
    seconds: Positive
    mean_steps: Positive | None = None


class Cost(Part):
    """What it took; forwards and backwards count images, not batches."""

    forwards: Count
    backwards: Count
    text_forwards: Count
    queries: Count | None = None
    seconds: Positive
    """Compute time over all sessions, clean pass included."""
    images_per_second: Positive | None
    """Forward and backward image passes a second during the attacks."""
    peak_memory_bytes: Count | None
    per_depth: tuple[DepthCost, ...]
    sessions: Annotated[int, Field(ge=1)]
    """How many times the run was started, resumes included."""
    units_resumed: Count


class Flag(Part):
    """A remark on the trust in the figures."""

    code: Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_]*$")]
    level: Literal["failed", "warning", "note"]
    """failed: the figures must not be used."""
    message: Annotated[str, StringConstraints(min_length=1, max_length=500)]


class DepthChecks(Part):
    """Trust figures of the attack aimed at one depth; shares are over the attacked samples."""

    depth: Depth
    attacked: Count
    moved_share: Share | None
    raised_share: Share | None
    """Samples whose final attack loss is above their clean one, or whose verdict broke."""
    zero_gradient_share: Share | None
    unverified: Count
    """Successes that the separate fp32 forward did not confirm."""


class Checks(Part):
    """What was checked about this very run."""

    max_linf: Positive
    max_l2: Positive
    moved_share: Share | None
    raised_share: Share | None
    zero_gradient_share: Share | None
    unverified: Count
    nonfinite: Count
    """Samples with a logit or pixel that is not finite; they count as broken."""
    ids_unique: bool
    counts_equal: bool
    per_depth: tuple[DepthChecks, ...]
    kept_share: Share | None = None
    """Restricted objectives (lha, gha): predictions inside the kept set."""
    autoattack_gap: float | None = None
    """PGD minus AutoAttack robust accuracy on the same weights; above 0.03 hints at masking."""
    text_rejected: dict[str, Count] | None = None
    """Text attacks: rejected candidates by reason."""
    flags: tuple[Flag, ...]

    @property
    def failed(self) -> bool:
        """True if any flag says that the figures must not be used."""
        return any(flag.level == "failed" for flag in self.flags)


class VerdictFile(Part):
    """The Parquet file beside the record, one row a sample."""

    file: Annotated[str, StringConstraints(pattern=r"^[^/\\]+\.parquet$")]
    sha256: Digest
    rows: Count


class Record(Part):
    """One evaluated cell."""

    schema_version: Literal[1] = 1
    created: Annotated[str, StringConstraints(pattern=r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$")]
    identity: Identity
    arguments: Arguments
    environment: Environment
    counts: Counts
    depths: Annotated[tuple[DepthScores, ...], Field(min_length=1)]
    transfer: tuple[TransferCell, ...]
    mistakes: Annotated[tuple[Mistakes, ...], Field(min_length=1)]
    """Clean first, then each attacked depth that had full-budget samples."""
    hca_direct: Proportion | None
    """Clean: right at the leaf and at every depth under direct scoring."""
    seen: tuple[SeenPart, ...] | None
    rank_preservation: Share | None = None
    """Overlap of the attacked model's top 5 with the backbone's clean top 5 (AGFT)."""
    calibration_error_clean: Share | None = None
    calibration_error_attacked: Share | None = None
    cost: Cost
    checks: Checks
    verdicts: VerdictFile
    notes: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _depths_match_the_tree(self) -> Record:
        nodes = self.identity.hierarchy.nodes_per_depth
        if tuple(d.depth for d in self.depths) != tuple(range(1, len(nodes) + 1)):
            raise ValueError(f"depths must be 1..{len(nodes)}, each once and in order")
        if tuple(d.nodes for d in self.depths) != nodes:
            raise ValueError("node counts of depths and hierarchy disagree")
        if self.mistakes[0].attack_depth is not None:
            raise ValueError("mistakes must begin with the clean images")
        return self

    def to_json(self) -> str:
        """Return the record as indented JSON with a closing newline."""
        return json.dumps(self.model_dump(mode="json"), indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def record_schema() -> dict[str, Any]:
    """Return the JSON Schema of a record, as published in ``leaderboard/record-schema-v1.json``."""
    schema = Record.model_json_schema(mode="serialization")
    for part, names in _ADDED.items():
        needed = schema["$defs"][part]["required"]
        schema["$defs"][part]["required"] = [name for name in needed if name not in names]
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema, "title": SCHEMA_TITLE}
