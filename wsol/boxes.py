"""Heatmap x threshold -> boxes, by the published contour protocol (clovaai/wsolevaluation).

A heatmap in [0,1] becomes bytes by truncation; a threshold t keeps the bytes above
int(t * largest byte); boxes are bounding rectangles of OpenCV's contours. Boxes are int, half-open
xyxy in the heatmap's pixels.
"""

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import ArrayLike

NO_BOX = (0, 0, 0, 0)


def largest_boxes(heatmap: np.ndarray, thresholds: ArrayLike) -> np.ndarray:
    """The box of the contour with the largest area, for each threshold.

    Args:
        heatmap: (H,W) in [0,1].
        thresholds: (T,) in [0,1], shares of the heatmap's maximum.

    Returns:
        int64 (T,4) half-open xyxy; zeros where nothing is above the threshold.
    """
    levels, which = _levels(heatmap, thresholds)
    return np.array([_largest(level) for level in levels], dtype=np.int64).reshape(-1, 4)[which]


def all_boxes(heatmap: np.ndarray, threshold: float) -> np.ndarray:
    """The boxes of all contours, holes among them as MaxBoxAccV2 has it.

    Returns:
        int64 (K,4) half-open xyxy; one box of zeros where nothing is above the threshold.
    """
    (level,), _ = _levels(heatmap, [threshold])
    boxes = [_rectangle(contour) for contour in _contours(level)]
    return np.array(boxes or [NO_BOX], dtype=np.int64)


def _levels(heatmap: np.ndarray, thresholds: ArrayLike) -> tuple[list[np.ndarray], np.ndarray]:
    """The distinct binary maps, and which of them each threshold takes: at most 255 differ."""
    heatmap = np.asarray(heatmap)
    thresholds = np.asarray(thresholds, dtype=np.float64)
    if heatmap.ndim != 2:
        raise ValueError(f"a heatmap has shape (H,W), not {heatmap.shape}")
    if not (heatmap.min() >= 0 and heatmap.max() <= 1):  # false for NaN too
        raise ValueError("a heatmap must lie in [0,1] and hold no NaN")
    if thresholds.ndim != 1 or not ((thresholds >= 0) & (thresholds <= 1)).all():
        raise ValueError("thresholds must be a list of numbers in [0,1]")
    pixels = (heatmap.astype(np.float64) * 255).astype(np.uint8)
    cuts = (thresholds * int(pixels.max())).astype(int)
    distinct, which = np.unique(cuts, return_inverse=True)
    return [(pixels > cut).astype(np.uint8) for cut in distinct], which


def _contours(binary: np.ndarray) -> Sequence[np.ndarray]:
    return cv2.findContours(binary, cv2.RETR_TREE, cv2.CHAIN_APPROX_SIMPLE)[0]


def _largest(binary: np.ndarray) -> tuple[int, int, int, int]:
    contours = _contours(binary)
    return _rectangle(max(contours, key=cv2.contourArea)) if contours else NO_BOX


def _rectangle(contour: np.ndarray) -> tuple[int, int, int, int]:
    x, y, width, height = cv2.boundingRect(contour)
    return x, y, x + width, y + height


def rescale(boxes: ArrayLike, size: tuple[int, int], to: tuple[int, int]) -> np.ndarray:
    """float64 (N,4) boxes of an image of `size` (width, height), in an image of size `to`."""
    factors = np.array([to[0] / size[0], to[1] / size[1]] * 2)
    return np.asarray(boxes, dtype=np.float64) * factors


def published_boxes(boxes: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Half-open boxes as the published evaluator scores them, in an image of `size` (w, h).

    It clips right and bottom ends to the last pixel and then counts both ends as inside, so a box
    is one pixel too wide unless it touches the border: [x0, y0, min(x1 + 1, w), min(y1 + 1, h)].
    """
    return np.minimum(np.asarray(boxes) + (0, 0, 1, 1), (*size, *size))


def inclusive(box: ArrayLike, size: tuple[int, int]) -> np.ndarray:
    """A half-open box of CUB as the published metadata has it: ends clipped to the last pixel."""
    return np.minimum(np.asarray(box), (*size, size[0] - 1, size[1] - 1))


def published_truth(box: ArrayLike, size: tuple[int, int], to: tuple[int, int]) -> np.ndarray:
    """A true box as the published evaluator scores it: inclusive corners, floored to size `to`.

    Args:
        box: (4,) inclusive xyxy in an image of `size` (width, height), as its metadata has it.

    Returns:
        int64 (4,) half-open in an image of size `to`.
    """
    scaled = np.asarray(box, dtype=np.float64) * [*to, *to] / [*size, *size]
    return np.floor(scaled).astype(np.int64) + (0, 0, 1, 1)
