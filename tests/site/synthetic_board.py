"""Boards made of random verdicts: every figure of a record is computed from them, as a run would."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path

import numpy as np

from hierbench.board.card import AttackCard, Card, PackedFile, Weights
from hierbench.datasets.catalogue import get_spec
from hierbench.datasets.seen import load_seen
from hierbench.evaluation.identity import (
    Arguments,
    AttackIdentity,
    DatasetIdentity,
    Environment,
    HierarchyIdentity,
    Identity,
    ModelIdentity,
    ProtocolIdentity,
    SeenSplit,
)
from hierbench.evaluation.metrics import roll_up_broken
from hierbench.evaluation.records import Checks, Cost, Counts, Flag, Record, VerdictFile
from hierbench.evaluation.scores import depth_scores, hca_direct, seen_parts, transfer_cells, tree_mistakes
from hierbench.evaluation.storage import digest_bytes, digest_file, digest_json
from hierbench.evaluation.verdicts import AttackVerdicts, CleanVerdicts, Verdicts, write_verdicts
from hierbench.hierarchy.catalogue import load_hierarchy
from hierbench.hierarchy.tree import Hierarchy

HASH = digest_bytes(b"synthetic")
HOSTILE = "<img src=x onerror=\"document.title='owned'\">'\"</script><script>alert(1)</script>{{7*7}}"


@dataclass(frozen=True)
class Plan:
    """What one synthetic record is of."""

    model: str
    protocol: str = "tiny-v1"
    dataset: str = "cifar10"
    tree: str = "semantic"
    eps: str = "4/255"
    attack: str = "superclass_pgd"
    components: tuple[str, ...] = ("pgd-node-ce",)
    scoring: str = "rollup"
    samples: int = 200
    clean: float = 0.9
    """Share of leaves right when clean."""
    strength: float = 0.4
    """Share of those that the attack breaks."""
    defence: str = "tecoa"
    trained_on: str | None = "tiny_imagenet@32"
    custom: bool = False
    flags: tuple[tuple[str, str, str], ...] = ()
    direct: bool = True
    created: str = "2026-01-02T03:04:05Z"
    notes: tuple[str, ...] = ()
    text: bool = False
    leaf_only: bool = False

    @property
    def cell(self) -> str:
        """Stem of the files, whatever the names are."""
        return f"cell.{digest_json(repr(self))[-12:]}"


def weights_of(model: str, protocol: str = "tiny-v1") -> str:
    """Return the weights hash that every record of a model has."""
    return digest_bytes(f"{protocol}/{model}".encode())


def verdicts_of(plan: Plan, hierarchy: Hierarchy) -> Verdicts:
    """Return random verdicts; clean ones and samples depend on model and data set alone, as on a real ground."""
    fixed = np.random.default_rng(list(f"{plan.protocol}{plan.model}{plan.dataset}".encode()))
    rng = np.random.default_rng(list(repr(plan).encode()))
    n, classes, depths = plan.samples, hierarchy.num_leaves, hierarchy.num_depths
    labels = (np.arange(n) % classes).astype(np.int64)
    right = fixed.random(n) < plan.clean
    predicted = np.where(right, labels, fixed.integers(0, classes, n)).astype(np.int64)
    broken = roll_up_broken(predicted, labels, hierarchy.leaf_to_node)
    direct = broken ^ (fixed.random((n, depths)) < 0.03) if plan.direct else None
    clean = CleanVerdicts(predicted, broken, direct)
    attacked = {}
    for depth in (depths,) if plan.leaf_only else range(1, depths + 1):
        hit = rng.random(n) < plan.strength * (0.5 + 0.5 * depth / depths)
        end = np.where(hit & ~broken[:, depth - 1], rng.integers(0, classes, n), predicted).astype(np.int64)
        after = roll_up_broken(end, labels, hierarchy.leaf_to_node)
        searched = ~broken[:, depth - 1]
        budget = np.arange(n) < 50
        loss = np.where(searched, 0.5, np.nan)
        eps = float(Fraction(plan.eps))
        attacked[depth] = AttackVerdicts(
            predicted=end,
            broken_rollup=after,
            searched=searched,
            moved=searched,
            unverified=np.zeros(n, dtype=bool),
            linf=np.where(searched, eps, 0.0),
            l2=np.where(searched, 10 * eps, 0.0),
            steps=np.where(searched, 20, 0).astype(np.int64),
            clean_loss=loss,
            final_loss=loss + 1,
            full_budget=budget,
            severity_predicted=np.where(budget & searched, end, -1).astype(np.int64),
            broken_direct=after | (rng.random((n, depths)) < 0.1) if plan.direct else None,
        )
    return Verdicts(tuple(f"sample-{i}" for i in range(n)), labels, clean, attacked)


def write_record(folder: Path, plan: Plan) -> Path:
    """Write a record with its verdicts into a folder and return its path."""
    spec, hierarchy = get_spec(plan.dataset), load_hierarchy(plan.dataset, plan.tree)
    verdicts = verdicts_of(plan, hierarchy)
    folder.mkdir(parents=True, exist_ok=True)
    parquet = folder / f"{plan.cell}.parquet"
    write_verdicts(parquet, verdicts)
    unseen = set(load_seen().unseen.get(spec.base_name, ()))
    split = spec.base_name in load_seen().unseen
    trained = plan.trained_on is not None and plan.trained_on.partition("@")[0] == spec.base_name
    parts = {c: "unseen" if c in unseen else "trained" if trained else "known" for c in spec.class_ids}
    n = plan.samples
    record = Record(
        created=plan.created,
        identity=Identity(
            cell=plan.cell,
            protocol=ProtocolIdentity(
                name=plan.protocol,
                version=1,
                hash=HASH,
                custom=plan.custom,
                deviations=("attack.steps: 20 -> 5",) if plan.custom else (),
            ),
            model=ModelIdentity(
                name=plan.model,
                weights_hash=weights_of(plan.model, plan.protocol),
                backbone="tiny_clip-v1",
                backbone_hash=HASH,
                defence=plan.defence,
                trained_on=plan.trained_on,
                head="cosine",
                parameters=5_556_982,
                training={"epochs": 4, "learning_rate": 0.001, "betas": [0.9, 0.999]},
                guards={"recent/loss": 0.0883},
            ),
            dataset=DatasetIdentity(
                name=plan.dataset,
                split=spec.evaluation_split,
                revision="synthetic",
                sample_list_hash=digest_json([plan.dataset, n]),
                sampling_rule="stratified-v1",
                grid=spec.grid,
                template=spec.template,
            ),
            hierarchy=HierarchyIdentity(
                name=plan.tree,
                hash=hierarchy.content_hash,
                leaves=hierarchy.num_leaves,
                nodes_per_depth=tuple(len(level) for level in hierarchy.levels),
            ),
            attack=AttackIdentity(
                name=plan.attack,
                parameters={"steps": 20, "restarts": 1},
                components=plan.components,
                engine="hierbench",
                norm="linf",
                eps=plan.eps,
                eps_value=float(Fraction(plan.eps)),
                depths=tuple(verdicts.attacked),
                scoring=plan.scoring,  # type: ignore[arg-type]
                severity_samples=50,
            ),
            seen_split=SeenSplit(name="seen-v1", hash=load_seen("seen-v1").content_hash),
        ),
        arguments=Arguments(given={"model": plan.model}, resolved={"model": plan.model}),
        environment=Environment(
            hierbench="0.1.0", code_hash=HASH, packages={"torch": "2.9.0"}, python="3.11.7", platform="linux-x86_64",
            git_commit="935871ce9b7c9dfc2fa6c31b14d543f89a66b708", git_dirty=False, device="cpu", dtype="float32",
            threads=2, seed=0, batch_size=128,
        ),
        counts=Counts(
            declared=n, scored=n, attacked=n, attacked_per_depth={str(d): n for d in verdicts.attacked}
        ),
        depths=depth_scores(verdicts, hierarchy),
        transfer=transfer_cells(verdicts),
        mistakes=tree_mistakes(verdicts, hierarchy),
        hca_direct=hca_direct(verdicts),
        seen=seen_parts(verdicts, spec.class_ids, parts, plan.scoring) if split else None,
        cost=Cost(
            forwards=20 * n, backwards=20 * n, text_forwards=17, seconds=12.5, images_per_second=3200.0,
            peak_memory_bytes=None, per_depth=(), sessions=1, units_resumed=0,
        ),
        checks=Checks(
            max_linf=0.0 if plan.text else float(Fraction(plan.eps)), max_l2=0.1, moved_share=1.0, raised_share=1.0,
            zero_gradient_share=0.0, unverified=0, nonfinite=0, ids_unique=True, counts_equal=True, per_depth=(),
            text_rejected={"names_another_node": 3} if plan.text else None,
            flags=tuple(Flag(code=c, level=level, message=m) for c, level, m in plan.flags),  # type: ignore[arg-type]
        ),
        verdicts=VerdictFile(file=parquet.name, sha256=digest_file(parquet), rows=n),
        notes=plan.notes,
    )  # fmt: skip
    path = folder / f"{plan.cell}.json"
    path.write_text(record.to_json(), encoding="utf-8")
    return path


def place(board: Path, plan: Plan, part: str = "records") -> Path:
    """Write a record where the board keeps it; the folder's name says nothing of the model's."""
    return write_record(board / part / plan.protocol / digest_json(plan.model)[-8:], plan)


def add_card(board: Path, plan: Plan, **changes: object) -> Path:
    """Write a submission of one record with its card."""
    record = place(board, plan, "submissions")
    card = Card(
        protocol=plan.protocol,
        model=plan.model,
        authors=("Ada Example", "Ben O'Sample & Co"),
        paper="https://example.org/paper?id=1&v=2",
        code="https://example.org/code",
        note="Trained twice; the better one by held-out images.",
        submitted="2026-02-03",
        files=(PackedFile(name=record.name, sha256=digest_file(record), size=record.stat().st_size),),
        title="Example defence",
        trained_on="Tiny-ImageNet at 32 pixels",
        licence="MIT",
        weights=Weights(
            weights_hash=weights_of(plan.model, plan.protocol),
            backbone="tiny_clip-v1",
            address="https://example.org/weights",
        ),
    )
    content = {**card.model_dump(mode="json"), **changes}
    path = record.parent / "submission.json"
    path.write_text(json.dumps(content), encoding="utf-8")
    return path


def add_attack(board: Path, plan: Plan, name: str = "their-attack") -> Path:
    """Write others' images against a listed model: their card, and the record of what the model said to them."""
    folder = board / "attacks" / plan.protocol / "listed" / name
    record = write_record(folder, plan)
    card = AttackCard(
        protocol=plan.protocol,
        model=plan.model,
        authors=("Eve Elsewhere",),
        paper="https://example.org/attack",
        submitted="2026-03-04",
        files=(PackedFile(name=record.name, sha256=digest_file(record), size=record.stat().st_size),),
        title="Stronger attack",
        name=name,
        weights_hash=weights_of(plan.model, plan.protocol),
    )
    path = folder / "attack.json"
    path.write_text(card.model_dump_json(), encoding="utf-8")
    return path


