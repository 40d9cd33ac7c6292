"""From a request to a loaded cell: the one place where names become models, images and trees."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from hierbench.attacks.engine.precision import search_arithmetic
from hierbench.attacks.optimisers.pgd import step_size
from hierbench.attacks.threat import ThreatModel
from hierbench.datasets.catalogue import get_spec
from hierbench.datasets.load import load_images
from hierbench.datasets.sampling import SAMPLING_RULE
from hierbench.datasets.seen import load_seen
from hierbench.errors import InputError
from hierbench.evaluation.cell import Cell, TextFacts, cell_name, safe_name
from hierbench.evaluation.environment import describe_environment
from hierbench.evaluation.fitting import make_fitter
from hierbench.evaluation.identity import (
    Arguments,
    AttackIdentity,
    DatasetIdentity,
    HierarchyIdentity,
    Identity,
    ModelIdentity,
    ProtocolIdentity,
    Settings,
)
from hierbench.evaluation.identity import SeenSplit as SeenSplitIdentity
from hierbench.evaluation.metrics import TOP_CLASSES
from hierbench.evaluation.replay.file import check_size
from hierbench.evaluation.replay.form import read_form
from hierbench.evaluation.request import RESULTS_FOLDER, Plan, Request, choose_hierarchy, make_plan, spell_eps
from hierbench.evaluation.storage import digest_json
from hierbench.evaluation.victim import EngineVictim
from hierbench.models.backbones import RANDOM, shared_name
from hierbench.models.binding import BoundModel, bind
from hierbench.models.catalogue import UNDEFENDED, ModelSpec, resolve_model, shared_model_name
from hierbench.models.checkpoints.names import AUTO
from hierbench.models.compiling import compiled
from hierbench.models.facts import towers as facts_of
from hierbench.models.folding import folded_copy
from hierbench.models.load import load_model
from hierbench.processes import own_device

if TYPE_CHECKING:
    from hierbench.attacks.catalogue import Value
    from hierbench.datasets.images import ImageSet
    from hierbench.hierarchy.tree import Hierarchy
    from hierbench.models.zeroshot import ZeroShotModel


def prepare_cell(request: Request, *, model: ZeroShotModel | None = None) -> Cell:
    """Load what a request names and bind it into a cell; ``model`` replaces the one that is named.

    Raises ``InputError`` naming the flag or the file at fault, before anything is written.
    """
    hierarchy = choose_hierarchy(request)
    plan = make_plan(request, hierarchy)
    device = torch.device(own_device(str(choose_device(request.device))))
    images = load_images(
        plan.dataset, split=plan.split, limit=plan.limit, without=plan.entry.without, root=request.data_root
    )
    if model is None:
        named = UNDEFENDED if request.model == "none" else request.model
        entry = resolve_model(named, plan.protocol.variant)
        model = load_model(
            entry,
            backbone=_backbone(request, entry, plan.protocol.backbone),
            weights_layout=request.weights_layout or AUTO,
            device=str(device),
        )
    model = model.to(device).eval()
    bound: Any = bind(model, hierarchy, template=images.spec.templates(plan.template))
    facts: Mapping[str, Value] = {}
    if plan.attack.prepare is not None:
        bound, facts = plan.attack.prepare(bound, plan.settings)
    threat = ThreatModel(plan.norm, plan.eps)
    form = None if request.store_images is None else read_form(request.store_images)
    if form is not None:
        check_size(len(images.ids), images.spec.grid, len(plan.depths), form, threat)
    reference = _reference(request, plan, model, hierarchy, images, device) if request.rank_preservation else None
    fitter = make_fitter(plan, bound, images, threat=threat, device=device, root=request.data_root)
    victim = EngineVictim(
        forward=bound,
        layout=bound.layout,
        spec=plan.attack,
        settings=plan.settings,
        threat=threat,
        scoring=plan.scoring,
        batch_size=plan.batch_size,
        seed=plan.seed,
        dataset=plan.dataset,
        device=device,
        heights=hierarchy.lca_height,
        fitter=fitter,
        runner=None if plan.attack.runner is None else plan.attack.runner(bound, plan.settings),
        search_precision=plan.search_precision,
        search_forward=_search_forward(plan, request, bound, images, device),
        store_images=form,
        reference=reference,
    )
    seen_name = model.info.seen or plan.protocol.seen_split
    identity = _identity(plan, model, images, hierarchy, digest_json(bound.prompts), seen_name, facts)
    environment = describe_environment(
        device=device.type,
        device_name=_device_name(device),
        threads=torch.get_num_threads(),
        seed=plan.seed,
        batch_size=plan.batch_size,
    )
    name = cell_name(identity, seed=plan.seed, batch_size=plan.batch_size)
    out = Path(request.out) if request.out is not None else Path(RESULTS_FOLDER)
    return Cell(
        identity=identity.model_copy(update={"cell": name}),
        arguments=Arguments(given=_shared(request), resolved=_resolved(plan, identity, device) | _towers(model)),
        environment=environment,
        images=images,
        hierarchy=hierarchy,
        class_ids=images.spec.class_ids,
        victim=victim,
        folder=out / safe_name(plan.protocol.name) / safe_name(model.name),
        text=lambda: TextFacts(model.text_forwards, victim.refused_texts()),
        seen=_seen(plan.dataset, model, seen_name),
        notes=(*images.notes, *(() if fitter is None else (fitter.given.source,)), *_weights_notes(model)),
        store_images=form,
        ranked=reference is not None,
    )


def _reference(
    request: Request, plan: Plan, model: ZeroShotModel, hierarchy: Hierarchy, images: ImageSet, device: torch.device
) -> Any:
    """Return the undefended backbone of a model, bound to the same prompts, for what it says of the clean images."""
    flag, attack = "--rank-preservation", plan.attack
    if attack.runner is not None or not attack.searches_in_full(plan.scoring):
        raise InputError(f"{flag}: attack {attack.name} keeps no image of its full search; leaf_pgd or apgd does")
    if hierarchy.num_leaves <= TOP_CLASSES:
        raise InputError(f"{flag}: the top {TOP_CLASSES} of {hierarchy.num_leaves} classes have no order to lose")
    if hierarchy.num_depths not in plan.depths or plan.severity_samples == 0:
        raise InputError(f"{flag}: it is read from the leaves' attack on --severity-samples; leave both their values")
    undefended = load_model(UNDEFENDED, backbone=request.backbone or model.info.backbone, device=str(device))
    theirs, ours = undefended.info.backbone_hash, model.info.backbone_hash
    if None not in (theirs, ours) and theirs != ours:
        raise InputError(f"{flag}: {model.name} was trained from another {model.backbone} than the one here")
    return bind(undefended.eval(), hierarchy, template=images.spec.templates(plan.template))


def _search_forward(plan: Plan, request: Request, bound: Any, images: ImageSet, device: torch.device) -> Any:
    """Return a quicker form of a bound model for a search in coarser arithmetic or a compiled one, or None."""
    quick = bound
    if plan.search_precision != "fp32" and isinstance(bound, BoundModel):
        quick = folded_copy(bound, _sample(images, 16, device))
    if request.compile:
        batch = _sample(images, plan.batch_size, device)
        return compiled(quick, batch, lambda: search_arithmetic(device, plan.search_precision))
    return None if quick is bound else quick


def _sample(images: ImageSet, count: int, device: torch.device) -> torch.Tensor:
    return images.pixels(range(min(len(images), count))).to(device, torch.float32) / 255


def _backbone(request: Request, entry: ModelSpec, protocols: str) -> str | None:
    """Return the backbone that a model may need to be told: the protocol's is what the undefended model is, no more."""
    if request.backbone is None:
        return protocols if entry.name == UNDEFENDED else None
    if entry.backbone is not None and entry.folder is None:
        raise InputError(f"--backbone: --model {request.model} is a backbone itself; give one of the two")
    return request.backbone


