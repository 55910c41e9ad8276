"""Union-find over the pixels of a map, brightest first: the compiled part of `contours`.

Maps are flat with a frame around them, in rows 2**shift long, so that a place's row and column are
bits of it and no neighbour needs a check. The root of a component holds its box and area.

All compiled code is in this one file: Numba's cache is renewed when the file that holds a function
changes, not when another does that the function calls.
"""

import numpy as np
from numba import njit

CUTS = 256  # the last one, 255, keeps nothing


@njit(cache=True, nogil=True)
def _ring_offsets(width):
    """Of `neighbours.RING`'s pixels, in a flat map whose rows are `width` long."""
    return np.array([-width - 1, -width, -width + 1, 1, width + 1, width, width - 1, -1])


@njit(cache=True, nogil=True)
def _present(there, place, stride):
    """Which of `neighbours.RING`'s pixels are there, a bit for each; the innermost loop of all."""
    above, below = place - stride, place + stride
    return (
        there[above - 1]
        | there[above] << 1
        | there[above + 1] << 2
        | there[place + 1] << 3
        | there[below + 1] << 4
        | there[below] << 5
        | there[below - 1] << 6
        | there[place - 1] << 7
    )


@njit(cache=True, nogil=True)
def _row_shift(width):
    shift = 0
    while 1 << shift < width + 2:
        shift += 1
    return shift


@njit(cache=True, nogil=True)
def _find(parent, pixel):
    while parent[pixel] != pixel:
        parent[pixel] = parent[parent[pixel]]
        pixel = parent[pixel]
    return pixel


@njit(cache=True, nogil=True)
def _framed(pixels, shift):
    """Flat, with a frame of zeros around the map, in rows 2**shift long."""
    height, width = pixels.shape
    value = np.zeros((height + 2, 1 << shift), np.uint8)
    value[1:-1, 1 : width + 1] = pixels
    return value.ravel()


@njit(cache=True, nogil=True)
def _fill(value, height, width, shift):
    """Fill holes at every cut, in place, and sort the pixels by the result.

    A pixel gets the smallest value that a 4-connected path from outside the map can keep to.

    Returns:
        The pixels' places in rising order.
    """
    stride = 1 << shift
    waiting = np.zeros((height + 2, stride), np.bool_)
    waiting[1:-1, 1 : width + 1] = True
    waiting = waiting.ravel()
    top = np.full(256, -1, np.int32)  # a stack for each value, linked through `below`
    below = np.empty(value.size, np.int32)
    for y in range(1, height + 1):
        step = 1 if y in (1, height) else max(1, width - 1)
        for x in range(1, width + 1, step):
            place = (y << shift) + x
            waiting[place] = False
            below[place] = top[value[place]]
            top[value[place]] = place
    order = np.empty(height * width, np.int32)
    count = 0
    for level in range(256):
        while top[level] >= 0:
            place = top[level]
            top[level] = below[place]
            order[count] = place
            count += 1
            for near in (place - stride, place - 1, place + 1, place + stride):
                if waiting[near]:
                    waiting[near] = False
                    reached = max(value[near], np.uint8(level))
                    value[near] = reached
                    below[near] = top[reached]
                    top[reached] = near
    return order


@njit(cache=True, nogil=True)
def largest(pixels, touched, half_squares):
    """int16 (256,4): at every cut the box of the contour with the largest area, zeros for none."""
    height, width = pixels.shape
    shift = _row_shift(width)
    stride = 1 << shift
    ring = _ring_offsets(stride)
    value = _framed(pixels, shift)
    order = _fill(value, height, width, shift)
    parent = np.full(value.size, -1, np.int32)
    there = np.zeros(value.size, np.uint8)
    first = np.empty(value.size, np.int32)  # of a root: its component's first pixel
    area = np.empty(value.size, np.int32)
    box = np.empty((value.size, 4), np.int16)
    result = np.zeros((CUTS, 4), np.int16)
    # `best` is the root of a component with the largest area of all, and if not `stale`, of those
    # with that area the one whose first pixel comes last. Areas only grow, so a component can take
    # the lead only when it gets a pixel; but the leader's first pixel may move up, and then one
    # that was passed over before may be it.
    best, best_area, best_first, stale = -1, -1, -1, False
    previous = value[order[-1]]
    for index in range(order.size - 1, -2, -1):
        level = value[order[index]] if index >= 0 else 0
        if level < previous:
            if stale:
                for i in range(index + 1, order.size):
                    root = order[i]
                    if (
                        parent[root] == root
                        and area[root] == best_area
                        and first[root] > first[best]
                    ):
                        best = root
                best_first, stale = first[best], False
            for cut in range(level, previous):
                result[cut] = box[best]
            previous = level
        if level == 0:
            break
        place = order[index]
        present = _present(there, place, stride)
        there[place] = 1
        y, x = (place >> shift) - 1, (place & (stride - 1)) - 1
        if touched[present, 0] < 0:
            root, held_best = place, False
            area[place], first[place] = 0, place
            box[place, 0], box[place, 1], box[place, 2], box[place, 3] = x, y, x + 1, y + 1
        else:
            root = _find(parent, place + ring[touched[present, 0]])
            held_best = root == best
            k = 1
            while touched[present, k] >= 0:
                other = _find(parent, place + ring[touched[present, k]])
                k += 1
                if other != root:
                    held_best |= other == best
                    parent[other] = root
                    area[root] += area[other]
                    first[root] = min(first[root], first[other])
                    box[root, 0] = min(box[root, 0], box[other, 0])
                    box[root, 1] = min(box[root, 1], box[other, 1])
                    box[root, 2] = max(box[root, 2], box[other, 2])
                    box[root, 3] = max(box[root, 3], box[other, 3])
            area[root] += half_squares[present]
            first[root] = min(first[root], place)
            box[root, 0] = min(box[root, 0], x)
            box[root, 1] = min(box[root, 1], y)
            box[root, 2] = max(box[root, 2], x + 1)
            box[root, 3] = max(box[root, 3], y + 1)
        parent[place] = root
        if area[root] > best_area or (
            area[root] == best_area and (held_best or first[root] > best_first)
        ):
            stale = area[root] == best_area and (stale or first[root] < best_first)
            best, best_area, best_first = root, area[root], first[root]
    return result


