"""Catalogue entries of fine-grained classes at 224 pixels: food, animals, plants, vehicles."""

from __future__ import annotations

from hierbench.datasets.ensembles import A_PHOTO, CARS, PHOTO, PLAIN, kind
from hierbench.datasets.spec import DatasetSpec, SplitSource
from hierbench.registry import Registry


def fill(registry: Registry[DatasetSpec]) -> None:
    """Add the entries."""
    registry.add(
        "food101",
        DatasetSpec(
            name="food101",
            title="Food-101",
            grid=(224, 224, 3),
            template=PHOTO,
            splits={
                "train": SplitSource("food101", "train", 75_750),
                "validation": SplitSource("food101", "validation", 25_250),
            },
            evaluation_split="validation",
            hub_id="ethz/food101",
            hub_revision="e06acf2a88084f04bce4d4a525165d68e0a36c38",
            confirmed=True,
            confirmation="revision and split in MTEB's tasks; columns in public code that loads it",
            literature_template="A photo of {}, a type of food.",
            ensemble=("a photo of {}, a type of food.",),
            licence="not stated by its authors; photographs of Foodspotting, for research",
            citation="Bossard, Guillaumin and Van Gool, Food-101, ECCV 2014",
            class_order_hash="sha256:eb6b396455a281445a698d8af22b2142be9a6eb9401520ee702746545f1c8820",
        ),
    )
    registry.add(
        "oxford_pets",
        DatasetSpec(
            name="oxford_pets",
            title="Oxford-IIIT Pet",
            grid=(224, 224, 3),
            template=PHOTO,
            splits={
                "train": SplitSource("oxford-pets", "train", 3_680),
                "test": SplitSource("oxford-pets", "test", 3_669),
            },
            evaluation_split="test",
            hub_id="timm/oxford-iiit-pet",
            hub_revision="10b688881011725fa2fa3d856a47536c9a7e6968",
            confirmed=True,
            confirmation="revision, files and splits on its Hub page; columns in public code that loads it",
            literature_template="A photo of a {}, a type of pet.",
            ensemble=kind("pet"),
            licence="CC BY-SA 4.0",
            citation="Parkhi et al., Cats and Dogs, CVPR 2012",
            class_order_hash="sha256:956787e7fabada0bd8a787af35d4a963c56fe5a577e720a6fce2bfa4aefcfc5c",
        ),
    )
    registry.add(
        "flowers102",
        DatasetSpec(
            name="flowers102",
            title="Oxford Flowers-102",
            grid=(224, 224, 3),
            template=PHOTO,
            splits={
                "train": SplitSource("flowers102", "train", 1_020),
                "validation": SplitSource("flowers102", "validation", 1_020),
                "test": SplitSource("flowers102", "test", 6_149),
            },
            evaluation_split="test",
            hub_id="dpdl-benchmark/oxford_flowers102",
            hub_revision="544b55c9af69a05742ead7571cd7ae23cfcd758b",
            confirmed=True,
            confirmation="revision, files, splits and counts on its Hub page; columns in public code that loads it",
            literature_template="A photo of a {}, a type of flower.",
            ensemble=kind("flower"),
            licence="not stated by its authors; free for research",
            citation="Nilsback and Zisserman, Automated Flower Classification over a Large Number of Classes, 2008",
            class_order_hash="sha256:a4b8a511cea0b10bf08cc3e60830d5f8500bc29c3577798eb5dfb10000179ecb",
        ),
    )
    registry.add(
        "fgvc_aircraft",
        DatasetSpec(
            name="fgvc_aircraft",
            title="FGVC-Aircraft, 100 variants",
            grid=(224, 224, 3),
            template=PHOTO,
            splits={
                "train": SplitSource("fgvc-aircraft", "train", 3_334),
                "validation": SplitSource("fgvc-aircraft", "validation", 3_333),
                "test": SplitSource("fgvc-aircraft", "test", 3_333),
            },
            evaluation_split="test",
            label_column="variant",
            hub_id="mteb/FGVCAircraft",
            hub_revision="3ae0e4e94e37c610c26df758ec3255fa90d80e67",
            confirmation="id, revision, columns and test split in MTEB's tasks; the other splits and the label names "
            "were not seen",
            literature_template="A photo of a {}, a type of aircraft.",
            ensemble=kind("aircraft", both=True),
            licence="for non-commercial research only",
            citation="Maji et al., Fine-Grained Visual Classification of Aircraft, arXiv 1306.5151",
            class_order_hash="sha256:c18bc8554dcc4335b86c81068fc585972707520110dcaa94dedef75fad45ac91",
        ),
    )
    registry.add(
        "stanford_cars",
        DatasetSpec(
            name="stanford_cars",
            title="Stanford Cars",
            grid=(224, 224, 3),
            template=PHOTO,
            splits={
                "train": SplitSource("stanford-cars", "train", 8_144),
                "test": SplitSource("stanford-cars", "test", 8_041),
            },
            evaluation_split="test",
            hub_id="tanganke/stanford_cars",
            hub_revision="9abf6cf7d6dfa7b95152a0d6e791ea9435b47a40",
            confirmed=True,
            confirmation="revision, columns and the number of rows and labels in public code that pins them",
            literature_template=A_PHOTO,
            ensemble=CARS,
            licence="for research only; the photographs are their owners'",
            citation="Krause et al., 3D Object Representations for Fine-Grained Categorization, 2013",
            class_order_hash="sha256:0bb3fe9ee9722a8848b24145119678d571841b4855b6f6aad9e9f013dc81381d",
        ),
    )
    registry.add(
        "cub200",
        DatasetSpec(
            name="cub200",
            title="Caltech-UCSD Birds-200-2011",
            grid=(224, 224, 3),
            template=PHOTO,
            splits={"train": SplitSource("cub200", "train", 5_994), "test": SplitSource("cub200", "test", 5_794)},
            evaluation_split="test",
            hub_id="bentrevett/caltech-ucsd-birds-200-2011",
            hub_revision="c1492c7cfd03de0c6b57b19f1d89cefd446e41fb",
            confirmed=True,
            confirmation="revision, files and splits on its Hub page; columns in public code that loads it",
            literature_template="A photo of a {}, a type of bird.",
            ensemble=kind("bird"),
            licence="for non-commercial research only; the photographs are their owners'",
            citation="Wah et al., The Caltech-UCSD Birds-200-2011 Dataset, 2011",
            class_order_hash="sha256:11997b8d4bf6ffb89f9b36124377e62f0296aa718654cc3d97049f2afc61dc44",
        ),
    )
    registry.add(
        "inaturalist",
        DatasetSpec(
            name="inaturalist",
            title="iNaturalist 2021, 100 of its species",
            grid=(224, 224, 3),
            template=PHOTO,
            splits={"validation": SplitSource("inaturalist", "validation", 1_000, on_hub=False)},
            evaluation_split="validation",
            other_classes=True,
            confirmation="no Hub copy of this subset: unpack the validation images of 2021 (10 a species) as they are",
            literature_template=A_PHOTO,
            ensemble=PLAIN,
            licence="each photograph under its author's licence; for non-commercial research",
            citation="Van Horn et al., Benchmarking Representation Learning for Natural World Image Collections, 2021",
            class_order_hash="sha256:f18b9df48cdf233aa1026916fef97a843dcffe3e5376b9234187fca630f181c8",
        ),
    )
