"""Weakly supervised object localization: gradient maps -> boxes -> scores."""

import os

os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")  # it would ask the network when imported

from wsol import boxes
from wsol.data.cub import CUB200
from wsol.localizer import Localization, Localizer

__all__ = ["CUB200", "Localization", "Localizer", "boxes"]
