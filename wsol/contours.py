"""The boxes of all level sets of a map of bytes at once, exactly those of OpenCV's contours.

A cut c keeps the pixels above c. Raising the cut only removes pixels, so the components of all 255
binary maps form a tree, and one union-find over pixels in falling order passes through all of
them. Three facts make its boxes those of `cv2.findContours(..., RETR_TREE, ...)`:

* An outer contour encloses one 8-connected component, a hole's contour one 4-connected component
  of the background that does not reach the border, and runs one pixel outside of it.
* The contour area of a component without holes is a count over the squares between four pixel
  centres: 1 for a square with four pixels in the component, 1/2 for one with three.
* A contour inside another encloses less, so the largest is the outer contour of a component that
  no other surrounds. Filling everything that the border cannot reach (`_fill`) leaves just those.

Of equal areas OpenCV lists that one first whose first pixel in reading order comes last.
"""

import numpy as np
from numba import njit

CUTS = 256  # the last one, 255, keeps nothing
_RING = ((-1, -1), (-1, 0), (-1, 1), (0, 1), (1, 1), (1, 0), (1, -1), (0, -1))  # a closed walk


def _representatives(*, diagonal: bool) -> np.ndarray:
    """uint8 (256,): one neighbour of each component that a new pixel touches.

    Bit k of the index says that `_RING`'s pixel k is present, bit k of the entry that it is chosen.
    Neighbours that hang together around the new pixel belong to one component already.
    """
    reach = 2 if diagonal else 1
    table = np.zeros(256, np.uint8)
    for present in range(256):
        pixels = [k for k in range(8) if present >> k & 1]
        seen: set[int] = set()
        for start in pixels:
            if start in seen or not (diagonal or start % 2):
                continue
            table[present] |= 1 << start
            front = [start]
            while front:
                y, x = _RING[front.pop()]
                near = [
                    k
                    for k in pixels
                    if k not in seen
                    and (abs(_RING[k][0] - y) + abs(_RING[k][1] - x) <= reach)
                    and max(abs(_RING[k][0] - y), abs(_RING[k][1] - x)) <= 1
                ]
                seen.update(near)
                front += near
    return table


def _half_squares() -> np.ndarray:
    """int64 (256,): by how many half squares a new pixel enlarges the contour area."""
    table = np.zeros(256, np.int64)
    for present in range(256):
        for corner in (0, 2, 4, 6):
            square = (corner, (corner - 1) % 8, (corner + 1) % 8)
            table[present] += sum(present >> k & 1 for k in square) >= 2
    return table


_TOUCHED_8 = _representatives(diagonal=True)
_TOUCHED_4 = _representatives(diagonal=False)
_HALF_SQUARES = _half_squares()


@njit(cache=True, nogil=True)
def _offsets(width):
    """Of `_RING`'s pixels, in a flat map whose rows are `width` long."""
    return np.array([-width - 1, -width, -width + 1, 1, width + 1, width, width - 1, -1])


@njit(cache=True, nogil=True)
def _find(parent, pixel):
    while parent[pixel] != pixel:
        parent[pixel] = parent[parent[pixel]]
        pixel = parent[pixel]
    return pixel


@njit(cache=True, nogil=True)
def _fill(pixels):
    """Fill holes at every cut, and sort the pixels by the result.

    A pixel gets the smallest value that a 4-connected path from outside the map can keep to.

    Returns:
        uint8 (H+2)*(W+2), with a frame of zeros, and the inner pixels' places in rising order.
    """
    height, width = pixels.shape
    stride = width + 2
    filled = np.zeros((height + 2) * stride, np.uint8)
    raw = np.zeros((height + 2, stride), np.uint8)
    raw[1:-1, 1:-1] = pixels
    raw = raw.ravel()
    waiting = np.zeros((height + 2, stride), np.bool_)
    waiting[1:-1, 1:-1] = True
    waiting = waiting.ravel()
    top = np.full(256, -1, np.int32)  # a stack for each value, linked through `below`
    below = np.empty(filled.size, np.int32)
    for y in range(1, height + 1):
        step = 1 if y in (1, height) else max(1, width - 1)
        for x in range(1, width + 1, step):
            place = y * stride + x
            waiting[place] = False
            filled[place] = raw[place]
            below[place] = top[raw[place]]
            top[raw[place]] = place
    order = np.empty(height * width, np.int32)
    count = 0
    for value in range(256):
        while top[value] >= 0:
            place = top[value]
            top[value] = below[place]
            order[count] = place
            count += 1
            for near in (place - stride, place - 1, place + 1, place + stride):
                if waiting[near]:
                    waiting[near] = False
                    level = max(raw[near], np.uint8(value))
                    filled[near] = level
                    below[near] = top[level]
                    top[level] = near
    return filled, order


