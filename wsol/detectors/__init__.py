"""Detectors, one kind in each file. These imports are the registry."""

from wsol.detectors.base import Detections, Detector, Network
from wsol.detectors.faster_rcnn import FasterRCNN
from wsol.detectors.regressor import Regressor
from wsol.detectors.saving import load_detector, save_detector

__all__ = [
    "Detections",
    "Detector",
    "FasterRCNN",
    "Network",
    "Regressor",
    "load_detector",
    "save_detector",
]
