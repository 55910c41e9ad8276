"""Heatmaps and boxes refined by the image's colours.

Colours alone find birds: the same refinement of a map that never saw the image scores far above
most heatmaps (docs/experiments/heatmaps.md), and is the floor that a refined map stands beside
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

_BORDER = 40  # the image's side by the width of the border that is surely background


@dataclass(frozen=True)
class Refined(HeatmapMethod):
    """A heatmap inside the region of like colours that its hottest pixels belong to.

    OpenCV's grabCut (Rother et al., SIGGRAPH 2004) splits the image into foreground and background.
    Inside the foreground the map is lifted to 0.5 to 1, outside it is 0: thresholds up to a half
    give the segment's box, higher ones its hot part's, and no threshold needs another segmentation.
    A map without a peak stays as it is.

    Attributes:
        method: Whose map is refined.
        share: Of the pixels, the hottest, that are foreground unless their colours say otherwise.
        sure: Share of these that are foreground whatever their colours.
        iterations: Of grabCut.
    """

    method: HeatmapMethod
    share: float = 0.35
    sure: float = 0.2
    iterations: int = 3

    def __post_init__(self) -> None:
        if not (0 < self.share < 1 and 0 <= self.sure <= 1 and self.iterations >= 1):
            raise ValueError(
                "Refined: share must lie between 0 and 1, sure in [0,1], iterations be at least 1, "
                f"not {self.share}, {self.sure}, {self.iterations}"
            )

    def __call__(self, model: Classifier, image: Tensor, label: Tensor) -> np.ndarray:
        heatmaps = self.method(model, image, label)
        pixels = to_pixels(image)
        return np.stack([self._one(*pair) for pair in zip(pixels, heatmaps, strict=True)])

    def fits(self, model: Classifier) -> bool:
        return self.method.fits(model)

    def _one(self, pixels: np.ndarray, heatmap: np.ndarray) -> np.ndarray:
        inside = segment(pixels, heatmap, self.share, self.sure, self.iterations)
        return heatmap if inside is None else inside * (1 + heatmap) / 2


def refine_box(pixels: np.ndarray, box: np.ndarray) -> np.ndarray:
    """The mean of a box and of that around the region of like colours which grows from its middle.

    The seed is a Gaussian in the box, its hottest part as large as 0.7 of the box; the constants
    were chosen on training images (docs/experiments/heatmaps.md).

    Args:
        pixels: uint8 (H,W,3).
        box: (4,) half-open x0, y0, x1, y1 in pixels.

    Returns:
        (4,); the box itself where no region grows.
    """
    height, width = pixels.shape[:2]
    x0, y0, x1, y1 = box
    if not (x1 > x0 and y1 > y0):
        return box
    across = (np.arange(width) + 0.5 - (x0 + x1) / 2) / (0.3 * (x1 - x0))
    down = (np.arange(height) + 0.5 - (y0 + y1) / 2) / (0.3 * (y1 - y0))
    middle = np.exp(-(across**2 + down[:, None] ** 2) / 2)
    share = float(np.clip(0.7 * (x1 - x0) * (y1 - y0) / (height * width), 0.05, 0.6))
    inside = segment(pixels, middle, share)
    if inside is None or not inside.any():
        return box
    return (box + largest_boxes(inside.astype(np.float64), [0.5])[0]) / 2


def segment(
    pixels: np.ndarray,
    heatmap: np.ndarray,
    share: float,
    sure: float = 0.2,
    iterations: int = 3,
) -> np.ndarray | None:
    """OpenCV's grabCut, grown from a heatmap's hottest pixels: `Refined` says how.

    Args:
        pixels: uint8 (H,W,3).
        heatmap: (H,W), 0 or more.

    Returns:
        bool (H,W): the foreground. None where the map has no peak, or all of it in the border.
    """
    seed = _seed(heatmap, share, sure)
    if not heatmap.any() or not (seed & 1).any():
        return None
    cv2.setRNGSeed(0)  # of the first colour clusters
    models = np.zeros((2, 1, 65))  # grabCut's own working memory
    pixels = np.ascontiguousarray(pixels)
    cv2.grabCut(pixels, seed, None, *models, iterations, cv2.GC_INIT_WITH_MASK)
    return (seed & 1).astype(bool)


def _seed(heatmap: np.ndarray, share: float, sure: float) -> np.ndarray:
    """uint8 (H,W) of grabCut's four kinds of pixels; foreground's are odd."""
    hottest = np.argsort(-heatmap, axis=None, kind="stable")
    kinds = np.full(heatmap.size, cv2.GC_PR_BGD, np.uint8)
    kinds[hottest[: round(share * heatmap.size)]] = cv2.GC_PR_FGD
    kinds[hottest[: round(share * sure * heatmap.size)]] = cv2.GC_FGD
    kinds = kinds.reshape(heatmap.shape)
    inner = tuple(slice(w, -w) for w in (max(1, round(s / _BORDER)) for s in heatmap.shape))
    seed = np.full_like(kinds, cv2.GC_BGD)
    seed[inner] = kinds[inner]
    return seed
