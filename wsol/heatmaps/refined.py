"""Heatmaps and boxes refined by the image's colours.

Birds can be found by colour alone: a refined centred box scores far above most heatmaps
(docs/experiments/heatmaps.md). Therefore the refined centred box is the baseline of every refined
map (`methods.baseline_of`).
"""

from dataclasses import dataclass

import cv2
import numpy as np
from torch import Tensor

from robust_training.devices import map_in_threads
from wsol.boxes.heatmap_boxes import largest_boxes
from wsol.data.inputs import to_pixels
from wsol.heatmaps.heatmap import Combined, HeatmapMethod

_BORDER = 1 / 40  # of the image's side is certain background


@dataclass(frozen=True)
class Refined(Combined):
    """A heatmap limited to the region of similar colours around its largest values.

    OpenCV's grabCut (Rother et al., SIGGRAPH 2004) splits the image into foreground and background.
    The map is rescaled to [0.5,1] in the foreground and is 0 in the background. A threshold up to
    0.5 gives the box of the whole foreground. A higher threshold gives the box of the part with
    larger values. A map of zeros, or one whose largest values lie only in the border, is not
    changed.

    Attributes:
        fraction: Fraction of pixels, those with the largest values, that start as probable
            foreground.
        sure: Fraction of these pixels that are certain foreground.
        iterations: Number of grabCut's iterations. More than one cost time and gave no better boxes
            (docs/experiments/heatmaps.md).
    """

    method: HeatmapMethod
    fraction: float = 0.35
    sure: float = 0.2
    iterations: int = 1

    def __post_init__(self) -> None:
        if not (0 < self.fraction < 1 and 0 <= self.sure <= 1 and self.iterations >= 1):
            raise ValueError(
                "Refined: fraction must lie between 0 and 1, sure must lie in [0,1], iterations "
                f"must be at least 1, not {self.fraction}, {self.sure}, {self.iterations}"
            )

    @property
    def methods(self) -> tuple[HeatmapMethod, ...]:
        return (self.method,)

    def combine(self, image: Tensor, heatmaps: np.ndarray) -> np.ndarray:
        return np.stack(map_in_threads(self._one, to_pixels(image), heatmaps))

    def _one(self, pixels: np.ndarray, heatmap: np.ndarray) -> np.ndarray:
        foreground = segment(pixels, heatmap, self.fraction, self.sure, self.iterations)
        return heatmap if foreground is None else foreground * (1 + heatmap) / 2


def refine_box(pixels: np.ndarray, box: np.ndarray) -> np.ndarray:
    """Averages a box with the box of the region of similar colours around its centre.

    grabCut starts from a Gaussian centred in the box. The pixels where it is largest start as
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


def segment(
    pixels: np.ndarray, heatmap: np.ndarray, fraction: float, sure: float = 0.2, iterations: int = 1
) -> np.ndarray | None:
    """Segments an image by OpenCV's grabCut from a heatmap's largest values, as in `Refined`.

    Args:
        pixels: uint8 (H,W,3).
        heatmap: (H,W), 0 or more.

    Returns:
        bool (H,W): the foreground. None if the map is 0 everywhere, or if its largest values lie
        only in the border.
    """
    mask = _initial_mask(heatmap, fraction, sure)
    if not heatmap.any() or not (mask & 1).any():
        return None
    cv2.setRNGSeed(0)  # grabCut draws its first colour clusters at random
    buffers = np.zeros((2, 1, 65))  # working memory of grabCut
    pixels = np.ascontiguousarray(pixels)
    cv2.grabCut(pixels, mask, None, *buffers, iterations, cv2.GC_INIT_WITH_MASK)
    return (mask & 1).astype(bool)


def _initial_mask(heatmap: np.ndarray, fraction: float, sure: float) -> np.ndarray:
    """uint8 (H,W) with grabCut's four kinds of pixels. Both kinds of foreground are odd."""
    order = np.argsort(-heatmap, axis=None, kind="stable")
    kinds = np.full(heatmap.size, cv2.GC_PR_BGD, np.uint8)
    kinds[order[: round(fraction * heatmap.size)]] = cv2.GC_PR_FGD
    kinds[order[: round(fraction * sure * heatmap.size)]] = cv2.GC_FGD
    kinds = kinds.reshape(heatmap.shape)
    inner = tuple(slice(w, -w) for w in (max(1, round(s * _BORDER)) for s in heatmap.shape))
    mask = np.full_like(kinds, cv2.GC_BGD)
    mask[inner] = kinds[inner]
    return mask
