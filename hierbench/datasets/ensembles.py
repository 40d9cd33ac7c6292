"""Prompt templates: ours, the literature's single ones, and the ensembles of CLIP's zero-shot evaluation.

The ensembles are those that Radford et al. 2021 (arXiv 2103.00020) published with CLIP for the data set, or, where the
published list is long, the part of it that speaks of pictures. ``{}`` stands for a class's bare name.
"""

from __future__ import annotations

PHOTO = "This is a photo of {noun}."
"""Our prompt for photographs: the noun phrase carries its own article."""

THIS_IS = "This is a photo of a {}."
A_PHOTO = "A photo of a {}."


def _both_articles(*templates: str) -> tuple[str, ...]:
    """Return each template with ``a {}`` and with ``the {}``."""
    return tuple(t.format(article + " {}") for article in ("a", "the") for t in templates)


PLAIN = ("a photo of a {}.", "a photo of the {}.")

CIFAR = _both_articles(
    "a photo of {}.",
    "a blurry photo of {}.",
    "a black and white photo of {}.",
    "a low contrast photo of {}.",
    "a high contrast photo of {}.",
    "a bad photo of {}.",
    "a good photo of {}.",
)

IMAGENET = (
    "itap of a {}.",
    "a bad photo of the {}.",
    "a origami {}.",
    "a photo of the large {}.",
    "a {} in a video game.",
    "art of the {}.",
    "a photo of the small {}.",
)
"""The seven that CLIP's authors chose out of eighty."""

CALTECH = _both_articles(
    "a photo of {}.",
    "a painting of {}.",
    "a sculpture of {}.",
    "a sketch of {}.",
    "a drawing of {}.",
    "a rendition of {}.",
    "a cartoon of {}.",
    "art of {}.",
)

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


def kind(of: str) -> tuple[str, ...]:
    """Return the two templates that add what kind of thing it is."""
    return (f"a photo of a {{}}, a type of {of}.", f"a photo of the {{}}, a type of {of}.")
