"""The compiled part of `component_tree`: union-find over the pixels of a map, brightest first.

A map is flattened with a frame around it, in rows of length 2**shift. So the bits of a place are
its row and column, and each pixel has all neighbours. The root of a component has its box and area.

All compiled code is in this one file. Numba compiles a function again if its own file changes, but
not if the file of a function that it calls changes.
"""

import numpy as np
from numba import njit

CUTS = 256  # the last one, 255, keeps no pixel


@njit(cache=True, nogil=True)
def _ring_offsets(width):
    """Distances to the pixels of `component_tree.RING` in a flat map with rows of `width`."""
    return np.array([-width - 1, -width, -width + 1, 1, width + 1, width, width - 1, -1])


@njit(cache=True, nogil=True)
def _present(there, place, stride):
    """One bit for each pixel of `component_tree.RING`: 1 if it is present."""
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
    """A flat map with a frame of zeros around it, in rows of length 2**shift."""
    height, width = pixels.shape
    value = np.zeros((height + 2, 1 << shift), np.uint8)
    value[1:-1, 1 : width + 1] = pixels
    return value.ravel()


@njit(cache=True, nogil=True)
def _fill(value, height, width, shift):
    """Fills holes at every cut, in place. Returns the places of the pixels, sorted by the result.

    Each 4-connected path from outside the map to a pixel has a largest value. The pixel gets the
    smallest of these."""
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
def _empty_forest(size):
    """Arrays over places: parent, presence; for roots also first place, contour area and box."""
    return (
        np.full(size, -1, np.int32),
        np.zeros(size, np.uint8),
        np.empty(size, np.int32),
        np.empty(size, np.int32),
        np.empty((size, 4), np.int16),
    )


@njit(cache=True, nogil=True)
def _add(place, shift, forest, ring, touched, half_squares):
    """Adds a pixel, joins the components that it touches, and returns their root."""
    parent, there, first, area, box = forest
    stride = 1 << shift
    present = _present(there, place, stride)
    there[place] = 1
    y, x = (place >> shift) - 1, (place & (stride - 1)) - 1
    if touched[present, 0] < 0:
        root = place
        area[place], first[place] = 0, place
        box[place, 0], box[place, 1], box[place, 2], box[place, 3] = x, y, x + 1, y + 1
    else:
        root = _find(parent, place + ring[touched[present, 0]])
        k = 1
        while touched[present, k] >= 0:
            other = _find(parent, place + ring[touched[present, k]])
            k += 1
            if other != root:
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
    return root


@njit(cache=True, nogil=True)
def outer(pixels, cut, touched, half_squares):
    """Outer contours at one cut: boxes int16 (K,4), areas in half squares int32 (K,), and the first
    place of each in reading order, int32 (K,)."""
    height, width = pixels.shape
    shift = _row_shift(width)
    ring = _ring_offsets(1 << shift)
    value = _framed((pixels > cut).astype(np.uint8), shift)
    order = _fill(value, height, width, shift)
    forest = _empty_forest(value.size)
    for place in order:
        if value[place]:
            _add(place, shift, forest, ring, touched, half_squares)
    parent, _, first, area, box = forest
    roots = np.array([place for place in order if parent[place] == place], np.int32)
    return box[roots], area[roots], first[roots]


@njit(cache=True, nogil=True)
def largest(pixels, touched, half_squares):
    """int16 (256,4): the box of the contour with the largest area at every cut; zeros without."""
    height, width = pixels.shape
    shift = _row_shift(width)
    ring = _ring_offsets(1 << shift)
    value = _framed(pixels, shift)
    order = _fill(value, height, width, shift)
    forest = _empty_forest(value.size)
    parent, _, first, area, box = forest
    result = np.zeros((CUTS, 4), np.int16)
    # `best` is the root of a component with the largest area. Of several with this area, it is the
    # one that begins last, unless `stale`. Areas only grow, so a component can become the best only
    # when it gets a pixel. But if the best gets an earlier first pixel, another component of the
    # same area may begin later. A search finds it before the next cut is written.
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
        root = _add(order[index], shift, forest, ring, touched, half_squares)
        holds_best = best == root or (best >= 0 and parent[best] == root)
        if area[root] > best_area or (
            area[root] == best_area and (holds_best or first[root] > best_first)
        ):
            stale = area[root] == best_area and (stale or first[root] < best_first)
            best, best_area, best_first = root, area[root], first[root]
    return result


@njit(cache=True, nogil=True)
def _rising(value, lowest):
    """The places with a value above `lowest`, sorted by value."""
    start = np.zeros(257, np.int64)
    for place in range(value.size):
        start[value[place] + 1] += value[place] > lowest[place]
    start = np.cumsum(start)
    order = np.empty(start[-1], np.int32)
    for place in range(value.size):
        if value[place] > lowest[place]:
            order[start[value[place]]] = place
            start[value[place]] += 1
    return order


@njit(cache=True, nogil=True)
def _components(value, lowest, shift, touched):
    """Boxes of the components of all cuts, and the range of cuts at which each exists.

    Args:
        value: uint8, flat, framed. A pixel is present at the cuts from `lowest` to below its value.
        lowest: uint8, flat. It has one value within a component.
        touched: int8 (256,5), a table of `component_tree` for 4- or 8-connectivity.

    Returns:
        int16 (M,4) half-open xyxy and int16 (M,2), first and last cut, both included.
    """
    stride = 1 << shift
    ring = _ring_offsets(stride)
    order = _rising(value, lowest)
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
        # the span of a component with the same box continues; the spans of the others end here
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
            spans[count, 0], spans[count, 1] = lowest[place], since[place] - 1
            count += 1
    return boxes[:count].copy(), spans[:count].copy()


@njit(cache=True, nogil=True)
def every_component(pixels, touched_8, touched_4):
    """Boxes and spans of the 8-connected components at all cuts, then of the holes in them. The
    spans of holes are mirrored: 254 minus the cut."""
    height, width = pixels.shape
    shift = _row_shift(width)
    value = _framed(pixels, shift)
    filled = value.copy()
    _fill(filled, height, width, shift)
    boxes, spans = _components(value, np.zeros_like(value), shift, touched_8)
    # a pixel is background at cuts from its own value on, and part of a hole below its filled value
    holes, mirrored = _components(255 - value, 255 - filled, shift, touched_4)
    return boxes, spans, holes, mirrored


@njit(cache=True, nogil=True)
def highest(values, spans):
    """float64 (256,): for each cut, the largest value (M,) >= 0 of all spans (M,2) around it."""
    highest = np.zeros(CUTS)
    for row in range(values.size):
        for cut in range(spans[row, 0], spans[row, 1] + 1):
            highest[cut] = max(highest[cut], values[row])
    return highest
