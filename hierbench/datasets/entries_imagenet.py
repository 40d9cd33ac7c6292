"""Catalogue entries of ImageNet and the sets over its classes, at 224 pixels."""

from __future__ import annotations

from hierbench.datasets.ensembles import IMAGENET, PHOTO, THIS_IS
from hierbench.datasets.spec import DatasetSpec, SplitSource
from hierbench.registry import Registry

TERMS = "ImageNet terms of access: non-commercial research, not for redistribution"


def fill(registry: Registry[DatasetSpec]) -> None:
    """Add the entries."""
    registry.add(
        "imagenet",
        DatasetSpec(
            name="imagenet",
            title="ImageNet-1k (ILSVRC 2012)",
            grid=(224, 224, 3),
            template=PHOTO,
            splits={
                "train": SplitSource("imagenet", "train", 1_281_167),
                "validation": SplitSource("imagenet", "validation", 50_000),
            },
            evaluation_split="validation",
            hub_id="ILSVRC/imagenet-1k",
            hub_revision="49e2ee26f3810fb5a7536bbf732a7b07389a47b5",
            gated=True,
            confirmed=True,
            confirmation="revision and files in public cache paths; columns in public code that loads it; label names "
            "in the public loader of the data set",
            literature_template=THIS_IS,
            ensemble=IMAGENET,
            licence=TERMS,
            citation="Russakovsky et al., ImageNet Large Scale Visual Recognition Challenge, IJCV 2015",
            class_order_hash="sha256:70002b0ff5de60a3a17a82dbfcff291931f96225ddf941ad2e182fc39e183d15",
        ),
    )
    registry.add(
        "imagenet_v2",
        DatasetSpec(
            name="imagenet_v2",
            title="ImageNet-V2, matched frequency",
            grid=(224, 224, 3),
            template=PHOTO,
            splits={"test": SplitSource("imagenet-v2", "test", 10_000)},
            evaluation_split="test",
            image_column="webp",
            label_column="cls",
            hub_id="clip-benchmark/wds_imagenetv2",
            hub_layout="webdataset",
            confirmation="id, split and columns in public code that loads it; of its revision only 98e9ba6 was seen, "
            "so it is unpinned",
            literature_template=THIS_IS,
            ensemble=IMAGENET,
            licence="MIT for the collection; the photographs are their owners'",
            citation="Recht et al., Do ImageNet Classifiers Generalize to ImageNet?, ICML 2019",
            class_order_hash="sha256:70002b0ff5de60a3a17a82dbfcff291931f96225ddf941ad2e182fc39e183d15",
            class_table="imagenet",
            trees_of="imagenet",
        ),
    )
    registry.add(
        "imagenet_r",
        DatasetSpec(
            name="imagenet_r",
            title="ImageNet-R(endition), 200 classes",
            grid=(224, 224, 3),
            template=PHOTO,
            splits={"test": SplitSource("imagenet-r", "test", 30_000)},
            evaluation_split="test",
            label_column="wnid",
            hub_id="axiong/imagenet-r",
            hub_revision="7bd290dfa619243b3475f0097ebb2c080d5a8b73",
            confirmed=True,
            confirmation="revision on its Hub page; split, columns and count in public code that loads it",
            literature_template=THIS_IS,
            ensemble=IMAGENET,
            licence="MIT for the collection; the pictures are their owners'",
            citation="Hendrycks et al., The Many Faces of Robustness, ICCV 2021",
            class_order_hash="sha256:a6a0729f7a99230280639cab6e51e01485a3b41a676ea35621a501c9d6e83ca4",
        ),
    )
    registry.add(
        "imagenet_sketch",
        DatasetSpec(
            name="imagenet_sketch",
            title="ImageNet-Sketch",
            grid=(224, 224, 3),
            template=PHOTO,
            splits={"test": SplitSource("imagenet-sketch", "test", 50_889)},
            evaluation_split="test",
            image_column="jpg",
            label_column="cls",
            hub_id="clip-benchmark/wds_imagenet_sketch",
            hub_revision="751cf0a06276ed52b015c5dfef068f161bd0dfb7",
            hub_layout="webdataset",
            confirmed=True,
            confirmation="revision, split and columns on its Hub page; the count is its authors'",
            literature_template=THIS_IS,
            ensemble=IMAGENET,
            licence="not stated by its authors; free for research",
            citation="Wang et al., Learning Robust Global Representations by Penalizing Local Predictive Power, 2019",
            class_order_hash="sha256:70002b0ff5de60a3a17a82dbfcff291931f96225ddf941ad2e182fc39e183d15",
            class_table="imagenet",
            trees_of="imagenet",
        ),
    )
    registry.add(
        "imagenet_a",
        DatasetSpec(
            name="imagenet_a",
            title="ImageNet-A, natural adversarial examples, 200 classes",
            grid=(224, 224, 3),
            template=PHOTO,
            splits={"test": SplitSource("imagenet-a", "train", 7_500)},
            evaluation_split="test",
            hub_id="barkermrl/imagenet-a",
            hub_revision="0358b7eed4fa2e7615870f8914ca055d35bbbb0b",
            confirmed=True,
            confirmation="revision (of the Hub's Parquet conversion) and files on its Hub page; columns and split in "
            "public code that loads it",
            literature_template=THIS_IS,
            ensemble=IMAGENET,
            licence="MIT for the collection; the photographs are their owners'",
            citation="Hendrycks et al., Natural Adversarial Examples, CVPR 2021",
            class_order_hash="sha256:9826a24166e74ce62fb87b27889874ca26917542c745712309d6e25855d63bc2",
        ),
    )
    nips = DatasetSpec(
        name="nips2017",
        title="NIPS 2017 adversarial competition, development set",
        grid=(224, 224, 3),
        template=PHOTO,
        splits={"test": SplitSource("imagenet-nips2017", "test", 1_000)},
        evaluation_split="test",
        check_column="wnid",
        confirmed=True,
        confirmation="no Hub copy: a local Parquet file with label = ImageNet index from 0 and wnid, or image folders",
        literature_template=THIS_IS,
        ensemble=IMAGENET,
        licence="CC BY 2.0, each image by the author named in its row",
        citation="Kurakin et al., Adversarial Attacks and Defences Competition, arXiv 1804.00097",
        class_order_hash="sha256:70002b0ff5de60a3a17a82dbfcff291931f96225ddf941ad2e182fc39e183d15",
        class_table="imagenet",
        trees_of="imagenet",
    )
    registry.add("nips2017", nips)
    registry.add("nips2017@32", nips.at_grid(32))