AUTOATTACK = ("apgd-ce", "apgd-t", "fab-t", "square")


def varied_board(board: Path) -> Path:
    """Write a small board in which everything that a page can show occurs, and return its folder."""
    for number, eps in enumerate(("1/255", "2/255", "4/255", "8/255")):
        for model, clean, strength in (("clip", 0.95, 0.8), ("tecoa.tiny", 0.85, 0.3), ("fare.tiny", 0.88, 0.4)):
            defence = model.partition(".")[0].replace("clip", "none")
            base = Plan(
                model,
                eps=eps,
                clean=clean,
                strength=min(1.0, strength * (0.6 + 0.3 * number)),
                defence=defence,
                trained_on=None if model == "clip" else "tiny_imagenet@32",
            )
            place(board, base)
            place(board, replace(base, attack="multilevel_apgd", components=("apgd-ce", "apgd-t")))
    deep = Plan("tecoa.tiny", dataset="cifar100", tree="deep", clean=0.42, strength=0.5, samples=300)
    place(board, deep)
    place(board, replace(deep, scoring="direct"))
    place(board, replace(deep, attack="autoattack", components=AUTOATTACK, leaf_only=True))
    place(board, replace(deep, attack="text_synonyms", components=("text-synonyms",), text=True, strength=0.1))
    place(board, replace(deep, model="clip", defence="none", trained_on=None, clean=0.8, strength=0.9))
    place(board, replace(deep, model="odd.tiny", custom=True, clean=0.8, strength=0.02))
    masked = ("zero_gradients", "warning", "12 % of the gradients are exactly zero")
    odd = replace(deep, model="odd.tiny", attack="leaf_pgd", custom=True, clean=0.8, strength=0.02, flags=(masked,))
    place(board, odd)
    failed = ("pixels_not_moved", "failed", "the attack moved no pixel")
    place(board, replace(deep, model="broken.tiny", strength=0.0, flags=(failed,)))
    place(board, replace(deep, model="leafonly.tiny", direct=False, strength=0.3, clean=0.7))
    place(board, Plan(HOSTILE, dataset="cifar100", tree="deep", notes=(HOSTILE,), flags=(("odd", "note", HOSTILE),)))
    add_card(board, Plan("sample.tiny", defence="example", dataset="cifar100", tree="deep", clean=0.7, strength=0.35))
    add_attack(board, Plan("sample.tiny", defence="example", dataset="cifar100", tree="deep", clean=0.7, strength=0.6,
                           attack="their-attack", components=("replayed",)))  # fmt: skip
    place(board, Plan("clip", protocol="digits-v1", dataset="digits", tree="strokes", eps="32/255", defence="none"))
    return board
