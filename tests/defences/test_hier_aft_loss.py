"""Hier-AFT's loss against the independent NumPy computation, over geometries, neighbours, forests and class splits."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hier_reference import Reference, Space
from standin import SmallModel, digits_forest, make_task, mixed_forest

from hierbench.datasets.spec import fill_template
from hierbench.defences.base import Batch, Perturbed
from hierbench.defences.methods.hier_aft.method import HierAFT
from hierbench.defences.methods.hier_aft.settings import HierAFTSettings
from hierbench.defences.nodes import training_nodes
from hierbench.hierarchy.tree import Forest
from hierbench.models.heads import HyperbolicHead

TEMPLATE = "a photo of {noun}."
SIX = [0, 1, 2, 5, 7, 8]  # of the ragged tree: ring keeps two leaves, each stroke node one


def both(
    settings: dict[str, Any], forest: Forest, kept: list[int] | None, *, count: int = 14, seed: int = 0
) -> tuple[dict[str, float], dict[str, float]]:
    """Return the parts of the loss from the package and from the reference."""
    model = SmallModel(double=True, seed=seed)
    nodes = training_nodes(forest, template=TEMPLATE, classes=kept)
    task = make_task(model, forest, classes=kept)
    defence = HierAFT(HierAFTSettings.from_dict(settings), task)
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, nodes.num_classes, (count,), generator=generator)
    batch = Batch(torch.rand(count, 1, 8, 8, generator=generator, dtype=torch.float64), labels, generator)
    defence.prepare(model, batch)
    model.head.double()
    with torch.no_grad():
        for parameter in model.head.parameters():
            parameter.add_(0.2 * torch.randn(parameter.shape, generator=generator))
        # Spread the embeddings: the small network's own lie close together.
        model.visual[-1].weight.mul_(4.0)
    delta = 0.02 * torch.randn(len(nodes.prompts), 8, generator=generator, dtype=torch.float64)
    total, log = defence.loss(model, batch, Perturbed(pixels=batch.pixels, text=delta), task.text_features(model))

    head = model.head
    ball = isinstance(head, HyperbolicHead)
    features = (task.hidden @ model.text_projection).detach().numpy()
    text = {}
    for tree in forest.trees:
        for depth in tree.depths:
            for node in tree.level(depth).nodes:
                prompt = fill_template(TEMPLATE, node.name, node.noun)
                if prompt in nodes.prompts:
                    row = nodes.prompts.index(prompt)
                    size = np.linalg.norm(features[row])
                    text[node.id] = size * (features[row] / size + delta[row].numpy())
    space = Space(
        r=head.curvature if isinstance(head, HyperbolicHead) else 0.0,
        tau=head.tau.item() if isinstance(head, HyperbolicHead) else 1 / head.scale.item(),  # type: ignore[attr-defined]
        cosine=not ball,
        a_image=(head.log_a_image.exp() / head.m_image).item() if isinstance(head, HyperbolicHead) else 1.0,
        a_text=(head.log_a_text.exp() / head.m_text).item() if isinstance(head, HyperbolicHead) else 1.0,
        scales=head.level_scale.tolist() if isinstance(head, HyperbolicHead) else [],
    )
    want = Reference(
        forest=forest,
        kept=list(nodes.classes),
        space=space,
        embedding=model.embed(batch.pixels).detach().numpy(),
        labels=[nodes.classes[y] for y in labels.tolist()],
        text=text,
        hnsa=defence.settings.hnsa,
        radius=defence.settings.hnsa_radius,
        zeta_vic=defence.zeta_vic,
        zeta_gap=defence.settings.zeta_gap,
        total_trees=defence.settings.forest == "sum",
    ).parts()
    chosen = defence.settings
    want["total"] = want["hita"] + chosen.lambda_vic * want["vic"]
    if ball:
        want["total"] += chosen.lambda_gap * (want["gap_label"] + want["gap_intra"])
    else:
        del want["gap_label"], want["gap_intra"]
    return {**{name: log[name].item() for name in want if name != "total"}, "total": total.item()}, want


@pytest.mark.parametrize("geometry", ["hyperbolic", "euclidean", "cosine"])
@pytest.mark.parametrize("hnsa", ["both", "lower", "upper", "off"])
@pytest.mark.parametrize("kept", [None, SIX])
def test_loss_equals_the_reference(geometry: str, hnsa: str, kept: list[int] | None) -> None:
    got, want = both({"geometry": geometry, "hnsa": hnsa}, mixed_forest(), kept)
    assert got == pytest.approx(want, rel=1e-9)
    if geometry != "cosine":
        assert min(want.values()) > 0


@pytest.mark.parametrize(
    "settings",
    [
        {"hnsa_radius": "own"},
        {"forest": "sum"},
        {"curvature": 2.5, "lambda_vic": 0.7, "lambda_gap": 0.3, "zeta_gap": 0.2, "vic_quantile": 0.0},
        {"start_norm": 1.9},
    ],
)
def test_settings_enter_the_loss_as_stated(settings: dict[str, Any]) -> None:
    got, want = both(settings, mixed_forest(), None, seed=3)
    assert got == pytest.approx(want, rel=1e-9)


def test_one_tree_and_a_batch_with_few_classes() -> None:
    for seed in range(4):
        got, want = both({}, digits_forest("strokes"), None, count=3, seed=seed)
        assert got == pytest.approx(want, rel=1e-9)
    got, want = both({}, mixed_forest(), None, count=1)
    assert got == pytest.approx(want, rel=1e-9)
    assert want["gap_intra"] == 0 and want["hita"] == want["ce_leaf"]
