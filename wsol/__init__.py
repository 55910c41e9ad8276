"""Weakly supervised object localization: gradient maps -> boxes -> scores."""

import importlib
import os

os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")  # it would ask the network when imported

# Loaded when asked for: who only scores maps need not wait for PyTorch.
_HOMES = {
    "CUB200": "wsol.data.cub",
    "ImageFolder": "wsol.data.image_folder",
    "Localization": "wsol.localizer.localization",
    "Localizer": "wsol.localizer.localizer",
}
__all__ = ["CUB200", "ImageFolder", "Localization", "Localizer", "boxes"]


def __getattr__(name: str) -> object:
    if name == "boxes":
        return importlib.import_module("wsol.boxes")
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'wsol' has no attribute {name!r}")
