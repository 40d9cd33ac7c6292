"""Prompt templates: ours, the literature's single ones, and the ensembles of CLIP's zero-shot evaluation.

The ensembles are those that Radford et al. 2021 (arXiv 2103.00020) published with CLIP for the data set, whole, which
CLIP-benchmark and the papers that evaluate by it use as well. ``{}`` stands for a class's bare name.
"""

from __future__ import annotations

ENSEMBLE = "ensemble"
"""What stands in place of a template for all those of the data set's ensemble, averaged."""

PHOTO = "This is a photo of {noun}."
"""Our prompt for photographs: the noun phrase carries its own article."""

THIS_IS = "This is a photo of a {}."
A_PHOTO = "A photo of a {}."


def _both_articles(*templates: str) -> tuple[str, ...]:
    """Return each template with ``a`` and with ``the`` in place of its asterisk."""
    return tuple(t.replace("*", article) for article in ("a", "the") for t in templates)


PLAIN = ("a photo of a {}.", "a photo of the {}.")

CIFAR = _both_articles(
    "a photo of * {}.",
    "a blurry photo of * {}.",
    "a black and white photo of * {}.",
    "a low contrast photo of * {}.",
    "a high contrast photo of * {}.",
    "a bad photo of * {}.",
    "a good photo of * {}.",
    "a photo of * small {}.",
    "a photo of * big {}.",
)

CALTECH = _both_articles(
    "a photo of * {}.",
    "a painting of * {}.",
    "a sculpture of * {}.",
    "a sketch of * {}.",
    "a tattoo of * {}.",
    "a rendition of * {}.",
    "a drawing of * {}.",
    "a doodle of * {}.",
    "art of * {}.",
    "graffiti of * {}.",
    "* cartoon {}.",
    "* embroidered {}.",
    "* origami {}.",
    "* plastic {}.",
    "* plushie {}.",
    "* toy {}.",
    "* {} in a video game.",
)

IMAGENET = (
    *CALTECH,
    *_both_articles(
        "a bad photo of * {}.",
        "a black and white photo of * {}.",
        "a blurry photo of * {}.",
        "a bright photo of * {}.",
        "a close-up photo of * {}.",
        "a cropped photo of * {}.",
        "a dark photo of * {}.",
        "a good photo of * {}.",
        "a jpeg corrupted photo of * {}.",
        "a low resolution photo of * {}.",
        "a pixelated photo of * {}.",
        "a rendering of * {}.",
        "a photo of * clean {}.",
        "a photo of * cool {}.",
        "a photo of * dirty {}.",
        "a photo of * hard to see {}.",
        "a photo of * large {}.",
        "a photo of * nice {}.",
        "a photo of * small {}.",
        "a photo of * weird {}.",
        "itap of * {}.",
    ),
    "itap of my {}.",
    "a photo of my {}.",
    "a photo of one {}.",
    "a photo of many {}.",
)
"""The eighty of CLIP's zero-shot evaluation."""

CARS = (
    "a photo of a {}.",
    "a photo of the {}.",
    "a photo of my {}.",
    "i love my {}!",
    "a photo of my dirty {}.",
    "a photo of my clean {}.",
    "a photo of my new {}.",
    "a photo of my old {}.",
)

TEXTURES = tuple(
    f"a photo of {article} {{}} {thing}."
    for article in ("a", "the")
    for thing in ("texture", "pattern", "thing", "object")
)

SATELLITE = (
    "a centered satellite photo of {}.",
    "a centered satellite photo of a {}.",
    "a centered satellite photo of the {}.",
)


def kind(of: str, *, both: bool = False) -> tuple[str, ...]:
    """Return the template that adds what kind of thing it is, or that and the one with ``the``."""
    return tuple(f"a photo of {article} {{}}, a type of {of}." for article in (("a", "the") if both else ("a",)))
