"""Reference: the loop of the published evaluator (clovaai/wsolevaluation), which calls OpenCV for
each threshold. `wsol.boxes.heatmap_boxes` must give the same boxes."""

from collections.abc import Iterator

import cv2
import numpy as np

from wsol.boxes.geometry import iou, published_boxes


def reference_largest_boxes(heatmap: np.ndarray, thresholds: np.ndarray) -> np.ndarray:
    """(T,4), for comparison with `wsol.boxes.heatmap_boxes.largest_boxes`."""
    found = [max(c, key=cv2.contourArea) if c else None for c in _contours(heatmap, thresholds)]
    return np.array([[0] * 4 if c is None else _corners(cv2.boundingRect(c)) for c in found])


def reference_best_ious(
    heatmap: np.ndarray, truth: np.ndarray, thresholds: np.ndarray
) -> np.ndarray:
    """(T,), the largest IoU of any contour's box with any of the true boxes (K,4)."""
    frame, best = heatmap.shape[::-1], []
    for contours in _contours(heatmap, thresholds):
        found = [_corners(cv2.boundingRect(contour)) for contour in contours] or [[0] * 4]
        best.append(iou(published_boxes(np.array(found), frame), truth).max())
    return np.array(best)


def _contours(heatmap: np.ndarray, thresholds: np.ndarray) -> Iterator[tuple[np.ndarray, ...]]:
    pixels = (heatmap * 255).astype(np.uint8)
    for threshold in thresholds:
        cut = int(threshold * np.max(pixels))
        binary = cv2.threshold(pixels, cut, 255, cv2.THRESH_BINARY)[1]
        yield cv2.findContours(binary, cv2.RETR_TREE, cv2.CHAIN_APPROX_SIMPLE)[0]


def _corners(rectangle: tuple[int, int, int, int]) -> list[int]:
    x, y, width, height = rectangle
    return [x, y, x + width, y + height]
