"""From a backbone's name to its towers, through open_clip: a folder, the Hub, a tag, or weights drawn from a seed."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from hierbench.errors import InputError
from hierbench.models.backbones import CONFIG_FILE, PICKLED_FILE, RANDOM, WEIGHTS_FILE, BackboneName
from hierbench.models.checkpoints.container import read_container
from hierbench.models.checkpoints.fit import load_strictly
from hierbench.models.facts import text_activation
from hierbench.models.fetching import commit_of, hub_file, quiet
from hierbench.models.pixels import PixelInput
from hierbench.models.published import PUBLISHED
from hierbench.models.text import projection

_CONFIG_LIMIT = 1 << 20


@dataclass(frozen=True)
class Towers:
    """An open_clip model in fp32 and eval mode, with its tokenizer and its pixel input."""

    clip: Any
    tokenizer: Callable[[list[str]], Tensor]
    pixels: PixelInput
    source: str | None
    """Where the weights came from, in words; None where the name says it all."""


def load_towers(name: BackboneName) -> Towers:
    """Return a backbone's towers; see ``load_backbone`` for the names and the errors."""
    if name.kind == "folder":
        return from_folder(Path(name.place).expanduser())
    if name.kind == "hub":
        return _from_hub(name)
    return _from_architecture(name)


def from_folder(folder: Path, *, source: str | None = None) -> Towers:
    """Return the towers of a folder with open_clip's configuration and weights beside it.

    Raises ``InputError`` naming the file that is missing, damaged or of another shape.
    """
    weights = next((folder / n for n in (WEIGHTS_FILE, PICKLED_FILE) if (folder / n).is_file()), folder / WEIGHTS_FILE)
    for path in (folder / CONFIG_FILE, weights):
        if not path.is_file():
            raise InputError(f"backbone: {path} is missing; the folder needs {CONFIG_FILE} and {WEIGHTS_FILE}")
    pixels = _pixels(folder / CONFIG_FILE)
    clip, tokenizer = _build(f"local-dir:{folder}", where=str(folder / CONFIG_FILE))
    _, state = read_container(weights)
    load_strictly(clip, state, where=weights)
    return Towers(clip.float().eval(), tokenizer, pixels, source)


def _from_hub(name: BackboneName) -> Towers:
    what = f"backbone {name.name}"
    config = hub_file(name.place, [CONFIG_FILE], what=what, revision=name.detail)
    commit = commit_of(config) or name.detail
    hub_file(name.place, [WEIGHTS_FILE, PICKLED_FILE], what=what, revision=commit)
    towers = from_folder(config.parent, source=None if commit is None else f"Hub commit {commit}")
    _check_activation(name.name, towers.clip)
    return towers


def _check_activation(name: str, clip: Any) -> None:
    """Refuse a published model whose configuration has lost the activation its weights were trained with."""
    if name not in PUBLISHED:
        return
    wanted, found = PUBLISHED.get(name).activation, text_activation(clip)
    if found != wanted:
        raise InputError(
            f"backbone {name}: its configuration builds {found}, its weights were trained with {wanted}; copy the "
            f"repository, set quick_gelu in {CONFIG_FILE}, and give it as local-dir:FOLDER"
        )


def _from_architecture(name: BackboneName) -> Towers:
    """Return an architecture's towers with a tag's weights, or with random ones; what is wrong is found out first."""
    _check_architecture(name)
    if name.kind == "random":
        clip, tokenizer = draw_towers(name.place, seed=int(name.detail or 0))
        pixels = _pixel_input(clip.visual.preprocess_cfg["size"], clip.visual.preprocess_cfg, name.name)
        return Towers(clip.float().eval(), tokenizer, pixels, f"{RANDOM}, seed {name.detail or 0}")
    config = _tag(name)
    path = _fetch_tag(name, config)
    clip, tokenizer = draw_towers(name.place)
    _load_tag(clip, path, what=f"backbone {name.name}")
    preprocess = dict(clip.visual.preprocess_cfg)
    preprocess.update({key: config[key] for key in ("mean", "std") if config.get(key) is not None})
    commit = commit_of(path)
    source = None if commit is None else f"Hub commit {commit}"
    return Towers(clip.float().eval(), tokenizer, _pixel_input(preprocess["size"], preprocess, name.name), source)


def draw_towers(architecture: str, *, seed: int = 0) -> tuple[Any, Any]:
    """Return (open_clip model with weights drawn from a seed, tokenizer); the caller's generator stays as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return _build(architecture, where=f"architecture {architecture}")


def _check_architecture(name: BackboneName) -> None:
    import open_clip

    known = open_clip.list_models()
    if name.place in known:
        return
    import difflib

    near = difflib.get_close_matches(name.place, known, n=3)
    hint = "did you mean " + " or ".join(map(repr, near)) + "?" if near else "open_clip.list_models() has them all"
    raise InputError(
        f"backbone {name.name}: open_clip knows no architecture {name.place!r}, nor is {name.name} a file or a folder "
        f"here; {hint}"
    )


def _tag(name: BackboneName) -> dict[str, Any]:
    """Return open_clip's entry of a tag, checked against the architecture."""
    import open_clip

    config: dict[str, Any] = open_clip.get_pretrained_cfg(name.place, name.detail)
    if not config:
        tags = open_clip.list_pretrained_tags_by_model(name.place)
        plain = name.place.removesuffix("-quickgelu")
        if name.detail in open_clip.list_pretrained_tags_by_model(plain):
            config = open_clip.get_pretrained_cfg(plain, name.detail)
        else:
            shown = ", ".join(tags[:8]) + (f" and {len(tags) - 8} more" if len(tags) > 8 else "")
            raise InputError(f"backbone {name.name}: {name.place} has no tag {name.detail!r}; it has {shown or 'none'}")
    _check_quickgelu(name, bool(config.get("quick_gelu", False)))
    return config


