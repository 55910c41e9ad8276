"""Heatmap, threshold -> boxes, by the published contour protocol (clovaai/wsolevaluation).

A heatmap in [0,1] becomes bytes by truncation. A threshold t keeps the bytes above the cut
int(t * largest byte). Boxes are bounding rectangles of OpenCV's contours, half-open xyxy in the
heatmap's pixels.
"""

import cv2
import numpy as np
from numpy.typing import ArrayLike

from wsol.boxes.component_tree import boxes_by_cut, largest_by_cut, outer_boxes_at
from wsol.boxes.geometry import NO_BOX, iou, published_boxes
from wsol.boxes.level_sets import highest

LARGEST_SIDE = 32767  # boxes are computed in int16


def largest_boxes(heatmap: np.ndarray, thresholds: ArrayLike) -> np.ndarray:
    """The box of the contour with the largest area, for each threshold.

    Args:
        heatmap: (H,W) in [0,1].
        thresholds: (T,) in [0,1], fractions of the heatmap's maximum.

    Returns:
        int64 (T,4) half-open xyxy; zeros if no pixel is above the threshold.
    """
    pixels = to_bytes(heatmap)
    return largest_by_cut(pixels)[cuts(thresholds, pixels.max())].astype(np.int64)


def outer_boxes(heatmap: np.ndarray, threshold: float) -> np.ndarray:
    """The boxes of the outer contours, the largest contour area first. Holes give no box.

    Returns:
        int64 (K,4) half-open xyxy; one box of zeros if no pixel is above the threshold. The first
        one is the box of `largest_boxes`.
    """
    pixels = to_bytes(heatmap)
    (cut,) = cuts([threshold], pixels.max())
    found = outer_boxes_at(pixels, cut).astype(np.int64)
    return found if len(found) else np.array([NO_BOX])


def all_boxes(heatmap: np.ndarray, threshold: float) -> np.ndarray:
    """The boxes of all contours, also of holes, in OpenCV's order. MaxBoxAccV2 uses these boxes.

    Returns:
        int64 (K,4) half-open xyxy; one box of zeros if no pixel is above the threshold.
    """
    pixels = to_bytes(heatmap)
    binary = (pixels > cuts([threshold], pixels.max())).astype(np.uint8)
    contours, _ = cv2.findContours(binary, cv2.RETR_TREE, cv2.CHAIN_APPROX_SIMPLE)
    rectangles = [cv2.boundingRect(contour) for contour in contours]
    return np.array([(x, y, x + w, y + h) for x, y, w, h in rectangles] or [NO_BOX], np.int64)


def best_of_all_boxes(pixels: np.ndarray, truths: ArrayLike) -> np.ndarray:
    """The largest published IoU of any contour's box with any of `truths` at every cut, float64
    (256,), for MaxBoxAccV2.

    Args:
        pixels: uint8 (H,W), `to_bytes` of a heatmap.
        truths: (G,4), `published_truth` in the heatmap's frame.
    """
    frame = pixels.shape[::-1]
    boxes, spans = boxes_by_cut(pixels)
    published = published_boxes(np.concatenate([[NO_BOX], boxes]), frame)
    overlap = iou(published[:, None], np.asarray(truths)[None]).max(axis=1, initial=0)
    best = highest(overlap[1:], spans)
    best[pixels.max() :] = overlap[0]  # the published code scores a box of zeros there
    return best


def to_bytes(heatmap: np.ndarray) -> np.ndarray:
    """Truncates a heatmap in [0,1] to uint8 (H,W), as the published evaluator does. Raises
    ValueError if the shape is wrong, a side is too large, or a value is NaN or outside [0,1]."""
    heatmap = np.asarray(heatmap)
    if heatmap.dtype.kind not in "fiub":
        raise ValueError(f"a heatmap holds real numbers, not {heatmap.dtype}")
    if heatmap.ndim != 2 or heatmap.size == 0:
        raise ValueError(f"a heatmap has shape (H,W), not {heatmap.shape}")
    if max(heatmap.shape) > LARGEST_SIDE:
        raise ValueError(f"a heatmap's sides are at most {LARGEST_SIDE}, not {heatmap.shape}")
    if not (heatmap.min() >= 0 and heatmap.max() <= 1):  # false for NaN too
        raise ValueError("a heatmap must lie in [0,1] and hold no NaN")
    return (heatmap.astype(np.float64) * 255).astype(np.uint8)


def to_float32(heatmap: np.ndarray) -> np.ndarray:
    """Rounds a heatmap (H,W) in [0,1] to float32 such that `to_bytes` and every box stay the same.

    A value that would round across the limit of a byte becomes the next float32 on its own side.
    Raises ValueError if it is no heatmap, see `to_bytes`."""
    rounded = heatmap.astype(np.float32)
    expected, found = to_bytes(heatmap), to_bytes(rounded)
    toward = np.where(found < expected, np.float32(1), rounded)
    return np.nextafter(rounded, np.where(found > expected, np.float32(0), toward))


def cuts(thresholds: ArrayLike, peak: ArrayLike) -> np.ndarray:
    """The cuts, int64 (...,T), for thresholds (T,) and the largest byte (...): foreground is above.

    There are at most 255 different cuts. At threshold 1 no pixel is foreground.
    """
    thresholds = np.asarray(thresholds, dtype=np.float64)
    if thresholds.ndim != 1 or not ((thresholds >= 0) & (thresholds <= 1)).all():
        raise ValueError("thresholds must be a list of numbers in [0,1]")
    return (thresholds * np.asarray(peak, dtype=np.int64)[..., None]).astype(np.int64)
