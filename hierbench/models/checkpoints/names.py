"""The words for checkpoint layouts, for command lines and messages; nothing heavy."""

from __future__ import annotations

AUTO = "auto"
LAYOUTS: dict[str, str] = {
    "visual": "a bare state dict of the image tower (RobustVLM: FARE, TeCoA)",
    "vision-encoder": "a dict with vision_encoder_state_dict, epoch, optimizer (TeCoA, PMG-AFT, TGA-ZSR, SAFT)",
    "modules": "a dict of modules with clip.visual, and params (AGFT)",
    "data-parallel": "every name behind 'module.', alone or under model or state_dict (MMCoA)",
    "full": "both towers, alone or under state_dict (open_clip, OpenAI)",
}
SUFFIXES = (".pt", ".pth", ".bin", ".ckpt", ".tar", ".safetensors", ".th", ".pkl")
"""Endings by which a path that does not exist is taken for a checkpoint's."""