def _fetch_tag(name: BackboneName, config: dict[str, Any]) -> Path:
    what = f"backbone {name.name}"
    repository, _, file = str(config.get("hf_hub") or "").rpartition("/")
    if repository:
        return hub_file(repository, [file] if file else [WEIGHTS_FILE, PICKLED_FILE], what=what)
    return _download(config, what=what)


def _load_tag(clip: Any, path: Path, *, what: str) -> None:
    import open_clip

    with quiet():
        try:
            open_clip.load_checkpoint(clip, str(path), strict=True, weights_only=True)
        except Exception as error:  # noqa: BLE001 (whatever a cut-off download makes the readers raise)
            first = str(error).split("\n", 1)[0]
            raise InputError(f"{what}: {path} does not load ({first}); delete it, and it is fetched again") from None


def _check_quickgelu(name: BackboneName, tag_has_it: bool) -> None:
    """Refuse a tag whose weights want another activation than the architecture builds: open_clip would only warn."""
    import open_clip

    built = bool((open_clip.get_model_config(name.place) or {}).get("quick_gelu", False))
    if built == tag_has_it:
        return
    plain = name.place.removesuffix("-quickgelu")
    right = f"{plain}-quickgelu" if tag_has_it else plain
    words = ("with", "without") if tag_has_it else ("without", "with")
    raise InputError(
        f"backbone {name.name}: the weights {name.detail} were trained {words[0]} QuickGELU and {name.place} is built "
        f"{words[1]} it; say {right}/{name.detail}"
    )


def _download(config: dict[str, Any], *, what: str) -> Path:
    import open_clip

    try:
        with quiet():
            return Path(open_clip.download_pretrained(config))
    except Exception as error:  # noqa: BLE001 (the client raises what its transport raises)
        first = str(error).split("\n", 1)[0]
        raise InputError(
            f"{what}: its weights could not be fetched ({first}); bring them in a folder and say --backbone "
            "local-dir:FOLDER (docs/checkpoints.md)"
        ) from None


def _build(name: str, *, where: str) -> tuple[Any, Any]:
    """Return (open_clip model without weights, tokenizer)."""
    import open_clip

    with quiet():
        try:
            clip = open_clip.create_model(name, load_weights=False, pretrained_hf=False)
            projection(clip)
            _check_tokenizer(name)
            tokenizer = open_clip.get_tokenizer(name, context_length=_context_length(clip))
        except InputError:
            raise
        except Exception as error:  # noqa: BLE001 (a stranger's configuration reaches many constructors)
            first = str(error).split("\n", 1)[0]
            raise InputError(f"backbone: open_clip cannot build {where} ({type(error).__name__}: {first})") from None
    return clip, tokenizer


def _check_tokenizer(architecture: str) -> None:
    """Fetch an architecture's own tokenizer where it has one: the library that reads it would ask for minutes."""
    import open_clip

    text = (open_clip.get_model_config(architecture) or {}).get("text_cfg", {})
    if text.get("hf_tokenizer_name"):
        hub_file(text["hf_tokenizer_name"], ["tokenizer_config.json"], what=f"the tokenizer of {architecture}")


def _context_length(clip: Any) -> int | None:
    own = getattr(clip, "context_length", None)
    return getattr(getattr(clip, "text", None), "context_length", None) if own is None else int(own)


def _pixels(path: Path) -> PixelInput:
    """Return what open_clip's configuration says of the image tower's input."""
    try:
        if path.stat().st_size > _CONFIG_LIMIT:
            raise ValueError("larger than 1 MiB")
        config = json.loads(path.read_text(encoding="utf-8"))
        preprocess, size = config["preprocess_cfg"], config["model_cfg"]["vision_cfg"]["image_size"]
        config["model_cfg"]["text_cfg"]["context_length"]
        return _pixel_input(size, preprocess, str(path))
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise InputError(f"backbone: {path} is not an open_clip configuration ({error})") from None


def _pixel_input(size: Any, preprocess: dict[str, Any], where: str) -> PixelInput:
    sides = (size, size) if isinstance(size, int) else tuple(size)
    if len(set(sides)) != 1:
        raise InputError(f"backbone {where}: images of {sides} pixels; hierbench's image towers take squares")
    mean, std = (tuple(float(v) for v in preprocess[key]) for key in ("mean", "std"))
    if len(mean) != 3 or len(std) != 3 or min(std) <= 0:
        raise ValueError("mean and std should be three numbers each, std above 0")
    return PixelInput(int(sides[0]), mean, std)
