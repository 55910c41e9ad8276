"""Boxes around the level sets of a map of bytes. They equal the boxes of OpenCV's contours.

A cut c keeps the pixels above c. A higher cut only removes pixels, so the components of all 255
binary maps form a tree. One union-find over the pixels, brightest first, visits all components.
Four facts make the boxes equal to the boxes of `cv2.findContours(..., RETR_TREE, ...)`:

* An outer contour encloses one 8-connected component. A hole is one 4-connected component of the
  background that does not touch the border, and its contour lies one pixel outside of it.
* The contour area of a component without holes is a sum over the squares between four pixel
  centres: 1 for a square with four pixels in the component, 1/2 for a square with three.
* A contour inside another one encloses less. So the largest contour is the outer contour of a
  component that no other surrounds. Only these remain if all holes are filled (`level_sets`).
* If contours have the same area, the one that begins last in reading order comes first.
"""

import numpy as np

from wsol.boxes import level_sets
from wsol.boxes import pixel_neighbours as neighbours

_TOUCHED_8 = neighbours.touched(diagonal=True)
_TOUCHED_4 = neighbours.touched(diagonal=False)
_HALF_SQUARES = neighbours.half_squares()


def outer_boxes_at(pixels: np.ndarray, cut: int) -> np.ndarray:
    """The boxes of all outer contours at one cut, the largest contour area first.

    Args:
        pixels: uint8 (H,W), sides below 32768.

    Returns:
        int16 (K,4) half-open xyxy; the first one is the box of `largest_by_cut`.
    """
    pixels = np.ascontiguousarray(pixels)
    boxes, areas, first = level_sets.outer(pixels, cut, _TOUCHED_8, _HALF_SQUARES)
    return boxes[np.lexsort((-first, -areas))]


def largest_by_cut(pixels: np.ndarray) -> np.ndarray:
    """The box of the contour with the largest area at every cut.

    Args:
        pixels: uint8 (H,W), sides below 32768.

    Returns:
        int16 (256,4): half-open xyxy at cut 0, 1, ...; zeros if no pixel is above the cut.
    """
    return level_sets.largest(np.ascontiguousarray(pixels), _TOUCHED_8, _HALF_SQUARES)


def boxes_by_cut(pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The boxes of all contours, also of holes, at every cut.

    Args:
        pixels: uint8 (H,W), sides below 32768.

    Returns:
        int16 (M,4) half-open xyxy, and int16 (M,2): the first and the last cut that has a contour
        with this box. A box is listed once for each of its contours.
    """
    boxes, spans, holes, mirrored = level_sets.every_component(
        np.ascontiguousarray(pixels), _TOUCHED_8, _TOUCHED_4
    )
    holes += np.array([-1, -1, 1, 1], np.int16)
    return np.concatenate([boxes, holes]), np.concatenate([spans, 254 - mirrored[:, ::-1]])
