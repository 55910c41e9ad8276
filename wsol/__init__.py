"""Weakly supervised object localization: gradient maps -> boxes -> scores."""

from wsol import boxes
from wsol.data.cub import CUB200
from wsol.localizer import Localization, Localizer

__all__ = ["CUB200", "Localization", "Localizer", "boxes"]
