"""Areas, overlaps and sizes of boxes, and the pixel conventions of the published evaluator.

Boxes are half-open (x0, y0, x1, y1) unless stated otherwise. Every function broadcasts.
"""

import numpy as np
from numpy.typing import ArrayLike

NO_BOX = (0, 0, 0, 0)


def iou(boxes: ArrayLike, truths: ArrayLike) -> np.ndarray:
    """Intersection over union of boxes (...,4) and `truths` (...,4); 0 without any area.

    Raises:
        ValueError: a box ends before it begins: x1 < x0 or y1 < y0.
    """
    for given in (np.asarray(boxes), np.asarray(truths)):
        turned = (given[..., 2:] < given[..., :2]).any(axis=-1)
        if turned.any():
            first = given[turned][0].tolist()
            raise ValueError(f"a box is x0, y0, x1, y1 with x0 <= x1 and y0 <= y1, not {first}")
    shared = intersection(boxes, truths)
    return ratio(shared, area(boxes) + area(truths) - shared)


def intersection(boxes: ArrayLike, truths: ArrayLike) -> np.ndarray:
    """The common area of boxes (...,4) and `truths` (...,4)."""
    boxes, truths = np.asarray(boxes, np.float64), np.asarray(truths, np.float64)
    low = np.maximum(boxes[..., :2], truths[..., :2])
    high = np.minimum(boxes[..., 2:], truths[..., 2:])
    return (high - low).clip(min=0).prod(axis=-1)


def area(boxes: ArrayLike) -> np.ndarray:
    """The area of boxes (...,4), float64 (...)."""
    boxes = np.asarray(boxes, np.float64)
    return (boxes[..., 2:] - boxes[..., :2]).prod(axis=-1)


def ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """`part` / `whole`, arrays of one shape; 0 if `whole` has no area."""
    return np.divide(part, whole, out=np.zeros_like(part), where=whole > 0)


def rescale(boxes: ArrayLike, size: ArrayLike, to: ArrayLike) -> np.ndarray:
    """Scales boxes (...,4) from images of `size` (...,2: width, height) to images of size `to`."""
    return np.asarray(boxes, np.float64) * np.tile(np.asarray(to, np.float64) / size, 2)


def published_boxes(boxes: np.ndarray, size: ArrayLike) -> np.ndarray:
    """Converts boxes in an image of `size` (width, height) to the published evaluator's convention.

    Right and bottom ends are clipped to the last pixel, and both ends count as inside. So a box is
    one pixel too wide unless it touches the border: [x0, y0, min(x1 + 1, w), min(y1 + 1, h)].
    """
    return np.minimum(np.asarray(boxes) + (0, 0, 1, 1), np.tile(size, 2))


def inclusive(box: ArrayLike, size: ArrayLike) -> np.ndarray:
    """Converts boxes to the published metadata's form: ends are clipped to the last pixel."""
    return np.minimum(box, np.tile(size, 2) - (0, 0, 1, 1))


def published_truth(box: ArrayLike, size: ArrayLike, to: ArrayLike) -> np.ndarray:
    """Converts true boxes to the published evaluator's convention in images of size `to`.

    Args:
        box: (...,4) inclusive xyxy in images of `size` (...,2: width, height), from the published
            metadata. Scaled corners are rounded down.

    Returns:
        int64 (...,4) half-open in images of size `to`.
    """
    scaled = np.asarray(box, dtype=np.float64) * np.tile(to, 2) / np.tile(size, 2)
    return np.floor(scaled).astype(np.int64) + (0, 0, 1, 1)
