"""Boxes around the level sets of a map: uint8 (H,W), sides below 32768.

They equal the boxes of OpenCV's contours.

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

import cv2
import numpy as np

from wsol.boxes import level_sets

# row and column offsets in a closed walk around a pixel; consecutive neighbours touch
RING = ((-1, -1), (-1, 0), (-1, 1), (0, 1), (1, 1), (1, 0), (1, -1), (0, -1))


def _touched(*, connectivity: int) -> np.ndarray:
    """int8 (256,5): one neighbour from each component that a new pixel touches, then -1.

    Bit k of the row's index is 1 if pixel k of RING is in the set. Neighbours that are connected
    around the new pixel already belong to one component, so there are at most four components.

    Args:
        connectivity: 8 or 4.
    """
    table = np.full((256, 5), -1, np.int8)
    rows, columns = np.transpose(RING) + 1
    for present in range(256):
        square = np.zeros((3, 3), np.uint8)
        square[rows, columns] = [present >> k & 1 for k in range(8)]
        labels = cv2.connectedComponents(square, connectivity=connectivity)[1][rows, columns]
        # neighbours with a common edge have odd numbers in RING
        chosen = {labels[k]: k for k in range(8) if labels[k] and (connectivity == 8 or k % 2)}
        table[present, : len(chosen)] = list(chosen.values())
    return table


def _half_squares() -> np.ndarray:
    """int32 (256,): the number of half squares that a new pixel adds to the contour area.

    The index is as in `_touched`. A square between four pixel centres counts 1/2 with three pixels,
    and 1 with four.
    """
    table = np.zeros(256, np.int32)
    for present in range(256):
        for corner in (0, 2, 4, 6):
            square = (corner, (corner - 1) % 8, (corner + 1) % 8)
            table[present] += sum(present >> k & 1 for k in square) >= 2
    return table


_TOUCHED_8, _TOUCHED_4 = _touched(connectivity=8), _touched(connectivity=4)
_HALF_SQUARES = _half_squares()


def outer_boxes_at(pixels: np.ndarray, cut: int) -> np.ndarray:
    """The boxes of all outer contours at one cut, the largest contour area first: int16 (K,4)
    half-open xyxy. The first one is the box of `largest_by_cut`."""
    pixels = np.ascontiguousarray(pixels)
    boxes, areas, first = level_sets.outer(pixels, cut, _TOUCHED_8, _HALF_SQUARES)
    return boxes[np.lexsort((-first, -areas))]


def largest_by_cut(pixels: np.ndarray) -> np.ndarray:
    """The box of the contour with the largest area at cut 0, 1, ...: int16 (256,4) half-open xyxy;
    zeros if no pixel is above the cut."""
    return level_sets.largest(np.ascontiguousarray(pixels), _TOUCHED_8, _HALF_SQUARES)


def boxes_by_cut(pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The boxes of all contours, also of holes, at every cut: int16 (M,4) half-open xyxy; and int16
    (M,2): the first and the last cut that has a contour with this box. A box is listed once for
    each of its contours."""
    boxes, spans, holes, mirrored = level_sets.every_component(
        np.ascontiguousarray(pixels), _TOUCHED_8, _TOUCHED_4
    )
    holes += np.array([-1, -1, 1, 1], np.int16)
    return np.concatenate([boxes, holes]), np.concatenate([spans, 254 - mirrored[:, ::-1]])
