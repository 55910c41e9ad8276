"""Heatmaps and boxes refined by the image's colours.

Colours alone find birds: the same refinement of a map that never saw the image scores far above
most heatmaps (docs/experiments/heatmaps.md). So that refinement is the baseline of a refined map
(`methods.baseline_of`).
"""

from dataclasses import dataclass

import cv2
import numpy as np
from torch import Tensor

from robust_training.models.classifier import Classifier
from wsol.boxes.heatmap_boxes import largest_boxes
from wsol.data.inputs import to_pixels
from wsol.heatmaps.heatmap import HeatmapMethod

_BORDER = 40  # a border of 1/40 of the image's side is certain background


@dataclass(frozen=True)
class Refined(HeatmapMethod):
    """A heatmap limited to the region of similar colours around its hottest pixels.

    OpenCV's grabCut (Rother et al., SIGGRAPH 2004) splits the image into foreground and background.
    In the foreground the map is rescaled to [0.5,1]; in the background it is 0. So thresholds up to
    0.5 give the box of the whole segment, higher ones that of its hot part, and all thresholds use
    one segmentation. A map without a peak is not changed.

    Attributes:
        method: The method that makes the map.
        fraction: The fraction of pixels, the hottest, that grabCut takes as probable foreground.
        sure: The fraction of these that it takes as certain foreground.
        iterations: Iterations of grabCut.
    """

    method: HeatmapMethod
    fraction: float = 0.35
    sure: float = 0.2
    iterations: int = 3

    def __post_init__(self) -> None:
        if not (0 < self.fraction < 1 and 0 <= self.sure <= 1 and self.iterations >= 1):
            raise ValueError(
                "Refined: fraction must lie between 0 and 1, sure in [0,1], iterations be at least "
                f"1, not {self.fraction}, {self.sure}, {self.iterations}"
            )

    def __call__(self, model: Classifier, image: Tensor, label: Tensor) -> np.ndarray:
        pairs = zip(to_pixels(image), self.method(model, image, label), strict=True)
        return np.stack([self._one(*pair) for pair in pairs])

    def fits(self, model: Classifier) -> bool:
        return self.method.fits(model)

    def _one(self, pixels: np.ndarray, heatmap: np.ndarray) -> np.ndarray:
        inside = segment(pixels, heatmap, self.fraction, self.sure, self.iterations)
        return heatmap if inside is None else inside * (1 + heatmap) / 2


def refine_box(pixels: np.ndarray, box: np.ndarray) -> np.ndarray:
    """The mean of a box and the box around the region of similar colours at its middle.

    The region grows from a Gaussian in the box: pixels that cover 0.7 of the box's area are
    probable foreground. The constants were chosen on training images
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
    middle = np.exp(-(across**2 + down[:, None] ** 2) / 2)
    fraction = float(np.clip(0.7 * (x1 - x0) * (y1 - y0) / (height * width), 0.05, 0.6))
    inside = segment(pixels, middle, fraction)
    if inside is None or not inside.any():
        return box
    return (box + largest_boxes(inside.astype(np.float64), [0.5])[0]) / 2


def segment(
    pixels: np.ndarray,
    heatmap: np.ndarray,
    fraction: float,
    sure: float = 0.2,
    iterations: int = 3,
) -> np.ndarray | None:
    """Segment an image by OpenCV's grabCut from a heatmap's hottest pixels, as `Refined` describes.

    Args:
        pixels: uint8 (H,W,3).
        heatmap: (H,W), 0 or more.

    Returns:
        bool (H,W): the foreground. None if the map has no peak, or only within the border.
    """
    seed = _seed(heatmap, fraction, sure)
    if not heatmap.any() or not (seed & 1).any():
        return None
    cv2.setRNGSeed(0)  # grabCut draws its first colour clusters at random
    models = np.zeros((2, 1, 65))  # working memory of grabCut
    pixels = np.ascontiguousarray(pixels)
    cv2.grabCut(pixels, seed, None, *models, iterations, cv2.GC_INIT_WITH_MASK)
    return (seed & 1).astype(bool)


def _seed(heatmap: np.ndarray, fraction: float, sure: float) -> np.ndarray:
    """uint8 (H,W) with grabCut's four kinds of pixels; the two kinds of foreground are odd."""
    hottest = np.argsort(-heatmap, axis=None, kind="stable")
    kinds = np.full(heatmap.size, cv2.GC_PR_BGD, np.uint8)
    kinds[hottest[: round(fraction * heatmap.size)]] = cv2.GC_PR_FGD
    kinds[hottest[: round(fraction * sure * heatmap.size)]] = cv2.GC_FGD
    kinds = kinds.reshape(heatmap.shape)
    inner = tuple(slice(w, -w) for w in (max(1, round(s / _BORDER)) for s in heatmap.shape))
    seed = np.full_like(kinds, cv2.GC_BGD)
    seed[inner] = kinds[inner]
    return seed