@njit(cache=True, nogil=True)
def _largest(pixels, touched, half_squares):
    height, width = pixels.shape
    stride = width + 2
    ring = _offsets(stride)
    value, order = _fill(pixels)
    parent = np.full(value.size, -1, np.int32)  # a root is its component's first pixel
    area = np.zeros(value.size, np.int64)
    box = np.empty((value.size, 4), np.int16)
    result = np.zeros((CUTS, 4), np.int16)
    best, best_area, best_place, stale = -1, -1, -1, False
    previous = value[order[-1]]
    for index in range(order.size - 1, -2, -1):
        level = value[order[index]] if index >= 0 else 0
        if level < previous:
            if stale:  # the best one's first pixel moved up: another of its area may precede it
                best = -1
                for i in range(index + 1, order.size):
                    root = order[i]
                    if parent[root] == root and (
                        best < 0
                        or area[root] > area[best]
                        or (area[root] == area[best] and root > best)
                    ):
                        best = root
                best_area, best_place, stale = area[best], best, False
            for cut in range(level, previous):
                result[cut] = box[best]
            previous = level
        if index < 0:
            break
        place = order[index]
        present = 0
        for k in range(8):
            if parent[place + ring[k]] >= 0:
                present |= 1 << k
        y, x = place // stride - 1, place % stride - 1
        x0, y0, x1, y1 = x, y, x + 1, y + 1
        root, total, held_best = place, half_squares[present], False
        parent[place] = place
        chosen = touched[present]
        for k in range(8):
            if chosen >> k & 1:
                other = _find(parent, place + ring[k])
                if other == root:
                    continue
                held_best |= other == best
                total += area[other]
                x0, y0 = min(x0, box[other, 0]), min(y0, box[other, 1])
                x1, y1 = max(x1, box[other, 2]), max(y1, box[other, 3])
                if other < root:
                    parent[root] = other
                    root = other
                else:
                    parent[other] = root
        area[root] = total
        box[root, 0], box[root, 1], box[root, 2], box[root, 3] = x0, y0, x1, y1
        if total > best_area or (total == best_area and (held_best or root > best_place)):
            stale = total == best_area and (root < best_place or stale)
            best, best_area, best_place = root, total, root
    return result


@njit(cache=True, nogil=True)
def _components(pixels, touched, reaches_border):
    """Boxes of the components of all cuts, and between which cuts each of them lasts.

    Args:
        touched: `_representatives`, which says what is connected.
        reaches_border: Leave out components that reach the map's border.

    Returns:
        int16 (M,4) half-open xyxy and int16 (M,2), first and last cut, both included.
    """
    height, width = pixels.shape
    stride = width + 2
    ring = _offsets(stride)
    order = np.argsort(pixels.ravel(), kind="mergesort")
    parent = np.full((height + 2) * stride, -1, np.int32)
    if reaches_border:  # place 0, of the frame, is the root of all that is connected to it
        frame = parent.reshape(height + 2, stride)
        frame[0], frame[-1], frame[:, 0], frame[:, -1] = 0, 0, 0, 0
    box = np.zeros((parent.size, 4), np.int16)
    since = np.zeros(parent.size, np.int16)
    boxes = np.empty((2 * order.size, 4), np.int16)
    spans = np.empty((2 * order.size, 2), np.int16)
    count = 0
    roots = np.empty(4, np.int64)
    for index in range(order.size - 1, -1, -1):
        y, x = order[index] // width, order[index] % width
        level = pixels[y, x]
        place = (y + 1) * stride + x + 1
        present = 0
        for k in range(8):
            if parent[place + ring[k]] >= 0:
                present |= 1 << k
        parent[place] = place
        x0, y0, x1, y1 = x, y, x + 1, y + 1
        root, merged = place, 0
        chosen = touched[present]
        for k in range(8):
            if chosen >> k & 1:
                other = _find(parent, place + ring[k])
                if other == root:
                    continue
                roots[merged] = other
                merged += 1
                x0, y0 = min(x0, box[other, 0]), min(y0, box[other, 1])
                x1, y1 = max(x1, box[other, 2]), max(y1, box[other, 3])
                if other < root:
                    parent[root] = other
                    root = other
                else:
                    parent[other] = root
        outside = reaches_border and root == 0
        began = level
        for other in roots[:merged]:
            if reaches_border and other == 0:
                continue
            same = (
                x0 == box[other, 0]
                and y0 == box[other, 1]
                and x1 == box[other, 2]
                and y1 == box[other, 3]
            )
            if same and began == level and not outside:
                began = since[other]
            elif since[other] > level:
                boxes[count] = box[other]
                spans[count, 0], spans[count, 1] = level, since[other] - 1
                count += 1
        if not outside:
            box[root, 0], box[root, 1], box[root, 2], box[root, 3] = x0, y0, x1, y1
            since[root] = began
    for y in range(height):
        for x in range(width):
            place = (y + 1) * stride + x + 1
            if parent[place] == place and since[place] > 0:
                boxes[count] = box[place]
                spans[count, 0], spans[count, 1] = 0, since[place] - 1
                count += 1
    return boxes[:count].copy(), spans[:count].copy()


@njit(cache=True, nogil=True)
def _best_by_cut(values, spans, floor):
    best = np.full(CUTS, floor)
    for row in range(values.size):
        for cut in range(spans[row, 0], spans[row, 1] + 1):
            best[cut] = max(best[cut], values[row])
    return best


def largest_by_cut(pixels: np.ndarray) -> np.ndarray:
    """The box of the contour with the largest area at every cut.

    Args:
        pixels: uint8 (H,W), sides below 32768.

    Returns:
        int16 (256,4): half-open xyxy at cut 0, 1, ...; zeros where no pixel is above the cut.
    """
    return _largest(np.ascontiguousarray(pixels), _TOUCHED_8, _HALF_SQUARES)


def boxes_by_cut(pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The boxes of all contours, of holes too, at every cut.

    Args:
        pixels: uint8 (H,W), sides below 32768.

    Returns:
        int16 (M,4) half-open xyxy, and int16 (M,2): the first and the last cut of which this box is
        a contour's. A box occurs as often as contours have it.
    """
    pixels = np.ascontiguousarray(pixels)
    boxes, spans = _components(pixels, _TOUCHED_8, False)
    holes, inverted = _components(255 - pixels, _TOUCHED_4, True)
    return (
        np.concatenate([boxes, holes + np.array([-1, -1, 1, 1], np.int16)]),
        np.concatenate([spans, 254 - inverted[:, ::-1]]),
    )
