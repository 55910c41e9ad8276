"""Heatmaps and boxes refined by the image's colours.

Birds can be found by colour alone: a refined centred box scores far above most heatmaps
(docs/experiments/heatmaps.md). Therefore the refined centred box is the baseline of every refined
map (`methods.baseline_of`).
"""

from dataclasses import dataclass

import numpy as np
from torch import Tensor

from robust_training.devices import map_in_threads
from wsol.boxes.heatmap_boxes import largest_boxes
from wsol.boxes.segment import segment
from wsol.data.inputs import to_pixels
from wsol.heatmaps.heatmap import Combined, HeatmapMethod


@dataclass(frozen=True)
class Refined(Combined):
    """A heatmap limited to the region of similar colours around its largest values.

    `segment` splits the image into foreground and background by their colours. The map is rescaled
    to [0.5,1] in the foreground and is 0 in the background. A threshold up to 0.5 gives the box of
    the whole foreground. A higher threshold gives the box of the part with larger values. A map of
    zeros, or one whose largest values lie only in the border, is not changed.

    Attributes:
        fraction: Fraction of pixels, those with the largest values, that start as probable
            foreground.
        sure: Fraction of these pixels that are certain foreground.
    """

    method: HeatmapMethod
    fraction: float = 0.35
    sure: float = 0.2

    def __post_init__(self) -> None:
        if not (0 < self.fraction < 1 and 0 <= self.sure <= 1):
            raise ValueError(
                "Refined: fraction must lie between 0 and 1, and sure must lie in [0,1], not "
                f"{self.fraction}, {self.sure}"
            )

    @property
    def methods(self) -> tuple[HeatmapMethod, ...]:
        return (self.method,)

    def combine(self, image: Tensor, heatmaps: np.ndarray) -> np.ndarray:
        return np.stack(map_in_threads(self._one, to_pixels(image), heatmaps))

    def _one(self, pixels: np.ndarray, heatmap: np.ndarray) -> np.ndarray:
        foreground = segment(pixels, heatmap, self.fraction, self.sure)
        return heatmap if foreground is None else foreground * (1 + heatmap) / 2


def refine_box(pixels: np.ndarray, box: np.ndarray) -> np.ndarray:
    """Averages a box with the box of the region of similar colours around its centre.

    The region starts from a Gaussian centred in the box. The pixels where it is largest start as
    foreground, a fifth of them as certain foreground. Their number is 0.7 times the box's area, but
    5 to 60 % of the image. The constants were chosen on training images
    (docs/experiments/heatmaps.md).

    Args:
        pixels: uint8 (H,W,3).
        box: (4,) half-open x0, y0, x1, y1 in pixels.

    Returns:
        (4,); the box itself if no region is found.
    """
    height, width = pixels.shape[:2]
    x0, y0, x1, y1 = box
    if not (x1 > x0 and y1 > y0):
        return box
    across = (np.arange(width) + 0.5 - (x0 + x1) / 2) / (0.3 * (x1 - x0))
    down = (np.arange(height) + 0.5 - (y0 + y1) / 2) / (0.3 * (y1 - y0))
    gaussian = np.exp(-(across**2 + down[:, None] ** 2) / 2)
    fraction = float(np.clip(0.7 * (x1 - x0) * (y1 - y0) / (height * width), 0.05, 0.6))
    foreground = segment(pixels, gaussian, fraction)
    if foreground is None or not foreground.any():
        return box
    return (box + largest_boxes(foreground.astype(np.float64), [0.5])[0]) / 2
