"""Hier-AFT: adversarial training at every level of one or more class trees (arXiv 2604.18867; METHODS.md 5.8).

A re-implementation: the losses follow a published reader's note, the constants are ours and are settings.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from hierbench.defences.base import Batch, Defence, LogValues, Perturbed, TrainingTask
from hierbench.defences.methods.hier_aft import hnsa, losses
from hierbench.defences.methods.hier_aft.collapse import collapse_guards, point_statistics
from hierbench.defences.methods.hier_aft.hypavg import ImageNodes, class_nodes, climb
from hierbench.defences.methods.hier_aft.settings import HierAFTSettings
from hierbench.defences.methods.hier_aft.terms import LevelTerms, TextNodes
from hierbench.defences.perturb import Cost, InnerAttack, Objective, maximise
from hierbench.errors import InputError
from hierbench.models.heads import CosineHead, Head, HyperbolicHead
from hierbench.models.hyperbolic import radius
from hierbench.models.negatives import ExtraNegatives, logits_with_negatives

if TYPE_CHECKING:
    from hierbench.models.zeroshot import ZeroShotModel


class HierAFT(Defence[HierAFTSettings]):
    """``L' + lambda1 L_vic + lambda2 (L_gap^Label + L_gap^Intra)``, L' the weighted cross-entropies under attack."""

    name = "hier_aft"
    couples_images = True

    def __init__(self, settings: HierAFTSettings, task: TrainingTask) -> None:
        super().__init__(settings, task)
        self.negatives = hnsa.negative_tables(task.nodes, sides=settings.hnsa)
        self.zeta_vic = float("nan")

    @property
    def trains(self) -> tuple[str, ...]:
        """Visual tower, W and the head's scalars, less what an ablation freezes."""
        scalars = self.settings.train_scalars and self.settings.geometry != "cosine"
        return (
            "visual",
            *(["text_projection"] if self.settings.train_text_projection else []),
            *(["head"] if scalars else []),
        )

    @property
    def inner_attack(self) -> InnerAttack:
        """The image budget, and that of the text features."""
        text_eps = self.settings.text_eps
        return replace(super().inner_attack, text_eps=text_eps, text_alpha=self.settings.text_alpha_share * text_eps)

    # -- what is frozen from clean training images --------------------------------------------------------------------

    @torch.no_grad()
    def prepare(self, model: ZeroShotModel, sample: Batch) -> None:
        """Give the model its head, with mean norms, tau and zeta_vic from clean images (METHODS.md 5.8, Constants)."""
        cosine = model.head
        if not isinstance(cosine, CosineHead):
            raise InputError(f"hier_aft starts from a backbone with a cosine head, not from {model.name!r}")
        nodes, settings = self.task.nodes, self.settings
        embedding = torch.cat([model.embed(chunk) for chunk in torch.split(sample.pixels, 128)])
        features = self.task.hidden @ model.text_projection
        leaves = features[: nodes.num_classes]
        if settings.geometry != "cosine":
            head = HyperbolicHead(
                levels=nodes.num_levels,
                curvature=settings.resolved_curvature,
                m_image=float(embedding.norm(dim=-1).mean()),
                m_text=float(features.norm(dim=-1).mean()),
                start_norm=settings.start_norm,
                coarsest_scale=settings.coarsest_scale,
                max_tangent=settings.max_tangent,
            ).to(embedding.device)
            # tau is still 1, so these logits are -d; the new spread has to equal that of s cos.
            spread = head.logits(embedding, head.points(leaves, 0)).std(-1).mean()
            head.tau.copy_(spread / cosine.logits(embedding, cosine.points(leaves, 0)).std(-1).mean())
            model.head = head
        own = model.head.points(leaves.index_select(0, sample.labels), 0)
        distances = model.head.point_distance(model.head.image_points(embedding), own)
        self.zeta_vic = float(distances.double().quantile(settings.vic_quantile))

    def state(self) -> dict[str, float]:
        """zeta_vic; the rest is in the head."""
        return {"zeta_vic": self.zeta_vic}

    def load_state(self, state: dict[str, float]) -> None:
        """See ``Defence.load_state``."""
        self.zeta_vic = state["zeta_vic"]

    # -- one pass -----------------------------------------------------------------------------------------------------

    def text_nodes(self, model: ZeroShotModel, delta: Tensor | None, features: Tensor) -> TextNodes:
        """Return the points of all nodes; ``delta [P, E]`` moves the normalised features, which keep their length."""
        if delta is not None:
            features = features + features.norm(dim=-1, keepdim=True) * delta
        nodes, head = self.task.nodes, model.head
        return TextNodes(
            features=features,
            leaves=head.points(features[: nodes.num_classes], 0),
            levels=tuple(
                tuple(head.points(features.index_select(0, level.prompt), level.steps) for level in tree.levels)
                for tree in nodes.trees
            ),
        )

    def level_logits(
        self, head: Head, images: Tensor, own: Tensor, extra: ExtraNegatives, text: TextNodes, rows: Tensor | None
    ) -> Tensor:
        """Logits of image points over a level's nodes ``own [M, E]`` and its extra negatives.

        ``rows`` is the true node of each image point, for the negatives that are none of its; None means row m is
        node m.
        """
        moved = self.settings.hnsa_radius == "level"
        return logits_with_negatives(head, images, own, extra, text.features, rows, level_radius=moved)

    def leaf_term(self, head: Head, images: Tensor, labels: Tensor, text: TextNodes) -> Tensor:
        """CE_0: mean over images."""
        logits = self.level_logits(head, images, text.leaves, self.negatives.leaves, text, labels)
        return losses.leaf_cross_entropy(logits, labels)

    def level_term(self, head: Head, nodes: ImageNodes, text: TextNodes, tree: int, index: int) -> Tensor:
        """CE_l of one level of one tree: mean over scored nodes."""
        own, extra = text.levels[tree][index], self.negatives.levels[tree][index]
        return losses.node_cross_entropy(self.level_logits(head, nodes.points, own, extra, text, None), nodes.scored)

    def image_nodes(self, head: Head, images: Tensor, labels: Tensor) -> tuple[ImageNodes, list[list[ImageNodes]]]:
        """Return the class points and the nodes above them, for each tree."""
        classes = class_nodes(head, images, labels, num_classes=self.task.nodes.num_classes)
        return classes, [climb(head, classes, tree) for tree in self.task.nodes.trees]

    def all_terms(
        self, head: Head, images: Tensor, labels: Tensor, text: TextNodes, above: list[list[ImageNodes]]
    ) -> LevelTerms:
        """Cross-entropies of every level from one set of image points."""
        return LevelTerms(
            leaf=self.leaf_term(head, images, labels, text),
            levels=tuple(
                tuple(self.level_term(head, nodes, text, tree, index) for index, nodes in enumerate(rows))
                for tree, rows in enumerate(above)
            ),
        )

    def over_trees(self, values: list[Tensor]) -> Tensor:
        """Average (or sum) one term a tree."""
        total = torch.stack(values).sum()
        return total / len(values) if self.settings.forest == "average" else total

    def hita(self, terms: LevelTerms) -> Tensor:
        """L' of given cross-entropies: the leaf term once, plus the trees' weighted levels."""
        above = []
        for tree, values in zip(self.task.nodes.trees, terms.levels, strict=True):
            weighted = [level.weight * value for level, value in zip(tree.levels, values, strict=True)]
            above.append(torch.stack(weighted).sum() if weighted else terms.leaf.new_zeros(()))
        return terms.leaf + self.over_trees(above)

    # -- attack and loss ----------------------------------------------------------------------------------------------

    def perturb(self, model: ZeroShotModel, batch: Batch, text: Tensor) -> Perturbed:
        """Maximise L' by one delta for all levels (or the ablations' terms), with delta_T beside it."""
        features = text
        head, labels = model.head, batch.labels

        def universal(pixels: Tensor, delta: Tensor | None) -> Tensor:
            images = head.image_points(model.embed(pixels))
            text = self.text_nodes(model, delta, features)
            _, above = self.image_nodes(head, images, labels)
            return len(pixels) * self.hita(self.all_terms(head, images, labels, text, above))

        def leaf(pixels: Tensor, delta: Tensor | None) -> Tensor:
            images = head.image_points(model.embed(pixels))
            return len(pixels) * self.leaf_term(head, images, labels, self.text_nodes(model, delta, features))

        def level(tree: int, index: int) -> Objective:
            def one(pixels: Tensor, delta: Tensor | None) -> Tensor:
                images = head.image_points(model.embed(pixels))
                _, above = self.image_nodes(head, images, labels)
                text = self.text_nodes(model, delta, features)
                return len(pixels) * self.level_term(head, above[tree][index], text, tree, index)

            return one

        objectives: list[Objective] = [universal if self.settings.perturbation == "universal" else leaf]
        if self.settings.perturbation == "per_level":
            objectives += [level(t, i) for t, tree in enumerate(self.task.nodes.trees) for i in range(len(tree.levels))]
        found = [
            maximise(
                objective,
                batch.pixels,
                attack=self.inner_attack,
                threat=self.task.threat,
                generator=batch.generator,
                text_shape=(features.shape[0], features.shape[1]),
            )
            for objective in objectives
        ]
        return Perturbed(
            pixels=found[0].pixels,
            text=found[0].text,
            others=tuple((other.pixels, other.text) for other in found[1:]),
            gain=found[0].gain,
            cost=sum((one.cost for one in found), Cost()),
        )

    def loss(self, model: ZeroShotModel, batch: Batch, perturbed: Perturbed, text: Tensor) -> tuple[Tensor, LogValues]:
        """Return the total loss; its parts, radii, shares and active hinges are logged."""
        head, labels, settings = model.head, batch.labels, self.settings
        embedding = model.embed(perturbed.pixels)
        images = head.image_points(embedding)
        nodes = self.text_nodes(model, perturbed.text, text)
        classes, above = self.image_nodes(head, images, labels)
        terms = (
            self.all_terms(head, images, labels, nodes, above)
            if not perturbed.others
            else self._per_level_terms(model, images, labels, nodes, perturbed, text)
        )
        hita = self.hita(terms)
        distances = head.point_distance(images, nodes.leaves.index_select(0, labels))
        vic = losses.distance_hinge(distances, margin=self.zeta_vic)
        total = hita + settings.lambda_vic * vic
        log: LogValues = {"hita": hita, "vic": vic, "vic_active": (distances > self.zeta_vic).to(hita.dtype).mean()}
        if isinstance(head, HyperbolicHead):
            label, intra, hinges = self.gap(nodes, classes, above)
            total = total + settings.lambda_gap * (label + intra)
            log |= {"gap_label": label, "gap_intra": intra, **hinges}
        log |= self._level_log(terms)
        log |= point_statistics(head, embedding, images, nodes, classes, above, self.task.nodes)
        return total, {name: value.detach() for name, value in log.items()}

    def gap(
        self, text: TextNodes, classes: ImageNodes, above: list[list[ImageNodes]]
    ) -> tuple[Tensor, Tensor, LogValues]:
        """Return L_gap^Label, L_gap^Intra and the shares of active hinges.

        A pair is a node and a child of it; ragged leaves standing for themselves are no pairs. Image pairs need a
        scored parent: an unscored one has its child's point.
        """
        margin = self.settings.zeta_gap
        label, intra, active_label, active_intra = [], [], [], []
        for tree, text_rows, image_rows in zip(self.task.nodes.trees, text.levels, above, strict=True):
            text_below, image_below = text.leaves, classes
            sums: list[tuple[Tensor, Tensor]] = []
            for level, text_here, image_here in zip(tree.levels, text_rows, image_rows, strict=True):
                parent, child = radius(text_here).index_select(0, level.parent), radius(text_below)
                pairs = ~level.self_pair
                text_gap = losses.radius_hinge(parent, child, pairs, margin=margin)
                active_label.append(losses.masked_mean((parent - child + margin > 0).to(child.dtype), pairs))
                parent, child = radius(image_here.points).index_select(0, level.parent), radius(image_below.points)
                pairs = image_here.scored.index_select(0, level.parent) & image_below.present & ~level.self_pair
                image_gap = losses.radius_hinge(parent, child, pairs, margin=margin)
                active_intra.append(losses.masked_mean((parent - child + margin > 0).to(child.dtype), pairs))
                sums.append((text_gap, image_gap))
                text_below, image_below = text_here, image_here
            zero = text.leaves.new_zeros(())
            label.append(sum((pair[0] for pair in sums), zero))
            intra.append(sum((pair[1] for pair in sums), zero))
        shares = {
            "gap_label_active": torch.stack(active_label).mean() if active_label else text.leaves.new_zeros(()),
            "gap_intra_active": torch.stack(active_intra).mean() if active_intra else text.leaves.new_zeros(()),
        }
        return self.over_trees(label), self.over_trees(intra), shares

    def guards(self, model: ZeroShotModel, recent: dict[str, float]) -> dict[str, Any]:
        """See ``Defence.guards``."""
        if not isinstance(model.head, HyperbolicHead):
            return {}
        with torch.no_grad():
            text = self.text_nodes(model, None, self.task.text_features(model))
        return collapse_guards(model.head, text, self.task.nodes, recent)

    def _per_level_terms(
        self,
        model: ZeroShotModel,
        leaf_images: Tensor,
        labels: Tensor,
        text: TextNodes,
        perturbed: Perturbed,
        features: Tensor,
    ) -> LevelTerms:
        """Cross-entropies of the per-level ablation: each level from its own perturbation."""
        head, others, levels = model.head, iter(perturbed.others), []
        for number, tree in enumerate(self.task.nodes.trees):
            row = []
            for index in range(len(tree.levels)):
                pixels, delta = next(others)
                _, above = self.image_nodes(head, head.image_points(model.embed(pixels)), labels)
                moved = self.text_nodes(model, delta, features)
                row.append(self.level_term(head, above[number][index], moved, number, index))
            levels.append(tuple(row))
        return LevelTerms(leaf=self.leaf_term(head, leaf_images, labels, text), levels=tuple(levels))

    def _level_log(self, terms: LevelTerms) -> LogValues:
        log: LogValues = {"ce_leaf": terms.leaf}
        for tree, values in zip(self.task.nodes.trees, terms.levels, strict=True):
            for level, value in zip(tree.levels, values, strict=True):
                log[f"ce/{tree.name}/{level.steps}"] = value
        return log
