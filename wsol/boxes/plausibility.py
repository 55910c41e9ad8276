"""A check of the boxes of many photos that needs no true box."""

import numpy as np
from numpy.typing import ArrayLike

_FEWEST = 5  # photos: fewer may all show the object at any size
_SMALL, _LARGE = 0.02, 0.8  # of the photo's area
_AT_BORDER = 0.95  # fraction of the boxes
_MARGIN = 0.01  # of the photo's side


def doubt(boxes: ArrayLike, sizes: ArrayLike) -> str | None:
    """Says what is implausible about boxes, and what to try.

    Args:
        boxes: (N,4), half-open xyxy in pixels of the photos.
        sizes: (N,2), width and height of the photos.

    Returns:
        A sentence if the median box covers over 80 % or under 2 % of its photo, or if nearly all
        boxes touch two sides of it. None if not, or with fewer than five photos.
    """
    boxes, sizes = (np.asarray(each, dtype=np.float64) for each in (boxes, sizes))
    if len(boxes) < _FEWEST:
        return None
    corners = boxes.reshape(-1, 2, 2) / sizes[:, None]
    area = float(np.median(np.prod(corners[:, 1] - corners[:, 0], axis=1)))
    sides = (corners[:, 0] <= _MARGIN).sum(axis=1) + (corners[:, 1] >= 1 - _MARGIN).sum(axis=1)
    if not _SMALL <= area <= _LARGE:
        problem = f"the median box covers {100 * area:.2g} % of its photo"
    elif (sides >= 2).mean() >= _AT_BORDER:
        problem = "nearly all boxes touch two sides of their photo"
    else:
        return None
    return (
        f"the boxes are implausible: {problem}. Look at the overlays, and try another heatmap "
        "(--method), another threshold (--threshold) or more training images"
    )
