"""Backbones and robust models that others published, by name: what is known of each, and where it was read."""

from __future__ import annotations

from dataclasses import dataclass

from hierbench.registry import Registry

_TAGS = "the Hub copy is the one that open_clip names for the tag"
_COLLECTION = "named in public code that loads it and in the table of its authors' repository"


@dataclass(frozen=True)
class PublishedModel:
    """A model that open_clip fetches from the Hub; ``name`` is what ``--model`` and ``--backbone`` take."""

    name: str
    summary: str
    hub_id: str
    activation: str
    """Non-linearity of the transformer layers its weights were trained with; another one is refused."""
    image_size: int
    training: str
    published_protocol: str
    """How the literature evaluates it: a protocol of ``hierbench list protocols`` where there is one."""
    confirmed: bool
    confirmation: str


def _clip(
    name: str, title: str, hub_id: str, protocol: str, *, activation: str = "gelu", size: int = 224, data: str
) -> PublishedModel:
    return PublishedModel(
        name=name,
        summary=f"{title}, undefended",
        hub_id=hub_id,
        activation=activation,
        image_size=size,
        training=f"contrastive, on {data}",
        published_protocol=protocol,
        confirmed=True,
        confirmation=_TAGS,
    )


def _robust(hub_id: str, summary: str, protocol: str, confirmation: str, **facts: object) -> PublishedModel:
    given = {"activation": "gelu", "image_size": 224, "confirmed": True, **facts}
    return PublishedModel(
        name=f"hf-hub:{hub_id}",
        summary=summary,
        hub_id=hub_id,
        published_protocol=protocol,
        confirmation=confirmation,
        **given,  # type: ignore[arg-type]
    )


_OPENAI = "400 million image-text pairs of OpenAI's"
_FARE = "fare-v1"
_METRICS = (
    "no protocol here; fine-tuned as for fare-v1 (linf 4/255 on ImageNet), published with arXiv 2502.11725 on "
    "perceptual metrics"
)
_NO_ATTACK = "none with attacks; clean zero-shot accuracy, as open_clip prints it"
_QUICK_UNSEEN = "; its configuration was not seen, so that its activation is the one of the weights it started from"


def _fill(registry: Registry[PublishedModel]) -> None:
    entries = (
        _clip(
            "ViT-B-32-quickgelu/openai", "OpenAI CLIP ViT-B/32", "timm/vit_base_patch32_clip_224.openai",
            "imagenet-eps1-v1, tiny224-eps1-v1", activation="quickgelu", data=_OPENAI,
        ),
        _clip(
            "ViT-B-16-quickgelu/openai", "OpenAI CLIP ViT-B/16", "timm/vit_base_patch16_clip_224.openai",
            _NO_ATTACK, activation="quickgelu", data=_OPENAI,
        ),
        _clip(
            "ViT-L-14-quickgelu/openai", "OpenAI CLIP ViT-L/14", "timm/vit_large_patch14_clip_224.openai",
            _FARE, activation="quickgelu", data=_OPENAI,
        ),
        _clip(
            "RN50-quickgelu/openai", "OpenAI CLIP ResNet-50", "timm/resnet50_clip.openai",
            _NO_ATTACK, activation="quickgelu", data=_OPENAI,
        ),
        _clip(
            "ViT-B-32/laion2b_s34b_b79k", "LAION CLIP ViT-B/32", "laion/CLIP-ViT-B-32-laion2B-s34B-b79K",
            _NO_ATTACK, data="LAION-2B",
        ),
        _clip(
            "ViT-B-16/laion2b_s34b_b88k", "LAION CLIP ViT-B/16", "laion/CLIP-ViT-B-16-laion2B-s34B-b88K",
            _NO_ATTACK, data="LAION-2B",
        ),
        _clip(
            "ViT-L-14/laion2b_s32b_b82k", "LAION CLIP ViT-L/14", "laion/CLIP-ViT-L-14-laion2B-s32B-b82K",
            _NO_ATTACK, data="LAION-2B",
        ),
        _clip(
            "convnext_base/laion400m_s13b_b51k", "LAION CLIP ConvNeXt-B",
            "laion/CLIP-convnext_base-laion400M-s13B-b51K", _NO_ATTACK, data="LAION-400M",
        ),
        _clip(
            "convnext_base_w/laion2b_s13b_b82k_augreg", "LAION CLIP ConvNeXt-B, wide embedding",
            "laion/CLIP-convnext_base_w-laion2B-s13B-b82K-augreg", _NO_ATTACK, size=256, data="LAION-2B",
        ),
        *(
            _robust(
                f"chs20/{method.lower()}{radius}-clip", f"{method} of OpenAI CLIP ViT-L/14, eps {radius}/255", _FARE,
                seen + _QUICK_UNSEEN, activation="quickgelu", confirmed=False,
                training=f"{how} adversarial fine-tuning on ImageNet, linf {radius}/255 (arXiv 2402.12336)",
            )
            for method, radius, how, seen in (
                ("TeCoA", 2, "supervised", "its authors' Hub collection names it"),
                ("TeCoA", 4, "supervised", "its Hub page"),
                ("FARE", 2, "unsupervised", "its Hub page"),
                ("FARE", 4, "unsupervised", "its Hub page"),
            )
        ),
        *(
            _robust(
                f"chs20/{method}4-{base}", f"{method} of LAION CLIP {tower}, eps 4/255", _METRICS,
                _COLLECTION, image_size=size,
                training=f"{how} adversarial fine-tuning on ImageNet, linf 4/255, from laion/CLIP-{base}",
            )
            for method, how in (("TeCoA", "supervised"), ("FARE", "unsupervised"))
            for base, tower, size in (
                ("ViT-B-32-laion2B-s34B-b79K", "ViT-B/32", 224),
                ("ViT-B-16-laion2B-s34B-b88K", "ViT-B/16", 224),
                ("convnext_base_w-laion2B-s13B-b82K-augreg", "ConvNeXt-B (wide)", 256),
            )
        ),
    )  # fmt: skip
    for entry in entries:
        registry.add(entry.name, entry)


PUBLISHED: Registry[PublishedModel] = Registry("published model", plural="published", fill=_fill)
