"""Catalogue entries of objects, scenes, textures and satellite pictures at 224 pixels."""

from __future__ import annotations

from hierbench.datasets.ensembles import A_PHOTO, CALTECH, PHOTO, PLAIN, SATELLITE, TEXTURES, THIS_IS
from hierbench.datasets.spec import DatasetSpec, SplitSource
from hierbench.registry import Registry


def fill(registry: Registry[DatasetSpec]) -> None:
    """Add the entries."""
    registry.add(
        "sun397",
        DatasetSpec(
            name="sun397",
            title="SUN397 scenes, first official partition",
            grid=(224, 224, 3),
            template=PHOTO,
            splits={"train": SplitSource("sun397", "train", 19_850), "test": SplitSource("sun397", "test", 19_850)},
            evaluation_split="test",
            hub_id="tanganke/sun397",
            hub_revision="9c4afd6174afa3974f209a0ef099dbbe244dfd27",
            confirmed=True,
            confirmation="revision, Parquet files and counts on its Hub page; columns in public code that loads it",
            literature_template=THIS_IS,
            ensemble=PLAIN,
            licence="not stated by its authors; free for research",
            citation="Xiao et al., SUN Database: Large-scale Scene Recognition from Abbey to Zoo, CVPR 2010",
            class_order_hash="sha256:35a9e3997632ec86b7f1b468e2f5de4599d7ffeceb8e5e25001c53b895b6873c",
        ),
    )
    registry.add(
        "dtd",
        DatasetSpec(
            name="dtd",
            title="Describable Textures, first official partition",
            grid=(224, 224, 3),
            template=PHOTO,
            splits={"train": SplitSource("dtd", "train", 3_760), "test": SplitSource("dtd", "test", 1_880)},
            evaluation_split="test",
            hub_id="tanganke/dtd",
            hub_revision="d2afa97d9f335b1a6b3b09c637aef667f98f966e",
            confirmed=True,
            confirmation="revision in MTEB's tasks and on its Hub page; columns, counts and label names in its card",
            literature_template="A surface with a {} texture.",
            ensemble=TEXTURES,
            licence="for research only",
            citation="Cimpoi et al., Describing Textures in the Wild, CVPR 2014",
            class_order_hash="sha256:b5a36bd7012d5b019f0330d9c2ed1c9ed9a92d9698368220b0e6fe25acd86367",
        ),
    )
    registry.add(
        "eurosat",
        DatasetSpec(
            name="eurosat",
            title="EuroSAT land cover (RGB)",
            grid=(224, 224, 3),
            template=PHOTO,
            splits={
                "train": SplitSource("eurosat", "train", 16_200),
                "validation": SplitSource("eurosat", "validation", 5_400),
                "test": SplitSource("eurosat", "test", 5_400),
            },
            evaluation_split="test",
            hub_id="timm/eurosat-rgb",
            hub_revision="b4e28552cd5f3932b6abc37eb20d3e84901ad728",
            confirmed=True,
            confirmation="revision and test count in MTEB's tasks; files and splits on its Hub page",
            literature_template="A centered satellite photo of {}.",
            ensemble=SATELLITE,
            licence="MIT",
            citation="Helber et al., EuroSAT: A Novel Dataset and Deep Learning Benchmark, JSTARS 2019",
            class_order_hash="sha256:96e6198d27ea1906f33945ff5d6410826dd66b46212d612b0d890bfac99f341f",
        ),
    )
    registry.add(
        "caltech101",
        DatasetSpec(
            name="caltech101",
            title="Caltech-101 with its background class, split of the VTAB",
            grid=(224, 224, 3),
            template=PHOTO,
            splits={
                "train": SplitSource("caltech101", "train", 2_753, exact=False),
                "test": SplitSource("caltech101", "test", 6_085, exact=False),
            },
            evaluation_split="test",
            image_column="webp",
            label_column="cls",
            hub_id="clip-benchmark/wds_vtab-caltech101",
            hub_revision="96c3ed2decb80d5fe120fb8a0179f25c82cbee78",
            hub_layout="webdataset",
            confirmation="revision, tars and splits on its Hub page; the counts are shown there rounded "
            "(2.75k, 6.09k), and the image suffix (webp) was not seen",
            literature_template=A_PHOTO,
            ensemble=CALTECH,
            licence="CC BY 4.0",
            citation="Fei-Fei, Fergus and Perona, Learning Generative Visual Models from Few Training Examples, 2004",
            class_order_hash="sha256:df99304b7e4f737409241ef2297cb653476f95d136d01b406ee51a5839fa47c4",
        ),
    )
    registry.add(
        "caltech256",
        DatasetSpec(
            name="caltech256",
            title="Caltech-256 with its clutter class, random split of the Hub copy",
            grid=(224, 224, 3),
            template=PHOTO,
            splits={
                "train": SplitSource("caltech256", "train", 24_791),
                "validation": SplitSource("caltech256", "validation", 2_755),
                "test": SplitSource("caltech256", "test", 3_061),
            },
            evaluation_split="test",
            label_column="text",  # the column `label` counts from 1
            hub_id="ilee0022/Caltech-256",
            hub_revision="39427b1218353f21eb5494ee7cfcf43bc2b5be58",
            confirmation="id, splits, counts, columns and the revision (of the Hub's Parquet conversion) on its Hub "
            "page; not every folder name in the column text was seen there",
            literature_template=A_PHOTO,
            ensemble=CALTECH,
            licence="CC BY 4.0",
            citation="Griffin, Holub and Perona, Caltech-256 Object Category Dataset, 2007",
            class_order_hash="sha256:59c5117a93b611aa9d46ad87a9d5b41db7b3aef629b6b1db230f87876a23bdc4",
        ),
    )
