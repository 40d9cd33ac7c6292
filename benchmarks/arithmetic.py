"""Hours and memory at paper scale by arithmetic alone: passes x FLOPs a pass / what a GPU sustains; nothing measured.

A forward of an image tower is counted from its shape, with a multiply and an add as two; a backward to the pixels costs
as much again, one to the weights as well costs twice as much. Prompts are encoded once and left out, and so are loading
images, checkpoints and whatever a run does beside its passes:

    python benchmarks/arithmetic.py
"""

from __future__ import annotations

from dataclasses import dataclass

IMAGENET_TRAIN = 1_281_167 * 9 // 10
"""Nine tenths of the training images: the last tenth is held out."""

FLOATS_IN_TRAINING, FLOATS_IN_ATTACK = 23, 16
"""Numbers kept for the backward, for each token, layer and unit of width, with QuickGELU and fused attention."""

UTILISATION = 0.4
"""Share of its peak that a GPU is assumed to sustain on these passes."""


@dataclass(frozen=True)
class ImageTower:
    """A vision transformer by its shape; the head is the linear map onto the joint embedding."""

    layers: int
    width: int
    patch: int
    embedding: int
    side: int = 224

    @property
    def patches(self) -> int:
        return (self.side // self.patch) ** 2

    @property
    def tokens(self) -> int:
        return self.patches + 1

    @property
    def parameters(self) -> int:
        """Return the number of weights: 12 w^2 + 13 w a layer, and what comes before and after them."""
        layer = 12 * self.width**2 + 13 * self.width
        outside = self.width * (3 * self.patch**2 + 1 + self.tokens + 4 + self.embedding)
        return self.layers * layer + outside

    @property
    def forward_flops(self) -> int:
        """Return the FLOPs of one image's forward: the matrix products, which are all but a hundredth of it."""
        token = 24 * self.width**2 + 4 * self.tokens * self.width
        patches = self.patches * 2 * 3 * self.patch**2 * self.width
        return self.layers * self.tokens * token + patches + 2 * self.width * self.embedding

    def attack_flops(self, steps: int) -> int:
        """Return the FLOPs of a gradient attack on one image: each step a forward and a backward to the pixels."""
        return 2 * steps * self.forward_flops

    def training_flops(self, attack_steps: int) -> int:
        """Return the FLOPs of one image in one epoch: the inner attack, and the step of the weights, three forwards."""
        return self.attack_flops(attack_steps) + 3 * self.forward_flops

    def activation_bytes(self, *, training: bool, number_bytes: int = 4) -> int:
        """Return what is kept of one image for its backward: more where weights get gradients than in an attack."""
        floats = FLOATS_IN_TRAINING if training else FLOATS_IN_ATTACK
        return floats * self.layers * self.tokens * self.width * number_bytes

    def training_bytes(self, images: int, *, text_parameters: int, number_bytes: int = 4) -> int:
        """Return the memory of a step: fp32 weights, gradients, both moments of AdamW, frozen text, activations."""
        states = 16 * self.parameters + 4 * text_parameters
        return states + images * self.activation_bytes(training=True, number_bytes=number_bytes)

    def attack_bytes(self, images: int, *, text_parameters: int, number_bytes: int = 4) -> int:
        """Return the memory of an attack's step on a batch: fp32 weights and activations."""
        states = 4 * (self.parameters + text_parameters)
        return states + images * self.activation_bytes(training=False, number_bytes=number_bytes)


@dataclass(frozen=True)
class Gpu:
    """A GPU by the vendor's dense peak, in FLOP/s, in one arithmetic."""

    name: str
    peak: float

    def hours(self, flops: float, *, gpus: int = 1, utilisation: float = UTILISATION) -> float:
        """Return the hours that FLOPs take on so many of them; shares of the peak outside (0, 1] are refused."""
        if not 0 < utilisation <= 1 or gpus < 1:
            raise ValueError(f"utilisation {utilisation}, GPUs {gpus}: a share above 0 and at least one GPU")
        return flops / (self.peak * utilisation * gpus) / 3600


TOWERS = {
    "ViT-B/32": ImageTower(layers=12, width=768, patch=32, embedding=512),
    "ViT-L/14": ImageTower(layers=24, width=1024, patch=14, embedding=768),
}
TEXT_PARAMETERS = {"ViT-B/32": 63_428_097, "ViT-L/14": 123_650_305}
"""The rest of a CLIP model: the text tower, its embeddings, the scale."""

GPUS = (Gpu("A100 fp32", 19.5e12), Gpu("A100 tf32", 156e12), Gpu("A100 bf16", 312e12), Gpu("H100 bf16", 989e12))
TRAINING_GPUS = tuple(gpu for gpu in GPUS if "tf32" not in gpu.name)
"""Those whose arithmetic a training has a setting for."""
TRAININGS = (("paper/tecoa", 2), ("paper/hier_aft", 3))
"""A recipe and the steps of its inner attack."""
EVALUATIONS = (
    ("ViT-B/32", "leaf_pgd, 20 steps, 50,000 images", 20, 50_000),
    ("ViT-B/32", "superclass_pgd, 20 steps at 5 depths, 50,000 images", 100, 50_000),
    ("ViT-L/14", "apgd (ce, t to 9), 100 steps each, 5,000 images", 1000, 5_000),
)
"""What is evaluated on ImageNet: the tower, the attack, its gradient steps an image at most, images."""
EPOCHS, BATCH, GPU_BATCH = 10, 256, 128


def render_table() -> str:
    """Return both tables as Markdown."""
    lines = [
        f"| training | tower | GFLOP an image and epoch |{_heads(TRAINING_GPUS)} GiB at {BATCH} | GiB, 8 parts |",
        f"|---|---|--:|{'--:|' * len(TRAINING_GPUS)}--:|--:|",
    ]
    for name, tower in TOWERS.items():
        for recipe, steps in TRAININGS:
            one = tower.training_flops(steps)
            memory = [
                tower.training_bytes(BATCH // parts, text_parameters=TEXT_PARAMETERS[name]) / 2**30 for parts in (1, 8)
            ]
            hours = " | ".join(_hours(gpu, one * IMAGENET_TRAIN * EPOCHS) for gpu in TRAINING_GPUS)
            lines.append(f"| `{recipe}` | {name} | {one / 1e9:,.0f} | {hours} | {memory[0]:.0f} | {memory[1]:.0f} |")
    lines += [
        "",
        f"| evaluation | tower | PFLOP, at most |{_heads(GPUS)} GiB at {GPU_BATCH} |",
        f"|---|---|--:|{'--:|' * len(GPUS)}--:|",
    ]
    for name, what, steps, images in EVALUATIONS:
        flops = TOWERS[name].attack_flops(steps) * images
        needed = TOWERS[name].attack_bytes(GPU_BATCH, text_parameters=TEXT_PARAMETERS[name]) / 2**30
        hours = " | ".join(_hours(gpu, flops) for gpu in GPUS)
        lines.append(f"| {what} | {name} | {flops / 1e15:,.0f} | {hours} | {needed:.0f} |")
    lines += [
        "",
        f"Arithmetic, not measurement (`python benchmarks/arithmetic.py`): {EPOCHS} epochs of {IMAGENET_TRAIN:,} "
        f"images; one GPU at {100 * UTILISATION:.0f} % of the dense peak that its vendor states ("
        + ", ".join(f"{gpu.name} {gpu.peak / 1e12:g} TFLOP/s" for gpu in GPUS)
        + "). Memory is that of fp32, as the recipes are; parts are `accumulate`. Attacks stop where they succeed: an "
        "evaluation takes the less, the less robust a model is.",
    ]
    return "\n".join(lines) + "\n"


def _heads(gpus: tuple[Gpu, ...]) -> str:
    return "".join(f" {gpu.name}, h |" for gpu in gpus)


def _hours(gpu: Gpu, flops: float) -> str:
    hours = gpu.hours(flops)
    return f"{hours:,.0f}" if hours >= 10 else f"{hours:.2g}"


if __name__ == "__main__":
    print(render_table(), end="")
