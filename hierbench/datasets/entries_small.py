"""Catalogue entries on grids of up to 96 pixels."""

from __future__ import annotations

from hierbench.datasets.ensembles import CIFAR, PHOTO, PLAIN, THIS_IS
from hierbench.datasets.spec import DatasetSpec, SplitSource
from hierbench.registry import Registry

KRIZHEVSKY = "Krizhevsky, Learning Multiple Layers of Features from Tiny Images, 2009"


def fill(registry: Registry[DatasetSpec]) -> None:
    """Add the entries."""
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
            confirmed=True,
            confirmation="part of scikit-learn, no Hub copy needed",
            literature_template="a photo of the number: {}.",
            ensemble=("a photo of the number: {}.",),
            licence="CC BY 4.0",
            citation="Alpaydin and Kaynak, Optical Recognition of Handwritten Digits, UCI, 1998",
            class_order_hash="sha256:7427877c40fb0361401248f9c96abe6117396bc6ab16811b5b1706274c02443e",
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
            "pretrain": SplitSource("tiny-imagenet-32", "train", None, on_hub=False),
        },
        evaluation_split="valid",
        hub_id="zh-plus/tiny-imagenet",
        hub_revision="5a77092c28e51558c5586e9c5eb71a7e17a5e43f",
        confirmed=True,
        confirmation="revision in MTEB's tasks and cache paths; columns, splits and labels in a copy of its files",
        literature_template=THIS_IS,
        ensemble=CIFAR,
        licence="ImageNet terms of access: non-commercial research, not for redistribution",
        citation="Le and Yang, Tiny ImageNet Visual Recognition Challenge, Stanford CS231N, 2015",
        class_order_hash="sha256:342d6acf18911d62da4c981221f833718a3ef8299e55512239e09c64e49a344c",
    )
    registry.add("tiny_imagenet", tiny)
    registry.add("tiny_imagenet@32", tiny.at_grid(32))
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
            hub_revision="0b2714987fa478483af9968de7c934580d0bb9a2",
            confirmed=True,
            confirmation="revision in MTEB's tasks; columns, splits and labels in a copy of its files",
            literature_template=THIS_IS,
            ensemble=CIFAR,
            licence="not stated by its authors; free for research",
            citation=KRIZHEVSKY,
            class_order_hash="sha256:2ce042b1e0b48db4bb214408e6414ba18b2731c24af244f2d6c112fddf31af00",
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
            hub_revision="aadb3af77e9048adbea6b47c21a81e47dd092ae5",
            confirmed=True,
            confirmation="revision in MTEB's tasks; columns, splits and labels in a copy of its files",
            literature_template=THIS_IS,
            ensemble=CIFAR,
            licence="not stated by its authors; free for research",
            citation=KRIZHEVSKY,
            class_order_hash="sha256:4a53f81a8af29bb6aa646bfe2c455db1b061edfde82a39c0cfc313ef536c681b",
        ),
    )
    registry.add(
        "stl10",
        DatasetSpec(
            name="stl10",
            title="STL-10",
            grid=(96, 96, 3),
            template=PHOTO,
            splits={"train": SplitSource("stl10", "train", 5_000), "test": SplitSource("stl10", "test", 8_000)},
            evaluation_split="test",
            hub_id="tanganke/stl10",
            hub_revision="49ae7f94508f7feae62baf836db284306eab0b0f",
            confirmed=True,
            confirmation="revision and count in MTEB's tasks, files on its Hub page",
            literature_template=THIS_IS,
            ensemble=PLAIN,
            licence="not stated by its authors; ImageNet photographs, free for research",
            citation="Coates, Ng and Lee, An Analysis of Single-Layer Networks in Unsupervised Feature Learning, 2011",
            class_order_hash="sha256:e14065ae02364c274022e96782c0172fc5d2ad55829174c632a6fc7976aca529",
        ),
    )
    registry.add(
        "pcam",
        DatasetSpec(
            name="pcam",
            title="PatchCamelyon",
            grid=(96, 96, 3),
            template=PHOTO,
            splits={"train": SplitSource("pcam", "train", 262_144), "test": SplitSource("pcam", "test", 32_768)},
            evaluation_split="test",
            image_column="webp",
            label_column="cls",
            hub_id="clip-benchmark/wds_vtab-pcam",
            hub_revision="502695fe1a141108650e3c5b91c8b5e0ff84ed49",
            hub_layout="webdataset",
            confirmed=True,
            confirmation="revision, columns and test count in MTEB's tasks; tars, splits and counts on its Hub page",
            literature_template="This is a photo of {}.",
            ensemble=("this is a photo of {}",),
            licence="CC0",
            citation="Veeling et al., Rotation Equivariant CNNs for Digital Pathology, MICCAI 2018",
            class_order_hash="sha256:fa20aa5905d83996aebb87303c1ac431c83d5f6b2840df3d0ee587b1310f3d60",
        ),
    )