def _shared(request: Request) -> Settings:
    """Return what was said, with a folder or a file of the user's by its last name: a record goes to strangers."""
    said = request.given() | {"model": shared_model_name(request.model)}
    if request.backbone is not None:
        said["backbone"] = shared_name(request.backbone)
    return said


def _towers(model: ZeroShotModel) -> Settings:
    """Return what is resolved about the towers: activation, sizes, where the weights came from."""
    return {f"model.{name}": value for name, value in facts_of(model).items()} if hasattr(model, "clip") else {}


def _weights_notes(model: ZeroShotModel) -> tuple[str, ...]:
    weights = model.info.weights or ""
    said = f"backbone {model.backbone}: weights {weights}; accuracies of it say nothing, only the cost does"
    return (said,) if weights.startswith(RANDOM) else ()


def _engine(name: str) -> str:
    """Return whose loop runs, with its version where it is not ours."""
    return name if name == "hierbench" else f"{name} {importlib.metadata.version(name)}"


def choose_device(name: str | None) -> torch.device:
    """Return the named device, else CUDA if there is one, else the CPU; an unusable one raises ``InputError``."""
    if name is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:
        first = str(error).splitlines()[0]
        raise InputError(f"--device: {name!r} cannot be used here ({first}); cpu always can") from None
    return device


