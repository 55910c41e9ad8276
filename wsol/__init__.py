"""Weakly supervised object localization: gradient maps -> boxes -> scores.

Public names:
    evaluate: scores a model on a data set.
    Localizer: finds boxes in images.
    Localization: the boxes of one image.
    CUB200, ImageFolder: data sets.
    GTKnownLoc, MaxBoxAcc, MaxBoxAccV2, PxAP, Top1Loc: torchmetrics metrics for training loops.
    boxes: functions from heatmaps to boxes, and IoU.

They are imported when first used, so that scoring maps does not wait for PyTorch.
"""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # what a type checker reads in place of __getattr__
    from wsol import boxes
    from wsol.data.cub import CUB200
    from wsol.data.image_folder import ImageFolder
    from wsol.evaluation.torch_metrics import GTKnownLoc, MaxBoxAcc, MaxBoxAccV2, PxAP, Top1Loc
    from wsol.experiments.evaluate_model import evaluate
    from wsol.localizer.localization import Localization
    from wsol.localizer.localizer import Localizer

__version__ = "0.1.0"
_METRICS = ("GTKnownLoc", "MaxBoxAcc", "MaxBoxAccV2", "PxAP", "Top1Loc")
_MODULES = dict.fromkeys(_METRICS, "wsol.evaluation.torch_metrics") | {
    "CUB200": "wsol.data.cub",
    "ImageFolder": "wsol.data.image_folder",
    "Localization": "wsol.localizer.localization",
    "Localizer": "wsol.localizer.localizer",
    "evaluate": "wsol.experiments.evaluate_model",
}
__all__ = [
    "CUB200",
    "GTKnownLoc",
    "ImageFolder",
    "Localization",
    "Localizer",
    "MaxBoxAcc",
    "MaxBoxAccV2",
    "PxAP",
    "Top1Loc",
    "boxes",
    "evaluate",
]


def __getattr__(name: str) -> object:
    if name == "boxes":
        return importlib.import_module("wsol.boxes")
    if name in _MODULES:
        return getattr(importlib.import_module(_MODULES[name]), name)
    raise AttributeError(f"module 'wsol' has no attribute {name!r}")