@njit(cache=True, nogil=True)
def _rising(value, floor):
    """The places whose value is above their floor, sorted by value."""
    start = np.zeros(257, np.int64)
    for place in range(value.size):
        start[value[place] + 1] += value[place] > floor[place]
    start = np.cumsum(start)
    order = np.empty(start[-1], np.int32)
    for place in range(value.size):
        if value[place] > floor[place]:
            order[start[value[place]]] = place
            start[value[place]] += 1
    return order


@njit(cache=True, nogil=True)
def _components(value, floor, shift, touched):
    """Boxes of the components of all cuts, and between which cuts each of them lasts.

    Args:
        value: uint8, flat, framed: a pixel is present at the cuts below its value ...
        floor: ... and not below this one, which is the same all over a component.
        touched: `neighbours.touched`, which says what is connected.

    Returns:
        int16 (M,4) half-open xyxy and int16 (M,2), first and last cut, both included.
    """
    stride = 1 << shift
    ring = _ring_offsets(stride)
    order = _rising(value, floor)
    parent = np.full(value.size, -1, np.int32)
    there = np.zeros(value.size, np.uint8)
    box = np.empty((value.size, 4), np.int16)
    since = np.empty(value.size, np.int16)
    boxes = np.empty((2 * order.size, 4), np.int16)
    spans = np.empty((2 * order.size, 2), np.int16)
    count = 0
    roots = np.empty(4, np.int32)
    for index in range(order.size - 1, -1, -1):
        place = order[index]
        level = value[place]
        present = _present(there, place, stride)
        there[place] = 1
        merged = 0
        x0, y0 = (place & (stride - 1)) - 1, (place >> shift) - 1
        x1, y1 = x0 + 1, y0 + 1
        k = 0
        while touched[present, k] >= 0:
            root = _find(parent, place + ring[touched[present, k]])
            k += 1
            known = False
            for i in range(merged):
                known |= roots[i] == root
            if not known:
                roots[merged] = root
                merged += 1
                x0, y0 = min(x0, box[root, 0]), min(y0, box[root, 1])
                x1, y1 = max(x1, box[root, 2]), max(y1, box[root, 3])
        # the one with this very box, if there is one, lives on; the others end here
        heir = -1
        for i in range(merged):
            root = roots[i]
            if heir < 0 and (
                x0 == box[root, 0]
                and y0 == box[root, 1]
                and x1 == box[root, 2]
                and y1 == box[root, 3]
            ):
                heir = root
            elif since[root] > level:
                boxes[count] = box[root]
                spans[count, 0], spans[count, 1] = level, since[root] - 1
                count += 1
        if heir < 0:
            heir = roots[0] if merged else place
            box[heir] = (x0, y0, x1, y1)
            since[heir] = level
        parent[place] = heir
        for i in range(merged):
            parent[roots[i]] = heir
    for place in order:
        if parent[place] == place:
            boxes[count] = box[place]
            spans[count, 0], spans[count, 1] = floor[place], since[place] - 1
            count += 1
    return boxes[:count].copy(), spans[:count].copy()


@njit(cache=True, nogil=True)
def every_component(pixels, touched_8, touched_4):
    """Boxes and spans of the 8-connected components of all cuts, and of the holes in them, whose
    spans are mirrored: 254 minus the cut."""
    height, width = pixels.shape
    shift = _row_shift(width)
    value = _framed(pixels, shift)
    filled = value.copy()
    _fill(filled, height, width, shift)
    boxes, spans = _components(value, np.zeros_like(value), shift, touched_8)
    # background is present from the pixel's own value on, and in a hole below the filled one
    holes, mirrored = _components(255 - value, 255 - filled, shift, touched_4)
    return boxes, spans, holes, mirrored


@njit(cache=True, nogil=True)
def highest(values, spans):
    """float64 (256,): at each cut, the largest of the values (M,) >= 0 whose span holds it."""
    highest = np.zeros(CUTS)
    for row in range(values.size):
        for cut in range(spans[row, 0], spans[row, 1] + 1):
            highest[cut] = max(highest[cut], values[row])
    return highest