def _device_name(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return torch.backends.cpu.get_cpu_capability()


def _identity(
    plan: Plan,
    model: ZeroShotModel,
    images: ImageSet,
    hierarchy: Hierarchy,
    prompts_hash: str,
    seen_name: str | None,
    facts: Mapping[str, Value],
) -> Identity:
    info = model.info
    deviations = list(plan.deviations)
    if model.backbone != plan.protocol.backbone:
        deviations.append(f"backbone: {plan.protocol.backbone} -> {model.backbone}")
    if info.trained_on is not None and info.trained_on != plan.protocol.train_dataset:
        deviations.append(f"training data: {plan.protocol.train_dataset} -> {info.trained_on}")
    nodes = tuple(len(level) for level in hierarchy.levels)
    # Full precision goes without saying: records from before there was a choice keep their cells.
    precision = plan.search_precision
    coarser: dict[str, Value] = {} if precision == "fp32" else {"search_precision": precision}
    split = None if seen_name is None else load_seen(seen_name)
    return Identity(
        cell="pending",
        protocol=ProtocolIdentity(
            name=plan.protocol.name,
            version=plan.protocol.version,
            hash=plan.protocol.content_hash,
            custom=bool(deviations),
            deviations=tuple(deviations),
        ),
        model=ModelIdentity(
            name=model.name,
            weights_hash=model.weights_hash,
            backbone=model.backbone,
            backbone_hash=info.backbone_hash,
            defence=info.defence,
            trained_on=info.trained_on,
            head=model.head.kind,
            activation=getattr(model, "activation", None),
            parameters=sum(parameter.numel() for parameter in model.parameters()),
            training=plain_settings(info.settings),
            guards=info.guards or None,
            guard_flags=info.guard_flags,
        ),
        dataset=DatasetIdentity(
            name=plan.dataset,
            split=plan.split,
            revision=images.revision,
            sample_list_hash=images.sample_hash,
            sampling_rule=SAMPLING_RULE,
            grid=images.spec.grid,
            template=plan.template,
            prompts_hash=prompts_hash,
        ),
        hierarchy=HierarchyIdentity(
            name=hierarchy.tree,
            hash=hierarchy.content_hash,
            leaves=hierarchy.num_leaves,
            nodes_per_depth=nodes,
        ),
        attack=AttackIdentity(
            name=plan.attack.name,
            parameters={**plan.attack.stated(plan.settings), **facts, **coarser},
            components=plan.attack.components(plan.settings, nodes=nodes, depths=plan.depths, scoring=plan.scoring),
            substitutions=plan.attack.substitutions(
                plan.settings, nodes=nodes, depths=plan.depths, scoring=plan.scoring
            ),
            engine=_engine(plan.attack.engine),
            norm=plan.norm,
            eps=spell_eps(plan.eps),
            eps_value=float(plan.eps),
            depths=plan.depths,
            pooled=plan.attack.pools(plan.scoring),
            scoring=plan.scoring,
            severity_samples=plan.severity_samples if plan.attack.searches_in_full(plan.scoring) else 0,
        ),
        seen_split=None if split is None else SeenSplitIdentity(name=split.name, hash=split.content_hash),
    )


def plain_settings(settings: Mapping[str, Any]) -> Settings | None:
    """Return nested settings as one level of ``a.b`` names with plain values; None if there are none."""
    flat: Settings = {}

    def add(prefix: str, value: Any) -> None:
        if isinstance(value, Mapping):
            for name, inner in value.items():
                add(f"{prefix}.{name}" if prefix else str(name), inner)
        elif isinstance(value, (list, tuple)):
            flat[prefix] = [v if v is None or isinstance(v, (str, int, float, bool)) else str(v) for v in value]
        else:
            flat[prefix] = value if value is None or isinstance(value, (str, int, float, bool)) else str(value)

    add("", settings)
    return flat or None


def _resolved(plan: Plan, identity: Identity, device: torch.device) -> Settings:
    return {
        "model": identity.model.name,
        "dataset": plan.dataset,
        "tree": identity.hierarchy.name,
        "split": plan.split,
        "limit": plan.limit,
        "template": plan.template,
        "attack": plan.attack.name,
        **{f"settings.{name}": value for name, value in identity.attack.parameters.items()},
        **_step_length(plan),
        "norm": plan.norm,
        "eps": identity.attack.eps,
        "scoring": plan.scoring,
        "depths": list(plan.depths),
        "seed": plan.seed,
        "batch_size": plan.batch_size,
        "severity_samples": plan.severity_samples,
        "protocol": plan.protocol.name,
        "device": str(device),
        "loss_reduction": "sum",
    }


def _step_length(plan: Plan) -> Settings:
    """Return the step length in pixel units that the setting ``alpha`` means, where the attack has one."""
    alpha, steps = plan.settings.get("alpha"), plan.settings.get("steps")
    if not isinstance(alpha, str) or not isinstance(steps, int):
        return {}
    return {"step_length": step_size(alpha, threat=ThreatModel(plan.norm, plan.eps), steps=steps)}


def _seen(dataset: str, model: ZeroShotModel, name: str | None) -> dict[str, str] | None:
    """Return what the model has seen of each class, or None where no split speaks of the data set."""
    if name is None:
        return None
    split, spec = load_seen(name), get_spec(dataset)
    if not split.speaks_of(dataset):
        return None
    trained_on = None if model.info.trained_on is None else get_spec(model.info.trained_on).base_name
    shown = "trained" if trained_on == spec.base_name else "known"
    known = set(split.known(dataset))
    return {class_id: shown if class_id in known else "unseen" for class_id in spec.class_ids}
