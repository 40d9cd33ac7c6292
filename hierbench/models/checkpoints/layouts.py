"""The layouts in which the literature saves a fine-tuned CLIP, told apart by their keys."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from torch import Tensor

from hierbench.errors import InputError
from hierbench.models.checkpoints.names import AUTO, LAYOUTS
from hierbench.models.checkpoints.reporting import some

WRAPPERS = ("state_dict", "model", "model_state_dict")
PROMPTS = ("state_dict", "add_prompter", "prompter")
"""Where the TeCoA family keeps visual prompts, beside ``vision_encoder_state_dict``."""
OPENAI_NUMBERS = ("input_resolution", "context_length", "vocab_size")
"""OpenAI's full state dict states its sizes as tensors; open_clip's has none of them."""


@dataclass(frozen=True)
class Found:
    """The tensors of a checkpoint as the model names them."""

    layout: str
    part: Literal["visual", "full"]
    tensors: dict[str, Tensor]


@dataclass(frozen=True)
class Keys:
    """The names of a model's tensors: of its image tower alone, and of the whole."""

    visual: frozenset[str]
    full: frozenset[str]


def find_layout(content: Mapping[str, Any], keys: Keys, *, layout: str = AUTO, where: Path) -> Found:
    """Return the model's tensors in a checkpoint's content.

    ``layout`` is one of ``LAYOUTS``, or ``auto``. Raises ``InputError`` for a content of no layout, of another than the
    one named, or with visual prompts, which are no part of the towers.
    """
    if layout not in (AUTO, *LAYOUTS):
        raise InputError(f"--weights-layout: {layout!r} is none of {', '.join((AUTO, *LAYOUTS))}")
    found = _detect(content, keys, where)
    if layout not in (AUTO, found.layout):
        raise InputError(f"{where}: --weights-layout {layout}: its keys are those of layout {found.layout}")
    return found


def _detect(content: Mapping[str, Any], keys: Keys, where: Path) -> Found:
    if "vision_encoder_state_dict" in content:
        for name in PROMPTS:
            _refuse_prompts(content.get(name), name, where)
        tensors, _ = _plain(_tensors(content["vision_encoder_state_dict"], "vision_encoder_state_dict", where))
        return Found("vision-encoder", "visual", tensors)
    if isinstance(content.get("modules"), Mapping):
        return _modules(content, where)
    wrapper = next((name for name in WRAPPERS if isinstance(content.get(name), Mapping)), None)
    state = _tensors(content if wrapper is None else content[wrapper], wrapper, where)
    tensors, parallel = _plain(state)
    in_visual, in_full = len(keys.visual & set(tensors)), len(keys.full & set(tensors))
    if in_full and in_full >= in_visual and all(name.startswith("visual.") for name in tensors):
        tensors = {name.removeprefix("visual."): tensor for name, tensor in tensors.items()}
        return Found("data-parallel" if parallel else "visual", "visual", tensors)
    if not in_visual and not in_full:
        raise InputError(f"{where}: {_strange(list(state), wrapper)}")
    if in_visual > in_full:
        return Found("data-parallel" if parallel else "visual", "visual", tensors)
    for name in OPENAI_NUMBERS:
        if name not in keys.full:
            tensors.pop(name, None)
    return Found("data-parallel" if parallel else "full", "full", tensors)


def _modules(content: Mapping[str, Any], where: Path) -> Found:
    """Read AGFT's layout: trained modules by their dotted names, and trained parameters, which are prompts."""
    _refuse_prompts(content.get("params"), "params", where)
    modules = content["modules"]
    if set(modules) != {"clip.visual"}:
        names = some(sorted(str(name) for name in modules)) or "none"
        raise InputError(f"{where}: its 'modules' are {names}; layout modules has 'clip.visual' alone")
    tensors, _ = _plain(_tensors(modules["clip.visual"], "modules: clip.visual", where))
    return Found("modules", "visual", tensors)


def _refuse_prompts(state: Any, name: str, where: Path) -> None:
    prompts = [key for key, value in state.items() if _holds_numbers(value)] if isinstance(state, Mapping) else []
    if prompts:
        raise InputError(
            f"{where}: {name!r} holds a visual prompt ({some(prompts)}), which hierbench does not apply: without it "
            "this is another model than the one that was trained"
        )


def _holds_numbers(value: Any) -> bool:
    return isinstance(value, Tensor) and value.numel() > 0


def _tensors(state: Any, name: str | None, where: Path) -> dict[str, Tensor]:
    place = "its content" if name is None else repr(name)
    if not isinstance(state, Mapping) or not state or not all(isinstance(key, str) for key in state):
        raise InputError(f"{where}: {place} should be tensors by name, as state_dict() returns them")
    strange = [key for key, value in state.items() if not isinstance(value, Tensor)]
    if strange:
        first = type(state[strange[0]]).__name__
        raise InputError(
            f"{where}: {place} holds {some(strange)} beside tensors (the first is a {first}); it is none of the "
            f"layouts {', '.join(LAYOUTS)} (docs/checkpoints.md)"
        )
    return dict(state)


def _plain(state: dict[str, Tensor]) -> tuple[dict[str, Tensor], bool]:
    """Return a state dict without the prefix that DataParallel puts before every name, and whether it was there."""
    if state and all(name.startswith("module.") for name in state):
        return {name.removeprefix("module."): tensor for name, tensor in state.items()}, True
    return state, False


def _strange(names: list[str], wrapper: str | None) -> str:
    place = "its keys" if wrapper is None else f"the keys of {wrapper!r}"
    found = f"{place} ({some(names)}) name nothing in this backbone"
    known: tuple[tuple[Callable[[str], bool], str], ...] = (
        (lambda n: "vision_model." in n or "text_model." in n, "; they are those of transformers' CLIPModel: export it "
         "to open_clip's layout first"),
        (lambda n: n.startswith("clip."), "; they are those of a hierbench model: give its folder, not the file"),
    )  # fmt: skip
    hint = next((words for test, words in known if any(test(name) for name in names)), "")
    return f"{found}{hint or '; name the backbone it was trained from with --backbone'}"
