"""Weakly supervised object localization: gradient maps -> boxes -> scores.

Public names:
    evaluate: scores a model on a data set.
    Localizer: finds boxes in images.
    Localization: the boxes of one image.
    CUB200, ImageFolder: data sets.
    boxes: functions from heatmaps to boxes, and IoU.

They are imported when first used, so that scoring maps does not wait for PyTorch.
"""

import importlib

_MODULES = {
    "CUB200": "wsol.data.cub",
    "ImageFolder": "wsol.data.image_folder",
    "Localization": "wsol.localizer.localization",
    "Localizer": "wsol.localizer.localizer",
    "evaluate": "wsol.experiments.evaluate_model",
}
__all__ = ["CUB200", "ImageFolder", "Localization", "Localizer", "boxes", "evaluate"]


def __getattr__(name: str) -> object:
    if name == "boxes":
        return importlib.import_module("wsol.boxes")
    if name in _MODULES:
        return getattr(importlib.import_module(_MODULES[name]), name)
    raise AttributeError(f"module 'wsol' has no attribute {name!r}")
