"""What a model's towers are, read from the towers themselves: what a record has to say of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch import nn

if TYPE_CHECKING:
    from collections.abc import Iterable

    from hierbench.models.zeroshot import ZeroShotModel

_NO_ACTIVATION = (nn.MultiheadAttention, nn.Softmax, nn.LogSoftmax, nn.Softmin, nn.Softmax2d)
_PLAIN = {"relu", "gelu"}


def activation(clip: nn.Module) -> str:
    """Return the towers' non-linearities: one word where both have one, else a word for each.

    Loaders lose QuickGELU in silence, and no tensor tells it from GELU. METHODS.md 7.
    """
    image, text = _kinds(_parts(clip, image=True)), _kinds(_parts(clip, image=False))
    return image if image == text else f"image {image}, text {text}"


def text_activation(clip: nn.Module) -> str:
    """Return the non-linearity of the text tower, which every architecture here has as a module."""
    return _kinds(_parts(clip, image=False))


def hidden_activation(clip: nn.Module) -> str | None:
    """Return the activation where a hash over tensors must name it, None where it goes without saying.

    Hashes from before there was a choice are of towers with GELU and ReLU, which stay as they were.
    """
    found = activation(clip)
    words = {word for part in found.split(", ") for word in part.split(" ")[-1].split("+")}
    return None if words <= _PLAIN | {"none"} else found


def towers(model: ZeroShotModel) -> dict[str, Any]:
    """Return what is resolved about a model's towers, as plain values by name."""
    info = model.info
    length = getattr(model.clip, "context_length", None)
    if length is None:
        length = getattr(getattr(model.clip, "text", None), "context_length", None)
    facts: dict[str, Any] = {
        "activation": model.activation,
        "image_size": model.pixels.size,
        "resize": "bicubic",
        "mean": [round(v, 6) for v in model.pixels.mean.flatten().tolist()],
        "std": [round(v, 6) for v in model.pixels.std.flatten().tolist()],
        "context_length": None if length is None else int(length),
        "precision": str(model.text_projection.dtype).removeprefix("torch."),
        "weights": info.weights,
    }
    if info.checkpoint is not None:
        facts |= {f"checkpoint.{name}": value for name, value in info.checkpoint.as_dict().items()}
    return {name: value for name, value in facts.items() if value is not None}


def _parts(clip: nn.Module, *, image: bool) -> Iterable[nn.Module]:
    return (m for name, m in clip.named_modules() if name.startswith("visual.") is image and name != "visual")


def _kinds(modules: Iterable[nn.Module]) -> str:
    return "+".join(sorted({kind for module in modules if (kind := _kind(module))})) or "none"


def _kind(module: nn.Module) -> str | None:
    kind = type(module)
    library = kind.__module__.startswith(("torch.nn.modules.activation", "timm.layers.activations"))
    if isinstance(module, _NO_ACTIVATION) or not (library or kind.__name__ == "QuickGELU"):
        return None
    name = kind.__name__.lower()
    tanh = name == "gelutanh" or (name == "gelu" and getattr(module, "approximate", "none") == "tanh")
    return "gelu_tanh" if tanh else name
