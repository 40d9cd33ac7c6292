"""The data sets hierbench knows."""

from __future__ import annotations

from hierbench.datasets.spec import DatasetSpec, SplitSource
from hierbench.errors import InputError
from hierbench.registry import Registry

PHOTO = "This is a photo of {noun}."


def _fill(registry: Registry[DatasetSpec]) -> None:
    registry.add(
        "digits",
        DatasetSpec(
            name="digits",
            title="Optical recognition of handwritten digits (scikit-learn)",
            grid=(8, 8, 1),
            template="This is a picture of {noun}.",
            splits={"train": SplitSource("", "", 1437), "test": SplitSource("", "", 360)},
            evaluation_split="test",
            augmentation="digit",
            licence="CC BY 4.0",
            citation="Alpaydin and Kaynak, Optical Recognition of Handwritten Digits, UCI, 1998",
        ),
    )
    registry.add(
        "cifar100",
        DatasetSpec(
            name="cifar100",
            title="CIFAR-100",
            grid=(32, 32, 3),
            template=PHOTO,
            splits={"train": SplitSource("cifar100", "train", 50_000), "test": SplitSource("cifar100", "test", 10_000)},
            evaluation_split="test",
            image_column="img",
            label_column="fine_label",
            hub_id="uoft-cs/cifar100",
            licence="not stated by its authors; free for research",
            citation="Krizhevsky, Learning Multiple Layers of Features from Tiny Images, 2009",
        ),
    )
    registry.add(
        "cifar10",
        DatasetSpec(
            name="cifar10",
            title="CIFAR-10",
            grid=(32, 32, 3),
            template=PHOTO,
            splits={"train": SplitSource("cifar10", "train", 50_000), "test": SplitSource("cifar10", "test", 10_000)},
            evaluation_split="test",
            image_column="img",
            label_column="label",
            hub_id="uoft-cs/cifar10",
            licence="not stated by its authors; free for research",
            citation="Krizhevsky, Learning Multiple Layers of Features from Tiny Images, 2009",
        ),
    )
    tiny = DatasetSpec(
        name="tiny_imagenet",
        title="Tiny-ImageNet",
        grid=(64, 64, 3),
        template=PHOTO,
        splits={
            "train": SplitSource("tiny-imagenet", "train", 100_000),
            "valid": SplitSource("tiny-imagenet", "valid", 10_000),
            "pretrain": SplitSource("tiny-imagenet-32", "train", None),
        },
        evaluation_split="valid",
        hub_id="zh-plus/tiny-imagenet",
        licence="ImageNet terms of access: non-commercial research, not for redistribution",
        citation="Le and Yang, Tiny ImageNet Visual Recognition Challenge, Stanford CS231N, 2015",
    )
    registry.add("tiny_imagenet", tiny)
    registry.add("tiny_imagenet@32", tiny.at_grid(32))


DATASETS: Registry[DatasetSpec] = Registry("dataset", fill=_fill)


def get_spec(name: str) -> DatasetSpec:
    """Return the specification of a data set, by name."""
    return DATASETS.get(name)


def check_split(spec: DatasetSpec, split: str) -> str:
    """Return ``split`` if the data set has it (``heldout`` stands beside ``train``), else raise ``InputError``."""
    known = list(spec.splits) + (["heldout"] if "train" in spec.splits else [])
    if split not in known:
        raise InputError(f"--split: dataset {spec.name} has no split {split!r}; it has {', '.join(known)}")
    return split
